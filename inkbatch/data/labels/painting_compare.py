"""Two label versions beside each other: areas, and what changed from one to the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.labels.components import Bools
from inkbatch.data.labels.painting import LABELLED, LAYERS, Tile, halved_codes, tile_box
from inkbatch.data.labels.painting_tiles import OVERVIEW_LEVEL
from inkbatch.data.labels.painting_version import PaintedVersion
from inkbatch.errors import MismatchError
from inkbatch.geometry import Box

BAND_PX = 1024
ADDED, REMOVED, KEPT, GROUND = (64, 200, 120), (235, 90, 70), (190, 190, 190), (24, 24, 24)


@dataclass(frozen=True)
class Comparison:
    """Difference of two versions.

    Attributes:
        names: Names of the two.
        cm2: Areas by version: of each layer, and of papyrus without any label.
        added: Pixels by layer that only the second one marks.
        removed: Pixels by layer that only the first one marks.
        tiles: Tiles that differ, row-major.
        cm2_per_px: Area of a pixel.
    """

    names: tuple[str, str]
    cm2: dict[str, dict[str, float]]
    added: dict[str, int]
    removed: dict[str, int]
    tiles: list[Tile]
    cm2_per_px: float

    def __str__(self) -> str:
        """Make a table."""
        rows = [f"{'cm²':<14}{self.names[0]:>12}{self.names[1]:>12}{'added':>12}{'removed':>12}"]
        areas = [self.cm2[name] for name in self.names]
        for layer in areas[0]:
            row = f"{layer.replace('_', ' '):<14}{areas[0][layer]:>12.4f}{areas[1][layer]:>12.4f}"
            if layer in self.added:
                row += f"{self.added[layer] * self.cm2_per_px:>12.4f}{self.removed[layer] * self.cm2_per_px:>12.4f}"
            rows.append(row)
        return "\n".join([*rows, f"{len(self.tiles)} tiles differ"])


def compare(one: PaintedVersion, other: PaintedVersion, papyrus: Callable[[Box], Bools] | None = None) -> Comparison:
    """Compare two versions of one segment.

    Args:
        one: The first one.
        other: The second one.
        papyrus: Reads where there is papyrus; None: everywhere.

    Raises:
        MismatchError: They are of different sizes.
    """
    if one.shape_yx != other.shape_yx:
        raise MismatchError(
            f"{one.folder}, {other.folder}: expected labels of one size, got {one.shape_yx} and {other.shape_yx} px "
            "(height, width); compare versions of the same surface"
        )
    added: dict[str, int] = dict.fromkeys(LAYERS, 0)
    removed: dict[str, int] = dict.fromkeys(LAYERS, 0)
    tiles: list[Tile] = []
    labelled = [0, 0]
    for tile in sorted({*one.tiles.marked_tiles(), *other.tiles.marked_tiles()}):
        codes = one.tiles.read_tile(tile), other.tiles.read_tile(tile)
        box = tile_box(tile, one.shape_yx)
        here = np.ones(box.shape, bool) if papyrus is None else papyrus(box)
        for number, found in enumerate(codes):
            labelled[number] += int(np.count_nonzero((found[: box.height, : box.width] & LABELLED > 0) & here))
        if (codes[0] != codes[1]).any():
            tiles.append(tile)
            for name, layer in LAYERS.items():
                added[name] += int(np.count_nonzero(~codes[0] & codes[1] & layer.bit))
                removed[name] += int(np.count_nonzero(codes[0] & ~codes[1] & layer.bit))
    ground = _papyrus_px(one.shape_yx, papyrus)
    per_px = (float(one.facts["voxel_size_um"]) / 1e4) ** 2
    cm2: dict[str, dict[str, float]] = {}
    for version, count in ((one, labelled[0]), (other, labelled[1])):
        areas: dict[str, float] = {name: version.counts[name] * per_px for name in LAYERS}
        cm2[version.name] = {**areas, "unlabelled": (ground - count) * per_px}
    return Comparison((one.name, other.name), cm2, added, removed, tiles, per_px)


def _papyrus_px(shape_yx: tuple[int, int], papyrus: Callable[[Box], Bools] | None) -> int:
    height, width = shape_yx
    if papyrus is None:
        return height * width
    bands = (Box(y, 0, min(height, y + BAND_PX), width) for y in range(0, height, BAND_PX))
    return sum(int(np.count_nonzero(papyrus(band))) for band in bands)


def picture_of_changes(one: PaintedVersion, other: PaintedVersion, layer: str = "ink") -> NDArray[np.uint8]:
    """Draw what changed, one pixel for 8 x 8: green is added, red removed, grey in both; (height, width, 3)."""
    bit = next(kind.bit for name, kind in LAYERS.items() if name == layer)
    height, width = (-(-size // 2**OVERVIEW_LEVEL) for size in one.shape_yx)
    picture = np.empty((height, width, 3), np.uint8)
    picture[...] = GROUND
    both = one.tiles.overview & other.tiles.overview & bit
    picture[both[:height, :width] > 0] = KEPT
    for tile in sorted({*one.tiles.marked_tiles(bit), *other.tiles.marked_tiles(bit)}):
        before, after = (version.tiles.read_tile(tile) & np.uint8(bit) for version in (one, other))
        box = tile_box(tile, one.shape_yx).downscale(2**OVERVIEW_LEVEL)
        for changed, colour in ((before & ~after, REMOVED), (after & ~before, ADDED)):
            small = halved_codes(changed, OVERVIEW_LEVEL)[: box.height, : box.width]
            picture[box.slices][small > 0] = colour
    return picture
