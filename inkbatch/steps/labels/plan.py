"""Plan of `inkbatch labels`: its settings, sources and units."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from pydantic import Field

from inkbatch.config import JobConfig
from inkbatch.data.labels.cleaning import CleaningRules
from inkbatch.data.labels.component_facts import UnitFacts
from inkbatch.data.labels.ignore import IgnoreRules
from inkbatch.data.labels.seams import Merged, merge
from inkbatch.data.maps.label_source import LabelSource, PictureLabels, PredictionLabels
from inkbatch.data.maps.stored import open_map
from inkbatch.data.segments.catalog import Catalog, check_segment_id
from inkbatch.data.segments.prepared import segment_folder, surface_state
from inkbatch.errors import ConfigError, DataError
from inkbatch.geometry import Box, Unit, cut
from inkbatch.io.layers.base import LayerSource
from inkbatch.io.layers.single import open_one_layer
from inkbatch.io.shard_size import require_shard_px
from inkbatch.io.store.location import Location
from inkbatch.io.store.versions import state_of
from inkbatch.io.surface import SurfaceVolume
from inkbatch.run.record import RunFolder, RunManifest, require_complete
from inkbatch.text import bytes_text

LISTED = 1_000  # components in components.json
BASE_BYTES = 120 << 20  # the interpreter with numpy and OpenCV
BYTES_PER_PIXEL = 40  # of a unit: values of three units, two label maps, and the pairs of neighbours


class LabelsConfig(JobConfig):
    """Settings of `inkbatch labels`.

    Attributes:
        segment: Segment id; it must be prepared.
        root: ROOT: a folder or ``s3://bucket/prefix``.
        output_root: ROOT of the labels, if they are not stored beside the surface.
        image: A 2-D picture of the surface's size. Without `image` and `prediction` it is the catalog's ``ink_labels``.
        prediction: Name of a prediction of this segment, or URI of a prediction's folder.
        white: Stored value of `image` that means certain ink; None is the largest one of its dtype, 1 for floats.
        clean: How values become ink.
        ignore: What goes into the ignore mask.
        unit_px: Edge of a unit, a power of two of at least 32.
        allow_empty: Accept labels without any ink (bare papyrus as counterexample).
        replace: Remove labels that were made with other settings first. Not with several shards.
        catalog: The user's catalog file.
    """

    job: ClassVar[str] = "labels"

    segment: str
    root: str = "root"
    output_root: str | None = None
    image: str | None = None
    prediction: str | None = None
    white: float | None = Field(None, gt=0)
    clean: CleaningRules = Field(default_factory=lambda: CleaningRules())
    ignore: IgnoreRules = Field(default_factory=IgnoreRules)
    unit_px: int = 2048
    allow_empty: bool = False
    replace: bool = False
    catalog: str | None = None


@dataclass(frozen=True)
class LabelsPlan:
    """Everything that is known before a pixel is read.

    Attributes:
        config: The job's settings.
        source: Opened labels.
        ignore_image: Opened ignore mask that was given, or None.
        surface: The prepared surface.
        units: Units of both passes, row-major.
        folder: ``ROOT/segments/{segment}`` of the labels.
        manifest: Of the second pass; the first one differs in its job's name.
    """

    config: LabelsConfig
    source: LabelSource
    ignore_image: LayerSource | None
    surface: SurfaceVolume
    units: list[Unit]
    folder: Location
    manifest: RunManifest

    @property
    def record(self) -> RunFolder:
        """The run that writes cleaned units."""
        return RunFolder(self.folder / "labels", self.manifest)

    @property
    def facts_record(self) -> RunFolder:
        """The run that writes facts on components."""
        found = self.manifest
        manifest = RunManifest("labels-components", found.config, found.inputs, found.units, state=found.state)
        return RunFolder(self.folder / "labels/components", manifest)

    def facts_place(self, unit: Unit) -> Location:
        """Return the path of a unit's facts."""
        return self.folder / f"labels/components/facts/{unit.name}.json"

    @cached_property
    def merged(self) -> Merged:
        """All units' components, joined.

        Raises:
            DataError: No ink is left.
        """
        documents = [self.facts_place(unit).read_mapping() for unit in self.units]
        rules = self.config.clean
        merged = merge(
            [UnitFacts.model_validate(document["facts"]) for document in documents],
            min_area_px=rules.min_area_px,
            fill_holes=rules.fill_holes,
            max_hole_px=rules.max_hole_px,
            listed=LISTED,
        )
        if merged.kept_count == 0 and not self.config.allow_empty:
            highest = max(document["highest"] for document in documents)
            raise DataError(
                f"segment {self.config.segment}: no ink is left of {self.manifest.inputs['source']}: "
                f"{merged.removed_count} components are under {rules.min_area_px} px, and the largest value is "
                f"{highest:.3g} of full scale, the threshold {rules.threshold:g}; lower clean.min_area_px or "
                "clean.threshold, state white, or set allow_empty"
            )
        return merged


def make_plan(config: LabelsConfig) -> LabelsPlan:
    """Open source and surface, compare them, and cut the surface into units.

    Raises:
        ConfigError: A value that cannot be carried out.
        DataError: The surface is not prepared, or the source is not whole or of another size.
    """
    folder = segment_folder(config.root, check_segment_id(config.segment))
    prepared = require_complete(
        folder / "prepare", f"segment {config.segment}", f"run inkbatch prepare {config.segment} first"
    )
    require_shard_px("unit_px", config.unit_px)
    surface = SurfaceVolume.open(folder)
    source = _open_source(config)
    _require_size(config, "labels", source.shape_yx, surface)
    ignore_image = open_one_layer(config.ignore.image) if config.ignore.image else None
    if ignore_image is not None:
        _require_size(config, "ignore mask", ignore_image.shape_zyx[1:], surface)
    shape, halo = surface.shape_yx, config.clean.dilation_px
    units = [
        Unit(index, box, Box(box.y0 - halo, box.x0 - halo, box.y1 + halo, box.x1 + halo).intersect(Box(0, 0, *shape)))
        for index, box in enumerate(cut(shape, config.unit_px, config.unit_px))
    ]
    settings = {
        "segment": config.segment,
        "clean": config.clean.model_dump(mode="json"),
        "ignore": config.ignore.model_dump(mode="json"),
        "unit_px": config.unit_px,
        "allow_empty": config.allow_empty,
    }
    inputs: dict[str, Any] = {"surface": prepared["digest"], "source": source.identity}
    if ignore_image is not None:
        inputs["ignore_image"] = {"uri": ignore_image.uri, "fingerprint": ignore_image.fingerprint}
    request = config.request(**source.request, ignore=_asked_ignore(config.ignore), catalog=None, replace=None)
    state = {**surface_state(config.root, config.segment), **source.state}
    if ignore_image is not None:
        state["ignore_image"] = state_of(Location.parse(ignore_image.uri))
    manifest = RunManifest("labels", settings, inputs, len(units), request, state)
    target = segment_folder(config.output_root or config.root, config.segment)
    return LabelsPlan(config, source, ignore_image, surface, units, target, manifest)


def describe(config: LabelsConfig) -> str:
    """Describe the plan of a labels job, as lines of text. Only metadata are read, nothing is written."""
    plan = make_plan(config)
    height, width = plan.surface.shape_yx
    rules, ignore = config.clean, config.ignore
    side = min(config.unit_px, max(height, width)) + 2 * rules.dilation_px
    done = "already complete"
    if not plan.record.is_complete():
        counted, cleaned = len(plan.facts_record.done()), len(plan.record.done())
        done = f"{counted} already counted and {cleaned} already cleaned"
    rows = [
        f"labels {config.segment}: {plan.source.identity.get('image') or plan.source.identity.get('prediction')}",
        f"  surface       {height} x {width} px",
        f"  ink           {'below' if rules.invert else 'from'} {rules.threshold:g} of full scale, grown by "
        f"{rules.dilation_px} px, components from {rules.min_area_px} px"
        f"{_holes(rules)}",
        f"  ignored       {_ignored(ignore)}",
        f"  units         {len(plan.units)}, each in two passes; {done}",
        f"  reads         {2 * height * width / 2**20:,.0f} Mi pixels, in two passes",
        f"  writes        about {bytes_text((1 + int(ignore.any)) * height * width * 4 / 3)} (before compression) "
        f"to {plan.folder}",
        f"  peak memory   about {bytes_text(BASE_BYTES + BYTES_PER_PIXEL * side**2)}",
    ]
    return "\n".join(rows)


def _asked_ignore(rules: IgnoreRules) -> dict[str, Any]:
    image = Location.parse(rules.image).uri if rules.image else None
    return rules.model_copy(update={"image": image}).model_dump(mode="json")


def _holes(rules: CleaningRules) -> str:
    if not rules.fill_holes:
        return ""
    return ", holes filled" if rules.max_hole_px is None else f", holes up to {rules.max_hole_px} px filled"


def _ignored(rules: IgnoreRules) -> str:
    parts = [f"pixels of {rules.image}"] if rules.image else []
    if rules.uncertain:
        parts.append(f"values from {rules.uncertain[0]:g} to below {rules.uncertain[1]:g}")
    if rules.border != "none":
        parts.append(f"components at the border of the {rules.border}")
    return ", ".join(parts) or "nothing"


def _open_source(config: LabelsConfig) -> LabelSource:
    if config.image is not None and config.prediction is not None:
        raise ConfigError(f"segment {config.segment}: image and prediction are both given; choose one of them")
    if config.prediction is not None:
        if config.white is not None:
            raise ConfigError(f"segment {config.segment}: white belongs to an image, a prediction ends at 1; drop it")
        return PredictionLabels(open_map(config.root, config.segment, config.prediction))
    image = config.image
    if image is None:
        entry = Catalog.load(config.catalog).entries.get(config.segment)
        image = entry.ink_labels if entry else None
    if image is None:
        raise ConfigError(
            f"segment {config.segment}: its ink labels are unknown; give image (a 2-D picture) or prediction (a "
            "name), or write ink_labels into the catalog"
        )
    return PictureLabels(image, config.white)


def _require_size(config: LabelsConfig, what: str, found: tuple[int, ...], surface: SurfaceVolume) -> None:
    if tuple(found) != surface.shape_yx:
        raise DataError(
            f"segment {config.segment}: its {what} are {tuple(found)}, the surface is {surface.shape_yx} "
            "(height, width); give those of this very surface"
        )
