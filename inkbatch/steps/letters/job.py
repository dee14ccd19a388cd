"""Letters of a segment's ink map: strokes are found unit by unit, letters and lines in all of them together.

What is kept of the map is a box and an area per stroke, so that memory does not follow from its size, nor letters from
how it is cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from inkbatch.config import JobConfig
from inkbatch.data.instances.ascent import Evidence, Limits, first_pass
from inkbatch.data.instances.joining import join
from inkbatch.data.instances.letters import LetterRules, read_letters, turned
from inkbatch.data.instances.proposals import limits_of
from inkbatch.data.instances.settings import ProposalRules, area_px, length_px
from inkbatch.data.instances.unit_facts import BasinFacts, facts_of
from inkbatch.data.maps.stored import StoredMap, map_address, maps_now, maps_state, open_map, warnings_of
from inkbatch.errors import DataError, MismatchError
from inkbatch.geometry import Box, Unit, cut
from inkbatch.io.half_floats import opencv_threads
from inkbatch.io.shard_size import ShardPx
from inkbatch.io.store.location import Location
from inkbatch.reports.leave import leave_report
from inkbatch.run.job import JobReport, RunContext, run_job
from inkbatch.run.pipeline import UnitWork
from inkbatch.run.record import RunFolder, RunManifest
from inkbatch.steps.letters.files import Page, write_files
from inkbatch.steps.letters.page import page
from inkbatch.text import count_text

UNIT_PX = 2048


class LettersConfig(JobConfig):
    """Settings of letters.

    Attributes:
        segment: Segment id.
        name: Name or address of the prediction; None takes the only one.
        result: Name of the result; None is ``{prediction}-letters``.
        rules: Rules from strokes to letters.
        cutouts: Write a picture of each letter, of the ink map.
        margin: Pixels around a letter in its cut-out, as a share of the height of letters.
        root: ROOT: a folder or ``s3://bucket/prefix``.
        output_root: ROOT of the result, if it is not stored beside its inputs.
        unit_px: Edge of a unit, a power of two of at least 32.
    """

    job: ClassVar[str] = "letters"

    segment: str
    name: str | None = None
    result: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    rules: LetterRules = LetterRules()
    cutouts: bool = True
    margin: float = Field(0.15, ge=0, le=1)
    root: str = "root"
    output_root: str | None = None
    unit_px: ShardPx = UNIT_PX


@dataclass(frozen=True)
class LettersPlan:
    """Everything that is known before a pixel is read.

    Attributes:
        config: The job's settings.
        source: The map.
        limits: How strokes are found, in pixels.
        units: Units, row-major.
        folder: ``ROOT/instances/{segment}/{result}``.
        manifest: Of the run.
    """

    config: LettersConfig
    source: StoredMap
    limits: Limits
    units: list[Unit]
    folder: Location
    manifest: RunManifest

    @property
    def record(self) -> RunFolder:
        """The run."""
        return RunFolder(self.folder, self.manifest)

    def strokes_place(self, unit: Unit) -> Location:
        """Return the place of the strokes in a unit."""
        return self.folder / f"strokes/{unit.name}.npz"


def make_plan(config: LettersConfig) -> LettersPlan:
    """Open the map and cut it into units.

    Raises:
        ConfigError: A rule in micrometres without a scale.
        DataError: No prediction, or one that is not complete.
        MismatchError: A prediction that holds ranks.
    """
    source = open_map(config.root, config.segment, config.name)
    if source.holds_ranks:
        raise MismatchError(
            f"prediction {config.segment}/{source.name}: expected probabilities, got ranks; take another method of "
            "ensemble"
        )
    rules = config.rules
    _check(rules, source.pixel_um)
    limits = limits_of(
        ProposalRules(object_from=rules.ink_from, min_area=rules.min_stroke, reach=1.0, cluster=0.0, grow=0.0),
        source.pixel_um,
    )
    result = config.result or f"{source.folder.name}-letters"
    whole = Box(0, 0, *source.shape_yx)
    units = [
        Unit(index, box, box.grow(limits.halo_px).intersect(whole))
        for index, box in enumerate(cut(source.shape_yx, config.unit_px, config.unit_px))
    ]
    keep_out = {"root", "output_root", "name", "result"}
    settings = {**config.model_dump(mode="json", exclude=keep_out), "result": result}
    inputs: dict[str, Any] = {"prediction": source.identity, **warnings_of([source])}
    request = config.request(name=map_address(source.name), result=result)
    manifest = RunManifest(
        "letters", settings, inputs, len(units), request, maps_state([source]), partial(maps_now, [source])
    )
    folder = Location.parse(config.output_root or config.root) / "instances" / config.segment / result
    return LettersPlan(config, source, limits, units, folder, manifest)


def _check(rules: LetterRules, pixel_um: float | None) -> None:
    """Convert every rule once, so that one that cannot be is refused before anything is read."""
    area_px(rules.min_stroke, pixel_um)
    for value in (rules.join, rules.pitch):
        if value is not None:
            length_px(value, pixel_um)


def run(config: LettersConfig, context: RunContext) -> JobReport:
    """Find the strokes of a segment, or of this shard's units; whoever does the last unit finds and writes letters.

    Raises:
        InkbatchError: See `make_plan`; no stroke; damaged data; storage that gave up; a stop signal.
    """
    plan = make_plan(config)
    with opencv_threads(1):
        return run_job(
            plan.record,
            plan.units,
            lambda: strokes_work(plan),
            context,
            lambda _: _finish(plan),
            lambda folder, note: leave_report(folder, note, page),
        )


def strokes_work(plan: LettersPlan) -> UnitWork[Any, Any]:
    """Find the strokes in each unit, and what its neighbours need to join those at seams."""
    height, width = plan.source.shape_yx

    def load(unit: Unit) -> Evidence:
        return Evidence.of(plan.source.prediction.read(unit.read_box).astype(np.float32))

    def compute(unit: Unit, evidence: Evidence) -> BasinFacts:
        box, inner = unit.write_box, unit.write_box.within(unit.read_box)
        own = Evidence(evidence.object[inner], None, evidence.background[inner])
        sides = box.y0 > 0, box.y1 < height, box.x0 > 0, box.x1 < width
        return facts_of(first_pass(evidence, (box.y0, box.x0), inner, sides, plan.limits), box, own)

    def store(unit: Unit, facts: BasinFacts) -> dict[str, Any]:
        return {"bytes_written": facts.store(plan.strokes_place(unit))}

    return UnitWork(load=load, compute=compute, store=store, mark=plan.record.mark)


def _finish(plan: LettersPlan) -> dict[str, Any]:
    """Join all strokes to letters and write everything about them; equal maps give equal bytes.

    Raises:
        DataError: There is no stroke.
    """
    config, source = plan.config, plan.source
    strokes = join([BasinFacts.read(plan.strokes_place(unit)) for unit in plan.units], plan.limits.neck).components
    turn = config.rules.turn
    boxes = turned(strokes.extent, source.shape_yx, turn)
    writing = read_letters(boxes, strokes.area, config.rules, source.pixel_um)
    if not writing.letters:
        raise DataError(
            f"letters {config.segment}: expected strokes of at least {config.rules.min_stroke} px where the "
            f"probability reaches {config.rules.ink_from:g}, got none; lower rules.ink_from or rules.min_stroke"
        )
    margin_px = round(config.margin * writing.height_px) if config.cutouts else None
    write_files(plan.folder, Page(source, writing, strokes.area, turn), margin_px)
    return {"letters": len(writing.letters), "lines": len(writing.lines)}


def describe(config: LettersConfig) -> str:
    """Describe the plan, as lines of text. Only metadata are read, nothing is written."""
    plan = make_plan(config)
    height, width = plan.source.shape_yx
    done = "already complete" if plan.record.is_complete() else f"{len(plan.record.done())} already searched"
    pitch = "found by periodicity" if config.rules.pitch is None else f"given: {config.rules.pitch}"
    files = "tables, COCO, rows.png" + (" and a cut-out per letter" if config.cutouts else "")
    return "\n".join(
        [
            f"letters {config.segment}: map {plan.source.name}, {width:,} × {height:,} px",
            f"  strokes       from {plan.limits.object_from:g}, at least {plan.limits.min_px} px",
            f"  lines         {pitch}{f', in the map turned by {config.rules.turn}°' if config.rules.turn else ''}",
            f"  units         {len(plan.units)}; {done}",
            f"  writes        {files} to {plan.folder}",
        ]
    )


def summary(folder: Location) -> list[str]:
    """Sum up a finished result in lines of text."""
    facts = (folder / "letters.json").read_mapping()
    high = f"{facts['height_px']:g} px ({facts['height_px'] * facts['pixel_um'] / 1000:.2f} mm) high"
    return [f"letters: {count_text(facts['letters'], 'letter')} in {count_text(facts['lines'], 'line')}, {high}"]
