"""Stored verdicts of a preflight: written by the preflight job, read by `infer --preflight mask|warn`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.segments.prepared import surface_state
from inkbatch.errors import DataError, MismatchError
from inkbatch.geometry import Box
from inkbatch.io.store.location import Location
from inkbatch.run.record import require_complete
from inkbatch.run.states import state_changes

TILE_PX = 256
WITHOUT_BUNDLE = "layers"
VERDICTS_NAME, PICTURE_NAME, MAP_NAME = "preflight.json", "preflight.png", "preflight.zarr"
UNREADABLE = ("outside", "blank", "no sheet")  # nothing can be read there; the other faults may be cured, or lived with

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class StoredPreflight:
    """Verdicts on the tiles of a segment.

    Attributes:
        words: Names of the verdicts by code.
        codes: Verdict of each tile, (rows, columns) of tiles of `TILE_PX`.
        document: All of ``preflight.json``.
        record: What goes into the manifest of a job that uses them.
    """

    words: tuple[str, ...]
    codes: NDArray[np.uint8]
    document: dict[str, Any]
    record: dict[str, Any]

    def readable(self, read_mask: Callable[[Box], Mask]) -> Callable[[Box], Mask]:
        """Leave tiles in which nothing can be read out of a mask.

        Args:
            read_mask: Reads the segment mask in any box, False outside the surface.
        """
        bad = np.isin(self.codes, [code for code, word in enumerate(self.words) if word in UNREADABLE])

        def read(box: Box) -> Mask:
            mask = read_mask(box)
            rows, columns = (np.arange(*ends) // TILE_PX for ends in ((box.y0, box.y1), (box.x0, box.x1)))
            inside = [(places >= 0) & (places < size) for places, size in zip((rows, columns), bad.shape, strict=True)]
            left_out = bad[np.ix_(np.clip(rows, 0, bad.shape[0] - 1), np.clip(columns, 0, bad.shape[1] - 1))]
            mask &= ~(left_out & inside[0][:, None] & inside[1][None, :])
            return mask

        return read

    @property
    def faults(self) -> dict[str, int]:
        """Tiles by verdict, without those that are fine."""
        tiles = self.document["tiles"]
        return {word: tiles[word] for word in self.words if tiles[word] and word != "fine"}

    @property
    def sentence(self) -> str:
        """The faults in one sentence."""
        total = int(self.codes.size)
        if not self.faults:
            return f"all {total:,} tiles are fine"
        return f"of {total:,} tiles " + ", ".join(f"{count:,} {word}" for word, count in self.faults.items())


def preflight_folder(root: str, segment: str, name: str) -> Location:
    """Return ``ROOT/preflights/{segment}/{name}``."""
    return Location.parse(root) / "preflights" / segment / name


def stored_preflight(root: str, segment: str, bundle: str) -> StoredPreflight:
    """Read the verdicts on this surface: those made for the bundle, else those made without one.

    Args:
        root: ROOT.
        segment: Segment id.
        bundle: Name of the bundle.

    Raises:
        DataError: There are none, or the preflight is not complete.
        MismatchError: They are of another surface.
    """
    folders = [preflight_folder(root, segment, name) for name in (bundle, WITHOUT_BUNDLE)]
    folder = next((place for place in folders if (place / "manifest.json").exists()), folders[-1])
    again = f"inkbatch preflight {segment}"
    manifest = require_complete(folder, f"--preflight, segment {segment}: preflight", f"run {again} first")
    if state_changes(manifest.get("state"), surface_state(root, segment)):
        raise MismatchError(
            f"--preflight, segment {segment}: the preflight at {folder} was made from another surface; run {again} "
            "--replace"
        )
    document = (folder / VERDICTS_NAME).read_mapping()
    try:
        codes = np.array(document["codes"], np.uint8)
        words = tuple(document["words"])
    except (KeyError, ValueError) as error:
        raise DataError(f"{folder / VERDICTS_NAME}: cannot be read; run {again} --replace") from error
    return StoredPreflight(words, codes, document, {"name": folder.name, "digest": manifest["digest"]})
