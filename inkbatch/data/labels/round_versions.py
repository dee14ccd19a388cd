"""Painted label versions in a series of rounds: which one a round takes, and a new one with the first labels in it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from inkbatch.data.labels.components import Bools
from inkbatch.data.labels.painting import (
    IGNORE,
    INK,
    NOT_INK,
    SUPERVISION,
    TILE_PX,
    Codes,
    Tile,
    tile_box,
)
from inkbatch.data.labels.painting_version import (
    PaintedVersion,
    create_version,
    labels_folder,
    read_facts,
    read_state,
    require_shape,
    version_folder,
    version_names,
)
from inkbatch.data.labels.round_labels import LabelsOfSegment, content_of
from inkbatch.geometry import Box, cut
from inkbatch.io.store.location import Location

AUTHOR = "inkbatch round"


@dataclass(frozen=True)
class FirstLabel:
    """First label of a region.

    Attributes:
        box: The region.
        ink: (Y, X), True where it says ink.
        ignored: (Y, X), True where it says nothing.
    """

    box: Box
    ink: Bools
    ignored: Bools

    @property
    def codes(self) -> Codes:
        """Marks of the region: all of it is supervised; bare papyrus is marked as not ink."""
        marks = np.where(self.ignored, IGNORE, np.where(self.ink, INK, NOT_INK)).astype(np.uint8)
        return marks | np.uint8(SUPERVISION)


@dataclass(frozen=True)
class PaintedLabels:
    """A painted version: marks of ink and not ink count, and what the supervision area holds, less what is ignored.

    Attributes:
        version: The version.
    """

    version: PaintedVersion

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """Entry of a manifest."""
        return {"version": self.version.name, "content": content_of(self, self.version.shape_yx)}

    def read(self, box: Box) -> tuple[Bools, Bools]:
        """Read (ink, counted) of a box, boolean (Y, X)."""
        codes = self.version.tiles.read(box)
        counted = (codes & (INK | NOT_INK | SUPERVISION)) != 0
        return (codes & INK) != 0, counted & ((codes & IGNORE) == 0)


def chosen_labels(root: str, segment: str, version: str | None, shape_yx: tuple[int, int]) -> PaintedLabels | None:
    """Open the label version that a round takes: the stated one, else the newest; None where there is none.

    Raises:
        DataError: The stated one is not there.
        MismatchError: It was painted on another surface.
    """
    folder = labels_folder(root, segment)
    names = version_names(folder)
    if version is None and not names:
        return None
    place = version_folder(folder, version or names[-1])
    require_shape(read_facts(place), shape_yx, place)
    return PaintedLabels(PaintedVersion.open(place))


def origin_of(round_name: str) -> str:
    """Return what a version that holds a round's first labels started from."""
    return f"proposals of {round_name}"


def relabelled(root: str, segment: str, taken: str, origins: Collection[str]) -> bool:
    """Tell if the newest version of a segment is neither the one that a round took nor first labels as they were made.

    Args:
        root: ROOT of the versions.
        segment: Segment id.
        taken: Version that the round took.
        origins: See `origin_of`, of the round and those before it.
    """
    folder = labels_folder(root, segment)
    names = version_names(folder)
    if not names or names[-1] == taken:
        return False
    newest = PaintedVersion.open(folder / names[-1])
    return newest.revision > 0 or newest.facts["started_from"] not in origins


def propose_version(
    root: Location,
    segment: str,
    labels: LabelsOfSegment,
    first: Sequence[FirstLabel],
    shape_yx: tuple[int, int],
    voxel_size_um: float,
    origin: str,
    surface: str | None = None,
) -> str:
    """Make a version that holds the labels of a round, with first labels laid over its regions, for people to correct.

    Args:
        root: ROOT of the versions.
        segment: Segment id.
        labels: What the round took.
        first: First labels of regions; a mark that is there already stays.
        shape_yx: (height, width) of the segment.
        voxel_size_um: Edge of a pixel.
        origin: Name of the round; a version that it made before is taken again, one that it began is finished.
        surface: Content digest of the prepared segment, for the version.

    Returns:
        The version's name.
    """
    folder = labels_folder(root, segment)
    for name in reversed(version_names(folder)):
        if read_facts(folder / name)["started_from"] == origin and read_state(folder / name)[1] is not None:
            return name
    parent = labels.identity.get("version")
    tiles = _tiles(labels, first, shape_yx)
    place = create_version(
        folder,
        segment,
        shape_yx,
        voxel_size_um,
        author=AUTHOR,
        started_from=origin,
        parent=parent,
        surface=surface,
        tiles=tiles,
        goes_on=True,
    )
    return place.name


def _tiles(
    labels: LabelsOfSegment, first: Sequence[FirstLabel], shape_yx: tuple[int, int]
) -> Iterator[tuple[Tile, Codes]]:
    for number, _ in enumerate(cut(shape_yx, TILE_PX, TILE_PX)):
        columns = -(-shape_yx[1] // TILE_PX)
        tile = number // columns, number % columns
        box = tile_box(tile, shape_yx)
        codes = np.zeros((TILE_PX, TILE_PX), np.uint8)
        inside = codes[: box.height, : box.width]
        ink, counted = labels.read(box)
        inside[counted] = SUPERVISION
        inside[ink & counted] = SUPERVISION | INK
        for one in first:
            part = one.box.intersect(box)
            if part.area:
                free = inside[part.within(box)] == 0
                inside[part.within(box)][free] = one.codes[part.within(one.box)][free]
        if codes.any():
            yield tile, codes
