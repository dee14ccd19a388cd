"""Stitched pairs: two random samples, each flipped and turned by 90 degrees with probability one half, side by side."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from inkbatch.config import JobConfig
from inkbatch.data.datasets.index import DatasetPart, Sample
from inkbatch.data.segments import stable_random as chance
from inkbatch.errors import ConfigError, DataError


class PairConfig(JobConfig):
    """Stitched pairs of training samples.

    Attributes:
        count: Number of pairs.
        keep_singles: Keep the training samples themselves, too.
    """

    count: int = Field(ge=1)
    keep_singles: bool = True


def make_pairs(samples: Sequence[Sample], config: PairConfig, seed: int) -> list[Sample]:
    """Pair training samples; with folds, both parts are of one fold, so that a pair never shows a held-out half.

    Args:
        samples: All samples of the dataset; only those that train are paired.
        config: Number of pairs, and whether single samples stay.
        seed: The dataset's seed.

    Returns:
        The pairs, (height, 2 x height) each, with ids ``pair-00000`` and on.

    Raises:
        ConfigError: Samples that are not all squares of one size.
        DataError: No training samples.
    """
    pools: dict[int | None, list[Sample]] = {}
    for sample in samples:
        if sample.split == "train" and sample.parts is None:
            pools.setdefault(sample.fold, []).append(sample)
    if not pools:
        raise DataError("pairs: no sample trains, so there is nothing to pair; check splits")
    shapes = {sample.shape_yx for pool in pools.values() for sample in pool}
    if len(shapes) != 1 or len(set(next(iter(shapes)))) != 1:
        raise ConfigError(
            "pairs: samples must be squares of one size to be turned and set side by side, there are "
            f"{sorted(shapes)[:4]} (height, width); sample a grid or crops, or boxes with fit: centred"
        )
    order = sorted(pools, key=lambda fold: (fold is None, fold or 0))
    return [_pair(number, pools[order[number % len(order)]], seed) for number in range(config.count)]


def _pair(number: int, pool: list[Sample], seed: int) -> Sample:
    first = chance.number(seed, "pair", number, "left") % len(pool)
    second = first
    if len(pool) > 1:
        second = (first + 1 + chance.number(seed, "pair", number, "right") % (len(pool) - 1)) % len(pool)
    halves = pool[first], pool[second]
    parts = tuple(
        DatasetPart(
            segment=half.segment,
            box=half.box,
            flip=bool(chance.number(seed, "pair", number, side, "flip") & 1),
            turn=bool(chance.number(seed, "pair", number, side, "turn") & 1),
        )
        for side, half in enumerate(halves)
    )
    edge = halves[0].shape_yx[0]
    return Sample(
        id=f"pair-{number:05d}",
        segment=halves[0].segment,
        box=(0, 0, edge, 2 * edge),
        split="train",
        fold=halves[0].fold,
        ink_share=round(sum(half.ink_share for half in halves) / 2, 6),
        papyrus_share=round(sum(half.papyrus_share for half in halves) / 2, 6),
        parts=(parts[0], parts[1]),
    )
