"""Settings of `inkbatch build-dataset`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from inkbatch.config import JobConfig, LayerPair
from inkbatch.data.datasets.assembling import SamplePlan
from inkbatch.data.datasets.data_card import CardConfig
from inkbatch.data.datasets.image_folders import ImageFolders
from inkbatch.data.datasets.patch_packs import PatchPack
from inkbatch.data.datasets.splits import GivenSplit, Split

NO_RESULT = {"root", "output_root", "catalog", "unit_samples"}  # settings that change no sample
OF_SEGMENTS = frozenset(
    {
        "sample_px",
        "splits",
        "sampling",
        "held_out_sampling",
        "context_px",
        "pairs",
        "layers",
        "labels",
        "unit_samples",
        "newer_than",
    }
)


class SegmentChoice(JobConfig):
    """A segment of a dataset; its id alone may stand for it.

    Attributes:
        id: Segment id; it must be prepared.
        scroll: Scroll or fragment that it is part of; training can give each its quota of a batch.
        layers: Half-open range of source layer numbers; None: the dataset's. Layers beyond what the network takes leave
            room for training to shift its window.
        labels: Settings of `inkbatch labels`, which is run first (``{}`` takes the catalog's labels); None: the
            dataset's.
        ignore_mask: Use the segment's ignore mask, if it has one.
        labels_in: Folder with ``ink_labels.zarr`` and, where there is one, ``ignore_mask.zarr``, in place of those
            beside the surface; counts from ROOT.
    """

    id: str
    scroll: str | None = Field(None, min_length=1)
    layers: LayerPair | None = None
    labels: dict[str, Any] | None = None
    ignore_mask: bool = True
    labels_in: str | None = None

    @model_validator(mode="after")
    def _one_place_of_labels(self) -> SegmentChoice:
        if self.labels_in is not None and self.labels is not None:
            raise ValueError("labels_in names labels that are there, labels makes them; drop one of them")
        return self


class BuildDatasetConfig(SamplePlan):
    """Settings of `inkbatch build-dataset`; the same ones, given the same inputs, make the same bytes.

    Attributes:
        name: Name of the dataset: ``ROOT/datasets/{name}``.
        root: ROOT: a folder or ``s3://bucket/prefix``.
        output_root: ROOT of the dataset, if it is not stored beside its segments; training finds the samples of
            form ``index`` there only when the segments are copied, too.
        catalog: The user's catalog file, for labels.
        segments: Prepared segments; ``train-*`` names all that match.
        layers: Layers of the segments that state none; None takes all that the surface holds.
        labels: Settings of `inkbatch labels` for the segments that state none; ``{segment}`` in them stands for the id.
            None uses the ``ink_labels.zarr`` and ``ignore_mask.zarr`` that are there.
        images: A folder layout of pictures instead.
        patches: A patch pack of the field instead; its patches and splits are taken as they are.
        form: ``index`` (samples stay in their segments and are streamed) or ``pack`` (they are cut out).
        newer_than: An earlier dataset, by name or folder: samples that it has not, or labels otherwise, are marked as
            new, so that training can give them a share of each batch.
        unit_samples: Samples per unit and zarr shard of a pack; None makes units of about 64 MiB.
        card: The data card.
    """

    job: ClassVar[str] = "build-dataset"
    spelled: ClassVar[Mapping[str, str]] = {"name": "NAME"}

    sample_px: int = Field(0, ge=0)
    splits: Split = Field(default_factory=lambda: GivenSplit(kind="given"))
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    root: str = "root"
    output_root: str | None = None
    catalog: str | None = None
    segments: tuple[SegmentChoice, ...] = ()
    layers: LayerPair | None = None
    labels: dict[str, Any] | None = None
    images: ImageFolders | None = None
    patches: PatchPack | None = None
    form: Literal["index", "pack"] = "index"
    newer_than: str | None = None
    unit_samples: int | None = Field(None, ge=1)
    card: CardConfig = Field(default_factory=CardConfig)

    @field_validator("segments", mode="before")
    @classmethod
    def _ids_alone(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        numbers = [item for item in value if isinstance(item, int)]
        if numbers:
            raise ValueError(f"segment ids are text; put quotes around {numbers[0]}")
        return [{"id": item} if isinstance(item, str) else item for item in value]

    @property
    def choices(self) -> tuple[SegmentChoice, ...]:
        """The segments, with what the dataset says for all of them filled in."""
        return tuple(self._filled(choice) for choice in self.segments)

    def _filled(self, choice: SegmentChoice) -> SegmentChoice:
        own = choice.labels is not None or choice.labels_in is not None
        labels = choice.labels if own else _named(self.labels, choice.id)
        return choice.model_copy(update={"layers": choice.layers or self.layers, "labels": labels})

    @model_validator(mode="after")
    def _one_source(self) -> BuildDatasetConfig:
        if (bool(self.segments), self.images is not None, self.patches is not None).count(True) != 1:
            raise ValueError("give segments (prepared ones), images (a folder layout) or patches, one of them")
        needed = {"sample_px", "splits"} - self.model_fields_set
        if self.patches is not None:
            ours = sorted(self.model_fields_set & OF_SEGMENTS)
            if ours:
                raise ValueError(f"a patch pack has patches and splits of its own; drop {ours[0]}")
        elif needed or self.sample_px < 1:
            raise ValueError(f"{' and '.join(sorted(needed or {'sample_px'}))} must be given, sample_px of at least 1")
        names = [segment.id for segment in self.segments]
        if len(names) != len(set(names)):
            raise ValueError(f"segments: {sorted({n for n in names if names.count(n) > 1})} are listed twice")
        return self


def _named(value: Any, segment: str) -> Any:
    """Replace ``{segment}`` by a segment's id in every text of the settings."""
    if isinstance(value, dict):
        return {key: _named(item, segment) for key, item in value.items()}
    return value.replace("{segment}", segment) if isinstance(value, str) else value
