"""A dataset: samples (boxes in prepared segments, or cut-outs in a pack), their splits, and the one way to read them.

``ROOT/datasets/{name}/index.json`` names everything. In the form ``index`` samples stay in their segments and are
streamed from there; in the form ``pack`` they were cut out into ``samples.zarr``, ``labels.zarr`` and ``ignore.zarr``
beside the index, which is then complete by itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_serializer

from inkbatch.config import digest
from inkbatch.data.labels.objects import ObjectLabels
from inkbatch.errors import ConfigError, DataError, MismatchError
from inkbatch.geometry import Box
from inkbatch.io.store.location import Location
from inkbatch.io.surface import ClaheSettings
from inkbatch.validation import in_words

INDEX_NAME = "index.json"
FORMAT = 1

SplitName = Literal["train", "validation", "test"]
BoxTuple = tuple[int, int, int, int]


class DatasetPart(BaseModel):
    """Half of a stitched pair: a box that is flipped, then turned.

    Attributes:
        segment: Segment id.
        box: (y0, x0, y1, x1) in full-resolution pixels; square.
        flip: Mirror left and right.
        turn: Then turn by 90 degrees, counter-clockwise as the picture is shown (y down).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    segment: str
    box: BoxTuple
    flip: bool = False
    turn: bool = False

    @property
    def area(self) -> Box:
        """`box` as a `Box`."""
        return Box(*self.box)


class Sample(BaseModel):
    """One sample: a box of a segment, or two boxes set side by side.

    Attributes:
        id: Unique in the dataset; sorts as the samples are stored.
        segment: Segment id; of a stitched pair, that of its left part.
        box: (y0, x0, y1, x1) in full-resolution pixels, half-open; of a stitched pair (0, 0, height, width).
        split: Its split. If the dataset has folds, ``train`` samples train in all folds but their own.
        fold: The fold in which it (or, where some samples are ``validation``, only those) validates; None: in none.
        ink_share: Share of its pixels that are ink (label of 128 or more, on papyrus, not ignored), 0 to 1.
        papyrus_share: Share of its pixels inside the segment mask, 0 to 1.
        parts: The two parts of a stitched pair, left and right; None for a plain sample.
        is_new: True where an earlier dataset has no such sample, or labels it otherwise; None: no dataset was compared,
            or it is the same there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    segment: str
    box: BoxTuple
    split: SplitName
    fold: int | None = None
    ink_share: float = Field(ge=0, le=1)
    papyrus_share: float = Field(ge=0, le=1)
    parts: tuple[DatasetPart, DatasetPart] | None = None
    is_new: bool | None = None

    @property
    def area(self) -> Box:
        """`box` as a `Box`."""
        return Box(*self.box)

    @property
    def shape_yx(self) -> tuple[int, int]:
        """(height, width) of the sample's arrays."""
        return self.area.shape

    @property
    def sources(self) -> tuple[tuple[str, Box], ...]:
        """Every (segment id, box) whose pixels this sample shows."""
        if self.parts is None:
            return ((self.segment, self.area),)
        return tuple((part.segment, part.area) for part in self.parts)


class DatasetSegment(BaseModel):
    """A segment that samples are taken from.

    URIs without ``://`` and leading ``/`` hang on ROOT, the folder above ``datasets``, so that ROOT can be moved.

    Attributes:
        id: Segment id.
        scroll: Scroll or fragment that it is part of, for quotas in a batch; None: it stands for itself.
        surface: The segment's folder with ``surface.zarr`` and ``mask.zarr``; for ``image``, the picture file.
        ink_labels: ``ink_labels.zarr``, 0 (no ink) to 255 (ink); for ``image``, the annotation file.
        ignore_mask: ``ignore_mask.zarr``, non-zero where pixels count in no loss and no metric; None: none are.
        validation_mask: ``validation_mask.zarr``, non-zero where pixels are held out: of a sample that validates, only
            they count; None: all do.
        labels: ``soft`` where `ink_labels` holds probabilities; None: 0 or 255.
        layers: Half-open range of source layer numbers that samples hold; None: all that the surface holds.
        kind: ``surface`` (prepared segment), ``patches`` (of a patch pack), ``image`` (a picture; its channels R, G, B
            are the layers) or ``grey-image`` (one layer).
        source: Origin of the surface; of local paths the last component.
        source_layers: Half-open range of the source layer numbers that the surface holds.
        shape_yx: (height, width) in pixels.
        voxel_size_um: Voxel edge in micrometres; None for pictures of unknown scale.
        digest: Digest of the attributes of surface, labels and ignore mask, or of the picture and its annotation.
            A reader refuses others. Empty: not checked.
        clahe: Pictures only: adaptive histogram equalisation that a reader applies, or None.
        label_above: Pictures only: annotation values above it are ink; None takes grey values as 0 to 255.
        objects: Pictures only: annotations of objects, read as three classes; None: as ink.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    scroll: str | None = None
    surface: str
    ink_labels: str
    ignore_mask: str | None = None
    validation_mask: str | None = None
    labels: Literal["soft"] | None = None
    layers: tuple[int, int] | None = None
    kind: Literal["surface", "patches", "image", "grey-image"] = "surface"
    source: str = ""
    source_layers: tuple[int, int]
    shape_yx: tuple[int, int]
    voxel_size_um: float | None = None
    digest: str = ""
    label_above: int | None = None
    objects: ObjectLabels | None = None
    clahe: ClaheSettings | None = None

    @property
    def layer_count(self) -> int:
        """Layers of each of its samples."""
        start, stop = self.layers or self.source_layers
        return stop - start


class SurfaceContract(BaseModel):
    """Properties that all segments of a dataset share, and that a bundle trained on it requires.

    Attributes:
        dtype: Dtype of the layers.
        intensity: The 16 -> 8 bit rules that occur, sorted.
        lut: Control points of the lookup table, or None.
        clahe: CLAHE settings, or None.
        voxel_size_um: Voxel edge of the first segment in micrometres; the others differ by 5 % at most.
            None for pictures of unknown scale.
        layer_count: Layers of each sample.
        z_spacing_um: Spacing of layers, where it is not the voxel edge; left out of documents where it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: Literal["uint8", "uint16"]
    intensity: tuple[str, ...]
    lut: tuple[tuple[int, int], ...] | None = None
    clahe: dict[str, float] | None = None
    voxel_size_um: float | None = None
    layer_count: int
    z_spacing_um: float | None = None

    @property
    def layer_um(self) -> float | None:
        """Spacing of layers in micrometres; None for pictures of unknown scale."""
        return self.z_spacing_um or self.voxel_size_um

    @model_serializer(mode="wrap")
    def _as_before(self, serialise: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Leave out what older datasets do not state, so that their digests hold."""
        values = serialise(self)
        if self.z_spacing_um is None:
            values.pop("z_spacing_um", None)
        return values


class DatasetIndex(BaseModel):
    """All that is known of a dataset.

    Attributes:
        format: Version of this document.
        name: Name of the dataset.
        digest: SHA-256 of everything else in this document; `save` fills it in.
        sample_px: Edge of a sample as it was asked for; boxes may make others, see `Sample.shape_yx`.
        form: ``index`` (samples stay in their segments), ``pack``, or ``patches`` (they stay in a patch pack).
        contract: Contract that all segments share.
        segments: Segments, in the configuration's order.
        samples: Samples, in storage order.
        dropped: By fold (as text): ids that overlap a validation sample of that fold and train nothing there.
        config: The configuration that made it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    name: str
    digest: str = ""
    sample_px: int = Field(ge=1)
    form: Literal["index", "pack", "patches"] = "index"
    contract: SurfaceContract
    segments: tuple[DatasetSegment, ...]
    samples: tuple[Sample, ...]
    dropped: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    config: dict[str, Any] = Field(default_factory=dict)

    @staticmethod
    def open(location: Location) -> DatasetIndex:
        """Read ``index.json`` in a dataset's folder.

        Raises:
            DataError: There is none, it does not validate, or it was edited (its digest says otherwise).
        """
        place = location / INDEX_NAME
        try:
            found = place.read_json()
        except FileNotFoundError as error:
            raise DataError(
                f"dataset {location.name}: no {INDEX_NAME} in {location}; run build-dataset first"
            ) from error
        try:
            index = DatasetIndex.model_validate(found)
        except ValidationError as error:
            rows = in_words(error, found, most=5)
            raise DataError(f"{place}: not a dataset of format {FORMAT} ({rows}); run build-dataset again") from error
        if index.digest != index.computed_digest():
            raise MismatchError(
                f"{place}: its digest does not match its content; it was edited, run build-dataset again"
            )
        return index

    def save(self, location: Location) -> DatasetIndex:
        """Write ``index.json``, one sample per line; equal indexes are equal bytes.

        Returns:
            This index with its digest filled in.
        """
        signed = self.model_copy(update={"digest": self.computed_digest()})
        (location / INDEX_NAME).write_bytes(signed.to_json().encode())
        return signed

    def to_json(self) -> str:
        """Return the document as it is stored."""
        document = self._document()
        samples = document.pop("samples")
        head = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False).removesuffix("\n}")
        rows = ",\n    ".join(json.dumps(row, sort_keys=True, ensure_ascii=False) for row in samples)
        return f'{head},\n  "samples": [\n    {rows}\n  ]\n}}\n'

    def computed_digest(self) -> str:
        """Return the SHA-256 of the document without its digest."""
        return digest({key: value for key, value in self._document().items() if key != "digest"})

    def segment(self, segment_id: str) -> DatasetSegment:
        """Find the segment with this id.

        Raises:
            DataError: It is not in the dataset.
        """
        for segment in self.segments:
            if segment.id == segment_id:
                return segment
        raise DataError(f"dataset {self.name}: segment {segment_id!r} is not in its index; run build-dataset again")

    @property
    def is_pictures(self) -> bool:
        """True if its segments are pictures."""
        return all(segment.kind in ("image", "grey-image") for segment in self.segments)

    @property
    def has_soft_labels(self) -> bool:
        """True if labels of some segment are probabilities."""
        return any(segment.labels == "soft" for segment in self.segments)

    @property
    def has_classes(self) -> bool:
        """True if labels tell background, object and boundary."""
        return any(segment.objects is not None for segment in self.segments)

    @property
    def boundary_px(self) -> int | None:
        """Width of the boundary inside each object; None where labels have none, or it was drawn, or widths differ."""
        made = [one.objects for one in self.segments if one.objects and one.objects.given == "instances"]
        widths = {one.boundary_px for one in made}
        return widths.pop() if len(widths) == 1 else None

    @property
    def scrolls(self) -> dict[str, str]:
        """The scroll of each segment id; a segment that states none stands for itself."""
        return {segment.id: segment.scroll or segment.id for segment in self.segments}

    @property
    def fold_count(self) -> int:
        """Number of folds; 0 where the samples state their split."""
        return max((sample.fold + 1 for sample in self.samples if sample.fold is not None), default=0)

    def samples_of(self, split: SplitName, fold: int | None = None) -> list[Sample]:
        """Return the samples of a split, in storage order.

        Args:
            split: Name of the split.
            fold: Fold that validates; required if the dataset has folds, refused if it has none.

        Returns:
            Samples; with folds, training leaves out what overlaps that fold's validation samples, and stitched pairs
            never validate.

        Raises:
            ConfigError: A fold is missing, out of range, or stated for a dataset without folds.
        """
        count = self.fold_count
        if fold is None and count and split != "test":
            raise ConfigError(
                f"dataset {self.name}: has {count} folds; choose the one that validates (fold 0 to {count - 1})"
            )
        if fold is not None and not 0 <= fold < count:
            cure = f"choose 0 to {count - 1}" if count else "it has no folds, leave fold out"
            raise ConfigError(f"dataset {self.name}: no fold {fold}; {cure}")
        if fold is None or split == "test":
            return [sample for sample in self.samples if sample.split == split]
        if split == "validation":
            return validating(self.samples, fold)
        return training(self.samples, fold, self.dropped.get(str(fold), ()))

    def _document(self) -> dict[str, Any]:
        document: dict[str, Any] = self.model_dump(mode="json", exclude_none=True)
        return document


def validating(samples: Sequence[Sample], fold: int) -> list[Sample]:
    """Return a fold's validation samples: its ``validation`` samples, or if there are none all but its pairs."""
    apart = any(sample.split == "validation" for sample in samples)
    wanted = "validation" if apart else "train"
    return [s for s in samples if s.split == wanted and s.fold == fold and s.parts is None]


def training(samples: Sequence[Sample], fold: int, dropped: Collection[str]) -> list[Sample]:
    """Return the samples that train while a fold validates."""
    gone = set(dropped)
    return [s for s in samples if s.split == "train" and s.fold != fold and s.id not in gone]


def marked_new(samples: Sequence[Sample], older: Sequence[Sample]) -> tuple[Sample, ...]:
    """Mark the samples that an older dataset has not at their place, or with another share of ink."""
    known = {(sample.segment, sample.box): sample.ink_share for sample in older}

    def marked(sample: Sample) -> Sample:
        same = known.get((sample.segment, sample.box)) == sample.ink_share
        return sample if same else sample.model_copy(update={"is_new": True})

    return tuple(marked(sample) for sample in samples)


def resolve(uri: str, root: Location) -> Location:
    """Return the location of a URI in an index; relative ones start at ROOT."""
    return Location.parse(uri) if "://" in uri or uri.startswith("/") else root / uri


def relative_to(location: Location, root: Location) -> str:
    """Return the URI for an index, relative where `location` lies in ROOT; reverses `resolve`."""
    prefix = f"{root.uri.rstrip('/')}/"
    return location.uri.removeprefix(prefix)


def root_of(dataset: Location) -> Location:
    """Return ROOT of a dataset's folder ``ROOT/datasets/{name}``."""
    return dataset.parent.parent


def largest_shape(samples: Sequence[Sample]) -> tuple[int, int]:
    """Return the smallest (height, width) that holds every sample."""
    return max(sample.shape_yx[0] for sample in samples), max(sample.shape_yx[1] for sample in samples)
