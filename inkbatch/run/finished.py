"""Stored runs: manifest, state, and run files of the processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inkbatch.errors import DataError
from inkbatch.io.store.location import Location
from inkbatch.run.record import BESIDE, require_complete
from inkbatch.run.run_file import run_rows

MANIFEST_NAME = "manifest.json"


@dataclass(frozen=True)
class StoredRun:
    """Stored run in its folder.

    Attributes:
        folder: The folder that holds ``manifest.json``.
        manifest: Its content.
        complete: True if every unit is stored.
        rows: What its processes wrote into run files, oldest first within a shard; empty where these are gone.
    """

    folder: Location
    manifest: dict[str, Any]
    complete: bool
    rows: list[dict[str, Any]]

    @property
    def job(self) -> str:
        """The job's name."""
        return str(self.manifest["job"])

    def require_complete(self) -> None:
        """Refuse a partial run.

        Raises:
            DataError: It is partial; says how far it came.
        """
        require_complete(self.folder, f"{self.job} run", "run the same command again to finish it")

    @property
    def base(self) -> Location:
        """The folder that paths of stored objects count from."""
        return self.folder.parent if self.job in BESIDE else self.folder

    @property
    def outputs(self) -> list[Location]:
        """Folders that hold everything the run made."""
        return [*(self.folder.parent / name for name in BESIDE.get(self.job, ())), self.folder]

    @property
    def map_place(self) -> Location | None:
        """The array that the run is about: a prediction, a surface, ink labels; None where it made none."""
        beside = {"prepare": "surface.zarr", "labels": "ink_labels.zarr"}
        place = self.folder.parent / beside[self.job] if self.job in beside else self.folder / "prediction.zarr"
        return place if (place / "zarr.json").exists() else None


def open_run(text: str) -> StoredRun:
    """Open a run.

    Args:
        text: A ``manifest.json``, or the folder that holds it; for a prepared segment its own folder does, too.

    Raises:
        DataError: There is no manifest, or it is not of an inkbatch run.
    """
    place = Location.parse(text)
    folder = place.parent if place.name == MANIFEST_NAME else place
    if folder is place and not (folder / MANIFEST_NAME).exists() and (folder / "prepare" / MANIFEST_NAME).exists():
        folder = folder / "prepare"
    try:
        manifest = (folder / MANIFEST_NAME).read_json()
    except FileNotFoundError as error:
        raise DataError(
            f"{text}: expected a run's manifest.json, got none; name the file or its folder, for example "
            "root/predictions/SEGMENT/NAME, root/instances/SEGMENT/NAME or root/segments/SEGMENT/prepare"
        ) from error
    there = manifest.keys() if isinstance(manifest, dict) else set()
    gone = [key for key in ("job", "config", "inputs", "digest") if key not in there]
    if gone:
        raise DataError(
            f"{folder / MANIFEST_NAME}: expected the manifest of an inkbatch run, got a file without "
            f"{', '.join(gone)}; name another one"
        )
    try:
        complete = (folder / "complete.json").read_mapping().get("digest") == manifest["digest"]
    except FileNotFoundError:
        complete = False
    return StoredRun(folder, manifest, complete, run_rows(folder, manifest["digest"]))
