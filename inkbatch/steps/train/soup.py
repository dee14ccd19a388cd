"""`inkbatch soup`: the mean of a run's last checkpoints becomes a bundle, with its score beside its members'."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from inkbatch.config import JobConfig, parse_bytes
from inkbatch.data.datasets.sample_reader import SampleReader
from inkbatch.data.maps.stored import map_address
from inkbatch.errors import DataError, MismatchError
from inkbatch.io.store.ledger import make_durable, recording
from inkbatch.io.store.location import Location
from inkbatch.predict.device import device_facts
from inkbatch.reports.leave import leave_report
from inkbatch.run.finished import MANIFEST_NAME, StoredRun, open_run
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import JobReport, RunContext, begin
from inkbatch.run.objects import reopened, sealed_files
from inkbatch.run.pipeline import StageSeconds
from inkbatch.run.progress import Reporting
from inkbatch.run.record import RunFolder, RunManifest, report_place
from inkbatch.run.run_file import Usage, write_run_file
from inkbatch.steps.train.plan import TrainPlan, make_plan, module_of, network_of, shown_pixels
from inkbatch.steps.train.soup_page import SOUP_NAME, page
from inkbatch.training.averaging import WeightMean, renew_statistics
from inkbatch.training.checkpoints import CheckpointStore, Entry
from inkbatch.training.data import StepStream, TrainingTiles, reading_threads
from inkbatch.training.devices import launch_fabric, precision_of
from inkbatch.training.finish import checkpoint_weights, finite, write_bundle
from inkbatch.training.metrics import OVERALL, table
from inkbatch.training.module import InkModule
from inkbatch.training.progress import Progress
from inkbatch.training.settings import NAME, PrecisionName, TrainConfig
from inkbatch.training.validate import Validator


class SoupConfig(JobConfig):
    """Settings of `inkbatch soup`.

    Attributes:
        run: The training run: its name under ROOT/runs (of one fold: NAME/fold-0), or its folder.
        root: ROOT: a folder or ``s3://bucket/prefix``.
        name: Name of the result under ROOT/runs, and of its bundle; None: RUN-soup-LAST.
        last: Checkpoints to average: those of the last so many epochs.
        min_cosine: Smallest cosine between the weights of two members; below it they are not of one run.
        statistics_steps: Training steps whose tiles renew the statistics of batch normalisation.
        device: ``auto`` takes CUDA, then the CPU.
        precision: Of validation; ``auto`` is bf16 on CUDA and fp32 elsewhere.
        read_cache: Memory for decoded chunks.
    """

    job: ClassVar[str] = "soup"
    spelled: ClassVar[Mapping[str, str]] = {"run": "RUN"}

    run: str
    root: str = "root"
    name: str | None = Field(None, pattern=NAME)
    last: int = Field(4, ge=2)
    min_cosine: float = Field(0.9, ge=-1, le=1)
    statistics_steps: int = Field(100, ge=1)
    device: Literal["auto", "cuda", "cpu"] = "auto"
    precision: PrecisionName = "auto"
    read_cache: str = "1GiB"


@dataclass(frozen=True)
class SoupPlan:
    """Plan of one soup.

    Attributes:
        config: What was asked for.
        trained: Plan of the run that made the checkpoints.
        store: Its checkpoints.
        members: The checkpoints to average, newest first.
        folder: The soup's folder.
        manifest: The soup's manifest.
    """

    config: SoupConfig
    trained: TrainPlan
    store: CheckpointStore
    members: tuple[Entry, ...]
    folder: Location
    manifest: RunManifest


def make_plan_of_soup(config: SoupConfig) -> SoupPlan:
    """Find the run's checkpoints and its dataset; no weights are read.

    Raises:
        DataError: No such run, or it is not complete.
        MismatchError: The run kept fewer checkpoints, or its dataset has changed.
    """
    root = Location.parse(config.root)
    folder = root / "runs" / config.run if _is_name(config.run) else Location.parse(config.run)
    if not (folder / MANIFEST_NAME).exists():
        known = ", ".join(sorted((root / "runs").names())) or "none"
        raise DataError(
            f"{folder}: expected a training run, got none (under {root / 'runs'}: {known}); name one of them, or train "
            f"with --set keep_epochs={config.last}"
        )
    run = open_run(folder.uri)
    run.require_complete()
    trained = _plan_of(run)
    store = CheckpointStore(folder / "checkpoints")
    kept = store.pointer().epochs
    if len(kept) < config.last:
        raise MismatchError(
            f"{store.location}: expected checkpoints of the last {config.last} epochs, got {len(kept)}; train with "
            f"--set keep_epochs={config.last}, or give a smaller --last"
        )
    members = kept[: config.last]
    run_name = config.run.replace("/", "-") if _is_name(config.run) else _name_of(folder)
    name = config.name or f"{run_name}-soup-{config.last}"
    settings = {key: getattr(config, key) for key in ("last", "min_cosine", "statistics_steps")}
    inputs = {"run": run.manifest["digest"], "members": [entry.sha256 for entry in members]}
    request = config.request(run=map_address(folder.uri))
    manifest = RunManifest("soup", {**settings, "name": name}, inputs, 1, request, trained.manifest.state)
    return SoupPlan(config, trained, store, members, root / "runs" / name, manifest)


def _is_name(run: str) -> bool:
    """Tell a name (``letters``, ``letters/fold-0``) from a folder or address."""
    first, _, rest = run.partition("/")
    return bool(first) and not first.startswith((".", "~")) and (not rest or rest.startswith("fold-"))


def _name_of(folder: Location) -> str:
    return f"{folder.parent.name}-{folder.name}" if folder.name.startswith("fold-") else folder.name


def _plan_of(run: StoredRun) -> TrainPlan:
    """Plan the training once more, from what its manifest says; its ROOT may have moved."""
    if run.job != "train":
        raise DataError(f"{run.folder}: expected a training run, got a {run.job} run; name one under ROOT/runs")
    config = TrainConfig.checked({**run.manifest["request"], "folds": None}, str(run.folder / "manifest.json"))
    runs = run.folder.parent.parent if config.fold is not None and run.folder.name.startswith("fold-") else run.folder
    config = config.model_copy(update={"root": runs.parent.parent.uri})
    return make_plan(config)[0]


def run(config: SoupConfig, context: RunContext) -> JobReport:
    """Average the checkpoints, renew statistics, validate, and store the bundle.

    Raises:
        MismatchError: See `make_plan_of_soup`; or the members are not of one run.
        CorruptDataError: A checkpoint was damaged.
        Preempted: A stop was asked for; the same command does it again.
    """
    started = time.perf_counter()
    one = make_plan_of_soup(config)
    record = RunFolder(one.folder, one.manifest)
    root = Location.parse(config.root)
    with Reporting(context.reporter) as reporter:
        begin(record, context)
        if record.is_complete() and not reopened(record, "soup", reporter.note):
            reporter.note(f"soup: already complete at {one.folder}, nothing to do")
            if not report_place(one.folder, "soup").exists():
                leave_report(one.folder, reporter.note, page, root)
            return JobReport("soup", one.folder, 1, 0, 1, 0, time.perf_counter() - started, {})
        _average(one, record, context)
        leave_report(one.folder, reporter.note, page, root)
    return JobReport("soup", one.folder, 1, 1, 0, 0, time.perf_counter() - started, {})


def _average(one: SoupPlan, record: RunFolder, context: RunContext) -> None:
    usage, ended, seconds = Usage(), "failed", StageSeconds()
    trained = one.trained
    alone = {"devices": 1, "num_nodes": 1, "device": one.config.device, "precision": one.config.precision}
    fabric = launch_fabric(trained.config.model_copy(update=alone))
    try:
        usage.loop_begins()
        network, _ = network_of(trained)
        mean = WeightMean(frozenset(name for name, _ in network.named_parameters()))
        members = [_add(mean, entry, one, context) for entry in one.members]
        network.load_state_dict(mean.mean(), strict=True)
        module = module_of(trained, network, context.stop).to(fabric.device)
        reader = SampleReader(trained.index, trained.dataset, parse_bytes(one.config.read_cache))
        batches = _inputs(one, reader, module, fabric.device, context, seconds)
        with seconds.timed("compute"):
            renewed = renew_statistics(module.net, batches, trained.config.seed)
        validator = Validator(reader, trained.validation, trained.config.batch, context.stop)
        found = validator.run(module, fabric.device, fabric.autocast, seconds)
        scores = table(found.histograms)
        usage.loop_ends()
        history = {"soup_of": trained.config.run, "epochs": [entry.epoch for entry in one.members]}
        with recording() as ledger:
            bundle = write_bundle(
                one.folder / "bundle",
                one.folder.name,
                trained.config,
                trained.index,
                trained.contract,
                module.net.cpu(),
                scores,
                {**history, "steps": max(entry.step for entry in one.members)},
                shown_pixels(trained),
                trained.manifest.state,
            )
            facts: dict[str, Any] = {"members": members, "scores": {area: finite(row) for area, row in scores.items()}}
            (one.folder / SOUP_NAME).write_json(
                {**facts, "statistics_renewed": renewed, "monitor": trained.config.monitor}
            )
        make_durable(ledger)
        overall = finite(scores[OVERALL])
        sealed = sealed_files(one.folder, ledger, ())
        record.complete({"scores": overall, "weights_sha256": bundle.document.weights_sha256, **sealed})
        context.reporter.note(_words(one, members, overall))
        ended = "done"
    finally:
        done = {"devices": 1, "units_stored": int(ended == "done"), **usage.stage_facts(seconds)}
        done |= device_facts(fabric.device, precision_of(fabric))
        write_run_file(record, ShardSpec(), context.attempt, usage, ended, done)


def _add(mean: WeightMean, entry: Entry, one: SoupPlan, context: RunContext) -> dict[str, Any]:
    """Take one checkpoint into the mean, and say where it comes from and how good it was."""
    context.stop.check()
    try:
        state = one.store.load(entry)
    except FileNotFoundError as error:
        raise DataError(f"{one.store.location / entry.file}: this checkpoint is gone; give a smaller --last") from error
    cosine = mean.add(checkpoint_weights(state))
    if cosine < one.config.min_cosine:
        raise MismatchError(
            f"{one.store.location}: the weights of epochs {one.members[0].epoch} and {entry.epoch} have a cosine of "
            f"{cosine:.3f}, expected at least {one.config.min_cosine}: their mean would be no network; give a smaller "
            "--last, or train with a lower rate at the end"
        )
    rows = Progress.of(state["progress"]).rows
    scores = finite(next(row for row in rows if row.epoch == entry.epoch).scores[OVERALL])
    return {"epoch": entry.epoch, "step": entry.step, "sha256": entry.sha256, "cosine": round(cosine, 6), **scores}


def _inputs(
    one: SoupPlan,
    reader: SampleReader,
    module: InkModule,
    device: torch.device,
    context: RunContext,
    seconds: StageSeconds,
) -> Iterator[Tensor]:
    """Yield the normalised tiles of the last epoch's first steps, augmented as in training."""
    trained = one.trained
    config, contract = trained.config, trained.contract
    tiles = TrainingTiles(reader, trained.train, config.augment, config.seed, contract.tile_px, contract.layers.count)
    threads = reading_threads(is_shared=device.type == "cpu")
    stream = StepStream(tiles, trained.epoch_plan(1), config.epochs, threads=threads, seconds=seconds)
    for step in itertools.islice(stream.run(config.epochs - 1, 0), one.config.statistics_steps):
        for batch in step.batches:
            context.stop.check()
            yield module.prepare(batch.to(device))[0]


def _words(one: SoupPlan, members: list[dict[str, Any]], soup: dict[str, Any]) -> str:
    found = [member["f05"] for member in members if member["f05"] is not None and not math.isnan(member["f05"])]
    each = ", ".join(f"{value:.3f}" for value in reversed(found)) or "unknown"
    of_soup = "unknown" if soup["f05"] is None else f"{soup['f05']:.3f}"
    return f"soup of {len(members)} epochs: F0.5 {of_soup} on validation areas; its members, oldest first: {each}"


def describe(config: SoupConfig) -> str:
    """Describe the plan; nothing is computed."""
    one = make_plan_of_soup(config)
    epochs = ", ".join(str(entry.epoch) for entry in reversed(one.members))
    state = RunFolder(one.folder, one.manifest).state
    return "\n".join(
        [
            f"soup {one.folder}",
            f"  mean of the weights after epochs {epochs} of {one.trained.folder}",
            f"  statistics from {one.config.statistics_steps} training steps, scores on {len(one.trained.validation)} "
            "validation samples",
            f"  done: {state}",
        ]
    )
