"""Prepared segments: their folder under ROOT, and opening them."""

from __future__ import annotations

from typing import Any

from inkbatch.config import digest
from inkbatch.data.segments.catalog import check_segment_id
from inkbatch.errors import MismatchError
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume
from inkbatch.run.record import require_complete
from inkbatch.run.states import OUTSIDE_DIGEST, content_of, contents_now, state_changes, states_of

SURFACE = "surface"  # key in the state of manifests


def segment_folder(root: str, segment: str) -> Location:
    """Return ``ROOT/segments/{segment}``; the id was checked by the catalog."""
    return Location.parse(root) / "segments" / segment


def surface_state(root: str, segment: str) -> dict[str, Any]:
    """Return the content of a prepared segment for the state of a manifest; empty where an older version made it."""
    return states_of({SURFACE: segment_folder(root, segment) / "prepare"})


def surface_now(root: str, segment: str) -> dict[str, str | None]:
    """Return the content of a prepared segment as it is now, for `RunManifest.now`."""
    return contents_now({SURFACE: segment_folder(root, segment) / "prepare"})


def surface_content(root: str, segment: str) -> str | None:
    """Return the content digest of a prepared segment; None where an older version made it, or it is not whole."""
    return content_of(segment_folder(root, segment) / "prepare")


def require_same_surface(root: str, segment: str, state: Any, what: str, cure: str) -> None:
    """Refuse what was made from another surface than the one that is stored now.

    Args:
        root: ROOT of the surface.
        segment: Segment id.
        state: State in the manifest of what was made; None where an older version made it.
        what: What was made, for the message.
        cure: How to make it again.

    Raises:
        MismatchError: The segment was prepared again since, from other layers or otherwise.
    """
    if state_changes(state, surface_state(root, segment)):
        raise MismatchError(f"{what}: the surface of {segment} has changed since this was made from it; {cure}")


def open_prepared(root: str, segment: str) -> tuple[SurfaceVolume, str]:
    """Open a prepared segment; its attributes must equal what `prepare` recorded.

    Returns:
        The surface, and the digest of the manifest that made it.

    Raises:
        ConfigError: A bad segment id.
        IncompleteError: It is not there or not complete.
        MismatchError: Attributes or manifest were edited, or depth cannot be the first axis.
    """
    folder = segment_folder(root, check_segment_id(segment))
    manifest = require_complete(folder / "prepare", f"segment {segment}", f"run inkbatch prepare {segment} first")
    volume = SurfaceVolume.open(folder)
    recorded = manifest["config"]
    edited = [
        f"{key}: the surface says {value!r}, its manifest {recorded.get(key)!r}"
        for key, value in volume.provenance.model_dump(mode="json").items()
        if recorded.get(key) != value
    ]
    if digest({key: value for key, value in manifest.items() if key not in OUTSIDE_DIGEST}) != manifest["digest"]:
        edited.append("manifest.json: its digest does not match its content")
    if edited:
        raise MismatchError(
            f"segment {segment}: edited since it was prepared ({'; '.join(edited)}); run "
            f"inkbatch prepare {segment} --replace"
        )
    if volume.layer_count > min(volume.shape_yx):
        raise MismatchError(
            f"segment {segment}: {volume.layer_count} layers of {volume.shape_yx[0]} x {volume.shape_yx[1]} px: deeper "
            "than wide, so its axes were stated in the wrong order; prepare it again with the right axes"
        )
    return volume, str(manifest["digest"])
