"""Threshold of a network over several scrolls, each scored by what the others say: ``calibration.json`` of its bundle.

A threshold that was chosen on the pixels that it is judged on, or on the scroll that trained the network, says little
about the next scroll. Here each scroll in turn is left out: the threshold that is best on the others is what a user
would have taken, and the score there is what they would have got.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inkbatch.data.maps.scoring import VALUES, Floats, ScoreHistogram
from inkbatch.errors import CorruptDataError, DataError
from inkbatch.io.store.location import Location
from inkbatch.text import count_text

NAME = "calibration.json"


class LeftOutScroll(BaseModel):
    """One scroll, scored at the threshold of the others.

    Attributes:
        scroll: Its name.
        segments: Its segments.
        counted_px: Their pixels that count.
        threshold: The threshold that is best on the other scrolls.
        f_beta: F-beta of this scroll there.
        best_threshold: The threshold that is best on this scroll.
        best_f_beta: F-beta there; no one could have known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scroll: str
    segments: tuple[str, ...]
    counted_px: int
    threshold: float
    f_beta: float
    best_threshold: float
    best_f_beta: float


class Calibration(BaseModel):
    """Content of ``calibration.json``.

    Attributes:
        format: Version of this layout.
        weights_sha256: Weights of the network whose maps were scored.
        threshold: The threshold that is best on all scrolls together, each of equal weight.
        spread: Standard deviation of the thresholds of the left-out scrolls (n - 1).
        beta: Of F-beta.
        scrolls: Each scroll left out, by name.
        evaluations: Digests of the evaluations that were read, by segment.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    weights_sha256: str
    threshold: float = Field(ge=0, le=1)
    spread: float = Field(ge=0)
    beta: float
    scrolls: tuple[LeftOutScroll, ...] = Field(min_length=2)
    evaluations: dict[str, str]

    @property
    def fitted_on(self) -> str:
        """Origin of the threshold, in words."""
        lowest, highest = (pick(one.threshold for one in self.scrolls) for pick in (min, max))
        return (
            f"best F{self.beta:g} over {count_text(len(self.scrolls), 'scroll')} "
            f"({', '.join(one.scroll for one in self.scrolls)}); {lowest:.3f} to {highest:.3f} where one is left out"
        )

    @property
    def mean_score(self) -> float:
        """Mean F-beta of the left-out scrolls."""
        return float(np.mean([one.f_beta for one in self.scrolls]))


def calibrated(
    scrolls: Mapping[str, Mapping[str, ScoreHistogram]],
    beta: float,
    weights_sha256: str,
    evaluations: Mapping[str, str],
) -> Calibration:
    """Leave each scroll out in turn.

    Args:
        scrolls: Counts by scroll and segment; a scroll's counts are added up.
        beta: Of F-beta.
        weights_sha256: Weights of the network.
        evaluations: Digests of what was read.

    Raises:
        DataError: Fewer than two scrolls, or one whose counted pixels are all ink or all bare.
    """
    if len(scrolls) < 2:
        raise DataError(
            f"calibrate: expected two scrolls or more, got {len(scrolls)}; a threshold that is judged on the scroll "
            "that chose it says nothing about the next one: evaluate a segment of another scroll"
        )
    names = sorted(scrolls)
    totals = [_total(name, scrolls[name]) for name in names]
    curves = np.stack([total.f_beta_curve(beta) for total in totals])
    left_out = tuple(
        _left_out(name, sorted(scrolls[name]), total.counted, curves[number], np.delete(curves, number, axis=0))
        for number, (name, total) in enumerate(zip(names, totals, strict=True))
    )
    return Calibration(
        weights_sha256=weights_sha256,
        threshold=_best(curves)[0],
        spread=float(np.std([one.threshold for one in left_out], ddof=1)),
        beta=beta,
        scrolls=left_out,
        evaluations=dict(sorted(evaluations.items())),
    )


def _total(name: str, segments: Mapping[str, ScoreHistogram]) -> ScoreHistogram:
    total = ScoreHistogram()
    for found in segments.values():
        total.merge(found)
    if not total.ink.any() or not total.bare.any():
        missing = "ink" if total.bare.any() else "bare papyrus"
        raise DataError(
            f"calibrate: scroll {name} has no {missing} among its {total.counted:,} counted pixels, so that no "
            "threshold can be judged on it; add a segment of it, or leave the scroll out"
        )
    return total


def _left_out(name: str, segments: Sequence[str], counted: int, own: Floats, others: Floats) -> LeftOutScroll:
    threshold, place = _best(others)
    best_threshold, best = _best(own[None])
    return LeftOutScroll(
        scroll=name,
        segments=tuple(segments),
        counted_px=counted,
        threshold=threshold,
        f_beta=float(own[place]),
        best_threshold=best_threshold,
        best_f_beta=float(own[best]),
    )


def _best(curves: Floats) -> tuple[float, int]:
    """Find the threshold of the best mean of curves (n, values), the lowest of equal ones, and its place."""
    place = int(np.argmax(curves.mean(axis=0)))
    return float(VALUES[place]), place


def read_calibration(folder: Location, weights_sha256: str) -> Calibration | None:
    """Read what lies beside a bundle's weights; None where nothing does.

    Raises:
        CorruptDataError: It does not validate.
        DataError: It was made with other weights.
    """
    place = folder / NAME
    try:
        values = place.read_json()
    except FileNotFoundError:
        return None
    try:
        found = Calibration.model_validate(values)
    except ValidationError as error:
        raise CorruptDataError(f"{place}: this calibration cannot be read; remove it, and calibrate again") from error
    if weights_sha256 and found.weights_sha256 != weights_sha256:
        raise DataError(
            f"{place}: was made with weights {found.weights_sha256[:12]}…, the bundle's are {weights_sha256[:12]}…; "
            "remove it, and calibrate again"
        )
    return found
