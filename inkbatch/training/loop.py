"""Training loop: steps, validation, checkpoints, stopping; every step is a pure function of state and place.

The loop runs on Lightning Fabric (devices, nodes, precision, gradient exchange) and keeps its own place: a checkpoint
says "step s of epoch e comes next", samples and augmentation follow from seed and place, and every step seeds torch by
its own number. So a run that was killed anywhere goes on as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inkbatch.errors import NonFiniteError, Preempted
from inkbatch.run.job import RunContext
from inkbatch.run.pipeline import StageSeconds
from inkbatch.run.run_file import Usage
from inkbatch.training.checkpoints import CheckpointStore
from inkbatch.training.data import Step, StepStream
from inkbatch.training.fabric import Fabric
from inkbatch.training.metrics import OVERALL, table
from inkbatch.training.module import InkModule
from inkbatch.training.optimise import WeightAverage, rate_factor, set_rates
from inkbatch.training.progress import EpochRow, Progress, scores_text
from inkbatch.training.run_logs import RunLogs
from inkbatch.training.settings import TrainConfig
from inkbatch.training.validate import Validation, Validator

FETCH_EVERY = 8  # steps between fetches of the losses: each fetch waits for the device


@dataclass
class Trainer:
    """Training loop of one run.

    Attributes:
        config: The run.
        fabric: Launched.
        module: The module, on the CPU; `run` moves it.
        stream: Source of steps.
        validator: Validates.
        store: The run's checkpoints.
        context: Stop flag and reporter.
        logs: Logs of curves while the run is under way.
        on_epoch: Called on each device after each epoch, before its checkpoint, with what its validation found.
        on_step: Called after each optimiser step, before its checkpoint, with the number of steps so far.
        progress: Progress of the run.
        seconds: Seconds of this process by stage: reading tiles (summed over threads), computing, storing, and
            waiting for tiles.
        tiles: Tiles that this process was trained on, those of the other devices not counted.
        usage: The clocks of this process; the trainer says when its loop begins and ends.
    """

    config: TrainConfig
    fabric: Fabric
    module: InkModule
    stream: StepStream
    validator: Validator
    store: CheckpointStore
    context: RunContext
    logs: RunLogs = field(default_factory=RunLogs)
    on_epoch: Callable[[Progress, Validation], None] = lambda progress, validation: None
    on_step: Callable[[int], None] = lambda steps: None
    progress: Progress = field(default_factory=Progress)
    seconds: StageSeconds = field(default_factory=StageSeconds)
    tiles: int = 0
    usage: Usage = field(default_factory=Usage)

    def run(self) -> Progress:
        """Train to the end; `set_up` comes first.

        Raises:
            NonFiniteError: A loss is NaN or infinite; names the step and its samples.
            Preempted: A stop was asked for; a checkpoint of the very step is stored.
        """
        self.usage.loop_begins()
        self.logs.start(self.progress.total_steps)
        self._saved_at = time.monotonic()
        self._open_losses: list[tuple[Tensor, Step]] = []
        steps = self.stream.run(self.progress.epoch, self.progress.step)
        with contextlib.closing(steps):  # type: ignore[type-var]  # a generator
            while not self.progress.finished:
                self._epoch(steps)
                self._validate()
        self.usage.loop_ends()
        return self.progress

    def set_up(self) -> None:
        """Move the module to its device, and go back to the newest checkpoint, if there is one.

        Raises:
            CorruptDataError: There are checkpoints, and none is whole.
        """
        optimiser = self.module.configure_optimizers()
        self.model, self.optimiser = self.fabric.setup(self.module, optimiser)
        self.average = None if self.config.ema is None else WeightAverage(self.module.net, self.config.ema)
        self.module.train()
        self._resume()

    def _epoch(self, steps: Iterator[Step]) -> None:
        while self.progress.step < self.stream.plan.steps:
            with self.seconds.timed("waited"):
                step = next(steps)
            with self.seconds.timed("compute"):
                self.take_step(step)
            self.tiles += sum(len(batch.sample_ids) for batch in step.batches)
            self.progress.step += 1
            self.progress.total_steps += 1
            if len(self._open_losses) >= FETCH_EVERY:
                with self.seconds.timed("compute"):
                    self._fetch_losses()
            self.on_step(self.progress.total_steps)
            facts = {"tiles": self.stream.plan.step_samples, **self.usage.pace(self.seconds)}
            self.context.reporter.advance(self.progress.step / self.stream.plan.steps, facts)
            stopping = self._stopping()
            if stopping or self._is_due():
                self._save()
            if stopping:
                self._give_up()
        with self.seconds.timed("compute"):
            self._fetch_losses()

    def take_step(self, step: Step) -> None:
        """Take one optimiser step, seeded by its number: dropout, too, repeats itself after a resume."""
        seeds = [self.config.seed, self.progress.total_steps, 2, self.fabric.global_rank]
        torch.manual_seed(int(np.random.default_rng(seeds).integers(2**63)))
        set_rates(self.optimiser, self._rate_factor(self.progress.total_steps))
        self.optimiser.zero_grad()
        loss = torch.zeros((), device=self.fabric.device)
        for number, batch in enumerate(step.batches):
            last = number == len(step.batches) - 1
            with self.fabric.no_backward_sync(self.model, enabled=not last):
                prepared = self.module.prepare(batch.to(self.fabric.device))
                with self.fabric.autocast():  # Fabric's own wrapper casts in `forward` alone, or where it wraps for DDP
                    part = self.model.training_step(*prepared) / len(step.batches)
                self.fabric.backward(part)
            loss += part.detach()
        if self.config.clip_gradient is not None:
            self.fabric.clip_gradients(
                self.model, self.optimiser, max_norm=self.config.clip_gradient, error_if_nonfinite=False
            )
        self.optimiser.step()
        if self.average is not None:
            self.average.update()
        self._open_losses.append((loss, step))

    def _rate_factor(self, step: int) -> float:
        return rate_factor(step, self.config.epochs * self.stream.plan.steps, self.config.schedule)

    def _rate(self, step: int) -> float:
        """Return the highest learning rate of a step."""
        return max(float(group["highest_rate"]) for group in self.optimiser.param_groups) * self._rate_factor(step)

    def _fetch_losses(self) -> None:
        """Fetch the losses since the last fetch, and refuse the first that is not finite.

        Raises:
            NonFiniteError: One is NaN or infinite.
        """
        if not self._open_losses:
            return
        values = torch.stack([loss for loss, _ in self._open_losses]).cpu().tolist()
        for value, (_, step) in zip(values, self._open_losses, strict=True):
            if not np.isfinite(value):
                samples = ", ".join(name for batch in step.batches for name in batch.sample_ids)
                raise NonFiniteError(
                    f"run {self.config.run}: the loss of epoch {step.epoch + 1}, step {step.step} is {value}; its "
                    f"batch holds the samples {samples}; look at them, lower optimiser.rate, set clip_gradient, or "
                    "train with precision fp32"
                )
        first = len(self.progress.losses)
        self.progress.losses += values
        self.logs.steps(first, values, [self._rate(first + number) for number in range(len(values))])
        self._open_losses.clear()

    def _validate(self) -> None:
        """End the epoch: validate, write a row, keep the best, and see whether anything is left to train."""
        progress, config = self.progress, self.config
        average: AbstractContextManager[Any] = (
            contextlib.nullcontext() if self.average is None else self.average.in_place()
        )
        try:
            with average:
                found = self.validator.run(self.module, self.fabric.device, self.fabric.autocast, self.seconds)
        except Preempted:
            self._save()
            self._give_up()
        losses = progress.losses[-self.stream.plan.steps :]
        rate = max(group["lr"] for group in self.optimiser.param_groups)
        progress.rows.append(
            EpochRow(progress.epoch + 1, float(np.mean(losses)), found.loss, rate, table(found.histograms))
        )
        progress.epoch, progress.step = progress.epoch + 1, 0
        best = progress.best(config.monitor)
        waited = progress.rows[-1].epoch - best.epoch
        progress.finished = progress.epoch >= config.epochs or (
            config.patience is not None and waited >= config.patience
        )
        with self.seconds.timed("store"):
            self.on_epoch(progress, found)
        self.fabric.barrier()  # a checkpoint after an epoch promises that its pictures are stored
        self._save(best=waited == 0, ends_epoch=True)
        scores = progress.rows[-1].scores[OVERALL]
        row = {"train_loss": progress.rows[-1].train_loss, "validation_loss": found.loss}
        row |= {"f05": scores["f05"], "auc": scores["auc"]}
        best_words = "the best so far" if waited == 0 else f"the best is epoch {best.epoch}"
        self.context.reporter.unit(
            f"epoch {progress.epoch} of {config.epochs}",
            {**row, "said": f"{scores_text(row)}; {best_words}", **self.usage.pace(self.seconds)},
        )

    def _stopping(self) -> bool:
        """Return True if any device was told to stop; all must leave the loop at the same step."""
        self.context.stop.watch()  # from the end of the first step on there is progress worth a checkpoint
        asked = self.context.stop.is_set
        if self.fabric.world_size == 1:
            return asked
        flag = torch.tensor(float(asked), device=self.fabric.device)
        total = self.fabric.all_reduce(flag, reduce_op="sum")
        return isinstance(total, Tensor) and bool(total > 0)

    def _is_due(self) -> bool:
        every = self.config.save_every_steps
        if every and self.progress.total_steps % every == 0:
            return True
        late = time.monotonic() - self._saved_at > self.config.save_every_minutes * 60
        if self.fabric.world_size == 1:
            return late
        return bool(self.fabric.broadcast(late))

    def _give_up(self) -> None:
        reason = self.context.stop.reason or "a stop of another process"
        raise Preempted(
            f"stopped by {reason}; a checkpoint of step {self.progress.total_steps} is stored; run the same command "
            "again to go on"
        )

    def _save(self, best: bool = False, *, ends_epoch: bool = False) -> None:
        self._fetch_losses()
        if self.fabric.is_global_zero:
            with self.seconds.timed("store"):
                self._store(best, ends_epoch)
        self.fabric.barrier()
        self._saved_at = time.monotonic()

    def _store(self, best: bool, ends_epoch: bool) -> None:
        state = {
            "net": self.module.net.state_dict(),
            "optimiser": self.optimiser.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "progress": self.progress.state_dict(),
        }
        if self.module.side_maps is not None:
            state["side_maps"] = self.module.side_maps.state_dict()
        self.store.save(state, self.progress.total_steps, self.progress.epoch, best, ends_epoch=ends_epoch)

    def _resume(self) -> None:
        state = self.store.newest()
        self.fabric.barrier()
        if state is None:
            return
        self.module.net.load_state_dict(state["net"])
        if self.module.side_maps is not None:
            self.module.side_maps.load_state_dict(state["side_maps"])
        self.optimiser.optimizer.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.progress = Progress.of(state["progress"])
        if self.progress.total_steps:
            self.context.reporter.note(
                f"run {self.config.run}: going on after step {self.progress.total_steps} "
                f"(in epoch {min(self.progress.epoch + 1, self.config.epochs)}, after its step {self.progress.step})"
            )
