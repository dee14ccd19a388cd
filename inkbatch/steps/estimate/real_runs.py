"""Real runs of a bundle on a segment beside the estimate of their work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from inkbatch.io.store.location import Location
from inkbatch.run.prices import SHORTEST_S, Range, estimate_text
from inkbatch.run.run_file import run_rows
from inkbatch.steps.estimate.throughput import Rate, device_of_row, is_same_device
from inkbatch.text import rough_seconds_text

IDLE_CORES = 0.8  # of the cores; less means that others used them, too


@dataclass(frozen=True)
class RealRun:
    """A real run beside its estimate; start-up is in neither of them."""

    name: str
    tiles: int
    passes: int
    seconds: float
    device: str
    estimated: Range | None  # for its passes; None for another device
    start_s: float  # until the first unit, of the mean process
    cores: tuple[float, int] | None  # busy on the average, and all; None if that was not recorded
    error: float | None  # middle of the estimate over the real seconds, less 1; positive is too long

    def __str__(self) -> str:
        words = [f"{self.passes:,} passes"] if self.passes != self.tiles else []
        if self.start_s:
            words.append(f"after {rough_seconds_text(self.start_s)} of start-up")
        if self.cores is not None and self.cores[0] < IDLE_CORES * self.cores[1]:
            words.append(f"with {self.cores[0]:.1f} of {self.cores[1]} cores to itself")
        run = f"real run {self.name}: {self.tiles:,} tiles in {rough_seconds_text(self.seconds)} on {self.device}"
        run += f" ({', '.join(words)})" if words else ""
        if self.estimated is None or self.error is None:
            return f"{run}; another device, not compared"
        run += f"; the estimate says {estimate_text(self.estimated)}"
        if self.estimated[1] < SHORTEST_S:
            return run
        return f"{run}, {abs(self.error):.0%} too {'long' if self.error > 0 else 'short'}"


def real_runs(root: Location, segment: str, weights: str, device: str, rate: Rate) -> Iterator[RealRun]:
    """Find the runs of these weights (SHA-256) on a segment, finished or not, and estimate those on `device`."""
    folder = root / "predictions" / segment
    for name in folder.names():
        try:
            manifest = (folder / name / "manifest.json").read_mapping()
        except FileNotFoundError:
            continue
        if manifest.get("job") != "infer" or manifest.get("inputs", {}).get("weights_sha256") != weights:
            continue
        rows = [row for row in run_rows(folder / name, manifest["digest"]) if row.get("tiles")]
        if rows and rows[0].get("made_together", [name])[0] == name:  # of layer windows stored together one is enough
            yield _real_run(name, rows, device, rate)


def _real_run(name: str, rows: list[dict[str, Any]], device: str, rate: Rate) -> RealRun:
    passes = sum(row.get("tile_passes", row["tiles"]) for row in rows)
    seconds = sum(row.get("loop_s", row["seconds"]) for row in rows)
    devices = {known for row in rows if (known := device_of_row(row))}
    same = bool(devices) and all(is_same_device(device, known) for known in devices)
    estimated = rate.seconds(passes) if same else None
    on_cpu = all(row.get("device") == "cpu" and "cpu_s" in row for row in rows)
    busy = sum(row.get("cpu_s", 0.0) for row in rows) / max(seconds, 1e-9)
    return RealRun(
        name,
        tiles=sum(row["tiles"] for row in rows),
        passes=passes,
        seconds=seconds,
        device=", ".join(sorted(devices)) or "an unknown device",
        estimated=estimated,
        start_s=sum(row.get("setup_s", 0.0) for row in rows) / len(rows),
        cores=(busy, max(row["cores"] for row in rows)) if on_cpu else None,
        error=None if estimated is None else sum(estimated) / 2 / seconds - 1,
    )
