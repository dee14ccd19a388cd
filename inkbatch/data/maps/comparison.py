"""Finished maps beside the labels of their segment: one grid, cut into units that count pixels per stored value.

Each unit counts its pixels per stored value, label and region; the counts of all units add up to every score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numcodecs import Blosc
from numpy.typing import NDArray

from inkbatch.data.datasets.trained_pixels import NOTHING, TrainedPixels
from inkbatch.data.maps.area import area_box
from inkbatch.data.maps.scoring import BINS, ScoreHistogram, score_counts
from inkbatch.data.maps.stored import StoredMap, maps_now, maps_state, open_map, require_one_grid, warnings_of
from inkbatch.data.maps.truth import Truth, TruthChoice
from inkbatch.errors import ConfigError, MismatchError
from inkbatch.geometry import Box, Unit, cells, cut
from inkbatch.io.prediction import CHUNK_PX
from inkbatch.io.threads import CODEC_THREADS

UNIT_PX = 4096
MOST_REGIONS_YX = 16  # of a unit along each axis; each holds 120 KiB of counts per map
REGION_PX = 1024
UNITS_AHEAD = CODEC_THREADS  # each is read and counted by one thread; a third one costs a tenth in waiting for locks
PIECE_YX = (2 * CHUNK_PX, 4 * CHUNK_PX)  # counted at a time: stays in the cache, is worth its calls, fits in a region
_CODEC = Blosc("lz4", 3, Blosc.SHUFFLE, typesize=4)

Bools = NDArray[np.bool_]
Counts = NDArray[np.uint32]
Seen = Callable[[Box, Bools, Bools], None]
Where = Literal["unseen", "validation", "all"]


@dataclass(frozen=True)
class UnitCounts:
    """Counts of a unit.

    Attributes:
        values: (maps, regions, 2, values): pixels per stored value; bare papyrus first, then ink.
        labelled_px: Pixels that count by mask and ignore mask.
        trained_px: Those of them that trained a network of the maps.
    """

    values: Counts
    labelled_px: int
    trained_px: int


def encode_counts(values: Counts) -> bytes:
    """Compress counts as a unit stores them; their shape is not kept."""
    return bytes(_CODEC.encode(np.ascontiguousarray(values)))


def decode_counts(data: bytes) -> Counts:
    """Decompress what `encode_counts` made, 1-D.

    Raises:
        RuntimeError: It is damaged.
        ValueError: It holds something else.
    """
    return np.frombuffer(_CODEC.decode(data), np.uint32)


@dataclass(frozen=True)
class Comparison:
    """One prediction or two, opened beside labels of the same size. Use it in a ``with`` block, or `close` it.

    Attributes:
        maps: One prediction, or two on one grid.
        truth: Opened labels.
        area: The part that counts.
        region_px: Edge of a region.
        units: Units that touch the area, row-major; a region is never split between units.
        trained: Pixels that trained a network of the maps.
        where: Which of the pixels count: ``unseen`` leaves out those that trained, ``validation`` takes those alone
            that validated, ``all`` takes all.
    """

    maps: tuple[StoredMap, ...]
    truth: Truth
    area: Box
    region_px: int
    units: tuple[Unit, ...]
    trained: TrainedPixels = NOTHING
    where: Where = "unseen"

    def __enter__(self) -> Comparison:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the labels."""
        self.truth.close()

    @property
    def identity(self) -> dict[str, Any]:
        """Maps and labels by their digests, as a manifest states them."""
        named = {"predictions": [found.identity for found in self.maps], "truth": self.truth.identity}
        return named | warnings_of(self.maps)

    @property
    def state(self) -> dict[str, Any]:
        """Contents of maps and labels, for the state of a manifest."""
        return {**maps_state(self.maps), **self.truth.state}

    def now(self) -> dict[str, Any]:
        """Take the state again, as far as that is cheap."""
        return {**maps_now(self.maps), **self.truth.now()}

    def regions(self, unit: Unit) -> list[Box]:
        """List the regions of a unit that touch the area."""
        edge, box = self.region_px, unit.write_box
        found = [
            Box(part.y0 + box.y0, part.x0 + box.x0, part.y1 + box.y0, part.x1 + box.x0)
            for part in cut(box.shape, edge, edge)
        ]
        return [part for part in (region.intersect(self.area) for region in found) if part.area]

    def count(self, unit: Unit, seen: Seen = lambda piece, ink, counted: None) -> UnitCounts:
        """Read and count a unit, piece by piece, each while it is in the cache; by the calling thread alone.

        Args:
            unit: The unit.
            seen: Is shown each piece with its (ink, counted).
        """
        box, regions = unit.write_box.intersect(self.area), self.regions(unit)
        labelled = trained = 0
        found = np.zeros((len(self.maps), len(regions), 2, BINS), np.uint32)
        with ExitStack() as closing:
            truth = closing.enter_context(self.truth.opened(box))
            opened = [closing.enter_context(stored.opened(box)) for stored in self.maps]
            for piece in cells(box, *PIECE_YX):
                ink, counted = truth(piece)
                labelled += int(np.count_nonzero(counted))
                trained += self._leave_out(piece, counted)
                seen(piece, ink, counted)
                inside = [(place, region.intersect(piece)) for place, region in enumerate(regions)]
                for number, (stored, region) in enumerate(zip(self.maps, opened, strict=True)):
                    values = region.read(piece.slices)
                    for place, part in inside:
                        if part.area:
                            own = part.within(piece)
                            found[number, place] += score_counts(
                                values[own], ink[own], counted[own], str(stored.folder)
                            )
        return UnitCounts(found, labelled, trained)

    def _leave_out(self, piece: Box, counted: Bools) -> int:
        """Unmark what `where` leaves out; returns how many of the marked pixels trained."""
        if not len(self.trained.train) and self.where != "validation":
            return 0
        trained = self.trained.trained(piece)
        number = int(np.count_nonzero(counted & trained))
        if self.where == "unseen":
            counted &= ~trained
        elif self.where == "validation":
            counted &= self.trained.validated(piece)
        return number

    def total(self) -> tuple[ScoreHistogram, float]:
        """Count the pixels of the first map; nothing is stored.

        Returns:
            The histogram, and the share of the labelled pixels that trained its network.
        """
        total, labelled, trained = ScoreHistogram(), 0, 0
        with ThreadPoolExecutor(UNITS_AHEAD, thread_name_prefix="inkbatch-count") as threads:
            for found in threads.map(self.count, self.units):
                bare, ink = found.values[0].sum(axis=0, dtype=np.int64)
                total.merge(ScoreHistogram(ink, bare))
                labelled, trained = labelled + found.labelled_px, trained + found.trained_px
        return total, trained / max(labelled, 1)


def open_comparison(
    root: str,
    segment: str,
    names: Sequence[str | None],
    choice: TruthChoice,
    area: tuple[int, int, int, int] | None = None,
    region_px: int = REGION_PX,
    where: Where = "unseen",
) -> Comparison:
    """Open predictions and labels, compare their sizes, and cut the segment into units.

    Args:
        root: ROOT.
        segment: Segment id; it must be prepared, for its mask.
        names: Names or addresses of one prediction or two; None is the only one that there is.
        choice: The labels.
        area: Part that counts as y0, x0, y1, x1 in pixels, half-open; None takes the whole segment.
        region_px: Edge of a region.
        where: See `Comparison`.

    Raises:
        NoLabelsError: No labels are known for the segment.
        ConfigError: An area outside the map, a catalog that cannot be read, or no pixel that validated.
        DataError: A prediction or the labels are incomplete, or of another size.
        MismatchError: The two predictions do not lie on one grid, or are one.
    """
    maps = tuple(open_map(root, segment, name) for name in names)
    require_one_grid(maps)
    if len(maps) == 2 and maps[0].digest == maps[1].digest:
        raise ConfigError(f"evaluate {segment}: {maps[0].name} is compared with itself; name another prediction")
    shape_yx = maps[0].shape_yx
    box = area_box(area, shape_yx)
    for found in maps:
        box = box.intersect(area_box(found.box, shape_yx))  # outside it a quick look says nothing
    trained = TrainedPixels.together(found.trained_on for found in maps)
    if where == "validation" and not len(trained.validation):
        raise ConfigError(
            f"evaluate {segment}: expected pixels that validated the network of {maps[0].name}, its bundle names none "
            "on this segment; leave --on out, or infer a segment of its validation split"
        )
    truth = Truth(root, segment, choice)
    if truth.shape_yx != shape_yx:
        truth.close()
        raise MismatchError(
            f"prediction {maps[0].name}: is {shape_yx}, the mask and labels are {truth.shape_yx} (height, "
            "width); infer it from this very surface"
        )
    return Comparison(maps, truth, box, region_px, _units(shape_yx, box, region_px), trained, where)


def _units(shape_yx: tuple[int, int], area: Box, region_px: int) -> tuple[Unit, ...]:
    step = region_px * min(MOST_REGIONS_YX, max(1, UNIT_PX // region_px))
    boxes = [box for box in cut(shape_yx, step, step) if box.intersect(area).area]
    return tuple(Unit(index, box, box) for index, box in enumerate(boxes))
