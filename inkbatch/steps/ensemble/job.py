"""`inkbatch ensemble`: predictions of one segment become one prediction, unit by unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from pydantic import Field, model_validator

from inkbatch.config import JobConfig, is_pattern, matching
from inkbatch.data.datasets.trained_pixels import TrainedPixels
from inkbatch.data.maps.area import area_box
from inkbatch.data.maps.combining import RANK_CHUNKS, RELATIVE, WEIGHTED, Combination, Method, tables_for
from inkbatch.data.maps.scoring import threshold_of
from inkbatch.data.maps.stored import (
    StoredMap,
    map_address,
    maps_now,
    maps_state,
    open_map,
    require_one_grid,
    warnings_of,
)
from inkbatch.data.maps.truth import Truth
from inkbatch.data.maps.weight_fitting import FitRules, fit
from inkbatch.errors import ConfigError, CorruptDataError, MismatchError
from inkbatch.geometry import Box, Unit, cut
from inkbatch.io.half_floats import opencv_threads
from inkbatch.io.pictures.preview import write_preview
from inkbatch.io.prediction import Prediction
from inkbatch.io.shard_size import SHARD_PX_RULE, is_shard_px
from inkbatch.io.store.location import Location
from inkbatch.reports.leave import leave_report
from inkbatch.run.job import JobReport, RunContext, run_job
from inkbatch.run.malloc import keep_freed_memory
from inkbatch.run.pipeline import Overlap, UnitWork
from inkbatch.run.record import RunFolder, RunManifest
from inkbatch.steps.ensemble.page import page as report_page
from inkbatch.steps.ensemble.storing import Agreement, CombinedMaps
from inkbatch.steps.live_preview import live_preview
from inkbatch.text import bytes_text, share_text

UNIT_PX = 2048
CODEC = "lz4-bit"  # a third of the seconds of zstd, some per cent larger: this job is bound by its codec
DISAGREEMENT_NAME = "disagreement.zarr"
WEIGHTS_NAME = "weights.json"
BASE_BYTES = 150 << 20  # the interpreter with numpy and OpenCV
UNITS_AHEAD = 2  # opened; what is fetched from a store comes meanwhile
UNITS_STORED = 2  # side by side: one unit alone leaves cores idle at its end
UNITS_IN_FLIGHT = UNITS_AHEAD + 1 + UNITS_STORED


class EnsembleConfig(JobConfig):
    """Settings of `inkbatch ensemble`.

    Attributes:
        segment: Segment id.
        predictions: Names of finished predictions of this segment, or their addresses; two at least. ``tile*`` names
            all that match.
        method: ``mean``, ``weighted-mean``, ``median``, ``maximum``, ``odds`` (geometric mean of odds), ``ranks``
            (mean of each map's own quantiles) or ``zscore`` (mean of each map's distance from its own mean in standard
            deviations, stored as 0.25 + z / 16); the results of these two are no probabilities. ``consensus`` is the
            mean where a map's mark (its threshold, else 0.5) hangs together with one that a second map makes, too;
            elsewhere it is the smallest value.
        weights: One per prediction, for weighted-mean, odds, ranks and zscore; they are scaled to sum 1.
        consensus_px: Pixels over which marks hang together, for consensus.
        fit: Find the weights, and the threshold, on a labelled area. ``fit_weights: true`` does so with defaults, as a
            weighted mean where no method is given.
        disagreement: Write the standard deviation of the maps beside the result.
        name: Name of the result; None is ``ensemble-{method}``.
        root: ROOT: a folder or ``s3://bucket/prefix``.
        output_root: ROOT of the result, if it is not stored beside its inputs.
        unit_px: Edge of a unit, a power of two of at least 32.
        catalog: The user's catalog file, for labels.
    """

    job: ClassVar[str] = "ensemble"
    spelled: ClassVar[Mapping[str, str]] = {"predictions": "--prediction", "weights": "--weight"}

    segment: str
    predictions: tuple[str, ...]
    method: Method = "mean"
    weights: tuple[float, ...] | None = None
    consensus_px: int = Field(128, ge=1, le=1024)
    fit: FitRules | None = None
    disagreement: bool = True
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    root: str = "root"
    output_root: str | None = None
    unit_px: int = UNIT_PX
    catalog: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _asked_to_fit(cls, values: Any) -> Any:
        """Replace ``fit_weights: true`` by `fit` with defaults."""
        if not isinstance(values, dict) or "fit_weights" not in values:
            return values
        values = dict(values)
        if values.pop("fit_weights"):
            values.setdefault("fit", {})
            values.setdefault("method", "weighted-mean")
        return values

    @model_validator(mode="after")
    def _sound(self) -> EnsembleConfig:
        if len(self.predictions) < 2 and not any(map(is_pattern, self.predictions)):
            raise ValueError(f"expected at least two predictions, got {len(self.predictions)}; name another one")
        if not is_shard_px(self.unit_px):
            raise ValueError(f"unit_px {self.unit_px}: expected {SHARD_PX_RULE}")
        if self.weights is not None and self.fit is not None:
            raise ValueError("weights are given, and are to be fitted; drop one of them")
        stated = "weights" if self.weights is not None else "fit" if self.fit is not None else None
        if stated and self.method not in WEIGHTED:
            raise ValueError(
                f"method {self.method} has no weights; drop {stated}, or choose {', '.join(sorted(WEIGHTED))}"
            )
        if self.method == "weighted-mean" and not stated:
            raise ValueError("method weighted-mean needs weights; give them, or let them be fitted")
        if self.weights is not None:
            if len(self.weights) != len(self.predictions):
                raise ValueError(f"{len(self.weights)} weights are given for {len(self.predictions)} predictions")
            if min(self.weights) < 0 or not 0 < sum(self.weights) < float("inf"):
                raise ValueError("weights must be finite, not negative, and not all 0")
        return self


@dataclass(frozen=True)
class EnsemblePlan:
    """Everything that is known before a pixel is read.

    Attributes:
        config: The job's settings.
        maps: The opened predictions.
        units: All units, row-major.
        folder: ``ROOT/predictions/{segment}/{name}``.
        manifest: The run's manifest.
    """

    config: EnsembleConfig
    maps: tuple[StoredMap, ...]
    units: list[Unit]
    folder: Location
    manifest: RunManifest

    @property
    def peak_bytes(self) -> int:
        """Memory that the job takes, about."""
        height, width = self.maps[0].shape_yx
        pixels = min(self.config.unit_px, height) * min(self.config.unit_px, width)
        return BASE_BYTES + UNITS_IN_FLIGHT * pixels * (2 * len(self.maps) + 16)


def make_plan(config: EnsembleConfig) -> EnsemblePlan:
    """Open the predictions, compare them, and cut the segment into units.

    Raises:
        ConfigError: The result would be one of its own members, or one is named twice.
        DataError: A prediction is not there, or not complete.
        MismatchError: They are of different segments, lie on different grids, or mix ranks with probabilities.
    """
    name = config.name or f"ensemble-{config.method}"
    folder = Location.parse(config.output_root or config.root) / "predictions" / config.segment / name
    config = config.model_copy(update={"predictions": _members(config, name)})
    maps = tuple(open_map(config.root, config.segment, member) for member in config.predictions)
    if len(maps) < 2:
        raise ConfigError(
            f"ensemble {config.segment}: expected at least two predictions, got {len(maps)}; name another"
        )
    _require_apart(config, maps, folder)
    require_one_grid(maps)
    shape = maps[0].shape_yx
    around = config.consensus_px if config.method == "consensus" else 0
    whole = Box(0, 0, *shape)
    boxes = cut(shape, config.unit_px, config.unit_px)
    units = [Unit(index, box, box.grow(around).intersect(whole)) for index, box in enumerate(boxes)]
    settings: dict[str, Any] = {
        "segment": config.segment,
        "name": name,
        "method": config.method,
        "disagreement": config.disagreement,
        "unit_px": config.unit_px,
    }
    if config.weights is not None:
        settings["weights"] = [weight / sum(config.weights) for weight in config.weights]
    if config.method == "consensus":
        thresholds = [threshold_of(found.threshold) for found in maps]
        settings |= {"consensus_px": config.consensus_px, "thresholds": thresholds}
    if config.method in RELATIVE:
        settings["rank_chunks"] = RANK_CHUNKS
    inputs: dict[str, Any] = {"predictions": [found.identity for found in maps], **warnings_of(maps)}
    trained_on = TrainedPixels.together(found.trained_on for found in maps).document
    if trained_on:
        inputs["trained_on"] = trained_on
    state = maps_state(maps)
    now: Callable[[], Mapping[str, Any]] = partial(maps_now, maps)
    asked_fit: dict[str, Any] | None = None
    if config.fit is not None:
        settings["fit"] = config.fit.model_dump(mode="json", include={"metric", "area", "pixels"})
        area_box(config.fit.area, shape)
        with _truth(config) as truth:
            inputs["truth"] = truth.identity
            state |= truth.state
            now = partial(_maps_and_truth_now, maps, truth)
            asked_fit = {**config.fit.model_dump(mode="json"), **truth.request}
    request = config.request(
        predictions=[map_address(member) for member in config.predictions], fit=asked_fit, catalog=None
    )
    manifest = RunManifest("ensemble", settings, inputs, len(units), request, state, now)
    return EnsemblePlan(config, maps, units, folder, manifest)


def _maps_and_truth_now(maps: Sequence[StoredMap], truth: Truth) -> dict[str, Any]:
    return {**maps_now(maps), **truth.now()}


def _members(config: EnsembleConfig, own: str) -> tuple[str, ...]:
    """Replace patterns among the predictions by the finished ones of this segment that they match, without its own."""
    folder = Location.parse(config.root) / "predictions" / config.segment
    there = [name for name in folder.names() if name != own and (folder / name / "complete.json").exists()]
    what = f"ensemble {config.segment}: finished predictions in {folder}"
    return tuple(found for name in config.predictions for found in matching(name, there, what))


def run(config: EnsembleConfig, context: RunContext) -> JobReport:
    """Combine predictions, or do this shard's part of it.

    Raises:
        InkbatchError: See `make_plan`; damaged predictions; labels without ink; storage that gave up; a stop signal.
    """
    plan = make_plan(config)
    record = RunFolder(plan.folder, plan.manifest)
    keep_freed_memory()
    with opencv_threads(1):
        report = run_job(
            record,
            plan.units,
            lambda: _work(plan, record, context),
            context,
            lambda _: _finish(plan, context),
            lambda folder, note: leave_report(folder, note, report_page, Location.parse(config.root)),
        )
    live_preview(context, plan.maps[0].shape_yx, plan.folder).place.delete()
    return report


def describe(config: EnsembleConfig) -> str:
    """Describe the plan, as lines of text. Only metadata are read, nothing is written."""
    plan = make_plan(config)
    record = RunFolder(plan.folder, plan.manifest)
    height, width = plan.maps[0].shape_yx
    outputs = 1 + int(config.disagreement)
    weights = _weights_in_words(plan)
    rows = [
        f"ensemble {config.segment}: {config.method} of {len(plan.maps)} predictions",
        *(f"  member        {found.name} (digest {found.digest[:12]})" for found in plan.maps),
        *([f"  weights       {weights}"] if weights else []),
        f"  surface       {height} × {width} px (height × width)",
        f"  units         {len(plan.units)}, {record.state}",
        f"  reads         {bytes_text(2 * len(plan.maps) * height * width)} (before compression)",
        f"  writes        about {bytes_text(outputs * 2 * height * width * 4 / 3)} (before compression)",
        f"  result        {plan.folder}",
        f"  peak memory   about {bytes_text(plan.peak_bytes)}",
    ]
    return "\n".join(rows)


def _work(plan: EnsemblePlan, record: RunFolder, context: RunContext) -> UnitWork[Any, Any]:
    rule = _rule(plan, context)
    provenance = {"kind": "prediction", "digest": plan.manifest.digest, **plan.manifest.inputs}
    place = (plan.folder, plan.maps[0].shape_yx, plan.config.unit_px, plan.maps[0].pixel_um)
    output = Prediction.create(*place, provenance, codec=CODEC)
    second = None
    if plan.config.disagreement:
        second = Prediction.create(*place, {**provenance, "kind": "disagreement"}, DISAGREEMENT_NAME, CODEC)
    live = live_preview(context, plan.maps[0].shape_yx, plan.folder)
    context.reporter.note(f"picture so far: {live.place}")
    combined = CombinedMaps(plan.maps, rule, output, second, live)
    agreement = Agreement(tuple(threshold_of(found.threshold) for found in plan.maps), plan.config.consensus_px)
    return UnitWork(
        load=lambda unit: [found.opened(unit.read_box) for found in plan.maps],
        compute=None,
        store=partial(combined.store_agreed, agreement) if plan.config.method == "consensus" else combined.store,
        mark=record.mark,
        overlap=Overlap(UNITS_AHEAD, UNITS_STORED),
    )


def _rule(plan: EnsemblePlan, context: RunContext) -> Combination:
    rule = _unfitted(plan)
    if plan.config.fit is None:
        return rule
    found = _fitted(plan, rule, plan.config.fit, context)["weights"]
    return Combination(plan.config.method, tuple(found.values()), rule.tables)


def _unfitted(plan: EnsemblePlan) -> Combination:
    """Make the rule with the weights of the settings, or equal ones."""
    config, count = plan.config, len(plan.maps)
    given = plan.manifest.config.get("weights")
    weights = tuple(given) if given else (1 / count,) * count
    method: Method = "mean" if config.method == "consensus" else config.method
    return Combination(method, weights, tables_for(method, plan.maps))


def _fitted(plan: EnsemblePlan, rule: Combination, rules: FitRules, context: RunContext) -> dict[str, Any]:
    """Read ``weights.json``; the first process, or one that finds it damaged, fits the weights and writes it."""
    place = plan.folder / WEIGHTS_NAME
    try:
        found: dict[str, Any] = place.read_mapping()
    except FileNotFoundError:
        found = {}
    except CorruptDataError as error:
        context.reporter.note(f"weights: fitted again, for the stored ones are damaged ({error})")
        found = {}
    if found.get("digest") != plan.manifest.digest:
        with _truth(plan.config) as truth:
            for holes in truth.holes:
                context.reporter.note(f"labels: {holes}")
            fitted = fit(plan.maps, rule, truth, rules)
        names, learnt = [member.name for member in plan.maps], fitted.trained_share
        found = {"digest": plan.manifest.digest, **fitted.document(names, rules.metric)}
        place.write_json(found)
        beside = f"; {share_text(learnt)} of the labelled ones trained a member and are left out" if learnt else ""
        context.reporter.note(
            f"weights: {', '.join(f'{name} {weight:.2f}' for name, weight in found['weights'].items())}; "
            f"{rules.metric} {found['score']:.4f} at {found['threshold']:.4f}, "
            f"{found['equal_weights']['score']:.4f} with equal weights ({found['pixels']:,} pixels{beside})"
        )
    return {**found, "weights": {name: found["weights"][name] for name in (one.name for one in plan.maps)}}


def _finish(plan: EnsemblePlan, context: RunContext) -> Mapping[str, Any]:
    write_preview(Prediction.open(plan.folder).pyramid, plan.folder / "preview.png")
    if plan.config.disagreement:
        second = Prediction.open(plan.folder, DISAGREEMENT_NAME)
        write_preview(second.pyramid, plan.folder / "disagreement.png")
    if plan.config.fit is None:
        return {}
    found = _fitted(plan, _unfitted(plan), plan.config.fit, context)
    (plan.folder / WEIGHTS_NAME).write_json(found)  # the same again: a run is sealed with what its end wrote
    return {"weights": found["weights"], "threshold": found["threshold"]}


def _truth(config: EnsembleConfig) -> Truth:
    rules = config.fit or FitRules()
    return Truth(config.root, config.segment, rules.choice(config.catalog))


def _require_apart(config: EnsembleConfig, maps: tuple[StoredMap, ...], folder: Location) -> None:
    names = [found.name for found in maps]
    for own, found in enumerate(maps):
        if found.folder == folder:
            raise ConfigError(
                f"ensemble {config.segment}: its result would replace its member {found.name}; give it another name"
            )
        twin = next((other for other in maps[:own] if other.digest == found.digest), None)
        if twin is not None:
            raise ConfigError(
                f"ensemble {config.segment}: {found.name} and {twin.name} are one prediction; name each once, and use "
                "weights to count it more"
            )
    ranked = [found.name for found in maps if found.holds_ranks]
    if ranked and config.method not in RELATIVE:
        raise MismatchError(
            f"ensemble {config.segment}: {', '.join(ranked)} of {', '.join(names)} holds ranks or "
            "z-scores, not probabilities; leave it out, or choose method ranks or zscore"
        )


def _weights_in_words(plan: EnsemblePlan) -> str:
    if plan.config.fit is not None:
        return f"fitted for the best {plan.config.fit.metric}, written to {plan.folder / WEIGHTS_NAME}"
    given = plan.manifest.config.get("weights")
    return ", ".join(f"{weight:.3f}" for weight in given) if given else ""
