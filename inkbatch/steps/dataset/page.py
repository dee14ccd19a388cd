"""Page of a dataset: samples with their labels, their places in the segments, and the split."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.data.datasets.index import DatasetIndex, Sample, training, validating
from inkbatch.data.labels.ink import INK_LABEL
from inkbatch.io.store.location import Location
from inkbatch.reports.charts.shapes import Axis
from inkbatch.reports.charts.svg import bar_chart
from inkbatch.reports.page import Chart, Code, Figure, Gallery, Page, Picture, Pixels, Promise, Section, Table, Words
from inkbatch.reports.picture_words import in_picture_words
from inkbatch.reports.stored import RERUN, interruptions, links, money, pixels
from inkbatch.reports.timing import spent
from inkbatch.run.finished import StoredRun

FILES = (
    ("README.md", "the data card"),
    ("index.json", "every sample; what train opens"),
    ("samples.zarr", "the samples, cut out"),
    ("labels.zarr", "their labels"),
    ("ignore.zarr", "what does not count in them"),
    ("splits.json", "who trains and who validates"),
    ("coco.json", "the samples as COCO boxes"),
    ("previews", "pictures of segments and samples"),
    ("boxes", "boxes around ink"),
    ("manifest.json", "settings and inputs"),
    ("run.json", "seconds, bytes, machine"),
)
FORMS = {
    "pack": "were cut out",
    "index": "were marked (they stay in their segments)",
    "patches": "were taken as patches of a pack",
}
STAGES = ("opening segments and taking samples", None, "packing", "drawing and finishing")
INK, IGNORED = (64, 224, 255), (255, 94, 190)  # outlines, as the viewer has them
TILE_PX = 256
INK_STEPS = ((0.0, "none"), (0.02, "to 2 %"), (0.05, "to 5 %"), (0.1, "to 10 %"), (0.2, "to 20 %"), (1.0, "more"))
LITTLE_INK = 0.01
FEW = 20  # samples that validate


def page(run: StoredRun, root: Location) -> Page:
    """Make the page of a dataset.

    Args:
        run: The run, in ``ROOT/datasets/{dataset}``.
        root: Not needed.

    Raises:
        DataError: The index was edited or is not there.
    """
    index = DatasetIndex.open(run.folder)
    facts = (run.folder / "complete.json").read_mapping()
    rounds = _rounds(index)
    contract = index.contract
    segments = f"{len(index.segments)} segment{'s' if len(index.segments) != 1 else ''}"
    packed = FORMS[index.form]
    is_placed = run.manifest["inputs"].get("placed", True)
    apart = "split so that no pixel is both learned and tested" if is_placed else "split as the pack states it"
    ink = _mean_ink(index.samples)
    card = run.manifest["config"].get("card", {})
    train = f"inkbatch train --dataset {index.name} --run {index.name} --set model.architecture=smp --root ROOT"
    said = () if not card.get("description") else (Words(str(card["description"])),)
    made = Page(
        job="build-dataset",
        title=str(card.get("title") or index.name),
        sentence=(
            f"{len(index.samples):,} samples of {index.sample_px} px {packed} from {segments} with ink labels, and "
            f"{apart}."
        ),
        hero=(*_overviews(run.folder, index), _ink_chart(index, rounds)),
        figures=(
            Figure(
                f"{len(index.samples):,}", "samples", f"{facts.get('left_out', 0):,} were left out at split borders"
            ),
            *(
                Figure(f"{len(samples):,}", name, f"{_mean_ink(samples):.1%} ink")
                for name, samples in rounds
                if samples
            ),
            Figure(f"{ink:.1%}", "ink", "share of all sample pixels"),
            Figure(f"{sum(s.ink_share == 0 for s in index.samples):,}", "without ink", "bare papyrus teaches, too"),
            Figure(f"{contract.layer_count}", "layers", f"{_um(contract.voxel_size_um)}, {contract.dtype}"),
            *_leak(facts.get("held_out", {})),
            *money(run),
        ),
        warnings=(*_warnings(index, rounds, str(card.get("licence", "not stated"))), *interruptions(run)),
        contract=_contract(index),
        contract_caption="What all segments must have in common; a bundle that is trained on it asks for the same.",
        spent=spent(run.rows, STAGES),
        sections=(
            Section("Samples and their labels", (Words(SAMPLES), *said, _mosaic(run.folder, index))),
            Section("Segments", (_segments(index),)),
            Section("Splits", (_splits(rounds),)),
            Section("Use it", (Code(train), Words(USE))),
        ),
        repeat=RERUN,
        repeat_note="The same segments, labels and settings give the same bytes; other labels are noticed by digest.",
        files=links(run.folder, FILES),
    )
    return in_picture_words(made) if index.is_pictures else made


USE = (
    "ROOT is the folder or s3:// address that this dataset lies in. The network is a U-Net; inkbatch presets "
    "lists whole ways of training, and --set and --config take settings of your own."
)
SAMPLES = "Each sample's middle layer; ink labels are outlined in light blue, what is ignored in pink."


def _um(size: float | None) -> str:
    return "scale not stated" if size is None else f"{size:g} µm"


def _width_um(width_px: int, pixel_um: float | None) -> float | None:
    """Width for a scale bar; None, and no bar, where no scale is stated."""
    return None if pixel_um is None else width_px * pixel_um


def _leak(held_out: dict[str, dict[str, int]]) -> tuple[Figure, ...]:
    """Say which share of the held-out pixels the moat around validation masks keeps from leaking."""
    pixels, near = (sum(row[key] for row in held_out.values()) for key in ("pixels", "near"))
    if not pixels:
        return ()
    return (Figure(f"{near / pixels:.0%}", "kept from leaking", "held-out pixels within one sample of what trains"),)


def _rounds(index: DatasetIndex) -> list[tuple[str, list[Sample]]]:
    test = [sample for sample in index.samples if sample.split == "test"]
    if not index.fold_count:
        held = [sample for sample in index.samples if sample.split == "validation"]
        train = [sample for sample in index.samples if sample.split == "train"]
        return [("training", train), ("validation", held), ("test", test)]
    rows = []
    for fold in range(index.fold_count):
        rows.append((f"fold {fold} trains", training(index.samples, fold, index.dropped.get(str(fold), ()))))
        rows.append((f"fold {fold} validates", validating(index.samples, fold)))
    return [*rows, ("test", test)]


def _mean_ink(samples: Sequence[Sample]) -> float:
    return float(np.mean([sample.ink_share for sample in samples])) if samples else 0.0


def _overviews(folder: Location, index: DatasetIndex) -> list[Picture]:
    listed = []
    colours = "one colour for each fold" if index.fold_count else "blue trains, orange validates, pink tests"
    for segment in index.segments[:3]:
        found = pixels(folder / "previews" / f"segment-{segment.id}.png")
        if found is not None:
            factor = -(-segment.shape_yx[1] // found.shape[1])
            listed.append(
                Picture(
                    found,
                    alt=f"Segment {segment.id} with its labels and the boxes of its samples.",
                    caption=(
                        f"{segment.id}: papyrus grey, ink labels white, ignored papyrus dark red; boxes are samples "
                        f"({colours})."
                    ),
                    width_um=_width_um(found.shape[1] * factor, segment.voxel_size_um),
                    crisp=True,
                )
            )
    return listed


def _ink_chart(index: DatasetIndex, rounds: Sequence[tuple[str, list[Sample]]]) -> Chart:
    names = [name for _, name in INK_STEPS]
    shown = rounds if not index.fold_count else [("all samples", list(index.samples))]
    bars = {}
    for name, samples in shown:
        if samples:
            bars[name] = [100 * count / len(samples) for count in _steps(samples)]
    return bar_chart(
        "How much ink the samples hold: share of each split's samples, by the share of their pixels that is ink.",
        "Share of samples by ink: " + "; ".join(f"{name}: {row[0]:.0f} % hold none" for name, row in bars.items()),
        Axis("% of samples", low=0),
        names,
        bars,
    )


def _steps(samples: Sequence[Sample]) -> NDArray[np.int64]:
    places = np.searchsorted([edge for edge, _ in INK_STEPS], [sample.ink_share for sample in samples])
    return np.bincount(places, minlength=len(INK_STEPS))


def _mosaic(folder: Location, index: DatasetIndex) -> Gallery:
    known = {f"sample-{sample.id}.png": sample for sample in index.samples}
    pictures = []
    for name in (folder / "previews").names():
        found = pixels(folder / "previews" / name) if name in known else None
        if found is not None:
            pictures.append(_sample(known[name], found, index))
    return Gallery(tuple(pictures), 9)


def _sample(sample: Sample, stored: Pixels, index: DatasetIndex) -> Picture:
    """Turn a stored preview (layer, labels and ignore mask side by side) into one picture."""
    layer, labels, ignore = np.split(stored, 3, axis=1)
    low, high = np.percentile(layer, (1, 99))
    grey = np.clip((layer.astype(np.float32) - low) / max(float(high - low), 1.0), 0, 1) * 255
    times = max(1, -(-TILE_PX // max(layer.shape)))
    drawn = np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=2).repeat(times, 0).repeat(times, 1)
    for plane, colour in ((ignore, IGNORED), (labels, INK)):
        large = (plane >= INK_LABEL).astype(np.uint8).repeat(times, 0).repeat(times, 1)
        found, _ = cv2.findContours(large, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, found, -1, colour, 2 if times > 1 else 1)
    role = (
        f"fold {sample.fold}"
        if sample.fold is not None
        else {"train": "trains", "validation": "validates"}.get(sample.split, "tests")
    )
    height, width = sample.shape_yx
    return Picture(
        drawn,
        alt=f"Sample {sample.id}: {sample.ink_share:.0%} ink.",
        caption=f"{sample.id} · {role} · {sample.ink_share:.0%} ink",
        width_um=_width_um(width, index.contract.voxel_size_um),
        crisp=max(height, width) <= TILE_PX // 2,
    )


def _warnings(index: DatasetIndex, rounds: Sequence[tuple[str, list[Sample]]], licence: str) -> list[str]:
    listed = []
    if licence == "not stated":
        listed.append("No licence is stated: say in the card (card.licence) under which terms others may use it.")
    for name, samples in rounds:
        validates = "validat" in name
        if samples and _mean_ink(samples) < LITTLE_INK:
            listed.append(f"{name}: only {_mean_ink(samples):.2%} of its pixels are ink.")
        if validates and 0 < len(samples) < FEW:
            listed.append(f"{name}: {len(samples)} samples only; scores will jump about.")
    held = {segment for name, samples in rounds if "validat" in name for s in samples for segment, _ in s.sources}
    if not index.fold_count and len(index.segments) > 1 and len(held) == 1:
        listed.append(f"Only segment {next(iter(held))} validates: scores speak for that one alone.")
    shares = {s.id: [one.ink_share for one in index.samples if one.segment == s.id] for s in index.segments}
    empty = [name for name, found in shares.items() if not found]
    if empty:
        listed.append(f"No sample comes from {', '.join(empty)}.")
    return listed


def _contract(index: DatasetIndex) -> tuple[Promise, ...]:
    contract, segments = index.contract, index.segments
    sizes = sorted({segment.voxel_size_um for segment in segments if segment.voxel_size_um is not None})
    when = "compared when the segments were opened"
    return (
        Promise("layers", f"{contract.layer_count}", "as many in every segment", when),
        Promise("dtype", contract.dtype, "the same in all", when),
        Promise("grey values", ", ".join(contract.intensity), "rules that were seen", "noted for the bundle"),
        Promise(
            "voxel size",
            f"{_um(contract.voxel_size_um)} within 5 %" if sizes else "not stated",
            " to ".join(f"{size:g} µm" for size in ([sizes[0], sizes[-1]] if len(sizes) > 1 else sizes)) or "none",
            when,
        ),
        *(
            ()
            if contract.lut is None and contract.clahe is None
            else (Promise("enhancement", "the same in all", "lookup table or CLAHE as stated", when),)
        ),
        Promise(
            "no leakage",
            "no training sample sees a held-out pixel",
            f"{sum(map(len, index.dropped.values())):,} samples sit out in some fold" if index.dropped else "none does",
            "every pair of boxes was compared",
        ),
        Promise("digest", index.digest[:12], "fits the index", "computed again for this page"),
    )


def _segments(index: DatasetIndex) -> Table:
    rows = []
    for segment in index.segments:
        own = [s for s in index.samples if s.parts is None and s.segment == segment.id]
        start, stop = segment.layers or segment.source_layers
        height, width = segment.shape_yx
        ignore = "yes" if segment.ignore_mask else "no"
        size, ink = f"{width:,} × {height:,}", f"{_mean_ink(own):.1%}"
        rows.append((segment.id, segment.source, f"{start}:{stop}", size, ignore, f"{len(own):,}", ink))
    columns = ("segment", "from", "layers", "size (width × height)", "ignore mask", "samples", "ink")
    return Table("Where the samples come from.", columns, tuple(rows), frozenset({5, 6}))


def _splits(rounds: Sequence[tuple[str, list[Sample]]]) -> Table:
    rows = []
    for name, samples in (row for row in rounds if row[1]):
        bare, segments = sum(s.ink_share == 0 for s in samples), {one for s in samples for one, _ in s.sources}
        rows.append((name, f"{len(samples):,}", f"{bare:,}", f"{_mean_ink(samples):.1%}", f"{len(segments)}"))
    columns = ("split", "samples", "without ink", "ink", "segments")
    return Table("Who learns and who is tested.", columns, tuple(rows), frozenset({1, 2, 3, 4}))
