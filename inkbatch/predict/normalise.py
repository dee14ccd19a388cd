"""From stored intensities to what a network sees, by the contract's rule: one function for every job.

Statistics of tiles are taken for a whole batch at once, on the tiles' device and without waiting for it. Whole numbers
of 8 or 16 bits are counted first (`_Counted` values with how often each occurs), from which all statistics follow
exactly; other values are sorted. Percentiles are those of numpy 2.4: a float64 index, interpolated in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from inkbatch.models.bundle import Contract
from inkbatch.models.rules import Normaliser

MAD_TO_SIGMA = 1.4826
LEAST_SCALE = 1e-6  # below, the next fallback is taken
BINS = {torch.uint8: 1 << 8, torch.uint16: 1 << 16}


class Statistics(NamedTuple):
    """Statistics for ``(min(max(x, lower), upper) - centre) / scale``; each float32 (B,)."""

    lower: Tensor
    upper: Tensor
    centre: Tensor
    scale: Tensor


def normalise(
    stored: Tensor, contract: Contract, out: Tensor | None = None, statistics: Statistics | None = None
) -> Tensor:
    """Normalise values by the contract's numbers, or by statistics that were taken before.

    Args:
        stored: (Z, Y, X) or (B, …), in the stored dtype or float32.
        contract: The bundle's contract.
        out: Optional contiguous float32 of the same shape to fill.
        statistics: In place of the contract's numbers: of one segment (shape (1,)), or one per entry of the first axis.

    Returns:
        Contiguous float32 of the same shape: ``(clip(x) / divisor - mean) / std``, or see `Statistics`.

    Raises:
        ValueError: The contract asks for statistics, and there are none.
    """
    values = torch.empty(stored.shape, dtype=torch.float32, device=stored.device) if out is None else out
    values.copy_(stored)
    if statistics is not None:
        return _by_statistics(values, statistics, is_whole=stored.dtype in BINS)
    if contract.normaliser.by_statistics:
        raise ValueError(f"normaliser {contract.normaliser.kind}: expected statistics, got none")
    if contract.clip is not None:
        values.clamp_(contract.clip[0], contract.clip[1])
    if contract.scaling == "multiply":
        values.mul_(1 / contract.divisor)
    else:
        values.div_(_divisor(contract.divisor, values))
    if contract.mean != 0.0:
        values.sub_(contract.mean)
    if contract.std != 1.0:
        values.div_(_divisor(contract.std, values))
    return values


def normalise_tiles(tiles: Tensor, contract: Contract, statistics: Statistics | None = None) -> Tensor:
    """Normalise a batch of tiles, each by statistics of its own where the contract says so.

    Args:
        tiles: (B, …), in the stored dtype or float32.
        contract: The bundle's contract.
        statistics: Of the tiles' segments, for a contract with statistics per segment: shape (1,) or (B,).

    Returns:
        Contiguous float32 of the same shape. A tile's values do not depend on the tiles beside it.
    """
    if contract.normaliser.per_tile:
        statistics = statistics_of(tiles, contract.normaliser)
    return normalise(tiles, contract, statistics=statistics)


def statistics_of(tiles: Tensor, rule: Normaliser) -> Statistics:
    """Take each tile's statistics.

    Args:
        tiles: (B, …) uint8, uint16 or float32; everything behind the first axis counts together.
        rule: ``robust-mad`` or ``percentile-range``.
    """
    if tiles.device.type == "mps":  # has no float64
        return Statistics(*(one.to(tiles.device) for one in statistics_of(tiles.cpu(), rule)))
    flat = tiles.flatten(1)
    bins = BINS.get(tiles.dtype)
    if bins is None:
        return _statistics(_sorted(flat.float(), nonzero=rule.counts == "nonzero"), rule)
    return _statistics(_counted(_histogram(flat, bins), nonzero=rule.counts == "nonzero"), rule)


def statistics_of_counts(counts: Tensor, rule: Normaliser) -> Statistics:
    """Compute the same statistics from histograms.

    Args:
        counts: (B, n) int64: how often each whole number from 0 occurs.
        rule: ``robust-mad`` or ``percentile-range``.
    """
    return _statistics(_counted(counts, nonzero=rule.counts == "nonzero"), rule)


def _by_statistics(values: Tensor, statistics: Statistics, *, is_whole: bool) -> Tensor:
    shape = (-1, *[1] * (values.ndim - 1))
    lower, upper, centre, scale = (one.view(shape) for one in statistics)
    torch.maximum(values, lower, out=values)
    torch.minimum(values, upper, out=values)
    values.sub_(centre).div_(scale)
    return values if is_whole else torch.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0, out=values)


def _divisor(value: float, like: Tensor) -> float | Tensor:
    """Make a number to divide by: CUDA multiplies by the reciprocal of a plain one, which differs in the last bit."""
    return value if like.device.type == "cpu" else torch.full((), value, device=like.device)


@dataclass(frozen=True)
class _Counted:
    """Values in ascending order.

    Attributes:
        values: (B, n) float32, ascending where they count.
        times: (B, n) int64: how often each counts; None: once each, those from `count` on not at all.
        count: (B,) int64: all that count.
    """

    values: Tensor
    times: Tensor | None
    count: Tensor

    def at(self, *ranks: Tensor) -> Sequence[Tensor]:
        """Return the values of given ranks, (B,) each; ranks beyond the ends are those of the ends."""
        top = (self.count - 1).clamp_(min=0)
        wanted = torch.stack([torch.minimum(rank.clamp(min=0), top) for rank in ranks], dim=1)
        if self.times is not None:
            wanted = torch.searchsorted(self.times.cumsum(1), wanted, right=True).clamp_(max=self.values.shape[1] - 1)
        return self.values.gather(1, wanted).unbind(1)

    def percentile(self, q: float) -> Tensor:
        """Compute a percentile, linear between order statistics, float32 (B,)."""
        index = (self.count - 1).clamp(min=0).double() * (q / 100)
        below = index.floor()
        share = index - below
        rank = below.long()
        a, b = self.at(rank, rank + 1)
        step = b - a
        return torch.where(share < 0.5, a + step * share.float(), b - step * (1 - share).float())

    def median(self) -> Tensor:
        """Compute the middle value, or the mean of the two middle ones, float32 (B,)."""
        a, b = self.at((self.count - 1) // 2, self.count // 2)
        return (a + b) / 2

    def deviations(self, centre: Tensor) -> _Counted:
        """Return absolute differences from `centre` (B,), in ascending order."""
        found = (self.values - centre[:, None]).abs_()
        if self.times is None:
            return _Counted(_behind(found, self.count).sort(dim=1).values, None, self.count)
        ascending = found.sort(dim=1)
        return _Counted(ascending.values, self.times.gather(1, ascending.indices), self.count)

    def std(self) -> Tensor:
        """Compute the standard deviation (biased), float32 (B,)."""
        count = self.count.clamp(min=1)[:, None]
        values, times = self.values.double(), self.times
        if times is None:
            values = values.masked_fill(_is_behind(values, self.count), 0)
            times = ~_is_behind(values, self.count)
        mean = (values * times).sum(1, keepdim=True) / count
        return (((values - mean).square_() * times).sum(1) / count[:, 0]).sqrt_().float()


def _is_behind(values: Tensor, count: Tensor) -> Tensor:
    return torch.arange(values.shape[1], device=values.device) >= count[:, None]


def _behind(values: Tensor, count: Tensor) -> Tensor:
    """Replace values that do not count by infinity."""
    return values.masked_fill_(_is_behind(values, count), torch.inf)


def _histogram(flat: Tensor, bins: int) -> Tensor:
    """Count the occurrences of each value in each row: (B, n) whole numbers -> (B, bins) int64."""
    rows = len(flat)
    wide = torch.int32 if rows * bins < 2**31 else torch.int64
    index = flat.to(wide) + torch.arange(0, rows * bins, bins, dtype=wide, device=flat.device)[:, None]
    count = torch.bincount if flat.device.type == "cpu" else bincount_without_waiting
    return count(index.flatten(), minlength=rows * bins).view(rows, bins)


def bincount_without_waiting(values: Tensor, minlength: int) -> Tensor:
    """Count values below `minlength` as `torch.bincount` does; that one waits on CUDA for the largest value."""
    counts = torch.zeros(minlength, dtype=torch.int32, device=values.device)
    one = torch.ones((), dtype=torch.int32, device=values.device)
    return counts.scatter_add_(0, values.long(), one.expand(values.numel())).long()


def _counted(counts: Tensor, *, nonzero: bool) -> _Counted:
    if nonzero:
        counts = counts.clone()
        counts[:, 0] = 0
    values = torch.arange(counts.shape[1], dtype=torch.float32, device=counts.device).expand(counts.shape)
    return _Counted(values, counts, counts.sum(1))


def _sorted(flat: Tensor, *, nonzero: bool) -> _Counted:
    rows, size = flat.shape
    if not nonzero:
        every = torch.full((rows,), size, dtype=torch.int64, device=flat.device)
        return _Counted(flat.sort(dim=1).values, None, every)
    counts = (flat != 0).sum(1)
    return _Counted(flat.masked_fill(flat == 0, torch.inf).sort(dim=1).values, None, counts)


def _statistics(found: _Counted, rule: Normaliser) -> Statistics:
    lower, upper = (found.percentile(q) for q in rule.percentiles)
    span = upper - lower
    one = torch.ones_like(span)
    if rule.kind == "percentile-range":
        is_usable = (span >= LEAST_SCALE) & span.isfinite()
        return _nothing_where_empty(
            Statistics(lower, torch.where(is_usable, upper, lower), lower, torch.where(is_usable, span, one)), found
        )
    clipped = _Counted(
        torch.minimum(torch.maximum(found.values, lower[:, None]), upper[:, None]), found.times, found.count
    )
    median = clipped.median()
    scale = MAD_TO_SIGMA * clipped.deviations(median).median().double()
    for fallback in (found.std(), span / 2, one):
        scale = torch.where((scale >= LEAST_SCALE) & scale.isfinite(), scale, fallback.double())
    return _nothing_where_empty(Statistics(lower, upper, median, scale.float()), found)


def _nothing_where_empty(statistics: Statistics, found: _Counted) -> Statistics:
    """Make statistics of which nothing counts turn everything into 0."""
    is_empty = found.count == 0
    zeros = [one.masked_fill(is_empty, 0) for one in statistics[:3]]
    return Statistics(zeros[0], zeros[1], zeros[2], statistics.scale.masked_fill(is_empty, 1))
