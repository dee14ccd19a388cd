"""Import a folder layout with train, validation and test pictures and their annotation folders, as it is."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from inkbatch.config import JobConfig
from inkbatch.data.index import DatasetSegment, SplitName, relative_to
from inkbatch.data.segment_arrays import decode_picture
from inkbatch.errors import ConfigError, DataError, MismatchError
from inkbatch.io.storage import Location

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
        colour: ``rgb`` (three layers) or ``grey`` (one).
        label_above: Annotation values above it are ink; None takes grey values 0 to 255 as 0 to 1.
        pixel_um: Pixel edge in micrometres; 1 where nobody knows.
    """

    folder: str
    train: FolderPair | None = None
    validation: FolderPair | None = None
    test: FolderPair | None = None
    colour: Literal["rgb", "grey"] = "rgb"
    label_above: int | None = Field(0, ge=0, le=254)
    pixel_um: float = Field(1.0, gt=0)


@dataclass(frozen=True)
class ImportedFolders:
    """What a layout holds.

    Attributes:
        segments: One per picture, by split and name.
        split_of: The split of each, by segment id.
    """

    segments: tuple[DatasetSegment, ...]
    split_of: dict[str, SplitName]


def import_folders(config: ImageFolders, root: Location) -> ImportedFolders:
    """Find every picture with its annotation; all are decoded once, none is changed or moved.

    Args:
        config: The layout.
        root: ROOT; pictures below it are named relative to it.

    Raises:
        ConfigError: A folder cannot be told, or two pictures would get one id.
        DataError: No training pictures, a picture without annotation or the other way round, or one that is damaged.
        MismatchError: Picture and annotation differ in size.
    """
    folder = Location.parse(config.folder)
    segments: list[DatasetSegment] = []
    split_of: dict[str, SplitName] = {}
    for split in IMAGE_NAMES:
        pair = getattr(config, split) or _find_pair(folder, split)
        if pair is None:
            continue
        for stem, image, annotation in _matched(folder / pair.images, folder / pair.annotations):
            segment = _segment(f"{split}-{stem}", image, annotation, config, root)
            if segment.id in split_of:
                raise ConfigError(f"images {folder}: two pictures would be called {segment.id}; rename one of them")
            segments.append(segment)
            split_of[segment.id] = split
    if "train" not in split_of.values():
        raise DataError(
            f"images {folder}: no training pictures, it holds {folder.names()[:8]}; name the folders, for example "
            "train: {images: train, annotations: trainannot}"
        )
    return ImportedFolders(tuple(segments), split_of)


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
            finding = f"{len(found)} folders could be ({', '.join(found)})" if found else "no folder looks like them"
            raise ConfigError(
                f"images {folder}: the annotations of {images} are wanted, {finding}; say "
                f"{split}: {{images: {images}, annotations: …}}"
            )
        pictures = f"{images}/{inside['images']}" if "images" in inside else images
        return FolderPair(images=pictures, annotations=found[0])
    return None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _matched(images: Location, annotations: Location) -> list[tuple[str, Location, Location]]:
    """(stem, picture, annotation), sorted by name."""
    pictures, masks = _pictures(images), _pictures(annotations)
    alone = sorted(set(pictures) ^ set(masks))
    if alone or not pictures:
        finding = f"{len(alone)} are alone, for example {alone[0]!r}" if alone else "there are none"
        raise DataError(
            f"{images}: each picture wants an annotation of the same name in {annotations}, {finding}; make them match"
        )
    return [(stem, images / pictures[stem], annotations / masks[stem]) for stem in sorted(pictures)]


def _pictures(folder: Location) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in folder.names():
        stem, dot, ending = name.rpartition(".")
        if f"{dot}{ending}".lower() in ENDINGS:
            if stem in found:
                raise ConfigError(f"{folder}: {found[stem]!r} and {name!r} differ only in their ending; remove one")
            found[stem] = name
    return found


def _segment(name: str, image: Location, annotation: Location, config: ImageFolders, root: Location) -> DatasetSegment:
    in_colour = config.colour == "rgb"
    shape = decode_picture(image, in_colour=in_colour).shape[-2:]
    marked = decode_picture(annotation, in_colour=False).shape
    if shape != marked:
        raise MismatchError(
            f"{annotation}: is {marked}, its picture {image} is {shape} (height, width); give annotations of its size"
        )
    digest = hashlib.sha256()
    for place in (image, annotation):
        digest.update(hashlib.sha256(place.read_bytes()).digest())
    return DatasetSegment(
        id=re.sub(r"[^A-Za-z0-9._-]+", "_", name).replace("..", "_"),
        surface=relative_to(image, root),
        ink_labels=relative_to(annotation, root),
        kind="image" if in_colour else "grey-image",
        source=image.name,
        source_layers=(0, 3 if in_colour else 1),
        shape_yx=(shape[0], shape[1]),
        voxel_size_um=config.pixel_um,
        digest=digest.hexdigest(),
        label_above=config.label_above,
    )
