"""Plan of `inkbatch labels`: its sources and units."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from inkbatch.data.labels.ignore import IgnoreRules
from inkbatch.data.maps.carried import Carried
from inkbatch.data.maps.label_source import LabelSource
from inkbatch.data.segments.catalog import check_segment_id
from inkbatch.data.segments.prepared import segment_folder, surface_now, surface_state
from inkbatch.geometry import Box, Unit, cut
from inkbatch.io.shard_size import require_shard_px
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume
from inkbatch.run.record import RunFolder, RunManifest, require_complete
from inkbatch.steps.labels.count import Counted, counted
from inkbatch.steps.labels.settings import LabelsConfig
from inkbatch.steps.labels.sources import LabelInputs, open_inputs


@dataclass(frozen=True)
class LabelsPlan:
    """Everything that is known before a pixel is read.

    Attributes:
        config: The job's settings.
        inputs: Opened labels and masks.
        surface: The prepared surface.
        units: Units of both passes, row-major.
        folder: ``ROOT/segments/{segment}`` of the labels.
        manifest: Of the second pass; the first one differs in its job's name.
    """

    config: LabelsConfig
    inputs: LabelInputs
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
        return RunFolder(self.folder / "labels/components", self.manifest.of_pass("labels-components"))

    def facts_place(self, unit: Unit) -> Location:
        """Return the path of a unit's facts."""
        return self.folder / f"labels/components/facts/{unit.name}.json"

    @property
    def source(self) -> LabelSource:
        """The labels."""
        return self.inputs.labels

    @property
    def has_ignored(self) -> bool:
        """True if there is an ignore mask to make."""
        return self.config.ignore.any or self.inputs.ignore_image is not None or self.inputs.supervision is not None

    @cached_property
    def counted(self) -> Counted:
        """Facts of all units, joined and checked.

        Raises:
            DataError: No ink is left, several planes hold ink, or a mask marks nothing or everything.
        """
        return counted(self.config, self.inputs, [self.facts_place(unit).read_mapping() for unit in self.units])


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
    opened, asked = open_inputs(config, surface), config
    config = _with_band(config, opened.labels)
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
    younger = {"soft": config.soft or None, "level": config.level}  # left out where an older version knew none
    settings |= {key: value for key, value in younger.items() if value is not None}
    inputs: dict[str, Any] = {"surface": prepared["digest"], **opened.identity}
    request = asked.request(**opened.request, ignore=_asked_ignore(asked.ignore), catalog=None, replace=None)
    versions, again = opened.watch()
    state = {**surface_state(config.root, config.segment), **versions}

    def now() -> dict[str, Any]:
        return {**surface_now(config.root, config.segment), **again()}

    manifest = RunManifest("labels", settings, inputs, len(units), request, state, now)
    target = segment_folder(config.output_root or config.root, config.segment)
    return LabelsPlan(config, opened, surface, units, target, manifest)


def _with_band(config: LabelsConfig, labels: LabelSource) -> LabelsConfig:
    """Ignore the values around a carried map's threshold, unless others are to be ignored."""
    if not isinstance(labels, Carried) or config.ignore.uncertain is not None:
        return config
    ignore = config.ignore.model_copy(update={"uncertain": labels.band(config.band)})
    return config.model_copy(update={"ignore": ignore})


def _asked_ignore(rules: IgnoreRules) -> dict[str, Any]:
    image = Location.parse(rules.image).uri if rules.image else None
    return rules.model_copy(update={"image": image}).model_dump(mode="json")
