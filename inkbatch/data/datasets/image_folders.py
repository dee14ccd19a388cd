"""Import a folder layout of pictures and their annotations as it is, with or without train, validation and test."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, model_serializer, model_validator

from inkbatch.config import JobConfig
from inkbatch.data.datasets.index import DatasetSegment, SplitName, relative_to
from inkbatch.data.datasets.picture_layers import decode_annotation, decode_objects, decode_picture, label_rule
from inkbatch.data.datasets.same_pixels import pixel_digest
from inkbatch.data.labels.objects import ObjectLabels
from inkbatch.errors import ConfigError, DataError, MismatchError
from inkbatch.io.clahe import check_clahe
from inkbatch.io.store.location import Location
from inkbatch.io.surface import ClaheSettings

IMAGE_NAMES: dict[SplitName, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
ANNOTATION_WORDS = ("annot", "annots", "annotation", "annotations", "label", "labels", "mask", "masks")
ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


class FolderPair(JobConfig):
    """The pictures of one split and their annotations, relative to the layout's folder.

    Attributes:
        images: Folder of pictures.
        annotations: Folder of annotations of the same names (endings may differ).
    """

    images: str
    annotations: str


class ImageFolders(JobConfig):
    """A folder layout of pictures.

    Attributes:
        folder: The folder that holds it all.
        train: Its training pair; None looks for the usual names (``train`` with ``trainannot``, ``train_masks``,
            ``train/images`` with ``train/masks``, …).
        validation: As `train`; a layout without one has no validation pictures.
        test: As `train`.
        pictures: All pictures and their annotations, where no folder states a split; not with the three above.
        colour: ``rgb`` (three layers) or ``grey`` (one).
        label_above: Annotation values above it are ink; None takes grey values 0 to 255 as 0 to 1. With 0, annotations
            that were saved with losses (JPEG) count from half of full scale.
        pixel_um: Pixel edge in micrometres; None where it is not known, and no scale is invented.
        clahe: Adaptive histogram equalisation of each channel, ``{clip_limit: 2.0, cell_px: 64}``, on a grid over the
            whole picture; None leaves the grey values as they are. It goes into the contract of what is trained on it.
        objects: Annotations that tell objects apart, read as three classes, for networks with ``classes: 3``; None:
            they mark ink by `label_above`.
    """

    folder: str
    train: FolderPair | None = None
    validation: FolderPair | None = None
    test: FolderPair | None = None
    pictures: FolderPair | None = None
    colour: Literal["rgb", "grey"] = "rgb"
    label_above: int | None = Field(0, ge=0, le=254)
    pixel_um: float | None = Field(None, gt=0)
    clahe: ClaheSettings | None = None
    objects: ObjectLabels | None = None

    @model_serializer(mode="wrap")
    def _as_before(self, serialise: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Leave out what older datasets do not state, so that their digests hold."""
        values = serialise(self)
        return values if self.objects else {key: value for key, value in values.items() if key != "objects"}

    @model_validator(mode="after")
    def _split_or_not(self) -> ImageFolders:
        if self.pictures and (self.train or self.validation or self.test):
            raise ValueError("give pictures (no split stated) or train, validation and test, not both")
        return self


@dataclass(frozen=True)
class ImportedFolders:
    """Content of a folder layout.

    Attributes:
        segments: One per picture, by split and name.
        split_of: The split of each, by segment id; empty where the layout states none.
        pixels_of: Digest of the decoded pixels of each, by segment id.
    """

    segments: tuple[DatasetSegment, ...]
    split_of: dict[str, SplitName]
    pixels_of: dict[str, str]


def import_folders(config: ImageFolders, root: Location) -> ImportedFolders:
    """Find every picture with its annotation; all are decoded once, none is changed or moved.

    Args:
        config: The layout.
        root: ROOT; pictures below it are named relative to it.

    Raises:
        ConfigError: The folders are ambiguous, two pictures would get one id, or a CLAHE that cannot be computed.
        DataError: No training pictures, a picture without annotation or the other way round, or one that is damaged.
        MismatchError: Picture and annotation differ in size.
    """
    folder = Location.parse(config.folder)
    if config.clahe is not None:
        check_clahe(config.clahe)
    if config.pictures is not None:
        rows = _segments("picture", folder, config.pictures, config, root)
        return _imported(rows, {})
    rows = []
    split_of: dict[str, SplitName] = {}
    for split in IMAGE_NAMES:
        pair = getattr(config, split) or _find_pair(folder, split)
        if pair is None:
            continue
        found = _segments(split, folder, pair, config, root)
        rows += found
        split_of |= {segment.id: split for segment, _ in found}
    if "train" not in split_of.values():
        raise DataError(
            f"images {folder}: expected training pictures, got only {folder.names()[:8]}; name the folders, for "
            "example "
            "train: {images: train, annotations: trainannot}"
        )
    return _imported(rows, split_of)


def _imported(rows: list[tuple[DatasetSegment, str]], split_of: dict[str, SplitName]) -> ImportedFolders:
    segments = tuple(segment for segment, _ in rows)
    return ImportedFolders(segments, split_of, {segment.id: pixels for segment, pixels in rows})


def _segments(
    prefix: str, folder: Location, pair: FolderPair, config: ImageFolders, root: Location
) -> list[tuple[DatasetSegment, str]]:
    """Make one segment per picture of a pair of folders, by name, each with the digest of its pixels."""
    rows = _matched(folder / pair.images, folder / pair.annotations)
    found = [_segment(f"{prefix}-{stem}", image, annotation, config, root) for stem, image, annotation in rows]
    names = [segment.id for segment, _ in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"images {folder}: two pictures would get the id {twice[0]}; rename one of them")
    return found


def _find_pair(folder: Location, split: SplitName) -> FolderPair | None:
    names = {name.lower(): name for name in folder.names()}
    for alias in IMAGE_NAMES[split]:
        if alias not in names:
            continue
        images = names[alias]
        inside = {name.lower(): name for name in (folder / images).names()}
        nested = [f"{images}/{inside[word]}" for word in ANNOTATION_WORDS if word in inside]
        beside = [name for name in names.values() if _plain(name) in {alias + word for word in ANNOTATION_WORDS}]
        found = nested + beside
        if len(found) != 1:
            finding = f"{len(found)} ({', '.join(found)})" if found else "none"
            raise ConfigError(
                f"images {folder}: expected one folder of annotations for {images}, got {finding}; give "
                f"{split}: {{images: {images}, annotations: …}}"
            )
        pictures = f"{images}/{inside['images']}" if "images" in inside else images
        return FolderPair(images=pictures, annotations=found[0])
    return None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _matched(images: Location, annotations: Location) -> list[tuple[str, Location, Location]]:
    """Match pictures to annotations: (stem, picture, annotation), sorted by name."""
    pictures, masks = picture_files(images), picture_files(annotations)
    alone = sorted(set(pictures) ^ set(masks))
    if alone or not pictures:
        finding = f"{len(alone)} have no partner, for example {alone[0]!r}" if alone else "got no pictures"
        raise DataError(
            f"{images}: expected an annotation of the same name in {annotations} for each picture, {finding}; make "
            "them match"
        )
    return [(stem, images / pictures[stem], annotations / masks[stem]) for stem in sorted(pictures)]


def picture_files(folder: Location) -> dict[str, str]:
    """List the pictures in a folder: file names by name without ending.

    Raises:
        ConfigError: Two pictures that differ only in their ending.
    """
    found: dict[str, str] = {}
    for name in folder.names():
        stem, dot, ending = name.rpartition(".")
        if f"{dot}{ending}".lower() in ENDINGS:
            if stem in found:
                raise ConfigError(f"{folder}: {found[stem]!r} and {name!r} differ only in their ending; remove one")
            found[stem] = name
    return found


def _segment(
    name: str, image: Location, annotation: Location, config: ImageFolders, root: Location
) -> tuple[DatasetSegment, str]:
    in_colour = config.colour == "rgb"
    picture = decode_picture(image, in_colour=in_colour)
    shape = picture.shape[-2:]
    marked = (decode_objects(annotation, config.objects) if config.objects else decode_annotation(annotation)).shape
    if shape != marked:
        raise MismatchError(
            f"{annotation}: expected {shape} (height, width) like its picture {image}, got {marked}; give one of its "
            "size"
        )
    digest = hashlib.sha256()
    for place in (image, annotation):
        digest.update(hashlib.sha256(place.read_bytes()).digest())
    segment = DatasetSegment(
        id=re.sub(r"[^A-Za-z0-9._-]+", "_", name).replace("..", "_"),
        surface=relative_to(image, root),
        ink_labels=relative_to(annotation, root),
        kind="image" if in_colour else "grey-image",
        source=image.name,
        source_layers=(0, 3 if in_colour else 1),
        shape_yx=(shape[0], shape[1]),
        voxel_size_um=config.pixel_um,
        digest=digest.hexdigest(),
        label_above=None if config.objects else label_rule(annotation, config.label_above),
        objects=config.objects,
        clahe=config.clahe,
    )
    return segment, pixel_digest(picture)
