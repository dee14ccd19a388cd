"""`inkbatch train`: a dataset and a configuration become a bundle; several folds are several runs and a table."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from inkbatch.config import parse_bytes
from inkbatch.data.datasets.sample_reader import SampleReader
from inkbatch.errors import InkbatchError, Preempted
from inkbatch.io.store.ledger import make_durable, recording
from inkbatch.io.store.location import Location
from inkbatch.models.encoder_weights import EncoderConfig
from inkbatch.predict.device import device_facts
from inkbatch.reports.leave import leave, leave_report
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import JobReport, RunContext, begin
from inkbatch.run.malloc import keep_freed_memory
from inkbatch.run.objects import reopened, sealed_files
from inkbatch.run.pipeline import StageSeconds
from inkbatch.run.progress import QuietReporter, Reporting
from inkbatch.run.record import RunFolder, report_place
from inkbatch.run.run_file import Usage, core_count, write_run_file
from inkbatch.run.signals import StopFlag
from inkbatch.steps.train.folds_page import write_folds_page
from inkbatch.steps.train.page import page as report_page
from inkbatch.steps.train.plan import (
    TrainPlan,
    make_plan,
    module_of,
    network_of,
    root_of_runs,
    run_folder,
    shape_of,
    shown_pixels,
)
from inkbatch.text import count_text
from inkbatch.training.checkpoints import CheckpointStore
from inkbatch.training.children import watched_children
from inkbatch.training.data import FEW_CORES, StepStream, TrainingTiles, reading_threads
from inkbatch.training.devices import is_our_child, launch_fabric, precision_of
from inkbatch.training.fabric import Fabric
from inkbatch.training.finish import (
    finite,
    is_picture,
    network_with,
    write_bundle,
    write_curves,
    write_data,
    write_pictures,
    written_pictures,
)
from inkbatch.training.loop import Trainer
from inkbatch.training.metrics import OVERALL, SCORES
from inkbatch.training.progress import Progress, to_csv
from inkbatch.training.run_logs import RunLogs, open_logs
from inkbatch.training.settings import TrainConfig
from inkbatch.training.validate import Validation, Validator

__all__ = ["TrainConfig", "TrainPlan", "describe", "make_plan", "run"]


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
    for one in mine:
        loads = one.config.start_from is not None or one.config.model.encoder != EncoderConfig()
        if loads and not RunFolder(one.folder, one.manifest).is_begun():
            network_of(one)  # weights that do not fit or are not there are refused before the first fold is begun
    with Reporting(context.reporter) as reporter, contextlib.ExitStack() as together:
        for one in mine:
            record = RunFolder(one.folder, one.manifest)
            begin(record, context)
            if record.is_complete() and not reopened(record, "train", reporter.note, is_picture):
                reporter.note(f"train: already complete at {one.folder}, nothing to do")
                if not report_place(one.folder, "train").exists():
                    leave_report(one.folder, reporter.note, report_page, root_of_runs(config))
                continue
            if not one.index.has_classes and all(sample.ink_share >= config.sampler.ink_from for sample in one.train):
                reporter.note(
                    f"train {config.run}: every training sample holds ink; a network that never saw a tile of bare "
                    "papyrus alarms on it: add samples without ink (sampling.min_ink: 0, or crops with bare_ratio)"
                )
            if fabric is None:
                fabric = launch_fabric(config)
                if fabric.device.type == "cpu":
                    keep_freed_memory()
                together.enter_context(watched_children(fabric))
            here = context if fabric.is_global_zero else replace(context, reporter=QuietReporter())
            _train(one, record, fabric, here, on_step)
            stored += 1
        left = sum(not record.is_complete() for record in folders)
        if config.folds is not None and not left and (fabric is None or fabric.is_global_zero):
            _write_summary(run_folder(config), plans)
            leave(run_folder(config), reporter.note, lambda: write_folds_page(run_folder(config)))
    location = run_folder(config)
    seconds = time.perf_counter() - started
    rank = 0 if fabric is None else fabric.global_rank
    return JobReport(
        "train", location, len(plans), stored, len(mine) - stored, left, seconds, {"rank": rank}, noun="run"
    )


def _train(
    one: TrainPlan, record: RunFolder, fabric: Fabric, context: RunContext, on_step: Callable[[int], None]
) -> None:
    """Train one run to its end: checkpoints, curves and pictures as it goes, the bundle at last."""
    usage, ended = Usage(), "failed"
    store = CheckpointStore(one.folder / "checkpoints", context.reporter.note, one.config.keep_epochs)
    logs = _logs(one, record, context) if fabric.is_global_zero else RunLogs()
    trainer = _trainer(one, fabric, context, store, logs, on_step, usage)
    pointer = store.pointer()
    begun = pointer.last[0].epoch if pointer.last else 0
    context.reporter.start(f"train {one.config.run}", one.config.epochs, begun, "epoch")
    context.reporter.note(f"curves so far: {one.folder / 'curves.png'}, maps in {one.folder / 'validation'}")
    try:
        trainer.set_up()
        progress = trainer.run()
        fabric.barrier()  # all pictures are stored
        if fabric.is_global_zero:
            _finish(one, record, store, progress)
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
            facts: dict[str, Any] = {"devices": fabric.world_size, "steps": trainer.progress.total_steps}
            facts |= {"tiles": trainer.tiles * fabric.world_size, "units_stored": int(ended == "done")}
            facts |= {**usage.stage_facts(trainer.seconds), **device_facts(fabric.device, precision_of(fabric))}
            write_run_file(record, ShardSpec(), context.attempt, usage, ended, facts)
    if fabric.is_global_zero and ended == "done":
        leave_report(one.folder, context.reporter.note, report_page, root_of_runs(one.config))


def _finish(one: TrainPlan, record: RunFolder, store: CheckpointStore, progress: Progress) -> None:
    """Write curves, bundle and data of a run that is done, and complete it with the checksums of all its files.

    Checkpoints are not among these: their names hold a digest, and all but the last ones are removed.
    """
    best = progress.best(one.config.monitor)
    network, left_out = network_of(one)
    history = {"epochs": len(progress.rows), "best_epoch": best.epoch, "steps": progress.total_steps}
    with recording() as ledger:
        write_curves(one.folder, progress)
        bundle = write_bundle(
            one.folder / "bundle",
            one.config.run,
            one.config,
            one.index,
            one.contract,
            network_with(network, store.best()),
            best.scores,
            {**history, **({"left_out": left_out} if left_out else {})},
            shown_pixels(one),
            one.manifest.state,
        )
        split = {"training": one.train, "validation": one.validation}
        write_data(one.folder, one.index, split, _card(one))
    make_durable(ledger)
    pictures = written_pictures(one.folder, progress, one.validation)
    facts: dict[str, Any] = {"best_epoch": best.epoch, "scores": finite(best.scores[OVERALL])}
    facts |= {"weights_sha256": bundle.document.weights_sha256, **sealed_files(one.folder, ledger, pictures)}
    record.complete(facts)


def _logs(one: TrainPlan, record: RunFolder, context: RunContext) -> RunLogs:
    name = one.config.run if one.config.fold is None else f"{one.config.run}-fold-{one.config.fold}"
    identity = f"{name}-{record.manifest.digest[:16]}"
    return open_logs(one.folder, name, identity, one.config.result_settings(), context.reporter.note)


def _card(one: TrainPlan) -> str:
    """Return the address of the data card for the report: relative if both are under one ROOT, which may move.

    A run that is stored under another ROOT keeps the link of one beside its dataset: repeated runs are equal.
    """
    there, root = (one.dataset / "README.md").uri, Location.parse(one.config.root).uri
    here = f"{root}/{one.folder.uri.removeprefix(f'{root_of_runs(one.config).uri}/')}"
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
    network, left_out = network_of(one)
    if left_out:
        left = count_text(len(left_out), "tensor")
        context.reporter.note(f"{left} of {config.start_from} left out: {left_out[0]}, …")
    module = module_of(one, network, context.stop)
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
        weights = sum(parameter.numel() for parameter in shape_of(one.config, one.model).parameters())
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
