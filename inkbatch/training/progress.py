"""Progress of a run and its scores: all that a resumed run needs besides weights and optimiser."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from inkbatch.training.metrics import OVERALL, SCORES

LOWER_IS_BETTER = frozenset({"loss"})


@dataclass
class EpochRow:
    """One line of the curves.

    Attributes:
        epoch: From 1, as people count.
        train_loss: Mean over the epoch's steps.
        validation_loss: Mean over validated tiles.
        rate: Highest learning rate of the last step.
        scores: Per segment and overall, see `metrics.table`.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    rate: float
    scores: dict[str, dict[str, float]]

    def value(self, monitor: str) -> float:
        """Return the score that chooses the best epoch, larger is better; NaN is worst."""
        found = self.validation_loss if monitor == "loss" else self.scores[OVERALL][monitor]
        if math.isnan(found):
            return -math.inf
        return -found if monitor in LOWER_IS_BETTER else found


@dataclass
class Progress:
    """Progress of a run.

    Attributes:
        epoch: The epoch that is being trained, from 0; equal to the number of epochs at the end.
        step: Optimiser steps of it that are done.
        total_steps: Optimiser steps of the run that are done.
        losses: Loss of every step of the run.
        rows: One per finished epoch.
        finished: Nothing is left to train: all epochs are done, or patience ran out.
    """

    epoch: int = 0
    step: int = 0
    total_steps: int = 0
    losses: list[float] = field(default_factory=list)
    rows: list[EpochRow] = field(default_factory=list)
    finished: bool = False

    def best(self, monitor: str) -> EpochRow:
        """Return the first of the best epochs."""
        return max(self.rows, key=lambda row: (row.value(monitor), -row.epoch))

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return asdict(self)

    @staticmethod
    def of(state: Mapping[str, Any]) -> Progress:
        """Restore the state of a checkpoint."""
        return Progress(
            **{**state, "rows": [EpochRow(**row) for row in state["rows"]], "losses": list(state["losses"])}
        )

    def metrics_csv(self) -> bytes:
        """Write one line per epoch and segment (or ``overall``); equal runs give equal bytes."""
        head = ["epoch", "segment", "train_loss", "validation_loss", "rate", *SCORES]
        lines = [
            [row.epoch, name, _text(row.train_loss), _text(row.validation_loss), _text(row.rate)]
            + [_text(scores[score]) for score in SCORES]
            for row in self.rows
            for name, scores in row.scores.items()
        ]
        return to_csv([head, *lines])

    def losses_csv(self) -> bytes:
        """Write one line per optimiser step."""
        return to_csv([["step", "loss"], *([number, _text(loss)] for number, loss in enumerate(self.losses))])

    def curves(self) -> dict[str, dict[str, list[float]]]:
        """Return what ``curves.png`` draws: per panel, per line, one value per epoch."""
        overall = [row.scores[OVERALL] for row in self.rows]
        return {
            "loss": {
                "train": [row.train_loss for row in self.rows],
                "validation": [row.validation_loss for row in self.rows],
            },
            "validation, stitched": {
                name: [scores[name] for scores in overall]
                for name in ("f05", "dice", "iou", "average_precision", "auc")
            },
        }


def scores_text(row: Mapping[str, float]) -> str:
    """Say losses and scores of an epoch, ``loss 0.31, validation loss 0.35, F0.5 0.712, AUC 0.934``."""
    names = {"train_loss": "loss", "validation_loss": "validation loss", "f05": "F0.5", "auc": "AUC"}
    shown = (
        f"{words} {row[name]:.4g}" if "loss" in name else f"{words} {row[name]:.3f}" for name, words in names.items()
    )
    return ", ".join(shown)


def to_csv(lines: list[list[Any]]) -> bytes:
    """Write comma-separated text with line feeds."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(lines)
    return buffer.getvalue().encode()


def _text(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))
