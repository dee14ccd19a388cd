"""`inkbatch evaluate`: how good a map is, where it fails, and whether it is better than another one.

Each unit counts its pixels per stored value, label and region and stores the counts; whoever finds all counts adds them
up and writes the scores. Nothing is counted twice, and a region is never split between units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numcodecs import Blosc
from numpy.typing import NDArray
from pydantic import Field

from inkbatch.config import JobConfig
from inkbatch.data.maps.area import area_box
from inkbatch.data.maps.scoring import BINS, ScoreHistogram, score_counts
from inkbatch.data.maps.stored import StoredMap, map_address, open_map, require_one_grid
from inkbatch.data.maps.truth import Truth, TruthChoice
from inkbatch.errors import ConfigError, CorruptDataError, DataError, MismatchError
from inkbatch.geometry import Box, Unit, cells, cut
from inkbatch.io.half_floats import opencv_threads
from inkbatch.io.prediction import CHUNK_PX
from inkbatch.io.store.location import Location
from inkbatch.io.threads import CODEC_THREADS
from inkbatch.reports.leave import leave_report
from inkbatch.run.job import JobReport, RunContext, run_job
from inkbatch.run.malloc import keep_freed_memory
from inkbatch.run.pipeline import Overlap, UnitWork
from inkbatch.run.record import RunFolder, RunManifest
from inkbatch.steps.evaluate import pictures
from inkbatch.steps.evaluate.page import page as report_page
from inkbatch.steps.evaluate.tables import Bootstrap, Evaluation, Part, lines, write_report

UNIT_PX = 4096
MOST_REGIONS_YX = 16  # of a unit along each axis; each holds 120 KiB of counts per map
DEFAULT_THRESHOLD = 0.5
BASE_BYTES = 150 << 20  # the interpreter with numpy and OpenCV
REGION_BYTES = 2048  # of the scores of a region and a map, for the tables and the page
UNITS_AHEAD = CODEC_THREADS  # each is read and counted by one thread; a third one costs a tenth in waiting for locks
WINDOW_YX = (2 * CHUNK_PX, 4 * CHUNK_PX)  # counted at a time: stays in the cache, is worth its calls, fits in a region
COUNTS_CODEC = Blosc("lz4", 3, Blosc.SHUFFLE, typesize=4)

Bools = NDArray[np.bool_]
Counts = NDArray[np.uint32]


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
        output_root: ROOT of the result, where it is not to lie beside what it is made from.
        catalog: The user's catalog file, for labels.
    """

    job: ClassVar[str] = "evaluate"

    segment: str
    name: str | None = None
    versus: str | None = None
    labels: str | None = None
    white: float | None = Field(None, gt=0)
    ignore: str | None = None
    area: tuple[int, int, int, int] | None = None
    thresholds: tuple[float, ...] | None = None
    beta: float = Field(0.5, gt=0, le=100)
    region_px: int = Field(1024, ge=16)
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
        """What is compared with."""
        return TruthChoice(self.labels, self.white, self.ignore, self.catalog)


@dataclass(frozen=True)
class EvaluatePlan:
    """Everything that is settled before a pixel is read.

    Attributes:
        config: The job's settings.
        maps: One prediction, or two.
        truth: Opened labels; to be closed.
        area: The part that counts.
        thresholds: Given ones, ascending.
        units: Units that touch the area, row-major.
        folder: Where the result goes.
        manifest: The run's manifest.
    """

    config: EvaluateConfig
    maps: tuple[StoredMap, ...]
    truth: Truth
    area: Box
    thresholds: tuple[float, ...]
    units: list[Unit]
    folder: Location
    manifest: RunManifest

    def part(self, unit: Unit) -> Location:
        """Where a unit's counts lie."""
        return self.folder / "counts" / f"{unit.name}.blosc"

    def picks(self, unit: Unit) -> Location:
        """Where some of a unit's labels lie, for the picture."""
        return self.folder / "counts" / f"{unit.name}.png"

    def regions(self, unit: Unit) -> list[Box]:
        """The regions of a unit that touch the area."""
        edge, box = self.config.region_px, unit.write_box
        found = [
            Box(part.y0 + box.y0, part.x0 + box.x0, part.y1 + box.y0, part.x1 + box.x0)
            for part in cut(box.shape, edge, edge)
        ]
        return [part for part in (region.intersect(self.area) for region in found) if part.area]


def make_plan(config: EvaluateConfig) -> EvaluatePlan:
    """Open predictions and labels, compare them, and cut the segment into units. The caller closes the labels.

    Raises:
        NoLabelsError: No labels are known for the segment.
        ConfigError: A value that cannot be carried out; a catalog that cannot be read.
        DataError: A prediction or the labels are not whole, or of another size.
        MismatchError: The two predictions do not lie on one grid, or are one.
    """
    names = [config.name] if config.versus is None else [config.name, config.versus]
    maps = tuple(open_map(config.root, config.segment, name) for name in names)
    require_one_grid(maps)
    if len(maps) == 2 and maps[0].digest == maps[1].digest:
        raise ConfigError(f"evaluate {config.segment}: {maps[0].name} is compared with itself; name another prediction")
    thresholds = _thresholds(config, maps)
    area = area_box(config.area, maps[0].shape_yx)
    truth = Truth(config.root, config.segment, config.choice)
    if truth.shape_yx != maps[0].shape_yx:
        truth.close()
        raise MismatchError(
            f"prediction {maps[0].name}: is {maps[0].shape_yx}, the mask and labels are {truth.shape_yx} (height, "
            "width); infer it from this very surface"
        )
    step = config.region_px * min(MOST_REGIONS_YX, max(1, UNIT_PX // config.region_px))
    boxes = [box for box in cut(maps[0].shape_yx, step, step) if box.intersect(area).area]
    units = [Unit(index, box, box) for index, box in enumerate(boxes)]
    ways = {"root", "output_root", "catalog", "to", "name", "versus", "labels", "white", "ignore"}
    settings = config.model_dump(mode="json", exclude=ways) | {"thresholds": list(thresholds)}
    inputs = {"predictions": [found.identity for found in maps], "truth": truth.identity}
    named = {key: map_address(found.name) for key, found in zip(("name", "versus"), maps, strict=False)}
    request = config.request(**named, **truth.request, catalog=None, to=None)
    manifest = RunManifest("evaluate", settings, inputs, len(units), request)
    return EvaluatePlan(config, maps, truth, area, thresholds, units, _folder(config, maps), manifest)


def run(config: EvaluateConfig, context: RunContext) -> JobReport:
    """Evaluate a prediction, or count this shard's part of it.

    Raises:
        InkbatchError: See `make_plan`; no pixel counts; damaged data; storage that gave up; a stop signal.
    """
    plan = make_plan(config)
    keep_freed_memory()
    with plan.truth as truth, opencv_threads(1):
        if truth.made_from is not None:
            context.reporter.note(
                f"labels {truth.place}: were made from the prediction {truth.made_from}; a map that agrees with them "
                "agrees with that prediction, not with the papyrus"
            )
        record = RunFolder(plan.folder, plan.manifest)
        return run_job(
            record,
            plan.units,
            lambda: _work(plan, record),
            context,
            lambda _: _finish(plan),
            lambda folder, note: leave_report(folder, note, report_page),
        )


def count(plan: EvaluatePlan, unit: Unit) -> Counts:
    """Counts of a unit: (maps, regions, 2, values); bare papyrus first, then ink."""
    return _counted(plan, unit, lambda window, ink, counted: None)


def describe(config: EvaluateConfig) -> str:
    """The plan, as lines of text. Only metadata are read, nothing is written."""
    plan = make_plan(config)
    with plan.truth as truth:
        record = RunFolder(plan.folder, plan.manifest)
        done = "complete already" if record.is_complete() else f"{len(record.done())} done already"
        height, width = truth.shape_yx
        regions = sum(len(plan.regions(unit)) for unit in plan.units)
        rows = [
            f"evaluate {config.segment}: {' versus '.join(found.name for found in plan.maps)}",
            f"  labels        {truth.place}",
            f"  area          {plan.area.height} × {plan.area.width} of {height} × {width} px (height × width)",
            f"  thresholds    {', '.join(f'{value:g}' for value in plan.thresholds)}, and the best one",
            f"  regions       {regions} of {config.region_px} px",
            f"  units         {len(plan.units)}, {done}",
            f"  reads         {(2 * len(plan.maps) + 2) * plan.area.area / 2**20:,.0f} MiB (before compression)",
            f"  peak memory   about {_peak_bytes(plan) / 2**20:,.0f} MiB",
            f"  result        {plan.folder}",
        ]
        return "\n".join(rows)


def summary(folder: Location) -> list[str]:
    """What a finished evaluation says, as lines of text."""
    return list(lines(folder))


def _thresholds(config: EvaluateConfig, maps: tuple[StoredMap, ...]) -> tuple[float, ...]:
    if config.thresholds is None:
        own = {found.threshold for found in maps if found.threshold is not None}
        return tuple(sorted({DEFAULT_THRESHOLD, *own}))
    if not config.thresholds or min(config.thresholds) < 0 or max(config.thresholds) > 1:
        raise ConfigError(f"thresholds {list(config.thresholds)}: probabilities from 0 to 1 are wanted, one at least")
    return tuple(sorted(set(config.thresholds)))


def _folder(config: EvaluateConfig, maps: tuple[StoredMap, ...]) -> Location:
    if config.to is not None:
        return Location.parse(config.to)
    tail = f"-versus-{maps[1].folder.name}" if len(maps) == 2 else ""
    beside = maps[0].folder
    if config.output_root is not None:
        beside = Location.parse(config.output_root) / "predictions" / config.segment / beside.name
    return beside / f"evaluation{tail}"


def _work(plan: EvaluatePlan, record: RunFolder) -> UnitWork[Any, Any]:
    level = pictures.picture_level([found.prediction for found in plan.maps], plan.area)

    def load(unit: Unit) -> tuple[Counts, NDArray[np.uint8]]:
        box = unit.write_box.intersect(plan.area)
        picks = pictures.no_picks(box, level)

        def pick(window: Box, ink: Bools, counted: Bools) -> None:
            pictures.fill_picks(picks, box, window, ink, counted, level)

        return _counted(plan, unit, pick), picks

    def store(unit: Unit, loaded: tuple[Counts, NDArray[np.uint8]]) -> Mapping[str, Any]:
        counts, picks = loaded
        if picks.size:
            plan.picks(unit).write_bytes(pictures.encode(picks))
        plan.part(unit).write_bytes(COUNTS_CODEC.encode(np.ascontiguousarray(counts)))
        return {"counted_px": int(counts[0].sum())}

    return UnitWork(load=load, compute=None, store=store, mark=record.mark, overlap=Overlap(ahead=UNITS_AHEAD))


def _counted(plan: EvaluatePlan, unit: Unit, seen: Callable[[Box, Bools, Bools], None]) -> Counts:
    """Read and count a unit, window by window, each while it is in the cache; by the calling thread alone.

    Args:
        plan: See `make_plan`.
        unit: The unit.
        seen: Is shown each window with its (ink, counted).
    """
    box, regions = unit.write_box.intersect(plan.area), plan.regions(unit)
    found = np.zeros((len(plan.maps), len(regions), 2, BINS), np.uint32)
    with ExitStack() as closing:
        truth = closing.enter_context(plan.truth.opened(box))
        opened = [closing.enter_context(stored.opened(box)) for stored in plan.maps]
        for window in cells(box, *WINDOW_YX):
            ink, counted = truth(window)
            seen(window, ink, counted)
            inside = [(place, region.intersect(window)) for place, region in enumerate(regions)]
            for number, (stored, region) in enumerate(zip(plan.maps, opened, strict=True)):
                values = region.read(window.slices)
                for place, part in inside:
                    if part.area:
                        own = part.within(window)
                        found[number, place] += score_counts(values[own], ink[own], counted[own], str(stored.folder))
    return found


def _finish(plan: EvaluatePlan) -> Mapping[str, Any]:
    config = plan.config

    def parts() -> Iterator[Part]:
        for unit in plan.units:
            regions = plan.regions(unit)
            counts = _decoded(plan.part(unit), (len(plan.maps), len(regions), 2, BINS))
            for place, region in enumerate(regions):
                yield Part(region, [ScoreHistogram(ink, bare) for bare, ink in counts[:, place]])

    evaluation = Evaluation.of(
        parts,
        names=[found.name for found in plan.maps],
        thresholds=plan.thresholds,
        beta=config.beta,
        bins=config.bins,
        bootstrap=Bootstrap(config.draws, config.level, config.seed),
    )
    if evaluation.counted == 0:
        raise DataError(
            f"evaluate {config.segment}: no pixel counts: the area, the mask and the ignore mask leave none; choose "
            "another area"
        )
    if evaluation.ink == 0:
        raise DataError(
            f"labels {plan.truth.place}: there is no ink among the {evaluation.counted:,} pixels that count; give "
            "other labels or another area, or state the stored value of certain ink with --set white=1"
        )
    write_report(plan.folder, evaluation, plan.truth.place, plan.truth.made_from, config.region_px)
    _write_pictures(plan, evaluation)
    return {"counted_px": evaluation.counted, "ink_px": evaluation.ink}


def _write_pictures(plan: EvaluatePlan, evaluation: Evaluation) -> None:
    best = [at for _, at in evaluation.best]
    maps = [(found.name, found.prediction, at) for found, at in zip(plan.maps, best, strict=True)]
    picks = [(unit.write_box.intersect(plan.area), plan.picks(unit)) for unit in plan.units]
    um = plan.maps[0].pixel_um
    pictures.write_pictures(plan.folder, maps, plan.area, picks, evaluation.regions, plan.truth.read, um)


def _decoded(place: Location, shape: tuple[int, ...]) -> NDArray[np.int64]:
    try:
        counts = np.frombuffer(COUNTS_CODEC.decode(place.read_bytes()), np.uint32)
        return counts.reshape(shape).astype(np.int64)
    except (RuntimeError, ValueError) as error:
        raise CorruptDataError(f"{place}: these counts are damaged; remove the folder and evaluate again") from error


def _peak_bytes(plan: EvaluatePlan) -> int:
    maps, boxes = len(plan.maps), [unit.write_box.intersect(plan.area) for unit in plan.units]
    largest = max((box.area for box in boxes), default=0)
    fetched = 0 if plan.maps[0].folder.is_local else 2 * maps + 2  # stored bytes of a unit are fetched when it opens
    window = WINDOW_YX[0] * WINDOW_YX[1] * (2 * maps + 6)
    regions = [len(plan.regions(unit)) for unit in plan.units]
    counts = max(regions, default=0) * maps * 2 * BINS * 4
    reading = min(largest, window) + largest * (fetched + plan.truth.held_bytes)
    page = sum(regions) * maps * REGION_BYTES
    return BASE_BYTES + UNITS_AHEAD * reading + (UNITS_AHEAD + 2) * 2 * counts + page
