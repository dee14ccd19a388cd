"""Forward passes per second of every network, beside what the device can do at all.

    python benchmarks/bench_models.py --json results.json
    python benchmarks/bench_models.py --quick --models timesformer i3d
    python benchmarks/bench_models.py --memory-format both --models i3d resnet3d-50

For each network, in float32 and bfloat16 (and compiled, on CUDA or with --compile): tiles per second on tensors that
lie on the device already, FLOPs per tile, and the share of the device's matrix rate, which is measured in the same run
with one large matrix product per precision. FLOPs are those of the direct method: where a library knows a shorter one,
the share can exceed 100 %. Weights are fresh: they cost as much as trained ones.

On CUDA, and with --end-to-end elsewhere, whole `infer` jobs from a local store follow for TimeSformer and the 3-D
ResNet-152 with its 3-D decoder: their tiles/s beside those of the same forward passes (see bench_overhead).

Seconds are wall-clock seconds, the median of the passes that fit into --seconds. With --cpu-time they are CPU seconds
of this process, for one thread on a machine that others use too; the JSON says which.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import bench_overhead
from benchmarks.common import Report
from inkbatch import __version__
from inkbatch.models import InkModel, build_model
from inkbatch.models.flops import flops_per_tile
from inkbatch.models.presets import load_preset
from inkbatch.predict.compiling import compiled
from inkbatch.predict.device import autocast, choose_device, synchronize
from inkbatch.predict.memory_format import arrange, channels_last_pays

MATMUL_EDGE = {"cpu": 2048, "mps": 4096, "cuda": 8192}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
INPUT_BYTES = {"cpu": 4 << 20, "mps": 64 << 20, "cuda": 64 << 20}  # of float32 input per batch


@dataclass(frozen=True)
class Case:
    """One network with the tile that it is fed.

    Attributes:
        architecture: Registered name.
        model: Its config.
        tile_px: Edge of the tile.
    """

    architecture: str
    model: dict[str, Any]
    tile_px: int


def of_preset(name: str) -> Case:
    preset = load_preset(name)
    return Case(preset.architecture, preset.model, preset.contract.tile_px)


def cases() -> dict[str, Case]:
    """List the networks, by a short name."""
    return {
        "timesformer": of_preset("timesformer-gp"),
        "i3d": of_preset("i3d-first-letters"),
        "i3d-nonlocal": of_preset("i3d-nonlocal-gp"),
        "resnet3d-50": Case("resnet3d", {"depth_layers": 30, "resnet": 50}, 64),
        "resnet3d-101": of_preset("resnet3d-101-gp"),
        "resnet3d-152-3d-decoder": of_preset("resnet3d-152-3d-decoder"),
        "ink-9um": of_preset("ink-9um"),
        "hecate-2.4um": of_preset("hecate-2.4um"),
        "hecate-9.6um": of_preset("hecate-9.6um"),
        "ink-8um-v8in": of_preset("ink-8um-v8in"),
        "timesformer-large": of_preset("timesformer-large-scroll1"),
        "residual-unet": Case("residual-unet", {"depth_layers": 17}, 128),
        "unetr-segformer": of_preset("unetr-segformer-title"),
        "unet-resnet34-2.5d": Case("smp", {"depth_layers": 16, "family": "Unet", "encoder": "resnet34"}, 128),
        "segformer-mit_b3-2.5d": Case("smp", {"depth_layers": 16, "family": "Segformer", "encoder": "mit_b3"}, 128),
    }


def seconds_of(
    action: Callable[[], object], device: torch.device, budget_s: float, clock: Callable[[], float]
) -> float:
    """Measure the median seconds of one call, over as many calls as fit into the budget, three at least."""
    action()
    measured: list[float] = []
    ends = time.perf_counter() + budget_s
    while len(measured) < 3 or time.perf_counter() < ends:
        synchronize(device)
        start = clock()
        action()
        synchronize(device)
        measured.append(clock() - start)
    return statistics.median(measured)


def matmul_rate(device: torch.device, dtype: torch.dtype, budget_s: float, clock: Callable[[], float]) -> float:
    """Measure the FLOP/s of one large matrix product: the most that a network could reach here."""
    edge = MATMUL_EDGE[device.type]
    left, right = (torch.randn(edge, edge, device=device, dtype=dtype) for _ in range(2))
    return 2 * edge**3 / seconds_of(lambda: left @ right, device, budget_s, clock)


def batch_size(case: Case, depth: int, device: torch.device, wanted: int) -> int:
    tile_bytes = depth * case.tile_px**2 * 4
    return wanted or max(1, min(256, INPUT_BYTES[device.type] // tile_bytes))


def layouts(argument: str, device: torch.device, dtype: torch.dtype) -> list[bool]:
    """Tell for each run that was asked for whether channels come last."""
    return {"both": [False, True], "contiguous": [False], "channels-last": [True]}.get(
        argument, [channels_last_pays(device, dtype)]
    )


@torch.inference_mode()
def measured(
    model: InkModel, subvolumes: Tensor, dtype: torch.dtype, budget_s: float, clock: Callable[[], float]
) -> float:
    """Measure tiles per second."""
    device = subvolumes.device

    def forward() -> Tensor:
        with autocast(device, dtype):
            return model(subvolumes)  # type: ignore[no-any-return]

    return len(subvolumes) / seconds_of(forward, device, budget_s, clock)


def results(
    arguments: argparse.Namespace, device: torch.device, clock: Callable[[], float]
) -> Iterator[dict[str, Any]]:
    """Measure one row per network, precision, layout and kind (eager, compiled)."""
    ceilings = {name: matmul_rate(device, PRECISIONS[name], arguments.seconds, clock) for name in arguments.precision}
    for name, rate in ceilings.items():
        yield {"matmul": name, "edge": MATMUL_EDGE[device.type], "flop_per_s": rate}
    for name in arguments.models or cases():
        case = cases()[name]
        torch.manual_seed(0)
        model = build_model(case.architecture, case.model).eval().to(device)
        flops = flops_per_tile(model, case.tile_px)
        depth = model.config.depth_layers
        batch = batch_size(case, depth, device, arguments.batch)
        subvolumes = torch.rand((batch, 1, depth, case.tile_px, case.tile_px), device=device)
        kinds = ["eager", *(["compiled"] if arguments.compile else [])]
        for precision, kind in itertools.product(arguments.precision, kinds):
            for last in layouts(arguments.memory_format, device, PRECISIONS[precision]):
                arrange(model, channels_last=last)
                runner = compiled(copy.deepcopy(model), device) if kind == "compiled" else model
                rate = measured(runner, subvolumes, PRECISIONS[precision], arguments.seconds, clock)
                yield {
                    "model": name,
                    "architecture": case.architecture,
                    "config": model.config.model_dump(mode="json"),
                    "tile_px": case.tile_px,
                    "precision": precision,
                    "kind": kind,
                    "channels_last": last,
                    "batch_tiles": batch,
                    "tiles_per_s": rate,
                    "flops_per_tile": flops,
                    "share_of_matmul": rate * flops / ceilings[precision],
                }


def end_to_end(device: torch.device, *, quick: bool) -> Iterator[dict[str, Any]]:
    """Measure one row per network whose whole job is run."""
    found = argparse.Namespace(quick=quick, layers=None, scratch=None, rounds=1 if quick else 3, json=None)
    report = Report("models, end to end", found)
    for name in ["timesformer"] if quick else ["timesformer", "resnet3d-152-3d-decoder"]:
        rates = bench_overhead.measure(report, name, found, device)
        yield {"end_to_end": name, **rates, "share_of_forward": rates["job_tiles_per_s"] / rates["forward_tiles_per_s"]}


def machine(device: torch.device) -> dict[str, Any]:
    """Describe the machine that was measured."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": device.type,
        "name": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "inkbatch": __version__,
    }


def line_of(row: dict[str, Any]) -> str:
    if "matmul" in row:
        return f"matrix product {row['edge']}² {row['matmul']}: {row['flop_per_s'] / 1e9:,.1f} GFLOP/s (the ceiling)"
    if "end_to_end" in row:
        return (
            f"{row['end_to_end']:<24}whole job {row['job_tiles_per_s']:.2f} tiles/s, forward passes alone "
            f"{row['forward_tiles_per_s']:.2f}: {row['share_of_forward']:.3f} of them (target at least 0.95)"
        )
    layout = "channels last" if row["channels_last"] else "contiguous"
    return (
        f"{row['model']:<24}{row['precision']:<6}{row['kind']:<9}{layout:<15}batch {row['batch_tiles']:<4}"
        f"{row['tiles_per_s']:>10.2f} tiles/s {row['flops_per_tile'] / 1e9:>9.1f} GFLOP/tile "
        f"{row['share_of_matmul']:>6.0%} of the ceiling"
    )


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(cases()), metavar="MODEL", help=", ".join(cases()))
    parser.add_argument("--precision", nargs="+", choices=list(PRECISIONS), default=list(PRECISIONS))
    parser.add_argument("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto")
    parser.add_argument("--batch", type=int, default=0, help="tiles per pass; 0 follows from the device")
    parser.add_argument("--seconds", type=float, default=3.0, help="time per figure, after one pass to warm up")
    parser.add_argument("--memory-format", choices=("auto", "contiguous", "channels-last", "both"), default="auto")
    parser.add_argument("--compile", action="store_true", help="also compiled, on a CPU too")
    parser.add_argument("--end-to-end", action="store_true", help="also whole infer jobs, on a CPU too")
    parser.add_argument("--cpu-time", action="store_true", help="CPU seconds instead of wall-clock seconds; one thread")
    parser.add_argument("--quick", action="store_true", help="two small networks, three passes each, one tile per pass")
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    found = parser.parse_args(arguments)
    if found.quick:
        found.models = found.models or ["timesformer", "i3d"]
        found.seconds, found.batch = 0.0, 1
    if found.cpu_time and found.device in ("cuda", "mps"):
        parser.error("--cpu-time says nothing about another device")
    return found


def main(arguments: list[str] | None = None) -> int:
    settings = parsed(arguments)
    device = choose_device(settings.device)
    settings.compile |= device.type == "cuda"
    if settings.cpu_time:
        torch.set_num_threads(1)
    rows = []
    print(f"{machine(device)}", flush=True)
    clock_of = time.process_time if settings.cpu_time else time.perf_counter
    jobs = end_to_end(device, quick=settings.quick) if settings.end_to_end or device.type == "cuda" else ()
    for row in itertools.chain(results(settings, device, clock_of), jobs):
        rows.append(row)
        print(line_of(row), flush=True)
    if settings.json:
        clock = "cpu" if settings.cpu_time else "wall"
        document = {"machine": machine(device), "clock": clock, "quick": settings.quick, "rows": rows}
        settings.json.parent.mkdir(parents=True, exist_ok=True)
        settings.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
