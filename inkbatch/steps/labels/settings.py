"""Settings of `inkbatch labels`."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, model_validator

from inkbatch.config import JobConfig
from inkbatch.data.labels.cleaning import CleaningRules
from inkbatch.data.labels.ignore import IgnoreRules
from inkbatch.io.layers.one_plane import Plane


class LabelsConfig(JobConfig):
    """Settings of `inkbatch labels`.

    Attributes:
        segment: Segment id; it must be prepared.
        root: ROOT: a folder or ``s3://bucket/prefix``.
        output_root: ROOT of the labels, if they are not stored beside the surface.
        image: A 2-D picture of the surface's size, or a label volume. Without `image` and `prediction` it is the
            catalog's ``ink_labels``.
        prediction: Name of a prediction of this segment, or URI of a prediction's folder.
        painted: A label version: its name, such as ``v003``, or its folder. It is taken as it was painted; nothing is
            cleaned unless `clean` is given.
        from_map: A map of another scan, as ``SEGMENT/NAME`` of ROOT or the address of a prediction's folder. It is
            carried onto this segment (see `inkbatch.data.maps.carried`) as soft labels, unless `soft` is given.
        band: With `from_map`: how far on either side of the map's threshold values are ignored; 0 for none, None is
            0.1, or what ``ignore.uncertain`` says.
        reach_voxels: With `from_map`: carry it by the nearest points of two surfaces, no farther apart than this (see
            `inkbatch.data.maps.carried_surface`); None: both show one extent, their sizes tell the scale.
        from_mesh: With `reach_voxels`: folder with ``x.tif``, ``y.tif``, ``z.tif`` of the map's segment; None: what it
            was rendered from.
        onto_mesh: That of this segment, likewise.
        white: Stored value of `image` that means certain ink; None is the largest one of its dtype, 1 for floats.
        plane: Plane of a label volume: a number, ``middle``, or ``max`` over all; None: the only one with ink.
        level: Level of label volumes and masks; None: full resolution.
        version: Version of label files that lie beside each other as ``{name}_v{number}``; ``{name}`` is version 1.
        supervision_mask: Where labels count; what is outside of it and of `validation_mask` is ignored. Without
            `image` and `prediction` the catalog's; ``none`` takes none.
        validation_mask: Pixels to hold out, stored for ``splits: {kind: masks}`` of a dataset; as above.
        soft: Store shares of full scale as they are, as probabilities, instead of cleaned labels.
        clean: How values become ink.
        ignore: What goes into the ignore mask.
        unit_px: Edge of a unit, a power of two of at least 32.
        allow_empty: Accept labels without any ink (bare papyrus as counterexample).
        max_missing: Share of the chunks of a zarr array that may be missing and read as its fill value. Many programs
            leave out chunks without ink, so that by default only an array without any chunk is refused.
        replace: Remove labels that were made with other settings first. Not with several shards.
        catalog: The user's catalog file.
    """

    job: ClassVar[str] = "labels"

    segment: str
    root: str = "root"
    output_root: str | None = None
    image: str | None = None
    prediction: str | None = None
    painted: str | None = None
    from_map: str | None = None
    band: float | None = Field(None, ge=0, lt=0.5)
    reach_voxels: float | None = Field(None, gt=0)
    from_mesh: str | None = None
    onto_mesh: str | None = None
    white: float | None = Field(None, gt=0)
    plane: Plane | None = None
    level: int | None = Field(None, ge=0)
    version: int | None = Field(None, ge=0)
    supervision_mask: str | None = None
    validation_mask: str | None = None
    soft: bool = False
    clean: CleaningRules = Field(default_factory=lambda: CleaningRules())
    ignore: IgnoreRules = Field(default_factory=IgnoreRules)
    unit_px: int = 2048
    allow_empty: bool = False
    max_missing: float = Field(1.0, ge=0, le=1)
    replace: bool = False
    catalog: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _as_painted(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("painted") is not None and "clean" not in values:
            return {**values, "clean": {"min_area_px": 0, "max_hole_px": 0}}
        return values

    @model_validator(mode="before")
    @classmethod
    def _as_teacher(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("from_map") is not None and values.get("soft") is None:
            return {**values, "soft": True}
        return values

    @model_validator(mode="after")
    def _band_of_map(self) -> LabelsConfig:
        if self.band is not None and (self.from_map is None or self.ignore.uncertain is not None):
            raise ValueError("band belongs to from_map, without ignore.uncertain; drop band, or the other one")
        return self

    @model_validator(mode="after")
    def _reach_of_map(self) -> LabelsConfig:
        if self.reach_voxels is not None and self.from_map is None:
            raise ValueError("reach_voxels belongs to from_map; drop it, or name a map")
        if self.reach_voxels is None and (self.from_mesh is not None or self.onto_mesh is not None):
            raise ValueError("from_mesh and onto_mesh belong to reach_voxels; state it, too, such as 8")
        return self

    @model_validator(mode="after")
    def _nothing_to_clean(self) -> LabelsConfig:
        if self.soft and (self.clean != CleaningRules() or self.ignore.border != "none"):
            raise ValueError("soft labels are kept as they are; drop clean and ignore.border, or soft")
        return self
