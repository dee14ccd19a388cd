"""Pixels that trained a network: recorded in its bundle, and found again on a segment that it reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from inkbatch.data.datasets.index import BoxTuple, DatasetIndex, DatasetSegment, Sample, resolve
from inkbatch.data.datasets.same_pixels import window_keys
from inkbatch.errors import DataError
from inkbatch.geometry import Box
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume

RECORD = "pixels"  # key of a bundle's `training`
MOST_CELLS = 8_000_000  # of the table in which boxes are merged
KEY_LETTERS = 16  # of a window's digest: two windows in 10^19 are taken for one
SAME_VOXEL = 1e-3  # relative difference

Boxes = NDArray[np.int64]


class TrainedSegment(BaseModel):
    """Pixels of one segment that a network was shown.

    Attributes:
        segment: Segment id.
        source: Address of its layers; of a picture, the digest of its pixels and annotation.
        windows: Short digests of some of its windows, by which a copy under another name is found.
        shape_yx: (height, width) in pixels.
        origin_yx: Upper left corner in pixels of the source, where only a region was prepared.
        voxel_size_um: Voxel edge in micrometres; None for pictures of unknown scale.
        scroll: Scroll that it is part of, where the dataset says so.
        train: Disjoint boxes (y0, x0, y1, x1) whose pixels trained.
        validation: Those that chose the best epoch and the threshold.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    segment: str
    source: str = ""
    windows: tuple[str, ...] = ()
    shape_yx: tuple[int, int]
    origin_yx: tuple[int, int] = (0, 0)
    voxel_size_um: float | None = None
    scroll: str | None = None
    train: tuple[BoxTuple, ...] = ()
    validation: tuple[BoxTuple, ...] = ()


RECORDS = TypeAdapter(tuple[TrainedSegment, ...])


@dataclass(frozen=True)
class TrainedPixels:
    """Pixels of one segment that trained a network, or several.

    Attributes:
        train: (n, 4) boxes y0, x0, y1, x1 of those that trained.
        validation: (m, 4) boxes of those that validated; where the two overlap, the pixels trained.
    """

    train: Boxes
    validation: Boxes

    @staticmethod
    def of(document: Mapping[str, Any]) -> TrainedPixels:
        """Read what `document` returned."""
        return TrainedPixels(*(_array(document.get(key, ())) for key in ("train", "validation")))

    @staticmethod
    def together(several: Iterable[TrainedPixels]) -> TrainedPixels:
        """Unite the pixels of several networks."""
        listed = list(several)
        return TrainedPixels(
            _array([box for one in listed for box in one.train.tolist()]),
            _array([box for one in listed for box in one.validation.tolist()]),
        )

    @property
    def document(self) -> dict[str, Any]:
        """Stored form; empty if the segment is new to the network."""
        found = {"train": merged(self.train), "validation": merged(self.validation)}
        return {key: [list(box) for box in boxes] for key, boxes in found.items() if boxes}

    def trained(self, box: Box) -> NDArray[np.bool_]:
        """Mark the pixels of a box that trained, boolean (box.height, box.width)."""
        return _cover(self.train, box)

    def validated(self, box: Box) -> NDArray[np.bool_]:
        """Mark the pixels of a box that validated and did not train."""
        return _cover(self.validation, box) & ~self.trained(box)

    def share(self, boxes: Iterable[Box]) -> float:
        """Share of these boxes' pixels that trained; 0 without a pixel."""
        listed = list(boxes)
        total = sum(box.area for box in listed)
        if not total or not len(self.train):
            return 0.0
        own = [Box(*row) for row in merged(self.train)]
        return sum(given.intersect(box).area for given in listed for box in own) / total


NOTHING = TrainedPixels(np.zeros((0, 4), np.int64), np.zeros((0, 4), np.int64))


def records_of(index: DatasetIndex, split: Mapping[str, Sequence[Sample]], root: Location) -> list[dict[str, Any]]:
    """Record what training and validation samples show, segment by segment, for a bundle.

    Args:
        index: The dataset.
        split: Samples by ``train`` and ``validation``.
        root: ROOT of the dataset; a surface that is no longer there is recorded by its name alone.
    """
    boxes: dict[str, dict[str, list[BoxTuple]]] = {}
    for name, samples in split.items():
        for sample in samples:
            for shown_in, box in sample.sources:
                kept = boxes.setdefault(shown_in, {}).setdefault(name, [])
                kept.append((box.y0, box.x0, box.y1, box.x1))
    found = []
    for segment in index.segments:
        own = boxes.get(segment.id)
        if own:
            shown = {name: merged(listed) for name, listed in own.items()}
            record = TrainedSegment(**_known(segment, root), **shown)
            found.append(record.model_dump(mode="json", exclude_defaults=True))
    return found


def joined_records(own: Sequence[Mapping[str, Any]], training: Mapping[str, Any], place: str) -> list[dict[str, Any]]:
    """Join what a network was shown with what the network was shown that it started from.

    Args:
        own: See `records_of`.
        training: `BundleDocument.training` of the bundle that it started from.
        place: That bundle, for messages.

    Raises:
        DataError: The record of that bundle does not validate.
    """
    joined: dict[TrainedSegment, TrainedSegment] = {}
    for record in (*RECORDS.validate_python(own), *_records(training, place)):
        same = record.model_copy(update={"train": (), "validation": ()})
        known = joined.get(same, same)
        boxes = {
            name: tuple(merged([*getattr(known, name), *getattr(record, name)])) for name in ("train", "validation")
        }
        joined[same] = same.model_copy(update=boxes)
    return [record.model_dump(mode="json", exclude_defaults=True) for record in joined.values()]


def pixels_on(training: Mapping[str, Any], volume: SurfaceVolume, place: str) -> TrainedPixels:
    """Find the pixels of a surface that trained a network.

    A segment is found by its id, by the address of its layers, or, under another name, by its pixels. Where a surface
    of that id has another scale or size, no pixel can be told from another, and all count as trained.

    Args:
        training: `BundleDocument.training`.
        volume: The surface.
        place: The bundle, for messages.

    Raises:
        DataError: The record does not validate.
    """
    records = _records(training, place)
    height, width = volume.shape_yx
    whole, origin = Box(0, 0, height, width), _origin(volume)
    found: dict[str, list[BoxTuple]] = {"train": [], "validation": []}
    for record in records:
        if not _shows(record, volume):
            continue
        y, x = record.origin_yx[0] - origin[0], record.origin_yx[1] - origin[1]
        if not _comparable(record, volume):
            found["train"].append((0, 0, height, width))
            continue
        for name, boxes in (("train", record.train), ("validation", record.validation)):
            inside = (Box(*box).shift(y, x).intersect(whole) for box in boxes)
            found[name] += [(box.y0, box.x0, box.y1, box.x1) for box in inside if box.area]
    return TrainedPixels(_array(found["train"]), _array(found["validation"]))


def names_pixels(training: Mapping[str, Any]) -> bool:
    """Tell if a bundle names the pixels that trained it; imported ones and old ones do not."""
    return RECORD in training


def picture_pixels(training: Mapping[str, Any], digest: str, place: str) -> TrainedPixels:
    """Find the pixels of a picture that trained a network, by the digest of picture and annotation; see `pixels_on`."""
    found = [record for record in _records(training, place) if record.source == digest]
    return TrainedPixels(
        _array([box for record in found for box in record.train]),
        _array([box for record in found for box in record.validation]),
    )


def trained_scrolls(training: Mapping[str, Any], place: str) -> tuple[frozenset[str], bool]:
    """Name the scrolls that trained a network, and tell if those are all: a segment may state none.

    Args:
        training: `BundleDocument.training`.
        place: The bundle, for messages.

    Raises:
        DataError: The record does not validate.
    """
    trained = [record.scroll for record in _records(training, place) if record.train]
    return frozenset(scroll for scroll in trained if scroll is not None), bool(trained) and None not in trained


def _records(training: Mapping[str, Any], place: str) -> tuple[TrainedSegment, ...]:
    try:
        return RECORDS.validate_python(training.get(RECORD, ()))
    except ValidationError as error:
        raise DataError(f"{place}: training.{RECORD} cannot be read; copy the bundle again") from error


def merged(boxes: Boxes | Sequence[Sequence[int]]) -> list[BoxTuple]:
    """Cover the same pixels with disjoint boxes, few where boxes overlap; equal pixels give equal boxes.

    So many boxes at odd places that a table of their edges does not fit are only sorted, and may overlap.
    """
    given = np.unique(_array(boxes), axis=0)
    given = given[(given[:, 2] > given[:, 0]) & (given[:, 3] > given[:, 1])]
    rows, columns = np.unique(given[:, 0::2]), np.unique(given[:, 1::2])
    if len(rows) * len(columns) > MOST_CELLS:
        return [tuple(box) for box in given.tolist()]
    cells = np.zeros((max(len(rows) - 1, 0), max(len(columns) - 1, 0)), bool)
    for y0, x0, y1, x1 in given.tolist():
        a, b = np.searchsorted(rows, (y0, y1))
        c, d = np.searchsorted(columns, (x0, x1))
        cells[a:b, c:d] = True
    return sorted(_strips(cells, rows, columns))


def _strips(cells: NDArray[np.bool_], rows: Boxes, columns: Boxes) -> Iterator[BoxTuple]:
    """Yield runs of marked cells, each joined with the equal run of the row above."""
    begun: dict[tuple[int, int], int] = {}
    for row in range(len(cells) + 1):
        line = cells[row] if row < len(cells) else np.zeros(cells.shape[1], bool)
        edges = np.flatnonzero(np.diff(np.concatenate(([False], line, [False]))))
        runs = {(int(start), int(stop)) for start, stop in zip(edges[0::2], edges[1::2], strict=True)}
        for run in begun.keys() - runs:
            first = begun.pop(run)
            yield int(rows[first]), int(columns[run[0]]), int(rows[row]), int(columns[run[1]])
        for run in runs - begun.keys():
            begun[run] = row


def _known(segment: DatasetSegment, root: Location) -> dict[str, Any]:
    known = {"segment": segment.id, "shape_yx": segment.shape_yx, "voxel_size_um": segment.voxel_size_um}
    known |= {"scroll": segment.scroll}
    if segment.kind != "surface":
        return {**known, "source": segment.digest}
    try:
        volume = SurfaceVolume.open(resolve(segment.surface, root))
    except (FileNotFoundError, DataError):
        return known  # a pack is complete by itself
    return {
        **known,
        "source": volume.provenance.source,
        "windows": sorted(short_keys(volume)),
        "origin_yx": _origin(volume),
    }


def _shows(record: TrainedSegment, volume: SurfaceVolume) -> bool:
    if record.segment == volume.provenance.segment or record.source == volume.provenance.source:
        return True
    return (
        record.shape_yx == volume.shape_yx
        and bool(record.windows)
        and not short_keys(volume).isdisjoint(record.windows)
    )


def _comparable(record: TrainedSegment, volume: SurfaceVolume) -> bool:
    """Tell if boxes of the record are boxes of the surface."""
    um = volume.provenance.voxel_size_um
    is_region = volume.provenance.box is not None or record.origin_yx != (0, 0)
    same_voxel = record.voxel_size_um is not None and abs(record.voxel_size_um - um) <= SAME_VOXEL * um
    return same_voxel and (is_region or record.shape_yx == volume.shape_yx)


def short_keys(volume: SurfaceVolume) -> set[str]:
    """Compute the keys of a surface's windows, shortened as a bundle keeps them."""
    return {key.rsplit(" ", 1)[-1][:KEY_LETTERS] for key in window_keys(volume)}


def _origin(volume: SurfaceVolume) -> tuple[int, int]:
    box = volume.provenance.box
    return (0, 0) if box is None else (box[0], box[1])


def _array(boxes: Boxes | Sequence[Sequence[int]]) -> Boxes:
    return np.asarray(boxes, np.int64).reshape(-1, 4)


def _cover(boxes: Boxes, box: Box) -> NDArray[np.bool_]:
    found = np.zeros(box.shape, bool)
    near = (boxes[:, 0] < box.y1) & (boxes[:, 2] > box.y0) & (boxes[:, 1] < box.x1) & (boxes[:, 3] > box.x0)
    for row in boxes[near].tolist():
        found[Box(*row).intersect(box).within(box)] = True
    return found
