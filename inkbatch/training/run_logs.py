"""Logs of a running training: TensorBoard always, W&B if its key is set. A log never stops a run."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from inkbatch.io.store.location import Location
from inkbatch.training import wandb_log
from inkbatch.training.metrics import OVERALL
from inkbatch.training.progress import EpochRow
from inkbatch.training.tensorboard import TensorBoardLog

FLUSH_S = 60.0


class RunLog(Protocol):
    """One kind of log."""

    name: str

    def start(self, step: int) -> None:
        """Begin the run, or go on with it, after so many steps."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log values under their tags."""

    def picture(self, step: int, tag: str, png: bytes) -> None:
        """Log a PNG."""

    def flush(self) -> None:
        """Let others see what was logged so far."""

    def close(self, ended: str) -> None:
        """End the log; `ended` is ``done``, or the reason of an early stop."""


class RunLogs:
    """All logs of a run; one that fails is noted once and left out from then on.

    Args:
        logs: Open logs.
        note: Receives notes for the user.
        clock: Seconds, for the time between flushes.
    """

    def __init__(
        self,
        logs: Sequence[RunLog] = (),
        note: Callable[[str], None] = lambda text: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.logs, self.note, self.clock = list(logs), note, clock
        self._flushed_at = clock()

    def start(self, step: int) -> None:
        """Begin the run, or go on with it, after so many steps."""
        self._each(lambda log: log.start(step))

    def steps(self, first: int, losses: Sequence[float], rates: Sequence[float]) -> None:
        """Log losses and learning rates of consecutive steps; `first` counts from 0."""
        for number, (loss, rate) in enumerate(zip(losses, rates, strict=True), start=first):
            self._scalars(number, {"step/loss": loss, "step/rate": rate})
        if self.clock() - self._flushed_at > FLUSH_S:
            self.flush()

    def epoch(self, row: EpochRow, step: int, pictures: Mapping[str, bytes]) -> None:
        """Log the scores of an epoch, after so many steps; segments are logged if there are several."""
        self._scalars(step, {"loss/train": row.train_loss, "loss/validation": row.validation_loss})
        segments = [name for name in row.scores if name != OVERALL]
        for name in [OVERALL, *(segments if len(segments) > 1 else [])]:
            group = "validation" if name == OVERALL else f"validation {name}"
            self._scalars(step, {f"{group}/{score}": value for score, value in row.scores[name].items()})
        for name, png in pictures.items():
            self._each(lambda log, tag=f"maps/{name}", data=png: log.picture(step, tag, data))  # type: ignore[misc]
        self.flush()

    def flush(self) -> None:
        """Let others see what was logged so far."""
        self._each(lambda log: log.flush())
        self._flushed_at = self.clock()

    def close(self, ended: str) -> None:
        """End the log; `ended` is ``done``, or the reason of an early stop."""
        self._each(lambda log: log.close(ended))
        self.logs.clear()

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        known = {tag: value for tag, value in values.items() if not math.isnan(value)}
        self._each(lambda log: log.scalars(step, known))

    def _each(self, action: Callable[[RunLog], None]) -> None:
        for log in list(self.logs):
            try:
                action(log)
            except Exception as error:
                self.logs.remove(log)
                self.note(f"{log.name} failed and is left out from here on: {type(error).__name__}: {error}")


def open_logs(
    folder: Location, run: str, identity: str, settings: Mapping[str, Any], note: Callable[[str], None]
) -> RunLogs:
    """Open the logs of a run.

    Args:
        folder: The run's folder: TensorBoard's files go to ``tensorboard/``, those of an offline W&B run to ``wandb/``.
        run: Name of the run.
        identity: Follows from the run's configuration.
        settings: The configuration.
        note: Receives notes for the user.
    """
    logs: list[RunLog] = [TensorBoardLog(folder / "tensorboard")]
    if os.environ.get(wandb_log.KEY):
        try:
            logs.append(wandb_log.WandbLog(folder / "wandb", run, identity, settings))
        except ImportError:
            note(f"{wandb_log.KEY} is set, but wandb is not installed: pip install wandb; the run goes on without it")
        except Exception as error:
            note(f"W&B is not available, the run goes on without it: {type(error).__name__}: {error}")
    return RunLogs(logs, note)
