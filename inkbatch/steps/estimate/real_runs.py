"""Real infer runs beside an estimate: what they took, and under which circumstances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from inkbatch.io.store.location import Location
from inkbatch.run.cost import Range
from inkbatch.run.run_file import run_rows
from inkbatch.steps.estimate.throughput import device_of_row, is_same_device
from inkbatch.text import rough_range_text, rough_seconds_text

IDLE_CORES = 0.8  # of the cores; less means that others used them, too


@dataclass(frozen=True)
class RealRun:
    """A real run beside its estimate; start-up is in neither of them.

    Attributes:
        name: The prediction's name.
        passes: Forward passes of its tiles.
        seconds: Seconds from the first unit to the last.
        estimated: The estimate for these passes; None for another device.
        start_s: Start-up until the first unit, in seconds, of the mean process.
        cores: Cores that were busy on the average, and all cores; None if that was not recorded.
    """

    name: str
    tiles: int
    passes: int
    seconds: float
    device: str
    estimated: Range | None
    start_s: float
    cores: tuple[float, int] | None

    @property
    def error(self) -> float | None:
        """Middle of the estimate over the real seconds, less 1; positive is too long."""
        return None if self.estimated is None else sum(self.estimated) / 2 / self.seconds - 1

    def __str__(self) -> str:
        words = [f"{self.passes:,} passes"] if self.passes != self.tiles else []
        if self.start_s:
            words.append(f"after {rough_seconds_text(self.start_s)} of start-up")
        if self.cores is not None and self.cores[0] < IDLE_CORES * self.cores[1]:
            words.append(f"with {self.cores[0]:.1f} of {self.cores[1]} cores to itself")
        said = "another device, not compared"
        if self.estimated is not None and self.error is not None:
            way = "long" if self.error > 0 else "short"
            said = f"the estimate says {rough_range_text(self.estimated)}, {abs(self.error):.0%} too {way}"
        circumstances = f" ({', '.join(words)})" if words else ""
        run = f"real run {self.name}: {self.tiles:,} tiles in {rough_seconds_text(self.seconds)} on {self.device}"
        return f"{run}{circumstances}; {said}"


def real_runs(root: Location, segment: str, weights: str, device: str, times: Callable[[int], Range]) -> list[RealRun]:
    """Find the runs of these weights (SHA-256) on a segment, finished or not, and estimate each.

    Runs on another device than `device` are named, not compared; `times` estimates so many passes of a tile.
    """
    found = []
    folder = root / "predictions" / segment
    for name in folder.names():
        try:
            manifest = (folder / name / "manifest.json").read_json()
        except FileNotFoundError:
            continue
        if manifest.get("job") != "infer" or manifest.get("inputs", {}).get("weights_sha256") != weights:
            continue
        rows = [row for row in run_rows(folder / name, manifest["digest"]) if row.get("tiles")]
        if rows and rows[0].get("made_together", [name])[0] == name:  # of windows stored together one is enough
            found.append(_real_run(name, rows, device, times))
    return found


def _real_run(name: str, rows: list[dict[str, Any]], device: str, times: Callable[[int], Range]) -> RealRun:
    passes = sum(row.get("tile_passes", row["tiles"]) for row in rows)
    seconds = sum(row.get("loop_s", row["seconds"]) for row in rows)
    devices = {known for row in rows if (known := device_of_row(row))}
    same = bool(devices) and all(is_same_device(device, known) for known in devices)
    cores = None
    if all(row.get("device") == "cpu" and "cpu_s" in row for row in rows):
        cores = sum(row["cpu_s"] for row in rows) / max(seconds, 1e-9), max(row["cores"] for row in rows)
    return RealRun(
        name,
        tiles=sum(row["tiles"] for row in rows),
        passes=passes,
        seconds=seconds,
        device=", ".join(sorted(devices)) or "an unknown device",
        estimated=times(passes) if same else None,
        start_s=sum(row.get("setup_s", 0.0) for row in rows) / len(rows),
        cores=cores,
    )
