"""Files beside a dataset's index, for people and programs: data card, pictures, ``splits.json``, ``coco.json``.

All of it follows from the index and the pixels alone: equal datasets give equal files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from inkbatch.config import JobConfig
from inkbatch.data.datasets.index import DatasetIndex, Sample, training, validating
from inkbatch.data.datasets.sample_reader import SampleReader
from inkbatch.data.datasets.segment_arrays import SegmentArrays
from inkbatch.geometry import Box
from inkbatch.io.pictures.png import png_bytes
from inkbatch.io.store.location import Location

OVERVIEW_PX = 1600
PNG_EFFORT = 6
# Blue, green, red. Okabe and Ito's colours keep apart for every kind of colour-blindness.
SPLIT_COLOURS = {"train": (233, 180, 86), "validation": (0, 159, 230), "test": (167, 121, 204)}
FOLD_COLOURS = ((233, 180, 86), (0, 159, 230), (167, 121, 204), (66, 228, 240), (115, 158, 0), (0, 94, 213))
NOT_STATED = "not stated"


class CardConfig(JobConfig):
    """Texts of a data card, beside its numbers.

    Attributes:
        title: Heading; None is the dataset's name.
        description: Content and purpose.
        licence: Under which terms samples and labels may be used.
        sources: Origin and rights of the scans and labels, one line each.
        previews: Samples that are shown.
    """

    title: str | None = None
    description: str = ""
    licence: str = NOT_STATED
    sources: tuple[str, ...] = ()
    previews: int = Field(8, ge=0, le=64)


def splits_document(index: DatasetIndex) -> dict[str, Any]:
    """List the sample ids of each split; with folds, one entry per fold."""
    rounds: list[tuple[Sequence[Sample], Sequence[Sample]]]
    if index.fold_count:
        rounds = [
            (index.samples_of("train", fold), index.samples_of("validation", fold)) for fold in range(index.fold_count)
        ]
    else:
        rounds = [(index.samples_of("train"), index.samples_of("validation"))]
    lists = [{"train": [s.id for s in train], "validation": [s.id for s in held_out]} for train, held_out in rounds]
    test = [s.id for s in index.samples if s.split == "test"]
    return (
        {"dataset": index.name, "folds": lists, "test": test}
        if index.fold_count
        else {"dataset": index.name, **lists[0], "test": test}
    )


def coco_document(index: DatasetIndex) -> dict[str, Any]:
    """Return samples as COCO annotations (bbox: x, y, width, height) on one image per segment, without pairs."""
    numbers = {segment.id: number for number, segment in enumerate(index.segments, start=1)}
    images = [
        {"id": numbers[s.id], "file_name": f"{s.id}.png", "height": s.shape_yx[0], "width": s.shape_yx[1]}
        for s in index.segments
    ]
    annotations = []
    for number, sample in enumerate((s for s in index.samples if s.parts is None), start=1):
        box = sample.area
        entry = {
            "id": number,
            "image_id": numbers[sample.segment],
            "category_id": 1,
            "bbox": [box.x0, box.y0, box.width, box.height],
            "area": box.area,
            "iscrowd": 0,
            "segmentation": [],
            "sample": sample.id,
            "split": sample.split,
            "ink_share": sample.ink_share,
        }
        annotations.append(entry if sample.fold is None else {**entry, "fold": sample.fold})
    categories = [{"id": 1, "name": "sample"}]
    return {"info": {"description": index.name}, "images": images, "annotations": annotations, "categories": categories}


def card_text(
    index: DatasetIndex, card: CardConfig, left_out: int, pictures: Sequence[str], held_out: Sequence[str] = ()
) -> str:
    """Write the data card as Markdown.

    Args:
        index: The dataset.
        card: Texts of the card.
        left_out: Samples that the split dropped.
        pictures: Names of the pictures beside it.
        held_out: What is held out by masks, a line each.
    """
    contract = index.contract
    scale = "scale not stated" if contract.voxel_size_um is None else f"{contract.voxel_size_um:g} µm"
    lines = [f"# {card.title or index.name}", "", *([card.description, ""] if card.description else [])]
    lines += [
        f"- **form**: {index.form}, {len(index.samples)} samples of {index.sample_px} px, {contract.layer_count} "
        f"layers, {contract.dtype}, grey values `{', '.join(contract.intensity)}`, {scale}",
        f"- **licence**: {card.licence}",
        f"- **digest**: `{index.computed_digest()}`",
        "",
        "## Sources",
        "",
        *[f"- {line}" for line in card.sources],
        *([""] if card.sources else []),
        "| segment | from | layers | size (height × width) | samples | ink share |",
        "|---|---|---|---|---|---|",
    ]
    samples_of: dict[str, list[Sample]] = {}
    for sample in index.samples:
        if sample.parts is None:
            samples_of.setdefault(sample.segment, []).append(sample)
    for segment in index.segments:
        own = samples_of.get(segment.id, [])
        start, stop = segment.layers or segment.source_layers
        height, width = segment.shape_yx
        lines.append(
            f"| {segment.id} | {segment.source} | {start}:{stop} | {height} × {width} | {len(own)} | {_ink(own)} |"
        )
    lines += ["", "## Splits", "", "| split | samples | without ink | ink share |", "|---|---|---|---|"]
    for name, samples in _rounds(index):
        bare = sum(s.ink_share == 0 for s in samples)
        lines.append(f"| {name} | {len(samples)} | {bare} | {_ink(samples)} |")
    lines += ["", f"{left_out} samples were left out: they see held-out pixels, or lie in a buffer.", ""]
    if held_out:
        lines += ["Held out by validation masks:", "", *(f"- {line}" for line in held_out), ""]
    if pictures:
        lines += ["## Pictures", "", "Each sample: middle layer, labels, what is ignored (white).", ""]
        lines += [f"![{name}](previews/{name})" for name in pictures]
        lines.append("")
    return "\n".join(lines)


def write_previews(
    index: DatasetIndex, reader: SampleReader, arrays: Mapping[str, SegmentArrays], folder: Location, count: int
) -> list[str]:
    """Write a picture of each segment with its samples, and of some samples; returns their names."""
    names = []
    if index.segments[0].kind == "surface":
        for segment in index.segments:
            own = [s for s in index.samples for name, _ in s.sources if name == segment.id]
            name = f"segment-{segment.id}.png"
            (folder / name).write_bytes(
                png_bytes(_overview(arrays[segment.id], segment.id, own)[..., ::-1], PNG_EFFORT)
            )
            names.append(name)
    step = max(1, len(index.samples) // max(1, count))
    for sample in index.samples[::step][:count]:
        name = f"sample-{sample.id}.png"
        (folder / name).write_bytes(png_bytes(_sample_picture(reader, sample), PNG_EFFORT))
        names.append(name)
    return names


def _rounds(index: DatasetIndex) -> list[tuple[str, list[Sample]]]:
    rows: list[tuple[str, list[Sample]]] = []
    if index.fold_count:
        for fold in range(index.fold_count):
            dropped = index.dropped.get(str(fold), ())
            rows.append((f"fold {fold}: train", training(index.samples, fold, dropped)))
            rows.append((f"fold {fold}: validation", validating(index.samples, fold)))
    else:
        rows = [("train", index.samples_of("train")), ("validation", index.samples_of("validation"))]
    return [*rows, ("test", index.samples_of("test"))]


def _ink(samples: Sequence[Sample]) -> str:
    if not samples:
        return "none"
    return f"{float(np.mean([s.ink_share for s in samples])):.2%}"


def _overview(arrays: SegmentArrays, segment: str, samples: Sequence[Sample]) -> NDArray[np.uint8]:
    """Draw a segment (Y, X, 3): papyrus grey, ink white, ignored red, samples in the colour of split or fold."""
    height, width = arrays.shape_yx
    factor = max(1, -(-max(height, width) // OVERVIEW_PX))
    rows = []
    for y0 in range(0, height, 256 * factor):
        box = Box(y0, 0, min(height, y0 + 256 * factor), width)
        labels, ignore = (plane[::factor, ::factor] for plane in arrays.read_flat(box))
        papyrus = arrays.read_mask(box)[::factor, ::factor]
        band = np.zeros((*papyrus.shape, 3), np.uint8)
        band[papyrus] = 90
        band[papyrus] += (labels[papyrus, None] * 0.6).astype(np.uint8)
        band[papyrus & (ignore != 0)] = (60, 60, 150)
        rows.append(band)
    picture = np.ascontiguousarray(np.concatenate(rows))
    for sample in samples:
        colour = SPLIT_COLOURS[sample.split] if sample.fold is None else FOLD_COLOURS[sample.fold % len(FOLD_COLOURS)]
        for name, box in sample.sources:
            if name == segment:
                first, last = (box.x0 // factor, box.y0 // factor), ((box.x1 - 1) // factor, (box.y1 - 1) // factor)
                cv2.rectangle(picture, first, last, colour, 1)
    return picture


def _sample_picture(reader: SampleReader, sample: Sample) -> NDArray[np.uint8]:
    found = reader.read_stored(sample)
    layer = found.layers[len(found.layers) // 2]
    if layer.dtype == np.uint16:
        layer = (layer >> 8).astype(np.uint8)
    return np.concatenate([layer, found.labels, found.ignore * np.uint8(255)], axis=1)
