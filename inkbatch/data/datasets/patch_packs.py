"""Patch packs of the field: training patches in ``.npy`` files, read from memory maps as they are.

``train_images.npy`` (N, Y, X, Z) uint8, ``train_labels.npy`` (N, Y, X) 0 to 255, ``train_xyxys.npy`` (N, 4) x0, y0, x1,
y1 in pixels of a segment, ``train_seg_idx.npy`` (N,) numbers into ``segments.json``, the same as ``val_*``, and
``SHA256SUMS``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from inkbatch.config import JobConfig, digest
from inkbatch.data.datasets.index import DatasetSegment, Sample, SplitName, relative_to
from inkbatch.data.datasets.leakage import find_leaks, require_no_leaks
from inkbatch.data.datasets.segment_arrays import StoredArrays
from inkbatch.data.datasets.splits import OverlapRule
from inkbatch.data.labels.ink import INK_LABEL, LABEL_MAX
from inkbatch.errors import CorruptDataError, DataError, MismatchError
from inkbatch.geometry import Box
from inkbatch.io.store.location import Location
from inkbatch.io.surface import DepthOrder, in_order

SUMS_NAME, SEGMENTS_NAME = "SHA256SUMS", "segments.json"
PREFIXES: dict[SplitName, str] = {"train": "train", "validation": "val"}
SUM_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)")
NAME_KEYS = ("id", "segment_id", "segment", "name")
ROWS_AT_ONCE = 4_096
HASHED_BYTES = 8 << 20
SHARE_DIGITS = 6


class PatchPack(JobConfig):
    """A patch pack, and what its files do not say.

    Attributes:
        folder: Its folder, on a local disk.
        voxel_size_um: Edge of a pixel in micrometres.
        z_spacing_um: Spacing of layers in micrometres, where it is not the edge of a pixel.
        depth_order: ``forward`` if the first of a patch's layers lies where depth order begins, else ``reversed``.
        overlap: Training patches that show pixels of a validation patch: ``refuse``, or ``drop`` them.
        verify: Compare every file with ``SHA256SUMS``.
    """

    folder: str
    voxel_size_um: float = Field(gt=0, allow_inf_nan=False)
    z_spacing_um: float | None = Field(None, gt=0, allow_inf_nan=False)
    depth_order: DepthOrder
    overlap: OverlapRule = "refuse"
    verify: bool = True


@dataclass(frozen=True)
class PatchFiles:
    """The arrays of one split, mapped into memory.

    Attributes:
        images: (N, Y, X, Z) uint8.
        labels: (N, Y, X) uint8.
        boxes: (N, 4) x0, y0, x1, y1, or None.
        segments: (N,) numbers of segments, or None.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    boxes: NDArray[Any] | None
    segments: NDArray[Any] | None

    @staticmethod
    def open(folder: Location, prefix: str) -> PatchFiles:
        """Map the files of a split and compare their shapes.

        Raises:
            DataError: The folder is not local, or a file is missing, damaged, or of another shape or dtype.
        """
        images, labels = (_mapped(folder / f"{prefix}_{name}.npy") for name in ("images", "labels"))
        if images.ndim != 4 or images.dtype != np.uint8:
            raise DataError(
                f"{folder / prefix}_images.npy: expected uint8 patches (patches, rows, columns, layers), got "
                f"{images.dtype} {images.shape}; build the pack again"
            )
        if labels.ndim == 4 and labels.shape[-1] == 1:
            labels = labels[..., 0]
        if labels.shape != images.shape[:3] or labels.dtype != np.uint8:
            raise MismatchError(
                f"{folder / prefix}_labels.npy: expected uint8 {images.shape[:3]} like its images, got {labels.dtype} "
                f"{labels.shape}; give labels of the patches' size"
            )
        extra = {name: folder / f"{prefix}_{name}.npy" for name in ("xyxys", "seg_idx")}
        boxes, segments = (_mapped(place) if place.exists() else None for place in extra.values())
        for place, found, wanted in (
            (extra["xyxys"], boxes, (len(images), 4)),
            (extra["seg_idx"], segments, (len(images),)),
        ):
            if found is not None and (found.shape != wanted or found.dtype.kind not in "iu"):
                raise MismatchError(
                    f"{place}: expected integers {wanted}, one row for each patch, got {found.dtype} {found.shape}; "
                    "copy the pack again"
                )
        return PatchFiles(images, labels, boxes, segments)


def _mapped(place: Location) -> NDArray[Any]:
    if not place.is_local:
        raise DataError(f"{place}: expected a folder on a local disk, for patches are read at random; copy it there")
    try:
        found: NDArray[Any] = np.load(place.path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{place}: expected this file of a patch pack, got nothing; copy the pack again") from error
    except (ValueError, EOFError, OSError) as error:
        raise CorruptDataError(f"{place}: cannot be read as an npy array ({error}); copy it again") from error
    return found


class PatchReader:
    """Reader of a pack's patches. Safe to use from several threads."""

    def __init__(self, pack: PatchPack) -> None:
        self._order = pack.depth_order
        self._files = {split: PatchFiles.open(Location.parse(pack.folder), name) for split, name in PREFIXES.items()}

    def read(self, sample: Sample, box: Box, layers: range | None = None) -> StoredArrays:
        """Read a box of a patch, with some of its layers in depth order; None takes all."""
        files, row = self._files[sample.split], row_of(sample.id)
        deep = np.moveaxis(files.images[(row, *box.slices)], -1, 0)
        deep = in_order(deep, self._order)
        chosen = deep if layers is None else deep[layers.start : layers.stop]
        labels = np.array(files.labels[(row, *box.slices)])
        return StoredArrays(np.ascontiguousarray(chosen), labels, np.zeros_like(labels))


def row_of(sample_id: str) -> int:
    """Return the row of a sample in the files of its split."""
    return int(sample_id.rsplit("-", 1)[1])


@dataclass(frozen=True)
class PatchSamples:
    """Samples of a pack.

    Attributes:
        segments: The segments that patches were cut from.
        samples: Training patches, then those that validate.
        layers: Layers of a patch.
        sample_px: Edge of a patch.
        left_out: Training patches that were dropped because they show pixels of a validation patch.
        is_placed: True if the pack says where each patch lies, so that leakage was looked for.
    """

    segments: tuple[DatasetSegment, ...]
    samples: tuple[Sample, ...]
    layers: int
    sample_px: int
    left_out: int
    is_placed: bool


def take_patches(pack: PatchPack, root: Location) -> PatchSamples:
    """List a pack's patches; its labels are read once, and leakage is looked for where places are known.

    Raises:
        DataError: Files that are missing or do not fit each other, or training patches that show held-out pixels.
    """
    folder = Location.parse(pack.folder)
    files = {split: PatchFiles.open(folder, prefix) for split, prefix in PREFIXES.items()}
    shape = files["train"].images.shape[1:]
    if files["validation"].images.shape[1:] != shape:
        raise MismatchError(
            f"{folder}: expected patches of one size, got {shape} in train_images.npy and "
            f"{files['validation'].images.shape[1:]} in val_images.npy; build the pack again"
        )
    is_placed = all(one.boxes is not None and one.segments is not None for one in files.values())
    names = _segment_names(folder, files) if is_placed else []
    samples: list[Sample] = []
    soft = False
    for split, one in files.items():
        found, are_soft = _samples(split, one, names, folder)
        samples, soft = samples + found, soft or are_soft
    kept = _without_leaks(samples, pack, folder) if is_placed else samples
    shown: dict[str, list[int]] = {}
    for sample in kept:
        edge = shown.setdefault(sample.segment, [0, 0])
        edge[:] = max(edge[0], sample.box[2]), max(edge[1], sample.box[3])
    sums = read_sums(folder) if pack.verify else {}
    segments = tuple(
        DatasetSegment(
            id=name,
            surface=relative_to(folder, root),
            ink_labels=relative_to(folder, root),
            kind="patches",
            source=folder.name,
            labels="soft" if soft else None,
            source_layers=(0, shape[2]),
            shape_yx=(shown[name][0], shown[name][1]),
            voxel_size_um=pack.voxel_size_um,
            digest=digest(sums) if sums else "",
        )
        for name in sorted(shown)
    )
    return PatchSamples(segments, tuple(kept), shape[2], shape[0], len(samples) - len(kept), is_placed)


def _samples(split: SplitName, files: PatchFiles, names: Sequence[str], folder: Location) -> tuple[list[Sample], bool]:
    """List the patches of one split; True if some label is neither 0 nor 255."""
    count, height, width, _ = files.images.shape
    soft = False
    samples = []
    for start in range(0, count, ROWS_AT_ONCE):
        rows = range(start, min(count, start + ROWS_AT_ONCE))
        labels = files.labels[rows.start : rows.stop]
        soft = soft or bool(((labels > 0) & (labels < LABEL_MAX)).any())
        ink = np.round((labels >= INK_LABEL).mean(axis=(1, 2)), SHARE_DIGITS).tolist()
        places = _places(split, files, rows, names, (height, width), folder)
        for row, share, (segment, box) in zip(rows, ink, places, strict=True):
            name = f"{PREFIXES[split]}-{row:07d}"
            samples.append(Sample(id=name, segment=segment, box=box, split=split, ink_share=share, papyrus_share=1.0))
    return samples, soft


def _places(
    split: SplitName,
    files: PatchFiles,
    rows: range,
    names: Sequence[str],
    shape_yx: tuple[int, int],
    folder: Location,
) -> Iterator[tuple[str, tuple[int, int, int, int]]]:
    """Yield (segment, box) of patches; where no place is known, patches stand below each other."""
    height, width = shape_yx
    if files.boxes is None or files.segments is None or not names:
        yield from ((f"{PREFIXES[split]}-patches", (row * height, 0, (row + 1) * height, width)) for row in rows)
        return
    boxes, numbers = (array[rows.start : rows.stop].tolist() for array in (files.boxes, files.segments))
    for row, (x0, y0, x1, y1), number in zip(rows, boxes, numbers, strict=True):
        if (y1 - y0, x1 - x0) != shape_yx or min(x0, y0) < 0:
            raise MismatchError(
                f"{folder}: expected boxes x0, y0, x1, y1 of {width} x {height} px in {PREFIXES[split]}_xyxys.npy, got "
                f"{[x0, y0, x1, y1]} in row {row}; build the pack again"
            )
        yield names[number], (y0, x0, y1, x1)


def _segment_names(folder: Location, files: Mapping[SplitName, PatchFiles]) -> list[str]:
    """Read ``segments.json``: a list of names or of mappings with one, or a mapping between numbers and names."""
    place = folder / SEGMENTS_NAME
    document = place.read_json()
    names = [_name(one) for one in _listed(document)]
    if not names or not all(names):
        raise DataError(
            f"{place}: expected the names of segments, as a list or by number from 0, got {str(document)[:80]}; copy "
            "the pack again"
        )
    most = max(int(np.max(one.segments)) for one in files.values() if one.segments is not None and len(one.segments))
    least = min(int(np.min(one.segments)) for one in files.values() if one.segments is not None and len(one.segments))
    if least < 0 or most >= len(names):
        raise MismatchError(
            f"{place}: expected names for segments {least} to {most}, got {len(names)}; copy the pack again"
        )
    return names


def _listed(document: Any) -> list[Any]:
    """Bring the entries of ``segments.json`` into the order of their numbers, which count from 0."""
    if not isinstance(document, dict):
        return document if isinstance(document, list) else []
    rows = [(value, key) if isinstance(value, int) else (key, value) for key, value in document.items()]
    by_number = {str(number): entry for number, entry in rows}
    return [by_number.get(str(number)) for number in range(len(rows))]


def _name(entry: Any) -> str:
    if isinstance(entry, dict):
        entry = next((entry[key] for key in NAME_KEYS if key in entry), "")
    return entry if isinstance(entry, str) else ""


def _without_leaks(samples: list[Sample], pack: PatchPack, folder: Location) -> list[Sample]:
    """Drop, or refuse, training patches that show pixels of a validation patch of the same segment."""
    trains, validates = ([s for s in samples if s.split == split] for split in PREFIXES)
    surface_of = {sample.segment: sample.segment for sample in samples}
    leaks = find_leaks(trains, validates, surface_of, 0)
    if pack.overlap == "refuse":
        require_no_leaks(leaks, f"patches {folder}", 0, "set patches.overlap=drop to leave them out")
    return [sample for sample in samples if sample.id not in leaks.training]


def read_sums(folder: Location) -> dict[str, str]:
    """Read ``SHA256SUMS``: digests by file name.

    Raises:
        DataError: It is not there, is damaged, or does not list a file that is read.
    """
    place = folder / SUMS_NAME
    try:
        lines = place.read_bytes().decode("utf-8", "replace").splitlines()
    except FileNotFoundError as error:
        raise DataError(
            f"{place}: expected the digests of the pack's files, got nothing; copy it, or set patches.verify=false"
        ) from error
    sums: dict[str, str] = {}
    for line in filter(str.strip, lines):
        match = SUM_LINE.fullmatch(line.strip())
        if match is None:
            raise CorruptDataError(f"{place}: expected lines of a digest and a name, got {line[:80]!r}; copy it again")
        sums[match[2]] = match[1].lower()
    there = set(folder.sizes())
    read = {f"{prefix}_{name}.npy" for prefix in PREFIXES.values() for name in ("images", "labels", "xyxys", "seg_idx")}
    missing = sorted((read | {SEGMENTS_NAME}) & there - set(sums))
    if missing:
        raise DataError(f"{place}: expected a digest of {missing[0]}, got none; copy it again")
    gone = sorted(set(sums) - there)
    if gone:
        raise DataError(f"{folder}: expected {gone[0]}, which {SUMS_NAME} lists, got nothing; copy the pack again")
    return sums


def require_sum(place: Location, wanted: str) -> int:
    """Compare a file with its digest, piece by piece; returns its bytes.

    Raises:
        CorruptDataError: They differ.
    """
    found, size = hashlib.sha256(), place.size()
    for start in range(0, size, HASHED_BYTES):
        found.update(place.read_range(start, min(size, start + HASHED_BYTES)))
    if found.hexdigest() != wanted:
        raise CorruptDataError(
            f"{place}: expected SHA-256 {wanted} as {SUMS_NAME} says, got {found.hexdigest()}; copy the file again"
        )
    return size
