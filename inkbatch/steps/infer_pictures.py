"""`inkbatch infer-pictures`: a bundle that was trained on pictures, and pictures, become one map per picture."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from inkbatch.config import JobConfig, digest
from inkbatch.data.datasets.image_folders import picture_files
from inkbatch.data.datasets.index import DatasetIndex, SplitName, resolve, root_of
from inkbatch.data.datasets.picture_layers import cut_out, decode_picture, picture_layers
from inkbatch.data.datasets.trained_pixels import TrainedPixels, picture_pixels
from inkbatch.data.labels.objects import OBJECT_CLASS
from inkbatch.data.maps.scoring import threshold_of
from inkbatch.errors import DataError, MismatchError
from inkbatch.geometry import Box, TileGrid, Unit
from inkbatch.io.pictures.png import png_bytes
from inkbatch.io.store.location import Location
from inkbatch.io.store.versions import quick_look, state_of, watched
from inkbatch.io.surface import SurfaceProvenance, in_order
from inkbatch.models.bundle import Bundle, Contract, bundle_address, bundle_location
from inkbatch.predict.coverage import covered_tiles
from inkbatch.predict.device import DeviceName, PrecisionName, choose_device, choose_precision, device_facts
from inkbatch.predict.predictor import Predictor, SubVolume
from inkbatch.predict.reference import check_reference
from inkbatch.predict.segment_statistics import array_statistics
from inkbatch.reports.pictures import over_papyrus
from inkbatch.run.job import JobReport, RunContext, run_job
from inkbatch.run.pipeline import UnitWork
from inkbatch.run.record import RunFolder, RunManifest
from inkbatch.text import count_text, share_text

UNIT_PX = 4096  # of a picture that is computed at a time
RGB_LAYERS, GREY_LAYERS = 3, 1
ENDINGS = {"npy": ".npy", "png": ".png", "mask": "-mask.png", "overlay": "-overlay.png"}
NO_SCALE = 1.0  # where neither side states one, nothing is compared


class InferPicturesConfig(JobConfig):
    """Settings of `inkbatch infer-pictures`.

    Attributes:
        bundle: Folder or URI of the bundle; its network takes three layers (R, G, B) or one (grey).
        images: Folder of pictures; or else `dataset`.
        dataset: Name of a dataset of pictures under ROOT/datasets, or its folder.
        split: Which of the dataset's pictures: those that hold a sample of this split, or ``all``.
        root: ROOT: a folder or ``s3://bucket/prefix``.
        output: Folder of the maps; None is ``ROOT/predictions/{folder or dataset}/{bundle}``.
        forms: What is written per picture: ``npy`` (float32 probability, height x width), ``png`` (8 bits), ``mask``
            (``NAME-mask.png``, 255 from `threshold` on), ``overlay`` (``NAME-overlay.png``, the map in amber over the
            grey picture). Of a network of three classes, ``npy`` holds 3 x height x width (background, object,
            boundary), ``mask`` the most probable class (0, 1, 2), and the other two show object.
        threshold: Of masks; None is the bundle's, else 0.5.
        pixel_um: Pixel edge of `images` in micrometres, compared with the bundle's; None: not known, not compared.
        override: Contract values that are to be replaced; recorded in the manifest.
        device: ``auto`` takes CUDA, then MPS, then the CPU.
        precision: ``auto`` is bf16 (or fp16) on CUDA and fp32 elsewhere.
        batch_tiles: Tiles per forward pass; 0 finds it.
    """

    job: ClassVar[str] = "infer-pictures"
    spelled: ClassVar[Mapping[str, str]] = {"output": "--to"}

    bundle: str
    images: str | None = None
    dataset: str | None = None
    split: SplitName | Literal["all"] = "test"
    root: str = "root"
    output: str | None = None
    forms: tuple[Literal["npy", "png", "mask", "overlay"], ...] = ("npy",)
    threshold: float | None = Field(None, ge=0, le=1)
    pixel_um: float | None = Field(None, gt=0)
    override: dict[str, Any] = Field(default_factory=dict)
    device: DeviceName = "auto"
    precision: PrecisionName = "auto"
    batch_tiles: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _one_source(self) -> InferPicturesConfig:
        if (self.images is None) == (self.dataset is None):
            raise ValueError("give images (a folder of pictures) or dataset (the name of one), one of them")
        if not self.forms:
            raise ValueError("forms is empty; choose from npy, png, mask and overlay")
        return self


@dataclass(frozen=True)
class PicturesPlan:
    """Everything that is known before a model is built.

    Attributes:
        config: The job's settings.
        bundle: The bundle with all overrides.
        pictures: (name of the map, file), sorted by name; unit ``i`` is picture ``i``.
        folder: Folder of the maps.
        manifest: The run's manifest.
    """

    config: InferPicturesConfig
    bundle: Bundle
    pictures: list[tuple[str, Location]]
    folder: Location
    manifest: RunManifest

    @property
    def units(self) -> list[Unit]:
        """One unit per picture."""
        boxes = [Box(number, 0, number + 1, 1) for number in range(len(self.pictures))]
        return [Unit(number, box, box) for number, box in enumerate(boxes)]


def make_plan(config: InferPicturesConfig) -> PicturesPlan:
    """Find the pictures and compare them with the bundle; no model is built.

    Raises:
        ConfigError: A value that cannot be carried out.
        DataError: No pictures, no dataset, no bundle.
        MismatchError: The bundle expects something else than pictures.
    """
    bundle = Bundle.open(bundle_location(config.bundle), config.override)
    found = _of_dataset(config) if config.dataset is not None else _of_folder(config)
    _require_matches(bundle, found.pixel_um)
    folder = Location.parse(config.root) / "predictions" / found.name / bundle.document.name
    if config.output is not None:
        folder = Location.parse(config.output)
    settings: dict[str, Any] = {
        "forms": sorted(config.forms),
        "contract": bundle.contract.model_dump(mode="json"),
        "override": dict(config.override),
        "precision": config.precision,
    }
    if "mask" in config.forms:
        settings["threshold"] = threshold_of(config.threshold, bundle.contract.threshold)
    inputs = {
        "pictures": digest(found.digests),
        "bundle": bundle.document.name,
        "weights_sha256": bundle.document.weights_sha256,
        **bundle.document.noted,
    }
    share = _trained_share(bundle, found)
    if share:
        inputs["trained_share"] = share
    request = config.request(
        bundle=bundle_address(config.bundle),
        images=Location.parse(config.images).uri if config.images else None,
        dataset=_dataset_place(config).uri if config.dataset else None,
        output=None,
    )
    manifest = RunManifest("infer-pictures", settings, inputs, len(found.pictures), request, found.state, found.now)
    return PicturesPlan(config, bundle, found.pictures, folder, manifest)


def run(config: InferPicturesConfig, context: RunContext) -> JobReport:
    """Write a map per picture, or for this shard's part of them.

    Raises:
        InkbatchError: See `make_plan`; damaged picture; a model that returns NaN; storage that gave up; a stop signal.
    """
    plan = make_plan(config)
    for text in (*plan.bundle.notes, *_careful(plan)):
        context.reporter.note(text)
    record = RunFolder(plan.folder, plan.manifest)
    return run_job(record, plan.units, lambda: _work(plan, record, context), context)


def describe(config: InferPicturesConfig) -> str:
    """Describe the plan; nothing is computed."""
    plan = make_plan(config)
    record = RunFolder(plan.folder, plan.manifest)
    return "\n".join(
        [
            f"infer-pictures: {count_text(len(plan.pictures), 'picture')}, {record.state}",
            f"  bundle        {plan.bundle.document.name} ({plan.bundle.document.architecture})",
            f"  writes        {', '.join(config.forms)} to {plan.folder}",
            *(f"  {text}" for text in _careful(plan)),
        ]
    )


def _careful(plan: PicturesPlan) -> list[str]:
    """Say how many of the pixels trained the network; of a folder's pictures that is not known here."""
    if plan.config.dataset is None:
        return ["careful: which pictures of a folder trained this network is said by inkbatch evaluate-pictures alone"]
    share = plan.manifest.inputs.get("trained_share")
    return (
        [f"careful: {share_text(share)} of these pixels trained this network: scores leave them out"] if share else []
    )


def _trained_share(bundle: Bundle, found: _Found) -> float:
    """Share of the pixels of a dataset's pictures that trained the network; 0 for a folder."""
    training, place = bundle.document.training, str(bundle.location)
    shown = [(picture_pixels(training, digest, place), Box(0, 0, *shape)) for digest, shape in found.shapes.items()]
    trained = sum(_area(pixels) for pixels, _ in shown)
    return trained / max(sum(whole.area for _, whole in shown), 1)


def _area(pixels: TrainedPixels) -> int:
    boxes = pixels.document.get("train", [])
    return sum(Box(*box).area for box in boxes)


def _work(plan: PicturesPlan, record: RunFolder, context: RunContext) -> UnitWork[Any, Any]:
    config, contract = plan.config, plan.bundle.contract
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    model = plan.bundle.build(device)
    predictor = Predictor(model, contract, device, precision, config.batch_tiles, context.stop)
    check_reference(model, plan.bundle, device, precision)

    def load(unit: Unit) -> NDArray[np.uint8]:
        in_colour = contract.layers.count == RGB_LAYERS
        layers = picture_layers(plan.pictures[unit.index][1], in_colour=in_colour, clahe=contract.clahe)
        return np.ascontiguousarray(in_order(layers, contract.depth_order))

    def compute(unit: Unit, layers: NDArray[np.uint8]) -> tuple[NDArray[np.float32], int]:
        return _map_of(layers, predictor)

    def store(unit: Unit, computed: tuple[NDArray[np.float32], int]) -> Mapping[str, Any]:
        probability, tiles = computed
        place = plan.folder / plan.pictures[unit.index][0]
        written = 0
        for form in config.forms:
            data = _data(form, probability, plan, plan.pictures[unit.index][1])
            (plan.folder / f"{place.name}{ENDINGS[form]}").write_bytes(data)
            written += len(data)
        return {"bytes_written": written, "picture": place.name, "tiles": tiles}

    return UnitWork(
        load=load,
        compute=compute,
        store=store,
        mark=record.mark,
        device=lambda: device_facts(predictor.device, predictor.dtype),
    )


def _map_of(layers: NDArray[np.uint8], predictor: Predictor) -> tuple[NDArray[np.float32], int]:
    """Blend the probability of a whole picture (Z, Y, X) -> (Y, X) or (classes, Y, X); return it with the tiles."""
    shape = layers.shape[1], layers.shape[2]
    papyrus = np.ones(shape, bool)
    planes = () if predictor.model.classes == 1 else (predictor.model.classes,)
    probability, count = np.zeros((*planes, *shape), np.float32), 0
    grid: TileGrid = predictor.grid(shape)
    predictor.statistics = array_statistics(predictor.contract, layers, predictor.device)
    for part in grid.units(UNIT_PX):
        mask, tiles = covered_tiles(predictor.contract, grid, part.write_box, lambda box: cut_out(papyrus, box))
        count += tiles.count
        probability[(..., *part.write_box.slices)] = predictor.blend(
            part, SubVolume(cut_out(layers, part.read_box), mask, tiles)
        )
    return probability, count


@dataclass(frozen=True)
class _Found:
    """Pictures: what they are called together, (name of the map, file), what tells them apart, their pixel edge.

    Attributes:
        shapes: (height, width) by the digest of picture and annotation, of a dataset's pictures.
    """

    name: str
    pictures: list[tuple[str, Location]]
    digests: dict[str, Any]
    pixel_um: float | None
    state: dict[str, Any] = field(default_factory=dict)
    now: Callable[[], Mapping[str, Any]] = dict
    shapes: dict[str, tuple[int, int]] = field(default_factory=dict)


def _of_folder(config: InferPicturesConfig) -> _Found:
    folder = Location.parse(config.images or "")
    files = picture_files(folder)
    if not files:
        raise DataError(f"{folder}: expected pictures (.png, .jpg, .tif, …), got none; check images")
    sizes = folder.sizes()
    pictures = [(stem, folder / files[stem]) for stem in sorted(files)]
    chosen = set(files.values())
    digests = {name: sizes[name] for name in chosen}

    def states() -> dict[str, Any]:
        return {"pictures": state_of(folder, only=chosen.__contains__)}

    now = watched(lambda: quick_look(folder, only=chosen.__contains__), states)
    return _Found(folder.name, pictures, digests, config.pixel_um, states(), now)


def _dataset_place(config: InferPicturesConfig) -> Location:
    text = config.dataset or ""
    return Location.parse(text) if "/" in text else Location.parse(config.root) / "datasets" / text


def _of_dataset(config: InferPicturesConfig) -> _Found:
    place = _dataset_place(config)
    index = DatasetIndex.open(place)
    if any(segment.kind == "surface" for segment in index.segments):
        raise MismatchError(
            f"dataset {index.name}: expected a dataset of pictures, got one of segments; use inkbatch infer SEGMENT"
        )
    wanted = {sample.segment for sample in index.samples if config.split in ("all", sample.split)}
    segments = [segment for segment in index.segments if segment.id in wanted]
    if not segments:
        raise DataError(
            f"dataset {index.name}: no picture holds a sample of split {config.split!r}; choose another split, or all"
        )
    pictures = [(segment.id, resolve(segment.surface, root_of(place))) for segment in segments]
    digests = {segment.id: segment.digest for segment in segments}
    shapes = {segment.digest: segment.shape_yx for segment in segments}
    return _Found(index.name, sorted(pictures), digests, segments[0].voxel_size_um, shapes=shapes)


def _require_matches(bundle: Bundle, pixel_um: float | None) -> None:
    """Compare the contract with what pictures are: 8 bits as they are, one or three layers.

    Raises:
        MismatchError: The bundle expects something else, or was edited; every difference is listed.
    """
    bundle.require_unedited()
    contract: Contract = bundle.contract
    made = SurfaceProvenance(
        segment="pictures",
        source="pictures",
        source_dtype="uint8",
        source_layers=(0, contract.layers.count),
        depth_order="forward",
        intensity="keep",
        clahe=contract.clahe,  # is applied on reading
        voxel_size_um=pixel_um or contract.voxel_size_um or NO_SCALE,
        mask="derived",
    )
    rows = contract.mismatches(made, "uint8")
    if contract.layers.count not in (RGB_LAYERS, GREY_LAYERS):
        rows.append(f"layers: bundle expects {contract.layers.count}, a picture has 3 (R, G, B) or 1 (grey)")
    if rows:
        raise MismatchError(
            f"pictures do not match bundle {bundle.document.name}: {'; '.join(rows)}; take a bundle that was trained "
            "on pictures, or inkbatch infer for prepared segments"
        )


def _data(form: str, probability: NDArray[np.float32], plan: PicturesPlan, picture: Location) -> bytes:
    if form == "npy":
        return _npy(probability)
    has_classes = probability.ndim == 3
    if form == "mask" and has_classes:
        return png_bytes(probability.argmax(axis=0).astype(np.uint8))
    if form == "mask":
        above = probability >= np.float32(threshold_of(plan.config.threshold, plan.bundle.contract.threshold))
        return png_bytes(above.astype(np.uint8) * np.uint8(255))
    if has_classes:
        probability = probability[OBJECT_CLASS]
    if form == "png":
        return _png(probability)
    tones = np.rint(probability * 255).astype(np.uint8)
    return png_bytes(over_papyrus(tones, decode_picture(picture, in_colour=False)))


def _npy(probability: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, probability, allow_pickle=False)
    return buffer.getvalue()


def _png(probability: NDArray[np.float32]) -> bytes:
    return png_bytes(np.rint(probability * 255).astype(np.uint8))
