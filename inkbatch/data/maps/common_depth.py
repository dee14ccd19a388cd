"""Windows held against themselves at other depths.

Ink of one surface lies at one depth, or nearly; texture of papyrus peaks at another depth in every window. A window is
therefore scored at the depth, and in the direction, at which *all others* together are highest, which its own values
do not enter; without ink that depth is like any other to it. Null scores are those of the same windows at the depths
that lie further from it than ink is wide: real papyrus, of real loudness, read by the same networks.

A layer of papyrus may be rougher than others all over a segment. Then the faintest windows rise at its depth, too, and
they do not where others hold ink; scores are divided by as much as they rise. And what a network answers may drift with
depth: nothing is called unless the mean of all windows has a peak as thin as ink, and has it inside the range, since at
its end a peak cannot be told from a drift. Nor is anything called where the networks draw next to nothing: of empty
maps the stretch makes z values like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.maps.depth_agreement import Doubles, scored_pairs
from inkbatch.data.maps.discovery import Q_CALLED, least_together, p_values, q_values

LEAST_DEPTHS = 3  # from here on the median of a profile is not its peak
FAINTEST = 0.05  # of windows: they hold no ink, unless nearly all do
FLOOR = 0.1  # of the median covariance: what the faintest windows' rise is measured on
EMPTY = 0.02  # of a probability: maps that vary by less within windows are empty, 5 of 255 grey values
LEAST_PEAK = 2.0  # mean of all windows at the depth of ink, in units of the largest mean away from it
REACH_LAYERS = 2.0  # further than this from ink, a network that was trained on ink in its middle no longer reads it


@dataclass(frozen=True, eq=False)
class HeldWindows:
    """Windows, held against the same windows at other depths.

    Attributes:
        series: Place of the series at which all other windows are highest, (windows,).
        depth: Place of that depth, for each series by itself, (series, windows).
        scores: Height of each window there, (windows,), divided by the rise of the faintest windows.
        peak: Mean of all windows there, in units of the largest mean away from it, (windows,).
        answered: True where the mean of ``C(d)`` of all windows there is that of maps that are not empty, (windows,).
        inside: True where that depth is neither the first nor the last, (windows,).
        null: Heights of windows at other depths, all series.
    """

    series: NDArray[np.intp]
    depth: NDArray[np.intp]
    scores: Doubles
    peak: Doubles
    answered: NDArray[np.bool_]
    inside: NDArray[np.bool_]
    null: Doubles

    @property
    def p(self) -> Doubles:
        """p-values, (windows,); 1 where there is no null, empty maps, or no peak of all windows inside the range."""
        return np.where(self.inside, self._p_anywhere, 1.0)

    @property
    def _p_anywhere(self) -> Doubles:
        if not len(self.null):
            return np.ones(len(self.scores))
        return np.where(self.answered & (self.peak >= LEAST_PEAK), p_values(self.scores, self.null), 1.0)

    @property
    def q(self) -> Doubles:
        """q-values, (windows,)."""
        return q_values(self.p)

    @property
    def called(self) -> NDArray[np.bool_]:
        """True for windows that are called."""
        return self.q <= Q_CALLED

    @property
    def cut_off(self) -> int:
        """Windows that would be called if the first and the last depth had further ones beside them."""
        return int((~self.inside & (q_values(self._p_anywhere) <= Q_CALLED)).sum())

    @property
    def empty(self) -> bool:
        """True where the networks draw next to nothing in any window."""
        return not self.answered.any()

    @property
    def least(self) -> int:
        """Windows that must stand out together before any can be called."""
        return least_together(len(self.scores), len(self.null))


def heights(profiles: Doubles) -> Doubles:
    """Return how far each window rises above its median over depths, (…, depths, windows)."""
    if profiles.shape[-2] < LEAST_DEPTHS:
        return profiles
    return profiles - np.median(profiles, axis=-2, keepdims=True)


def rises(profiles: Doubles, away: NDArray[np.bool_]) -> Doubles:
    """Return how much louder the faintest windows are at each depth than on average away from it, at least 1.

    Args:
        profiles: ``C(d)`` of every window, (series, depths, windows).
        away: True for depths that lie away from each other, (depths, depths).
    """
    covariances = np.maximum(profiles, 0)
    level = np.quantile(covariances, FAINTEST, axis=-1) + FLOOR * np.median(covariances)
    others = level @ away / np.maximum(away.sum(axis=0), 1)
    found: Doubles = np.divide(level, others, out=np.ones_like(level), where=others > 0)
    return np.maximum(found, 1.0)


def peaks(profiles: Doubles, away: NDArray[np.bool_]) -> Doubles:
    """Return the mean of all windows at each depth, in units of the largest mean away from it, (series, depths).

    Args:
        profiles: ``C(d)`` of every window, (series, depths, windows).
        away: True for depths that lie away from each other, (depths, depths).
    """
    means = profiles.mean(axis=-1)
    others = np.where(away, means[:, None], 0).max(axis=-1)
    found: Doubles = np.divide(means, others, out=np.full_like(means, np.inf), where=others > 0)
    return found


def least_covariance(deviations: Sequence[float]) -> float:
    """Return the ``C(d)`` of maps that vary by `EMPTY` within windows, by the deviations of the bundles' stretches."""
    scales = [deviations[a] * deviations[b] for a, b in scored_pairs(len(deviations))]
    return EMPTY**2 * float(np.mean([1 / scale for scale in scales if scale] or [np.inf]))


def held(profiles: Doubles, depths: Sequence[int], least: float = 0.0) -> HeldWindows:
    """Hold windows against themselves at other depths.

    Args:
        profiles: ``C(d)`` of every window, see `depth_agreement`, (series, depths, windows).
        depths: The depths, in layers, ascending.
        least: See `least_covariance`.
    """
    layers = np.asarray(depths, np.float64)
    away = np.abs(layers[:, None] - layers) > REACH_LAYERS
    found, windows = heights(profiles), np.arange(profiles.shape[2])
    if not windows.size:
        nothing = np.zeros(0, np.intp)
        none, no = np.zeros(0), np.zeros(0, bool)
        return HeldWindows(nothing, np.zeros((len(found), 0), np.intp), none, none, no, no, none)
    others = found.sum(axis=2, keepdims=True) - found
    depth = others.argmax(axis=1)
    series = np.take_along_axis(others, depth[:, None], axis=1)[:, 0].argmax(axis=0)
    chosen = depth[series, windows]
    scores = found[series, chosen, windows] / rises(profiles, away)[series, chosen]
    peak = peaks(profiles, away)[series, chosen]
    answered = profiles.mean(axis=2)[series, chosen] >= least
    inside = (chosen > 0) & (chosen < len(depths) - 1)
    return HeldWindows(series, depth, scores, peak, answered, inside, found[:, away[chosen].T].ravel())
