"""`inkbatch clean`: a prediction becomes a clean one: denoised, cut at a threshold, without small components.

Components are those of the whole segment, not of its units: two passes over the same units, as in `inkbatch labels`.
The first one writes facts on the components that seams cut; the second one joins all facts and writes the map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from inkbatch.config import JobConfig
from inkbatch.data.labels.cleaning import clean_unit
from inkbatch.data.labels.component_facts import UnitFacts, facts_of
from inkbatch.data.labels.components import UnitComponents, unit_components
from inkbatch.data.labels.denoising import DenoiseRules, denoised
from inkbatch.data.labels.seams import Merged, merge
from inkbatch.data.maps.combining import plain_table
from inkbatch.data.maps.scoring import threshold_of
from inkbatch.data.maps.stored import StoredMap, map_address, maps_now, maps_state, open_map, warnings_of
from inkbatch.errors import ConfigError
from inkbatch.geometry import Box, Unit, cut
from inkbatch.io.half_floats import looked_up, opencv_threads
from inkbatch.io.pictures.preview import write_preview
from inkbatch.io.prediction import Prediction
from inkbatch.io.shard_size import ShardPx
from inkbatch.io.store.location import Location
from inkbatch.reports.leave import leave_report
from inkbatch.run.job import JobReport, RunContext, begin, run_job
from inkbatch.run.passes import all_whole, run_first, run_rest
from inkbatch.run.pipeline import UnitWork
from inkbatch.run.record import RunFolder, RunManifest
from inkbatch.steps.labels.clean_page import page as report_page
from inkbatch.steps.labels.clean_page import removed_text
from inkbatch.text import bytes_text

UNIT_PX = 2048
LISTED = 1_000  # components in components.json

Floats = NDArray[np.float32]


class CleanConfig(JobConfig):
    """Settings of `inkbatch clean`.

    Attributes:
        segment: Segment id.
        name: Name or address of the prediction; None takes the only one.
        result: Name of the clean one; None is ``{name}-clean``.
        denoise: Denoising before the threshold.
        threshold: Probability from which (inclusive) a pixel is ink; None is the prediction's own, or 0.5 where it
            has none.
        min_area_px: Ink components (8 neighbours) of fewer pixels are taken away.
        max_hole_px: Largest hole in ink that is filled; 0 fills none. Letters such as omicron have holes of their own.
        values: ``mask`` stores 1 for ink, ``probability`` what the (denoised) map says there; 0 elsewhere.
        root: ROOT: a folder or ``s3://bucket/prefix``.
        output_root: ROOT of the result, if it is not stored beside its inputs.
        unit_px: Edge of a unit, a power of two of at least 32.
    """

    job: ClassVar[str] = "clean"

    segment: str
    name: str | None = None
    result: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    denoise: DenoiseRules = Field(default_factory=DenoiseRules)
    threshold: float | None = Field(None, gt=0, le=1)
    min_area_px: int = Field(500, ge=0)
    max_hole_px: int = Field(0, ge=0)
    values: Literal["mask", "probability"] = "mask"
    root: str = "root"
    output_root: str | None = None
    unit_px: ShardPx = UNIT_PX


@dataclass(frozen=True)
class CleanPlan:
    """Everything that is known before a pixel is read.

    Attributes:
        config: The job's settings.
        source: The opened prediction.
        threshold: From which a pixel is ink.
        units: Units of both passes, row-major.
        folder: ``ROOT/predictions/{segment}/{result}``.
        manifest: Of the second pass; the first one differs in its job's name.
    """

    config: CleanConfig
    source: StoredMap
    threshold: float
    units: list[Unit]
    folder: Location
    manifest: RunManifest

    @property
    def record(self) -> RunFolder:
        """The run that writes the map."""
        return RunFolder(self.folder, self.manifest)

    @property
    def facts_record(self) -> RunFolder:
        """The run that writes facts on components."""
        return RunFolder(self.folder / "components", self.manifest.of_pass("clean-components"))

    def facts_place(self, unit: Unit) -> Location:
        """Return the path of a unit's facts."""
        return self.folder / f"components/facts/{unit.name}.json"

    @cached_property
    def merged(self) -> Merged:
        """All units' components, joined."""
        places = [self.facts_place(unit) for unit in self.units]
        facts = [UnitFacts.stored(place.read_json(), str(place)) for place in places]
        hole = self.config.max_hole_px
        return merge(facts, min_area_px=self.config.min_area_px, fill_holes=hole > 0, max_hole_px=hole, listed=LISTED)


def make_plan(config: CleanConfig) -> CleanPlan:
    """Open the prediction and cut the segment into units.

    Raises:
        ConfigError: The result would replace its source.
        DataError: The prediction is not there, or not complete.
    """
    source = open_map(config.root, config.segment, config.name)
    result = config.result or f"{source.folder.name}-clean"
    folder = Location.parse(config.output_root or config.root) / "predictions" / config.segment / result
    if folder == source.folder:
        raise ConfigError(f"clean {config.segment}: the result would replace {source.name}; give it another --result")
    threshold = threshold_of(config.threshold, source.threshold)
    whole, halo = Box(0, 0, *source.shape_yx), config.denoise.halo_px
    units = [
        Unit(index, box, Box(box.y0 - halo, box.x0 - halo, box.y1 + halo, box.x1 + halo).intersect(whole))
        for index, box in enumerate(cut(source.shape_yx, config.unit_px, config.unit_px))
    ]
    settings = config.model_dump(mode="json", exclude={"root", "output_root", "name", "result"})
    settings |= {"name": result, "threshold": threshold}
    request = config.request(name=map_address(source.name), result=result)
    inputs: dict[str, Any] = {"prediction": source.identity, **warnings_of([source])}
    if trained_on := source.trained_on.document:
        inputs["trained_on"] = trained_on
    manifest = RunManifest(
        "clean", settings, inputs, len(units), request, maps_state([source]), partial(maps_now, [source])
    )
    return CleanPlan(config, source, threshold, units, folder, manifest)


def run(config: CleanConfig, context: RunContext) -> JobReport:
    """Clean a prediction, or do this shard's part of it.

    The second pass needs the facts of every unit. A shard that finds some missing (another shard has them in hand)
    ends after its first pass with units left. The one that finds all of them does its own units of the second pass, and
    then those that are still missing: when the last shard has ended, the map is whole.

    Raises:
        InkbatchError: See `make_plan`; damaged data; storage that gave up; a stop signal.
    """
    with opencv_threads(1):
        return _run(make_plan(config), context)


def _run(plan: CleanPlan, context: RunContext) -> JobReport:
    begin(plan.record, context)  # refuses a result of other settings or inputs before any work is done
    if not all_whole([(record, plan.units) for record in (plan.facts_record, plan.record)], context):
        words = {"job": "clean", "doing": "counted", "result": "map"}
        first = run_first(plan.facts_record, plan.units, lambda: _facts_work(plan), context, **words)
        if not first.complete:
            return first

    def write(part: RunContext) -> JobReport:
        return run_job(
            plan.record,
            plan.units,
            lambda: _map_work(plan),
            part,
            lambda _: _finish(plan),
            lambda folder, note: leave_report(folder, note, report_page),
        )

    return run_rest(write, context)


def describe(config: CleanConfig) -> str:
    """Describe the plan, as lines of text. Only metadata are read, nothing is written."""
    plan = make_plan(config)
    height, width = plan.source.shape_yx
    done = "already complete"
    if not plan.record.is_complete():
        done = f"{len(plan.facts_record.done())} already counted and {len(plan.record.done())} already cleaned"
    rows = [
        f"clean {config.segment}: {plan.source.name}",
        f"  surface       {height} × {width} px (height × width)",
        f"  denoise       {config.denoise.method}",
        f"  ink           from {plan.threshold:g}, components from {config.min_area_px} px",
        f"  units         {len(plan.units)}, each in two passes; {done}",
        f"  reads         {bytes_text(2 * 2 * height * width)} (before compression), in two passes",
        f"  writes        about {bytes_text(2 * height * width * 4 / 3)} (before compression) to {plan.folder}",
    ]
    return "\n".join(rows)


def summary(folder: Location) -> list[str]:
    """Sum up a finished map in lines of text: what was removed, what is left."""
    return [f"clean: {removed_text((folder / 'components.json').read_json())}"]


def _load(plan: CleanPlan, unit: Unit) -> Floats:
    return looked_up(plan.source.codes(unit.read_box), plain_table())


def _prepared(plan: CleanPlan, unit: Unit, loaded: Floats) -> tuple[Floats, UnitComponents]:
    """Denoise the write box, and find its components."""
    box = unit.write_box
    values = denoised(loaded, plan.config.denoise)[box.within(unit.read_box)]
    parts = unit_components(
        values >= np.float32(plan.threshold),
        box,
        plan.source.shape_yx,
        border=np.zeros(box.shape, bool),
        min_area_px=plan.config.min_area_px,
        holes=plan.config.max_hole_px > 0,
    )
    return values, parts


def _facts_work(plan: CleanPlan) -> UnitWork[Any, Any]:
    def store(unit: Unit, facts: UnitFacts) -> Mapping[str, Any]:
        plan.facts_place(unit).write_json(facts.model_dump(mode="json"))
        return {}

    return UnitWork(
        load=lambda unit: _load(plan, unit),
        compute=lambda unit, loaded: facts_of(_prepared(plan, unit, loaded)[1], LISTED),
        store=store,
        mark=plan.facts_record.mark,
    )


def _map_work(plan: CleanPlan) -> UnitWork[Any, Any]:
    merged, config = plan.merged, plan.config
    provenance = {"kind": "prediction", "digest": plan.manifest.digest, **plan.manifest.inputs}
    output = Prediction.create(plan.folder, plan.source.shape_yx, config.unit_px, plan.source.pixel_um, provenance)

    def compute(unit: Unit, loaded: Floats) -> Floats:
        values, parts = _prepared(plan, unit, loaded)
        ink, _ = clean_unit(parts, merged.decisions[unit.write_box.y0, unit.write_box.x0], config.max_hole_px)
        return np.where(ink, values if config.values == "probability" else np.float32(1), np.float32(0))

    def store(unit: Unit, values: Floats) -> Mapping[str, Any]:
        stored = output.write(unit.write_box, values)
        return {"bytes_written": stored, "ink_px": int(np.count_nonzero(values))}

    return UnitWork(load=lambda unit: _load(plan, unit), compute=compute, store=store, mark=plan.record.mark)


def _finish(plan: CleanPlan) -> Mapping[str, Any]:
    write_preview(Prediction.open(plan.folder).pyramid, plan.folder / "preview.png")
    merged = plan.merged
    facts = {
        "components": merged.kept_count,
        "component_px": merged.kept_px,
        "removed_components": merged.removed_count,
        "removed_px": merged.removed_px,
        "ink_px": sum(plan.record.marker(unit)["ink_px"] for unit in plan.units),
    }
    largest = [component.model_dump(mode="json") for component in merged.components]
    (plan.folder / "components.json").write_json({**facts, "largest": largest})
    return facts
