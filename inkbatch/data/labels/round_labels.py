"""Labels of a segment as one round takes them: what is ink, and what counts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from inkbatch.data.labels.components import Bools
from inkbatch.data.labels.ink import INK_LABEL, LABEL_MAX
from inkbatch.errors import DataError, MismatchError
from inkbatch.geometry import Box, cut
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.store.location import Location

UNIT_PX = 1024
INK_NAME, IGNORE_NAME = "ink_labels.zarr", "ignore_mask.zarr"


class LabelsOfSegment(Protocol):
    """Labels that a round takes."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Entry of a manifest."""
        ...

    def read(self, box: Box) -> tuple[Bools, Bools]:
        """Read (ink, counted) of a box, boolean (Y, X); a pixel that does not count is unlabelled or ignored."""
        ...


@dataclass(frozen=True)
class StoredLabels:
    """``ink_labels.zarr`` and, where there is one, ``ignore_mask.zarr`` in a folder.

    Attributes:
        ink: The labels.
        ignore: The ignore mask, or None.
    """

    ink: Multiscale
    ignore: Multiscale | None

    @staticmethod
    def open(folder: Location, shape_yx: tuple[int, int], what: str) -> StoredLabels:
        """Open the labels in a folder.

        Raises:
            DataError: There are none.
            MismatchError: They are of another size.
        """
        if not (folder / INK_NAME / "zarr.json").exists():
            raise DataError(
                f"{what}: expected labels at {folder / INK_NAME}, nothing is there; paint some (inkbatch view --edit), "
                "or run inkbatch labels"
            )
        has_mask = (folder / IGNORE_NAME / "zarr.json").exists()
        found = StoredLabels(
            Multiscale.open(folder / INK_NAME), Multiscale.open(folder / IGNORE_NAME) if has_mask else None
        )
        for array in (found.ink, found.ignore):
            if array is not None and array.shape != shape_yx:
                raise MismatchError(
                    f"{what}: expected {array.location} to be {shape_yx} (height, width) like the surface, got "
                    f"{array.shape}; give the labels of this surface"
                )
        return found

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """Entry of a manifest."""
        return {"content": content_of(self, (self.ink.shape[0], self.ink.shape[1]))}

    def read(self, box: Box) -> tuple[Bools, Bools]:
        """Read a box; see `LabelsOfSegment.read`."""
        counted = np.ones(box.shape, bool)
        if self.ignore is not None:
            counted = self.ignore.levels[0].read(box.slices) == 0
        return self.ink.levels[0].read(box.slices) >= INK_LABEL, counted


@dataclass(frozen=True)
class KeptLabels:
    """A round's own copy of the labels that it took, under the name that they had then.

    Attributes:
        stored: The copy.
        identity: Entry of the round's manifest.
    """

    stored: StoredLabels
    identity: Mapping[str, Any]

    @staticmethod
    def open(folder: Location, shape_yx: tuple[int, int], identity: Mapping[str, Any]) -> KeptLabels | None:
        """Open a copy; None where it is not whole, or not what the manifest states."""
        try:
            stored = StoredLabels.open(folder, shape_yx, str(folder))
            whole = stored.identity["content"] == identity.get("content")
        except (DataError, FileNotFoundError):
            return None
        return KeptLabels(stored, identity) if whole else None

    def read(self, box: Box) -> tuple[Bools, Bools]:
        """Read a box; see `LabelsOfSegment.read`."""
        return self.stored.read(box)


def content_of(labels: LabelsOfSegment, shape_yx: tuple[int, int]) -> str:
    """Return the SHA-256 of what is ink and what counts, whatever its storage."""
    found = hashlib.sha256(f"{shape_yx[0]} {shape_yx[1]}".encode())
    for box in cut(shape_yx, UNIT_PX, UNIT_PX):
        ink, counted = labels.read(box)
        found.update(np.packbits(ink & counted).tobytes())
        found.update(np.packbits(counted).tobytes())
    return found.hexdigest()


def store_labels(
    folder: Location, source: LabelsOfSegment, shape_yx: tuple[int, int], voxel_size_um: float, facts: Mapping[str, Any]
) -> StoredLabels:
    """Copy the labels of a segment into a round, so that they stay what they were; equal labels give equal bytes."""

    def create(name: str, pooling: Any) -> Multiscale:
        return Multiscale.create_mask(
            folder / name,
            shape_yx,
            shard_px=UNIT_PX,
            voxel_size_um=voxel_size_um,
            provenance={"kind": name.removesuffix(".zarr"), **facts},
            pooling=pooling,
        )

    ink, ignore = create(INK_NAME, "mean"), create(IGNORE_NAME, "max")
    for box in cut(shape_yx, UNIT_PX, UNIT_PX):
        marked, counted = source.read(box)
        ink.write(box, (marked & counted).astype(np.uint8) * np.uint8(LABEL_MAX))
        ignore.write(box, (~counted).astype(np.uint8))
    return StoredLabels(ink, ignore)
