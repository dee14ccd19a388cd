"""Contents of the surfaces and labels that a dataset was built from, and whether they are still the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from inkbatch.data.datasets.index import DatasetIndex, resolve
from inkbatch.data.segments.prepared import segment_folder
from inkbatch.errors import DataError, MismatchError
from inkbatch.io.store.location import Location
from inkbatch.io.store.versions import state_of
from inkbatch.run.states import contents_now, state_changes, states_of


def segments_state(root: str, segments: Iterable[str]) -> dict[str, Any]:
    """Return the contents of prepared and labelled segments, for the state of a manifest."""
    return states_of(_places(root, segments))


def segments_now(root: str, segments: Iterable[str]) -> dict[str, Any]:
    """Return these contents as they are now, for `RunManifest.now`."""
    return contents_now(_places(root, segments))


def _places(root: str, segments: Iterable[str]) -> dict[str, Location]:
    folders = {segment: segment_folder(root, segment) for segment in segments}
    places = {f"surface {segment}": folder / "prepare" for segment, folder in folders.items()}
    return places | {f"labels {segment}": folder / "labels" for segment, folder in folders.items()}


def dataset_state(dataset: Location, index: DatasetIndex) -> dict[str, Any]:
    """Return the contents of a dataset and of the segments that it was built from, for the state of a training run."""
    try:
        manifest = (dataset / "manifest.json").read_json()
    except (FileNotFoundError, DataError):
        return {}
    built_from = manifest.get("state") if isinstance(manifest, dict) else None
    own = states_of({f"dataset {index.name}": dataset})
    return {**(built_from if isinstance(built_from, dict) else {}), **own}


def require_current(dataset: Location, index: DatasetIndex, root: Location) -> None:
    """Refuse a dataset whose samples lie in segments that were prepared or labelled again since it was built.

    A pack holds its samples itself.

    Raises:
        MismatchError: They were; the segments are named.
    """
    if index.form == "pack":
        return
    try:
        manifest = (dataset / "manifest.json").read_json()
    except (FileNotFoundError, DataError):
        return
    if index.form == "patches":
        now = patches_state(resolve(index.segments[0].surface, root))
        _require_same(index, state_changes(manifest.get("state") if isinstance(manifest, dict) else None, now))
        return
    surfaces = [segment.id for segment in index.segments if segment.kind == "surface"]
    state = manifest.get("state") if isinstance(manifest, dict) else None
    _require_same(index, state_changes(state, segments_state(str(root), surfaces)))


def patches_state(folder: Location) -> dict[str, Any]:
    """Return the versions of a patch pack's files, for the state of a manifest."""
    return {"patches": state_of(folder)}


def _require_same(index: DatasetIndex, changed: Sequence[str]) -> None:
    if changed:
        raise MismatchError(
            f"dataset {index.name}: what it was built from has changed since ({'; '.join(changed)}); build it again: "
            "inkbatch build-dataset with --replace"
        )
