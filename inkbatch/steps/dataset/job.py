"""`inkbatch build-dataset`: labelled segments (or folders of pictures) become a dataset that anyone can rebuild."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from inkbatch.config import digest, is_pattern, matching
from inkbatch.data.datasets.assembling import Assembled, assemble
from inkbatch.data.datasets.box_sources import with_all_boxes, write_ink_boxes
from inkbatch.data.datasets.counting import content_digest
from inkbatch.data.datasets.current import patches_state, segments_now, segments_state
from inkbatch.data.datasets.data_card import card_text, coco_document, splits_document, write_previews
from inkbatch.data.datasets.held_out import held_out_lines
from inkbatch.data.datasets.image_folders import import_folders
from inkbatch.data.datasets.index import DatasetIndex, DatasetSegment, SplitName, marked_new, relative_to, resolve
from inkbatch.data.datasets.ink_boxes import InkBox
from inkbatch.data.datasets.packing import PackLayout, pack_work
from inkbatch.data.datasets.patch_packs import PatchPack, read_sums, require_sum, take_patches
from inkbatch.data.datasets.same_pixels import surfaces_of
from inkbatch.data.datasets.sample_reader import SampleReader
from inkbatch.data.datasets.segment_arrays import SegmentArrays, open_segment
from inkbatch.data.datasets.surface_contract import surface_contract
from inkbatch.data.datasets.zones import HeldOut
from inkbatch.data.labels.ignore import NO_MASK
from inkbatch.data.segments.catalog import check_segment_id
from inkbatch.data.segments.prepared import require_same_surface, segment_folder
from inkbatch.errors import ConfigError, DataError
from inkbatch.geometry import Box, Unit
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume
from inkbatch.reports.leave import leave_report
from inkbatch.reports.picture_words import picture_text
from inkbatch.run.job import JobReport, RunContext, run_job
from inkbatch.run.pipeline import UnitWork
from inkbatch.run.record import RunFolder, RunManifest, require_complete
from inkbatch.steps.dataset.page import page as report_page
from inkbatch.steps.dataset.settings import NO_RESULT, OF_SEGMENTS, BuildDatasetConfig, SegmentChoice
from inkbatch.text import count_text


@dataclass(frozen=True)
class DatasetPlan:
    """Everything that is known before a sample is cut out.

    Attributes:
        config: The job's settings.
        index: The dataset in its form ``index``.
        arrays: The opened segments.
        left_out: Samples that the split dropped.
        held_out: Held-out pixels by segment, where validation masks make the split.
        ink_boxes: Boxes around ink components, by segment id, where the sampling asks for them.
        labels: ``ink_labels.zarr`` of each prepared segment.
        layout: How the pack is cut, or None.
        folder: ``ROOT/datasets/{name}``.
        manifest: The run's manifest.
        sums: SHA-256 of the files of a patch pack that are to be verified, by name.
    """

    config: BuildDatasetConfig
    index: DatasetIndex
    arrays: Mapping[str, SegmentArrays]
    left_out: int
    held_out: Mapping[str, HeldOut]
    ink_boxes: Mapping[str, list[InkBox]]
    labels: Mapping[str, Multiscale]
    layout: PackLayout | None
    folder: Location
    manifest: RunManifest
    sums: Mapping[str, str] = field(default_factory=dict)

    @property
    def units(self) -> list[Unit]:
        """The units of a pack, or the files to verify; none where samples stay in their segments."""
        if self.layout:
            return self.layout.units()
        boxes = [Box(number, 0, number + 1, 1) for number in range(len(self.sums))]
        return [Unit(number, box, box) for number, box in enumerate(boxes)]

    @property
    def record(self) -> RunFolder:
        """The run."""
        return RunFolder(self.folder, self.manifest)


def make_plan(config: BuildDatasetConfig) -> DatasetPlan:
    """Open the segments, take the samples, split and check them. Reads masks and labels; writes nothing.

    Raises:
        ConfigError: Settings that contradict each other or name what is not there.
        DataError: Segments or labels that are not whole, that cannot be mixed, an empty split, no ink, or leakage.
    """
    root = Location.parse(config.root)
    if config.patches is not None:
        return _patch_plan(config, config.patches, root)
    config = with_named_segments(config, root)
    folder = Location.parse(config.output_root or config.root) / "datasets" / config.name
    surfaces: dict[str, SurfaceVolume] = {}
    given: dict[str, SplitName] = {}
    pictures: dict[str, str] = {}
    if config.images is not None:
        imported = import_folders(config.images, root)
        segments, given, pictures = list(imported.segments), imported.split_of, imported.pixels_of
    else:
        for choice in config.segments:
            surfaces[choice.id] = SurfaceVolume.open(_prepared(config.root, choice.id))
        segments = [_segment(config, choice, surfaces[choice.id]) for choice in config.choices]
    contract = surface_contract(segments, surfaces)
    arrays = {segment.id: open_segment(segment, root) for segment in segments}
    surface_of = surfaces_of(segments, surfaces, pictures)
    labels = {s.id: Multiscale.open(resolve(s.ink_labels, root)) for s in segments if s.kind == "surface"}
    plan, around = _with_boxes(config, {s.id: s.shape_yx for s in segments}, labels)
    taken: Assembled = assemble(segments, arrays, plan, surface_of, given)
    older = None if config.newer_than is None else DatasetIndex.open(_dataset(config.newer_than, root))
    index = DatasetIndex(
        name=config.name,
        sample_px=config.sample_px,
        contract=contract,
        segments=tuple(segments),
        samples=taken.samples if older is None else marked_new(taken.samples, older.samples),
        dropped=taken.dropped,
        config=config.model_dump(mode="json", exclude=NO_RESULT, exclude_none=True),
    )
    layout = PackLayout.of(index, config.unit_samples) if config.form == "pack" else None
    settings = dict(index.config)
    if layout is not None:
        settings["unit_samples"] = layout.unit_samples
    contents = {segment.id: content_digest(arrays[segment.id]) for segment in segments}
    inputs = {"labels": contents, "index": index.computed_digest()}
    state = segments_state(config.root, surfaces)
    units = len(layout.units()) if layout else 0
    now = partial(segments_now, config.root, surfaces)
    manifest = RunManifest("build-dataset", settings, inputs, units, _request(config), state, now)
    return DatasetPlan(config, index, arrays, taken.left_out, taken.held_out, around, labels, layout, folder, manifest)


def _patch_plan(config: BuildDatasetConfig, pack: PatchPack, root: Location) -> DatasetPlan:
    """Plan the dataset of a patch pack; see `make_plan`."""
    folder = Location.parse(config.output_root or config.root) / "datasets" / config.name
    taken = take_patches(pack, root)
    contract = surface_contract(taken.segments, {}).model_copy(update={"z_spacing_um": pack.z_spacing_um})
    index = DatasetIndex(
        name=config.name,
        sample_px=taken.sample_px,
        form="patches",
        contract=contract,
        segments=taken.segments,
        samples=taken.samples,
        config=config.model_dump(mode="json", exclude=NO_RESULT | OF_SEGMENTS, exclude_none=True),
    )
    sums = read_sums(Location.parse(pack.folder)) if pack.verify else {}
    inputs = {"index": index.computed_digest(), "sums": digest(sums), "placed": taken.is_placed}
    now = partial(patches_state, Location.parse(pack.folder))
    manifest = RunManifest("build-dataset", dict(index.config), inputs, len(sums), _request(config), now(), now)
    return DatasetPlan(config, index, {}, taken.left_out, {}, {}, {}, None, folder, manifest, sums)


def with_named_segments(config: BuildDatasetConfig, root: Location) -> BuildDatasetConfig:
    """Replace patterns among the segments, such as ``train-*``, by the prepared segments that they match, sorted.

    Raises:
        ConfigError: A pattern matches none, or a segment is listed twice.
    """
    if not any(is_pattern(choice.id) for choice in config.segments):
        return config
    there = [name for name in (root / "segments").names() if (root / "segments" / name / "prepare").exists()]
    found = [
        choice.model_copy(update={"id": name})
        for choice in config.segments
        for name in matching(choice.id, there, f"dataset {config.name}: segments prepared under {root}")
    ]
    names = [choice.id for choice in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"dataset {config.name}: {', '.join(twice)} are named twice; make the patterns narrower")
    return config.model_copy(update={"segments": tuple(found)})


def run(config: BuildDatasetConfig, context: RunContext) -> JobReport:
    """Build a dataset, or pack this shard's part of it.

    Raises:
        InkbatchError: See `make_plan`; storage that gave up; a stop signal.
    """
    plan = make_plan(config)
    record, units = plan.record, plan.units
    return run_job(
        record,
        units,
        lambda: _work(plan),
        context,
        lambda _: _finish(plan),
        lambda folder, note: leave_report(folder, note, report_page),
    )


def describe(config: BuildDatasetConfig) -> str:
    """Describe the plan, as lines of text; writes nothing, hence labels must have been made already."""
    plan = make_plan(config)
    index = plan.index
    counts = {name: sum(s.split == name for s in index.samples) for name in ("train", "validation", "test")}
    folds = f", {index.fold_count} folds" if index.fold_count else ""
    rows = [
        f"build-dataset {config.name}: {count_text(len(index.segments), 'segment')}, "
        f"{count_text(len(index.samples), 'sample')}",
        f"  samples       {', '.join(f'{count} {name}' for name, count in counts.items())}{folds}; "
        f"{plan.left_out} left out",
        f"  layers        {index.contract.layer_count}, {index.contract.dtype}",
        f"  form          {config.form if config.patches is None else index.form} at {plan.folder}",
    ]
    if config.patches is not None:
        placed = plan.manifest.inputs["placed"]
        rows.append(
            f"  leakage       {'none' if placed else 'not looked for: the pack states no places (xyxys, seg_idx)'}"
        )
        rows.append(f"  verifies      {count_text(len(plan.sums), 'file')} by SHA-256, {plan.record.state}")
    rows += [f"  held out      {line}" for line in held_out_lines(plan.held_out)]
    if plan.layout is not None:
        layout = plan.layout
        size = layout.count * layout.layers * layout.shape_yx[0] * layout.shape_yx[1]
        done = plan.record.state
        rows.append(f"  units         {len(plan.units)} of {layout.unit_samples} samples, {done}")
        rows.append(f"  writes        {size / 2**20:,.1f} million voxels (2^20) of {layout.dtype} before compression")
    return "\n".join(rows)


def summary(folder: Location) -> list[str]:
    """Sum up a finished dataset in lines of text: its samples by split, their ink, and where its card lies."""
    index = DatasetIndex.open(folder)
    lines = []
    for name in ("train", "validation", "test"):
        own = [sample for sample in index.samples if sample.split == name]
        if own:
            ink = sum(sample.ink_share for sample in own) / len(own)
            inked = sum(sample.ink_share > 0 for sample in own)
            lines.append(
                f"{name}: {count_text(len(own), 'sample')}, {inked:,} with ink; {ink:.1%} of the pixels are ink"
            )
    if index.fold_count:
        lines.append(f"folds: {index.fold_count}, each validates on its own samples")
    left_out = int((folder / "complete.json").read_json().get("left_out", 0))
    if left_out:
        lines.append(f"left out: {count_text(left_out, 'sample')} that see held-out pixels, or lie in a buffer")
    rows = (folder / "complete.json").read_json().get("held_out", {})
    lines += held_out_lines({name: HeldOut(row["pixels"], row["near"]) for name, row in rows.items()})
    said = [picture_text(line) for line in lines] if index.is_pictures else lines
    return [*said, f"card: {folder / 'README.md'}"]


def _work(plan: DatasetPlan) -> UnitWork[Any, Any]:
    if plan.config.patches is not None:
        return _verifying(Location.parse(plan.config.patches.folder), plan.sums, plan.record)
    if plan.layout is None:
        raise ConfigError(f"dataset {plan.config.name}: an index has no units to pack")
    root = Location.parse(plan.config.root)
    return pack_work(plan.index, plan.folder, plan.layout, plan.record, root)


def _verifying(folder: Location, sums: Mapping[str, str], record: RunFolder) -> UnitWork[Any, Any]:
    """Compare one file of a patch pack with its digest per unit."""
    names = sorted(sums)

    def load(unit: Unit) -> int:
        name = names[unit.write_box.y0]
        return require_sum(folder / name, sums[name])

    return UnitWork(load=load, compute=None, store=lambda unit, size: {"bytes_verified": size}, mark=record.mark)


def _finish(plan: DatasetPlan) -> Mapping[str, Any]:
    """Write the files beside the samples; the index last, so that it stands for a whole dataset."""
    config, folder = plan.config, plan.folder
    reader = SampleReader(plan.index, folder, root=Location.parse(config.root))
    form = plan.index.form if config.patches is not None else config.form
    index = plan.index.model_copy(update={"form": form})
    pictures = write_previews(plan.index, reader, plan.arrays, folder / "previews", config.card.previews)
    write_ink_boxes(folder / "boxes", plan.ink_boxes, plan.labels)
    (folder / "splits.json").write_json(splits_document(index))
    (folder / "coco.json").write_json(coco_document(index))
    (folder / "README.md").write_bytes(
        card_text(index, config.card, plan.left_out, pictures, held_out_lines(plan.held_out)).encode()
    )
    index = index.save(folder)
    facts = {"samples": len(index.samples), "left_out": plan.left_out, "index": index.digest}
    if plan.held_out:
        rows = {name: {"pixels": one.pixels, "near": one.near} for name, one in plan.held_out.items()}
        return {**facts, "held_out": rows}
    return facts


def _with_boxes(
    config: BuildDatasetConfig, shapes: Mapping[str, tuple[int, int]], labels: Mapping[str, Multiscale]
) -> tuple[BuildDatasetConfig, dict[str, list[InkBox]]]:
    """Write out every box of the configuration; return it with the boxes around ink."""
    sampling, around = with_all_boxes(config.sampling, shapes, labels)
    held_out = config.held_out_sampling
    if held_out is not None:
        held_out, others = with_all_boxes(held_out, shapes, labels)
        around = around or others
    return config.model_copy(update={"sampling": sampling, "held_out_sampling": held_out}), around


def _request(config: BuildDatasetConfig) -> dict[str, Any]:
    """Return the request, with absolute paths of files."""
    asked = config.request(catalog=_absolute(config.catalog))
    for labels in (asked.get("labels"), *(segment["labels"] for segment in asked.get("segments", ()))):
        for key in ("image", "supervision_mask", "validation_mask"):
            if labels and labels.get(key) not in (None, NO_MASK):
                labels[key] = Location.parse(labels[key]).uri
    if config.patches is not None:
        asked = {key: value for key, value in asked.items() if key not in OF_SEGMENTS}
        asked["patches"]["folder"] = Location.parse(config.patches.folder).uri
    if config.images is not None:
        asked["images"]["folder"] = Location.parse(config.images.folder).uri
    return asked


def _absolute(catalogs: str | None) -> str | None:
    """Write catalog files, with commas between, as absolute paths."""
    return ",".join(str(Path(name.strip()).absolute()) for name in catalogs.split(",")) if catalogs else None


def _prepared(root: str, segment: str) -> Location:
    """Return the folder of a segment whose surface is complete."""
    folder = segment_folder(root, check_segment_id(segment))
    require_complete(folder / "prepare", f"segment {segment}", f"run inkbatch prepare {segment} first")
    return folder


def _are_soft(labels: Location) -> bool:
    return bool(Multiscale.open(labels).attributes["inkbatch"].get("soft"))


def _dataset(name: str, root: Location) -> Location:
    return Location.parse(name) if "/" in name else root / "datasets" / name


def _segment(config: BuildDatasetConfig, choice: SegmentChoice, surface: SurfaceVolume) -> DatasetSegment:
    """Describe a prepared and labelled segment.

    Raises:
        DataError: Its labels are not whole.
        LayerRangeError: Layers that the surface does not hold.
    """
    folder = segment_folder(config.root, choice.id)
    place = f"segment {choice.id}"
    root = Location.parse(config.root)
    beside = folder if choice.labels_in is None else resolve(choice.labels_in, root)
    if choice.labels_in is not None:
        if not (beside / "ink_labels.zarr" / "zarr.json").exists():
            raise DataError(f"{place}: expected ink_labels.zarr in {beside}, nothing is there; correct labels_in")
    elif (folder / "labels" / "manifest.json").exists():
        made_of = require_complete(folder / "labels", f"{place}, labels", f"run inkbatch labels {choice.id} again")
        again = f"run inkbatch labels {choice.id} --replace"
        require_same_surface(config.root, choice.id, made_of.get("state"), f"{place}, labels", again)
    elif not (folder / "ink_labels.zarr" / "zarr.json").exists():
        cure = f"run inkbatch labels {choice.id} first, or "
        if choice.labels is None:
            cure += "give labels: {} (the catalog's) or labels: {image: URI} with this segment"
        else:
            cure += "leave out --dry-run, which writes nothing: the job makes them as this segment's labels say"
        raise DataError(f"{place}: has no ink labels at {folder / 'ink_labels.zarr'}; {cure}")
    made = surface.provenance
    made.index_range(choice.layers or made.source_layers)
    held_out = folder / "validation_mask.zarr"
    holds_out = config.splits.kind == "masks" and (held_out / "zarr.json").exists()
    has_mask = choice.ignore_mask and (beside / "ignore_mask.zarr" / "zarr.json").exists()
    here = f"segments/{choice.id}"
    labels_at = relative_to(beside, root)
    segment = DatasetSegment(
        id=choice.id,
        scroll=choice.scroll,
        surface=here,
        ink_labels=f"{labels_at}/ink_labels.zarr",
        ignore_mask=f"{labels_at}/ignore_mask.zarr" if has_mask else None,
        validation_mask=f"{here}/validation_mask.zarr" if holds_out else None,
        labels="soft" if _are_soft(beside / "ink_labels.zarr") else None,
        layers=choice.layers,
        source=made.source if "://" in made.source else made.source.rsplit("/", 1)[-1],
        source_layers=made.source_layers,
        shape_yx=surface.shape_yx,
        voxel_size_um=made.voxel_size_um,
    )
    return segment.model_copy(update={"digest": open_segment(segment, Location.parse(config.root)).digest})


__all__ = [
    "BuildDatasetConfig",
    "DatasetPlan",
    "SegmentChoice",
    "describe",
    "make_plan",
    "run",
    "summary",
    "with_named_segments",
]
