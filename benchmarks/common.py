"""Common parts of all benchmarks: real layers, timing, the machine's description, a report of figures beside floors."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from inkbatch import __version__

REPOSITORY = Path(__file__).resolve().parent.parent
SHIPPED_LAYERS = REPOSITORY / "inkbatch" / "demo" / "layers"
POLL_S = 0.005


@dataclass(frozen=True)
class Sample:
    """One timed run.

    Attributes:
        wall_s: Wall-clock seconds.
        cpu_s: CPU seconds of this process and of the children that ended.
        load: The machine's load average over a minute, when it ended.
    """

    wall_s: float
    cpu_s: float
    load: float


def timed(action: Callable[[], object]) -> Sample:
    """Run `action` once."""
    cpu, start = _cpu_seconds(), time.perf_counter()
    action()
    wall = time.perf_counter() - start
    return Sample(wall, _cpu_seconds() - cpu, os.getloadavg()[0])


def _cpu_seconds() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def in_turn(actions: Mapping[str, Callable[[], Sample]], rounds: int) -> dict[str, list[Sample]]:
    """Run actions in turn, so that a noisy minute hits them all."""
    found: dict[str, list[Sample]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            found[name].append(action())
    return found


def best(samples: Sequence[Sample]) -> float:
    """Measure the shortest wall-clock seconds: what the machine can do."""
    return min(sample.wall_s for sample in samples)


def median(samples: Sequence[Sample]) -> float:
    """Measure the median of wall-clock seconds: what it did."""
    return statistics.median(sample.wall_s for sample in samples)


def cpu(samples: Sequence[Sample]) -> float:
    """Measure the fewest CPU seconds."""
    return min(sample.cpu_s for sample in samples)


@dataclass
class Report:
    """Figures of one benchmark, printed as they come and written as JSON.

    Attributes:
        name: Name of the benchmark; ``{name}.json`` is written.
        options: Parsed command line.
        facts: Settings that the figures depend on.
    """

    name: str
    options: argparse.Namespace
    facts: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    samples: dict[str, list[dict[str, float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        print(f"== {self.name}{' (quick: figures mean nothing)' if self.options.quick else ''}", flush=True)
        print("   " + ", ".join(f"{key} {value}" for key, value in machine().items()), flush=True)

    def keep(self, samples: Mapping[str, Sequence[Sample]]) -> None:
        """Keep all samples for the JSON."""
        for name, found in samples.items():
            self.samples.setdefault(name, []).extend(asdict(sample) for sample in found)

    def row(
        self,
        what: str,
        figure: float,
        unit: str,
        floor: float,
        floor_is: str,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> float:
        """State a figure beside its floor; returns their ratio.

        Args:
            what: What was measured.
            figure: The figure.
            unit: Unit of figure and floor.
            floor: The floor.
            floor_is: What the floor is.
            at_least: Target of the ratio, where higher is better.
            at_most: Target of the ratio, where lower is better.
        """
        ratio = figure / floor if floor else math.nan
        bound = ("at least", at_least) if at_least is not None else ("at most", at_most)
        met = None if bound[1] is None else ratio >= bound[1] if at_least is not None else ratio <= bound[1]
        if self.options.quick:
            met = None
        verdict = {True: ": met", False: ": MISSED", None: ""}[met]
        target = "" if bound[1] is None else f"  (target {bound[0]} {bound[1]:g}{verdict})"
        shown = f"{_number(figure)} {unit} | floor {_number(floor)} {unit} ({floor_is}) | ratio {ratio:.2f}"
        print(f"   {what}: {shown}{target}", flush=True)
        self.rows.append(
            {
                "what": what,
                "figure": figure,
                "unit": unit,
                "floor": floor,
                "floor_is": floor_is,
                "ratio": ratio,
                "target": None if bound[1] is None else f"{bound[0]} {bound[1]:g}",
                "met": met,
            }
        )
        return ratio

    def note(self, text: str) -> None:
        """Print a line that belongs to the figures."""
        print(f"   {text}", flush=True)

    def finish(self) -> int:
        """Write the JSON where a folder was given; the exit code (targets are judged by the reader, not here)."""
        folder: Path | None = self.options.json
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            document = {
                "benchmark": self.name,
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "quick": self.options.quick,
                "machine": machine(),
                "facts": self.facts,
                "rows": self.rows,
                "samples": self.samples,
            }
            text = json.dumps(document, indent=2, default=str) + "\n"
            (folder / f"{self.name}.json").write_text(text, encoding="utf-8")
        return 0


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Make the options that every benchmark takes."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="DIR", help="write the figures to DIR, too")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing")
    parser.add_argument("--layers", type=Path, metavar="DIR", help="real layers (8 bits) instead of the shipped ones")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="where to work: the disk that is measured")
    parser.add_argument("--rounds", type=int, help="runs of each kind, in turn")
    return parser


def options(doc: str | None, arguments: Sequence[str] | None, rounds: int = 5) -> argparse.Namespace:
    """Parse the command line; `rounds` is the usual number, a quick run makes one."""
    found = parser(doc).parse_args(arguments)
    if found.rounds is None:
        found.rounds = 1 if found.quick else rounds
    return found


@contextmanager
def scratch(found: argparse.Namespace) -> Iterator[Path]:
    """Make a folder of our own on the disk that is measured; removed afterwards."""
    if found.scratch is not None:
        found.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="inkbatch-bench-", dir=found.scratch) as folder:
        yield Path(folder)


def machine() -> dict[str, Any]:
    """Describe the machine that was measured."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages / 2**30, 1),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.system(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "inkbatch": __version__,
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def free_bytes() -> int:
    """Return the memory that is free without swapping."""
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))


def real_layers(count: int, shape_yx: tuple[int, int], folder: Path | None = None) -> NDArray[np.uint8]:
    """Return layers of real papyrus, mirrored at their borders up to a size; numbers repeat beyond those that exist.

    Args:
        count: Layers.
        shape_yx: (height, width).
        folder: Numbered TIFF layers of 8 bits; None takes the shipped crop.

    Returns:
        uint8 (count, height, width).
    """
    names = sorted((folder or SHIPPED_LAYERS).glob("*.tif"))
    if not names:
        raise SystemExit(f"{folder}: no layers (00.tif, 01.tif, …) here; give --layers another folder")
    out = np.empty((count, *shape_yx), np.uint8)
    for number, name in enumerate(names[:count]):
        layer = tifffile.imread(name)
        if layer.dtype != np.uint8:
            raise SystemExit(f"{name}: is {layer.dtype}; the benchmarks take layers of 8 bits")
        missing = [max(0, wanted - there) for wanted, there in zip(shape_yx, layer.shape, strict=True)]
        out[number] = np.pad(layer, [(0, more) for more in missing], mode="symmetric")[: shape_yx[0], : shape_yx[1]]
    for number in range(len(names), count):
        out[number] = out[number % len(names)]
    return out


def write_stack(folder: Path, layers: NDArray[Any], **settings: Any) -> Path:
    """Write layers as ``00.tif``, ``01.tif``, …; `settings` go to tifffile."""
    folder.mkdir(parents=True)
    for number, layer in enumerate(layers):
        tifffile.imwrite(folder / f"{number:02d}.tif", layer, **settings)
    return folder


@dataclass(frozen=True)
class Usage:
    """Resources that a process used.

    Attributes:
        wall_s: Wall-clock seconds, with the start of the interpreter.
        cpu_s: CPU seconds.
        peak_rss_bytes: Peak resident memory, pages of mapped files included.
        peak_anon_bytes: Peak of the memory that is the process's own (RssAnon), looked at every few milliseconds; the
            pages of mapped files are left out, since the kernel takes them back when it needs memory.
    """

    wall_s: float
    cpu_s: float
    peak_rss_bytes: int
    peak_anon_bytes: int


def run_process(arguments: Sequence[str], **environment: str) -> Usage:
    """Run this Python with `arguments` and watch its memory.

    Raises:
        SystemExit: It failed; its output is printed.
    """
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=REPOSITORY,
            env={**os.environ, **environment},
        )
        anon = 0
        while True:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            anon = max(anon, _anonymous_bytes(process.pid))
            time.sleep(POLL_S)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}:\n{output.read()[-3000:]}")
    wall = time.perf_counter() - start
    return Usage(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, anon)


def _anonymous_bytes(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith(("RssAnon", "RssShmem")))
