"""p- and q-values of windows by permutation: how unlike the null each is, and how many would be so by chance.

A null window is one of the same maps where no ink is read (`common_depth`). The p-value of a score is the share of null
scores that reach it, with one added above and below, since a p-value from a finite number of draws is never 0
(Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9, 2010, article 39). The q-value of a window is the smallest share of
false windows among those called, over all thresholds that call it (Storey and Tibshirani, PNAS 100, 2003, 9440-9445),
with the share of true nulls taken as 1, its upper bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Q_CALLED = 0.05

Doubles = NDArray[np.float64]


def p_values(scores: Doubles, null: Doubles) -> Doubles:
    """Return (1 + null scores that reach each score) / (1 + null scores).

    Args:
        scores: Of windows, any order.
        null: Of null windows, at least one.
    """
    ascending = np.sort(null)
    reached = len(ascending) - np.searchsorted(ascending, scores, side="left")
    found: Doubles = (1 + reached) / (1 + len(ascending))
    return found


def q_values(p: Doubles) -> Doubles:
    """Return the smallest false-discovery rate at which each window is called."""
    if not p.size:
        return np.zeros(0)
    order = np.argsort(p, kind="stable")
    ranked = p[order] * len(p) / np.arange(1, len(p) + 1)
    smallest = np.minimum.accumulate(ranked[::-1])[::-1]
    found = np.empty(len(p))
    found[order] = np.minimum(smallest, 1)
    return found


def least_together(windows: int, null: int, level: float = Q_CALLED) -> int:
    """Count the windows that must stand out of all null windows together before any can be called."""
    return int(np.ceil(windows / ((1 + null) * level) - 1e-9))


@dataclass(frozen=True)
class ControlPoint:
    """Effect of planted ink of one contrast.

    Attributes:
        contrast: Grey values of 255 at its centre.
        found: Sampled windows that would have been called.
        windows: Windows in which it was planted.
    """

    contrast: float
    found: int
    windows: int

    @property
    def share(self) -> float:
        """Share that would have been called."""
        return self.found / self.windows if self.windows else 0.0


SEEN_SHARE = 0.9  # of the sampled windows: ink of this contrast would have been seen


def faintest_seen(points: list[ControlPoint]) -> float | None:
    """Return the faintest contrast from which on planted ink would have been seen; None if there is none."""
    faintest = None
    for point in sorted(points, key=lambda point: -abs(point.contrast)):
        if point.share < SEEN_SHARE:
            break
        faintest = point.contrast
    return faintest


@dataclass(frozen=True)
class Ground:
    """Area that was judged, and what could not be.

    Attributes:
        judged: Pixels in windows that were judged.
        reasons: Pixels in the others, by the reason.
    """

    judged: int
    reasons: dict[str, int]

    @property
    def share(self) -> float:
        """Share of the area that was judged."""
        total = self.judged + sum(self.reasons.values())
        return self.judged / total if total else 0.0


@dataclass(frozen=True)
class Outlook:
    """Chances of a call.

    Attributes:
        windows: That were judged.
        least: See `least_together`.
        cut_off: Windows that stand out at the first or the last depth.
        empty: True where the networks draw next to nothing.
    """

    windows: int
    least: int = 0
    cut_off: int = 0
    empty: bool = False


def sentence(called: int, points: list[ControlPoint], ground: Ground, outlook: Outlook) -> str:
    """Say what was found, and what could have been, in words that claim no ink.

    Args:
        called: Windows with a q-value of `Q_CALLED` at most.
        points: The positive control; empty where none was made.
        ground: Area that was judged.
        outlook: Chances of a call.
    """
    left = "; ".join(f"{_percent(pixels, ground)} {reason}" for reason, pixels in ground.reasons.items() if pixels)
    rest = f" {_whole(1 - ground.share)} could not be judged, because: {left}." if left else ""
    if called:
        verb = "are" if called > 1 else "is"
        return f"{called:,} of {outlook.windows:,} windows {verb} unlike the null at q ≤ {Q_CALLED:g}.{rest}"
    if not outlook.windows:
        return f"Nothing could be judged: this says nothing about ink.{rest}"
    if outlook.least > outlook.windows:
        return (
            f"Nothing can be called: {outlook.least:,} windows would have to stand out together, and only "
            f"{outlook.windows:,} {'was' if outlook.windows == 1 else 'were'} judged; sweep more depths.{rest}"
        )
    if outlook.cut_off:
        plural = "windows stand" if outlook.cut_off > 1 else "window stands"
        return (
            f"Nothing can be called yet: {outlook.cut_off:,} {plural} out at the first or the last depth, where a peak "
            f"cannot be told from a drift; sweep further.{rest}"
        )
    faintest = faintest_seen(points)
    if not points and outlook.empty:
        return f"The networks see nothing here, and no control was made: this says nothing about ink.{rest}"
    if not points:
        return f"No window is unlike the null in {_whole(ground.share)} of the area; no control was made.{rest}"
    if faintest is None:
        return f"No window is unlike the null, but {_unseen(points, outlook)}: this says nothing about ink.{rest}"
    return (
        f"No {_strokes(faintest)} above contrast {abs(faintest):g} in {_whole(ground.share)} of the area, unless they "
        f"fill fewer than {points[0].windows:,} windows.{rest}"
    )


def _unseen(points: Sequence[ControlPoint], outlook: Outlook) -> str:
    """Say that not even the strongest planted strokes would have been seen, and why where it is known."""
    strongest, windows = max((point.contrast for point in points), key=abs), points[0].windows
    said = f"planted {_strokes(strongest)} of contrast {abs(strongest):g} would not have been seen either"
    if windows >= outlook.least:
        return said
    return f"{said}, for they filled {windows:,} of the {outlook.least:,} windows that must stand out together"


def _strokes(contrast: float) -> str:
    return "dark strokes" if contrast < 0 else "strokes"


def _percent(pixels: int, ground: Ground) -> str:
    return _whole(pixels / (ground.judged + sum(ground.reasons.values())))


def _whole(share: float) -> str:
    return f"{share:.0%}" if share in (0, 1) or 0.01 <= share <= 0.99 else f"{share:.1%}"
