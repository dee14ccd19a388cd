"""`inkbatch train`: a dataset and a configuration become a bundle; several folds are several runs and a table."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning.fabric import Fabric

from inkbatch.config import parse_bytes
from inkbatch.data.datasets.current import dataset_state, require_current
from inkbatch.data.datasets.index import DatasetIndex, Sample, root_of
from inkbatch.data.datasets.sample_reader import SampleReader
from inkbatch.data.datasets.trained_pixels import records_of
from inkbatch.data.maps.stored import map_address
from inkbatch.errors import ConfigError, InkbatchError, Preempted
from inkbatch.io.store.location import Location
from inkbatch.models import build_model
from inkbatch.models.base import InkModel
from inkbatch.models.bundle import Bundle, Contract, bundle_address, bundle_location, load_strictly
from inkbatch.models.encoder_weights import FILE_SUFFIXES, prepare_encoder
from inkbatch.models.inputs import require_tile
from inkbatch.predict.device import device_facts
from inkbatch.predict.memory_format import arrange_all
from inkbatch.reports.leave import leave, leave_report
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import JobReport, RunContext, begin
from inkbatch.run.malloc import keep_freed_memory
from inkbatch.run.pipeline import StageSeconds
from inkbatch.run.progress import QuietReporter, Reporting
from inkbatch.run.record import RunFolder, RunManifest, report_place
from inkbatch.run.run_file import Usage, core_count, write_run_file
from inkbatch.run.signals import StopFlag
from inkbatch.steps.train.folds_page import write_folds_page
from inkbatch.steps.train.page import page as report_page
from inkbatch.training.checkpoints import CheckpointStore
from inkbatch.training.children import watched_children
from inkbatch.training.contract import contract_of, model_settings
from inkbatch.training.data import FEW_CORES, StepStream, TrainingTiles, reading_threads, require_samples
from inkbatch.training.devices import is_our_child, launch_fabric, precision_of
from inkbatch.training.finish import finite, write_bundle, write_curves, write_data, write_pictures
from inkbatch.training.loop import Trainer
from inkbatch.training.metrics import OVERALL, SCORES
from inkbatch.training.module import InkModule
from inkbatch.training.order import EpochPlan, require_drawable
from inkbatch.training.progress import Progress, to_csv
from inkbatch.training.run_logs import RunLogs, open_logs
from inkbatch.training.settings import TrainConfig
from inkbatch.training.statistics import sample_statistics
from inkbatch.training.validate import Validation, Validator

__all__ = ["TrainConfig", "TrainPlan", "describe", "make_plan", "run"]


@dataclass(frozen=True)
class TrainPlan:
    """Plan of one run, made before anything is computed.

    Attributes:
        config: The run; `fold` is set where it is one of several.
        index: The dataset.
        dataset: The dataset's folder.
        train: Training samples.
        validation: Validation samples.
        contract: What the network will be fed.
        model: The network's settings.
        folder: The run's folder.
        manifest: The run's manifest.
    """

    config: TrainConfig
    index: DatasetIndex
    dataset: Location
    train: list[Sample]
    validation: list[Sample]
    contract: Contract
    model: dict[str, Any]
    folder: Location
    manifest: RunManifest

    def epoch_plan(self, devices: int) -> EpochPlan:
        """Plan how epochs are cut into steps on so many devices."""
        config = self.config
        return EpochPlan(
            self.train,
            config.sampler,
            config.seed,
            config.batch // devices,
            devices,
            config.accumulate,
            self.index.scrolls,
        )


def make_plan(config: TrainConfig) -> list[TrainPlan]:
    """Open the dataset, check it and the settings against each other; one plan per run, no weights are read.

    Raises:
        ConfigError: A value that cannot be carried out.
        DataError: The dataset is not there, a split is empty, or holds no ink.
    """
    root = Location.parse(config.root)
    dataset = Location.parse(config.dataset) if "/" in config.dataset else root / "datasets" / config.dataset
    index = DatasetIndex.open(dataset)
    folder = _run_folder(config)
    if config.folds is None:
        return [_plan_one(config, index, dataset, folder)]
    folds = range(index.fold_count) if config.folds == "all" else config.folds
    if not folds:
        raise ConfigError(f"folds {config.folds}: dataset {index.name} has no folds; leave folds out, or build it with")
    plans = []
    for fold in folds:
        one = config.model_copy(update={"folds": None, "fold": fold})
        plans.append(_plan_one(one, index, dataset, folder / f"fold-{fold}"))
    return plans


def _plan_one(config: TrainConfig, index: DatasetIndex, dataset: Location, folder: Location) -> TrainPlan:
    train, validation = (index.samples_of(split, config.fold) for split in ("train", "validation"))
    require_samples(index.name, train, validation)
    require_drawable(train, config.sampler, index.scrolls, config.batch)
    settings = model_settings(config, index)
    model = _shape_of(config, settings)
    contract = contract_of(config, index, model.config.depth_layers, root_of(dataset))
    require_tile(model, contract.tile_px, contract.tile_px)
    inputs = {"dataset": index.name, "digest": index.digest}
    if config.model.start_from is not None:
        inputs["start_from"] = Bundle.open(bundle_location(config.model.start_from)).document.weights_sha256
    require_current(dataset, index, root_of(dataset))
    state = dataset_state(dataset, index)
    manifest = RunManifest("train", config.result_settings(), inputs, 1, _request(config), state)
    return TrainPlan(config, index, dataset, train, validation, contract, settings, folder, manifest)


def _run_folder(config: TrainConfig) -> Location:
    return _root_of_runs(config) / "runs" / config.run


def _root_of_runs(config: TrainConfig) -> Location:
    return Location.parse(config.output_root or config.root)


def _request(config: TrainConfig) -> dict[str, Any]:
    """Return the request, with absolute addresses of dataset and weights."""
    asked = config.request(dataset=map_address(config.dataset))
    for part, key in ((asked["model"], "start_from"), (asked["model"]["encoder"], "encoder_weights")):
        if part[key] is not None and (key == "start_from" or part[key].endswith(FILE_SUFFIXES)):
            part[key] = bundle_address(part[key])
    return asked


def _shape_of(config: TrainConfig, settings: Mapping[str, Any]) -> InkModel:
    """Build the network only for its sizes; its weights are not used."""
    return build_model(config.model.architecture, dict(settings))


def run(config: TrainConfig, context: RunContext, on_step: Callable[[int], None] = lambda steps: None) -> JobReport:
    """Train, or go on with a run that was stopped; of several folds, this shard's part.

    Args:
        config: The run.
        context: How this process runs.
        on_step: Called after each optimiser step with the number of steps so far.

    Raises:
        InkbatchError: See `make_plan`; a loss that is no number; a stop signal (exit 75: run the same command again).
    """
    started = time.perf_counter()
    plans = make_plan(config)
    mine = context.shard.select(plans)
    folders = [RunFolder(one.folder, one.manifest) for one in plans]
    stored = 0
    fabric: Fabric | None = None
    with Reporting(context.reporter) as reporter, contextlib.ExitStack() as together:
        for one in mine:
            record = RunFolder(one.folder, one.manifest)
            begin(record, context)
            if record.is_complete():
                reporter.note(f"train: already complete at {one.folder}, nothing to do")
                if not report_place(one.folder, "train").exists():
                    leave_report(one.folder, reporter.note, report_page, _root_of_runs(config))
                continue
            if fabric is None:
                fabric = launch_fabric(config)
                if fabric.device.type == "cpu":
                    keep_freed_memory()
                together.enter_context(watched_children(fabric))
            here = context if fabric.is_global_zero else replace(context, reporter=QuietReporter())
            _carry_out(one, record, fabric, here, on_step)
            stored += 1
        left = sum(not record.is_complete() for record in folders)
        if config.folds is not None and not left and (fabric is None or fabric.is_global_zero):
            _write_summary(_run_folder(config), plans)
            leave(_run_folder(config), reporter.note, lambda: write_folds_page(_run_folder(config)))
    location = _run_folder(config)
    seconds = time.perf_counter() - started
    rank = 0 if fabric is None else fabric.global_rank
    return JobReport("train", location, len(plans), stored, len(mine) - stored, left, seconds, {"rank": rank})


def _carry_out(
    one: TrainPlan, record: RunFolder, fabric: Fabric, context: RunContext, on_step: Callable[[int], None]
) -> None:
    """Train one run to its end: checkpoints, curves and pictures as it goes, the bundle at last."""
    usage, ended = Usage(), "failed"
    store = CheckpointStore(one.folder / "checkpoints", context.reporter.note)
    logs = _logs(one, record, context) if fabric.is_global_zero else RunLogs()
    trainer = _trainer(one, fabric, context, store, logs, on_step, usage)
    pointer = store.pointer()
    context.reporter.start(f"train {one.config.run}", one.config.epochs, pointer.last[0].epoch if pointer.last else 0)
    context.reporter.note(f"curves so far: {one.folder / 'curves.png'}, maps in {one.folder / 'validation'}")
    try:
        trainer.set_up()
        progress = trainer.run()
        fabric.barrier()  # all pictures are stored
        if fabric.is_global_zero:
            write_curves(one.folder, progress)
            shown = {"train": one.train, "validation": one.validation}
            pixels = records_of(one.index, shown, root_of(one.dataset))
            bundle = write_bundle(
                one.folder / "bundle",
                one.config,
                one.index,
                one.contract,
                _network(one),
                store,
                progress,
                pixels,
                one.manifest.state,
            )
            split = {"training": one.train, "validation": one.validation}
            write_data(one.folder, one.index, split, _card(one))
            best = progress.best(one.config.monitor)
            facts = {"best_epoch": best.epoch, "scores": finite(best.scores[OVERALL])}
            record.complete({**facts, "weights_sha256": bundle.document.weights_sha256})
        fabric.barrier()
        ended = "done"
    except Preempted as error:
        ended = str(error)
        if not is_our_child(fabric):
            raise
    except InkbatchError as error:
        ended = str(error)
        raise
    finally:
        logs.close(ended)
        if fabric.is_global_zero:
            facts = {"devices": fabric.world_size, "steps": trainer.progress.total_steps}
            facts |= {"tiles": trainer.tiles * fabric.world_size, "units_stored": int(ended == "done")}
            facts |= {**usage.stage_facts(trainer.seconds), **device_facts(fabric.device, precision_of(fabric))}
            write_run_file(record, ShardSpec(), context.attempt, usage, ended, facts)
    if fabric.is_global_zero and ended == "done":
        leave_report(one.folder, context.reporter.note, report_page, _root_of_runs(one.config))


def _logs(one: TrainPlan, record: RunFolder, context: RunContext) -> RunLogs:
    name = one.config.run if one.config.fold is None else f"{one.config.run}-fold-{one.config.fold}"
    identity = f"{name}-{record.manifest.digest[:16]}"
    return open_logs(one.folder, name, identity, one.config.result_settings(), context.reporter.note)


def _card(one: TrainPlan) -> str:
    """Return the address of the data card for the report: relative if both are under one ROOT, which may move.

    A run that is stored under another ROOT keeps the link of one beside its dataset: repeated runs are equal.
    """
    there, root = (one.dataset / "README.md").uri, Location.parse(one.config.root).uri
    here = f"{root}/{one.folder.uri.removeprefix(f'{_root_of_runs(one.config).uri}/')}"
    if not there.startswith(f"{root}/"):
        return there
    up = here.removeprefix(f"{root}/").count("/") + 1
    return "../" * up + there.removeprefix(f"{root}/")


def _trainer(
    one: TrainPlan,
    fabric: Fabric,
    context: RunContext,
    store: CheckpointStore,
    logs: RunLogs,
    on_step: Callable[[int], None],
    usage: Usage,
) -> Trainer:
    config, contract, seconds = one.config, one.contract, StageSeconds()
    reader = SampleReader(one.index, one.dataset, parse_bytes(config.read_cache))
    is_shared = one.dataset.is_local and fabric.device.type == "cpu"
    threads = config.threads or reading_threads(is_shared=is_shared)
    in_place = config.threads is None and is_shared and core_count() <= FEW_CORES
    epochs = one.epoch_plan(fabric.world_size)
    tiles = TrainingTiles(reader, one.train, config.augment, config.seed, contract.tile_px, contract.layers.count)
    # Devices that train together leave together, between steps: one that left validation alone would be waited for.
    stop = context.stop if fabric.world_size == 1 else StopFlag()
    network = arrange_all(_network(one)) if config.channels_last else _network(one)
    samples = [*one.train, *one.validation]
    statistics = sample_statistics(contract, one.index, samples, root_of(one.dataset), one.folder, context.stop.check)
    module = InkModule(network, contract, config.loss, config.optimiser, statistics)
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        module.net = torch.nn.SyncBatchNorm.convert_sync_batchnorm(module.net)  # type: ignore[no-untyped-call]

    def on_epoch(progress: Progress, found: Validation) -> None:
        pictures = write_pictures(one.folder, progress, found)
        logs.epoch(progress.rows[-1], progress.total_steps, pictures)
        if fabric.is_global_zero:
            write_curves(one.folder, progress)

    return Trainer(
        config,
        fabric,
        module,
        StepStream(tiles, epochs, config.epochs, fabric.global_rank, threads, seconds=seconds, in_place=in_place),
        Validator(
            reader,
            one.validation,
            epochs.batch,
            stop,
            fabric.global_rank,
            fabric.world_size,
            max(1, threads // 2),
        ),
        store,
        context,
        logs,
        on_epoch,
        on_step,
        seconds=seconds,
        usage=usage,
    )


def _network(one: TrainPlan) -> InkModel:
    """Build the network with its first weights: fresh from the seed, a bundle's, or a pretrained encoder's."""
    torch.manual_seed(one.config.seed)
    model = build_model(one.config.model.architecture, one.model)
    choice = one.config.model
    if choice.start_from is not None:
        bundle = Bundle.open(bundle_location(choice.start_from))
        if bundle.document.architecture != choice.architecture:
            raise ConfigError(
                f"model.start_from {choice.start_from}: is a {bundle.document.architecture}, the run trains a "
                f"{choice.architecture}; name a bundle of that architecture"
            )
        load_strictly(model, bundle.build().state_dict(), str(bundle.location))
    model.ask_for_gradients()
    prepare_encoder(model, choice.encoder)
    return model


def _write_summary(folder: Location, plans: list[TrainPlan]) -> None:
    """Write the table over all folds once all are complete: one line each, then mean and standard deviation."""
    rows = []
    for one in plans:
        facts = (one.folder / "complete.json").read_mapping()
        rows.append((str(one.config.fold), facts["best_epoch"], facts["scores"]))
    values = {name: torch.tensor([_number(scores[name]) for _, _, scores in rows]) for name in SCORES}
    lines: list[list[Any]] = [["fold", "best_epoch", *SCORES]]
    lines += [[fold, epoch, *(scores[name] for name in SCORES)] for fold, epoch, scores in rows]
    lines.append(["mean", "", *(round(float(values[name].mean()), 6) for name in SCORES)])
    lines.append(["std", "", *(round(float(values[name].std(correction=0)), 6) for name in SCORES)])
    (folder / "folds.csv").write_bytes(to_csv(lines))


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def describe(config: TrainConfig) -> str:
    """Describe the plan; nothing is computed."""
    lines = []
    for one in make_plan(config):
        epochs = one.epoch_plan(1)
        weights = sum(parameter.numel() for parameter in _shape_of(one.config, one.model).parameters())
        complete = RunFolder(one.folder, one.manifest).is_complete()
        pointer = CheckpointStore(one.folder / "checkpoints").pointer()
        done = pointer.last[0].step if pointer.last else 0
        lines += [
            f"train {one.folder}",
            f"  dataset: {one.index.name} ({one.index.form}), {len(one.train)} training and {len(one.validation)} "
            f"validation samples",
            f"  network: {config.model.architecture}, {weights:,} weights, tiles of {one.contract.tile_px} px and "
            f"{one.contract.layers.count} layers",
            f"  steps: {config.epochs} epochs of {epochs.steps} steps of {epochs.step_samples} samples",
            f"  done: {'complete' if complete else f'{done} of {config.epochs * epochs.steps} steps'}",
        ]
    return "\n".join(lines)
