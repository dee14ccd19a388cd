"""`inkbatch evaluate`: scores of a map, the places where it fails, and the verdict on two maps.

Each unit counts its pixels per stored value, label and region and stores the counts; the process that finds all counts
adds them up and writes the scores. Nothing is counted twice, and a region is never split between units.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from inkbatch.config import JobConfig
from inkbatch.data.maps.comparison import (
    PIECE_YX,
    REGION_PX,
    UNITS_AHEAD,
    Bools,
    Comparison,
    UnitCounts,
    Where,
    decode_counts,
    encode_counts,
    open_comparison,
)
from inkbatch.data.maps.scoring import BINS, DEFAULT_THRESHOLD, ScoreHistogram
from inkbatch.data.maps.stored import StoredMap, map_address
from inkbatch.data.maps.truth import TruthChoice
from inkbatch.errors import ConfigError, CorruptDataError, DataError
from inkbatch.geometry import Box, Unit
from inkbatch.io.half_floats import opencv_threads
from inkbatch.io.store.location import Location
from inkbatch.reports.leave import leave_report
from inkbatch.run.job import JobReport, RunContext, run_job
from inkbatch.run.malloc import keep_freed_memory
from inkbatch.run.pipeline import Overlap, UnitWork
from inkbatch.run.record import RunFolder, RunManifest
from inkbatch.steps.evaluate import pictures
from inkbatch.steps.evaluate.page import page as report_page
from inkbatch.steps.evaluate.tables import Basis, Bootstrap, Evaluation, RegionCounts, lines, write_report
from inkbatch.text import bytes_text

BASE_BYTES = 150 << 20  # the interpreter with numpy and OpenCV
REGION_BYTES = 2048  # of the scores of a region and a map, for the tables and the page


class EvaluateConfig(JobConfig):
    """Settings of `inkbatch evaluate`.

    Attributes:
        segment: Segment id; it must be prepared, for its mask.
        name: Name or address of the prediction; None takes the only one.
        versus: Name or address of a second prediction to compare it with.
        labels: See `TruthChoice`.
        white: See `TruthChoice`.
        ignore: See `TruthChoice`.
        area: Part that counts as y0, x0, y1, x1 in pixels, half-open; None takes the whole segment.
        on: Which of the labelled pixels count: ``unseen`` leaves out those that trained a network of the maps,
            ``validation`` takes those alone that validated it, ``all`` takes all.
        thresholds: Where F-beta, Dice, IoU, precision and recall are taken beside the best threshold; None is 0.5 and
            the threshold that goes with the prediction.
        beta: Of F-beta.
        region_px: Edge of a region, and of a block of the bootstrap.
        bins: Bins of the reliability curve.
        draws: Draws of the bootstrap.
        level: Of its intervals.
        seed: Of its draws.
        to: Folder for the result; None is ``evaluation`` (or ``evaluation-versus-{versus}``) beside the prediction.
        root: ROOT: a folder or ``s3://bucket/prefix``.
        output_root: ROOT of the result, if it is not stored beside its inputs.
        catalog: The user's catalog file, for labels.
    """

    job: ClassVar[str] = "evaluate"
    spelled: ClassVar[Mapping[str, str]] = {"thresholds": "--threshold"}

    segment: str
    name: str | None = None
    versus: str | None = None
    labels: str | None = None
    white: float | None = Field(None, gt=0)
    ignore: str | None = None
    area: tuple[int, int, int, int] | None = None
    on: Where = "unseen"
    thresholds: tuple[float, ...] | None = None
    beta: float = Field(0.5, gt=0, le=100)
    region_px: int = Field(REGION_PX, ge=16)
    bins: int = Field(15, ge=2, le=1000)
    draws: int = Field(1000, ge=100, le=100_000)
    level: float = Field(0.95, gt=0, lt=1)
    seed: int = 0
    to: str | None = None
    root: str = "root"
    output_root: str | None = None
    catalog: str | None = None

    @property
    def choice(self) -> TruthChoice:
        """Labels that the maps are compared with."""
        return TruthChoice(self.labels, self.white, self.ignore, self.catalog)


@dataclass(frozen=True)
class EvaluatePlan:
    """Everything that is known before a pixel is read.

    Attributes:
        config: The job's settings.
        comparison: Opened predictions and labels; to be closed.
        thresholds: Given ones, ascending.
        folder: Where the result goes.
        manifest: The run's manifest.
    """

    config: EvaluateConfig
    comparison: Comparison
    thresholds: tuple[float, ...]
    folder: Location
    manifest: RunManifest

    @property
    def record(self) -> RunFolder:
        """The run's folder with its manifest."""
        return RunFolder(self.folder, self.manifest)

    def counts_of(self, unit: Unit) -> Location:
        """Return the path of a unit's counts."""
        return self.folder / "counts" / f"{unit.name}.blosc"

    def picks_of(self, unit: Unit) -> Location:
        """Return the path of some of a unit's labels, for the picture."""
        return self.folder / "counts" / f"{unit.name}.png"


def make_plan(config: EvaluateConfig) -> EvaluatePlan:
    """Open predictions and labels, compare them, and cut the segment into units. The caller closes the comparison.

    Raises:
        ConfigError: Thresholds that are no probabilities.
        InkbatchError: See `open_comparison`.
    """
    _require_probabilities(config.thresholds)
    names = [config.name] if config.versus is None else [config.name, config.versus]
    choice = (config.choice, config.area, config.region_px, config.on)
    compared = open_comparison(config.root, config.segment, names, *choice)
    thresholds = _thresholds(config, compared.maps)
    addresses = {"root", "output_root", "catalog", "to", "name", "versus", "labels", "white", "ignore"}
    settings = config.model_dump(mode="json", exclude=addresses) | {"thresholds": list(thresholds)}
    named = {key: map_address(found.name) for key, found in zip(("name", "versus"), compared.maps, strict=False)}
    request = config.request(**named, **compared.truth.request, catalog=None, to=None)
    manifest = RunManifest(
        "evaluate", settings, compared.identity, len(compared.units), request, compared.state, compared.now
    )
    return EvaluatePlan(config, compared, thresholds, _folder(config, compared.maps), manifest)


def run(config: EvaluateConfig, context: RunContext) -> JobReport:
    """Evaluate a prediction, or count this shard's part of it.

    Raises:
        InkbatchError: See `make_plan`; no pixel counts; damaged data; storage that gave up; a stop signal.
    """
    plan = make_plan(config)
    keep_freed_memory()
    with plan.comparison as compared, opencv_threads(1):
        truth = compared.truth
        for holes in truth.holes:
            context.reporter.note(f"labels: {holes}")
        if truth.made_from is not None:
            context.reporter.note(
                f"labels {truth.place}: were made from the prediction {truth.made_from}; a map that agrees with them "
                "agrees with that prediction, not with the papyrus"
            )
        return run_job(
            plan.record,
            compared.units,
            lambda: _work(plan),
            context,
            lambda _: _finish(plan),
            lambda folder, note: leave_report(folder, note, report_page),
        )


def describe(config: EvaluateConfig) -> str:
    """Describe the plan, as lines of text. Only metadata are read, nothing is written."""
    plan = make_plan(config)
    with plan.comparison as compared:
        height, width = compared.truth.shape_yx
        read = (2 * len(compared.maps) + 2) * compared.area.area
        regions = sum(len(compared.regions(unit)) for unit in compared.units)
        rows = [
            f"evaluate {config.segment}: {' versus '.join(found.name for found in compared.maps)}",
            f"  labels        {compared.truth.place}",
            f"  area          {compared.area.height} × {compared.area.width} of {height} × {width} px (height × width)",
            f"  thresholds    {', '.join(f'{value:g}' for value in plan.thresholds)}, and the best one",
            f"  regions       {regions} of {config.region_px} px",
            f"  units         {len(compared.units)}, {plan.record.state}",
            f"  reads         {bytes_text(read)} (before compression)",
            f"  peak memory   about {bytes_text(_peak_bytes(compared))}",
            f"  result        {plan.folder}",
        ]
        return "\n".join(rows)


def summary(folder: Location) -> list[str]:
    """Sum up a finished evaluation, as lines of text."""
    return list(lines(folder))


def _require_probabilities(thresholds: tuple[float, ...] | None) -> None:
    if thresholds is not None and (not thresholds or min(thresholds) < 0 or max(thresholds) > 1):
        raise ConfigError(f"thresholds: expected probabilities from 0 to 1, at least one, got {list(thresholds)}")


def _thresholds(config: EvaluateConfig, maps: tuple[StoredMap, ...]) -> tuple[float, ...]:
    if config.thresholds is None:
        own = {found.threshold for found in maps if found.threshold is not None}
        return tuple(sorted({DEFAULT_THRESHOLD, *own}))
    return tuple(sorted(set(config.thresholds)))


def _folder(config: EvaluateConfig, maps: tuple[StoredMap, ...]) -> Location:
    if config.to is not None:
        return Location.parse(config.to)
    tail = f"-versus-{maps[1].folder.name}" if len(maps) == 2 else ""
    tail += "" if config.on == "unseen" else f"-on-{config.on}"
    beside = maps[0].folder
    if config.output_root is not None:
        beside = Location.parse(config.output_root) / "predictions" / config.segment / beside.name
    return beside / f"evaluation{tail}"


def _work(plan: EvaluatePlan) -> UnitWork[Any, Any]:
    compared = plan.comparison
    level = pictures.picture_level([found.prediction for found in compared.maps], compared.area)

    def load(unit: Unit) -> tuple[UnitCounts, NDArray[np.uint8]]:
        box = unit.write_box.intersect(compared.area)
        picks = pictures.no_picks(box, level)

        def pick(piece: Box, ink: Bools, counted: Bools) -> None:
            pictures.fill_picks(picks, box, piece, ink, counted, level)

        return compared.count(unit, pick), picks

    def store(unit: Unit, loaded: tuple[UnitCounts, NDArray[np.uint8]]) -> Mapping[str, Any]:
        found, picks = loaded
        counts = found.values
        if picks.size:
            plan.picks_of(unit).write_bytes(pictures.encode(picks))
        plan.counts_of(unit).write_bytes(encode_counts(counts))
        facts = {"labelled_px": found.labelled_px, "trained_px": found.trained_px}
        return {"counted_px": int(counts[0].sum()), **facts}

    return UnitWork(load=load, compute=None, store=store, mark=plan.record.mark, overlap=Overlap(ahead=UNITS_AHEAD))


def _finish(plan: EvaluatePlan) -> Mapping[str, Any]:
    config, compared = plan.config, plan.comparison
    evaluation = Evaluation.of(
        lambda: _regions(plan),
        names=[found.name for found in compared.maps],
        thresholds=plan.thresholds,
        beta=config.beta,
        bins=config.bins,
        bootstrap=Bootstrap(config.draws, config.level, config.seed),
    )
    markers = [plan.record.marker(unit) for unit in compared.units]
    labelled, trained = (sum(int(one[key]) for one in markers) for key in ("labelled_px", "trained_px"))
    if evaluation.counted == 0 and trained and config.on == "unseen":
        raise DataError(
            f"evaluate {config.segment}: all {labelled:,} labelled pixels trained the network of these maps, so there "
            "is no score; evaluate a segment that it has not seen, or state --on all to see what it remembers"
        )
    if evaluation.counted == 0:
        raise DataError(
            f"evaluate {config.segment}: no pixel counts: the area, the mask and the ignore mask leave none; choose "
            "another area"
        )
    if evaluation.ink == 0:
        raise DataError(
            f"labels {compared.truth.place}: there is no ink among the {evaluation.counted:,} pixels that count; give "
            "other labels or another area, or state the stored value of certain ink with --set white=1"
        )
    basis = Basis(
        compared.truth.place,
        compared.truth.made_from,
        config.region_px,
        config.on,
        labelled,
        trained,
        {found.threshold: found.threshold_fitted_on for found in compared.maps},
    )
    write_report(plan.folder, evaluation, basis)
    _write_pictures(plan, evaluation)
    return {"counted_px": evaluation.counted, "ink_px": evaluation.ink}


def _regions(plan: EvaluatePlan) -> Iterator[RegionCounts]:
    """Read the stored counts, region by region."""
    compared = plan.comparison
    for unit in compared.units:
        regions = compared.regions(unit)
        counts = _decoded(plan.counts_of(unit), (len(compared.maps), len(regions), 2, BINS))
        for place, region in enumerate(regions):
            yield RegionCounts(region, [ScoreHistogram(ink, bare) for bare, ink in counts[:, place]])


def _write_pictures(plan: EvaluatePlan, evaluation: Evaluation) -> None:
    compared = plan.comparison
    best = [at for _, at in evaluation.best]
    maps = [(found.name, found.prediction, at) for found, at in zip(compared.maps, best, strict=True)]
    picks = [(unit.write_box.intersect(compared.area), plan.picks_of(unit)) for unit in compared.units]
    um = compared.maps[0].pixel_um
    pictures.write_pictures(plan.folder, maps, compared.area, picks, evaluation.regions, compared.truth.read, um)


def _decoded(place: Location, shape: tuple[int, ...]) -> NDArray[np.int64]:
    try:
        return decode_counts(place.read_bytes()).reshape(shape).astype(np.int64)
    except (RuntimeError, ValueError) as error:
        raise CorruptDataError(f"{place}: these counts are damaged; remove the folder and evaluate again") from error


def _peak_bytes(compared: Comparison) -> int:
    maps, boxes = len(compared.maps), [unit.write_box.intersect(compared.area) for unit in compared.units]
    largest = max((box.area for box in boxes), default=0)
    fetched = 0 if compared.maps[0].folder.is_local else 2 * maps + 2  # stored bytes are fetched when a unit opens
    piece = PIECE_YX[0] * PIECE_YX[1] * (2 * maps + 6)
    regions = [len(compared.regions(unit)) for unit in compared.units]
    counts = max(regions, default=0) * maps * 2 * BINS * 4
    reading = min(largest, piece) + largest * (fetched + compared.truth.held_bytes)
    page = sum(regions) * maps * REGION_BYTES
    return BASE_BYTES + UNITS_AHEAD * reading + (UNITS_AHEAD + 2) * 2 * counts + page
