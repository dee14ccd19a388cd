"""Progress of a segment, a dataset or a training run, counted from stored markers, not from a scheduler's memory."""

from __future__ import annotations

from dataclasses import dataclass

from inkbatch.data.segments.catalog import check_segment_id
from inkbatch.io.store.location import Location

MARKER_DIGEST_CHARS = 12


@dataclass(frozen=True)
class Progress:
    """One run's folder.

    Attributes:
        what: ``prepare``, ``prediction NAME``, ``sweep NAME``, ``dataset`` or ``training``, the latter perhaps with its
            fold.
        folder: Folder of the run.
        done: Units with a marker; of a training the epochs of its newest checkpoint.
        units: Units of the plan; of a training its epochs.
        complete: True if ``complete.json`` is of this manifest.
        counted: ``units`` or ``epochs``.
    """

    what: str
    folder: Location
    done: int
    units: int
    complete: bool
    counted: str = "units"

    def __str__(self) -> str:
        state = "complete" if self.complete else f"{self.done} of {self.units} {self.counted}, not finished yet"
        return f"{self.what}: {state} · {self.folder}"


def progress_of(what: str, folder: Location) -> Progress | None:
    """Count the progress of the run in `folder`; None without a manifest."""
    manifest = (folder / "manifest.json").find_mapping()
    if manifest is None:
        return None
    run_digest = str(manifest.get("digest", ""))
    complete = ((folder / "complete.json").find_mapping() or {}).get("digest") == run_digest
    if manifest.get("job") == "train":
        newest = ((folder / "checkpoints" / "pointer.json").find_mapping() or {}).get("last") or [{}]
        epochs = int(manifest.get("config", {}).get("epochs", 0))
        return Progress(what, folder, int(newest[0].get("epoch", 0)), epochs, complete, "epochs")
    prefix = f"{run_digest[:MARKER_DIGEST_CHARS]}-"
    done = sum(name.startswith(prefix) for name in (folder / "done").names())
    return Progress(what, folder, done, int(manifest.get("units", 0)), complete)


def progress_under(root: str, name: str) -> list[Progress]:
    """Count the progress of everything that is stored under a name.

    That is a prepared segment, its predictions and sweeps, a dataset, and a training run with its folds.
    """
    base = Location.parse(root)
    check_segment_id(name)
    run = base / "runs" / name
    places = [("prepare", base / "segments" / name / "prepare")]
    places += [(f"prediction {one}", folder) for one, folder in predictions_of(root, name)]
    places += [(f"sweep {one}", folder) for one, folder in _runs_of(base / "sweeps" / name)]
    places += [("dataset", base / "datasets" / name), ("training", run)]
    places += [(f"training, {one}", run / one) for one in run.names() if one.startswith("fold-")]
    return [found for what, folder in places if (found := progress_of(what, folder)) is not None]


def predictions_of(root: str, segment: str) -> list[tuple[str, Location]]:
    """List names and folders of a segment's predictions, finished or not."""
    return _runs_of(Location.parse(root) / "predictions" / check_segment_id(segment))


def _runs_of(folder: Location) -> list[tuple[str, Location]]:
    return [(name, folder / name) for name in folder.names()]
