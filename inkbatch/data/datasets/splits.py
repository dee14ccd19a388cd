"""Splits: by segment, by spatial block, stratified by ink share, in fixed shares, or by list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from inkbatch.config import matching
from inkbatch.data.datasets.counting import count_grid
from inkbatch.data.datasets.held_out import MaskSplit
from inkbatch.data.datasets.index import Sample, SplitName
from inkbatch.data.datasets.listed_blocks import ListedBlockSplit
from inkbatch.data.datasets.segment_arrays import SegmentArrays
from inkbatch.data.datasets.split_rules import SplitRules, require_known
from inkbatch.data.datasets.zones import Zones, zone_buffer_px
from inkbatch.data.segments import stable_random as chance
from inkbatch.errors import ConfigError, DataError

SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")

GroupName = Literal["sample", "segment"]
OverlapRule = Literal["refuse", "drop"]


class SegmentSplit(SplitRules):
    """Leave one segment out: one fold per segment.

    Attributes:
        kind: ``leave-one-segment-out``.
        held_out: Segments that validate in turn; None: each one. The others always train.
        test: Segments that are kept for the test.
    """

    kind: Literal["leave-one-segment-out"]
    held_out: tuple[str, ...] | None = None
    test: tuple[str, ...] = ()

    def whole_segments(
        self, names: Sequence[str], given: Mapping[str, SplitName] | None
    ) -> Mapping[str, tuple[SplitName, int | None]]:
        """Return (split, fold) of each segment; see `SplitRules`."""
        return split_by_segment(names, self)


class KFoldSplit(SplitRules):
    """Stratified k-fold: each fold gets its share of every ink level.

    Attributes:
        kind: ``kfold``.
        folds: Number of folds.
        group: Unit that is never divided: each ``sample`` by itself, or all samples of a ``segment``.
        test: Segments that are kept for the test.
        overlap: Training samples that show pixels of a validation sample: ``refuse``, or ``drop`` them in that fold.
    """

    kind: Literal["kfold"]
    folds: int = Field(5, ge=2)
    group: GroupName = "sample"
    test: tuple[str, ...] = ()
    overlap: OverlapRule = "refuse"

    deals_samples: ClassVar[bool] = True

    @property
    def drops_shown_in_fold(self) -> bool:
        """True with ``overlap: drop``."""
        return self.overlap == "drop"

    def divided(self, samples: list[Sample], seed: int) -> list[Sample]:
        """Deal samples to folds; see `SplitRules`."""
        names = sorted({sample.segment for sample in samples})
        for name in self.test:
            require_known(name, names)
        order = _ranked([sample for sample in samples if sample.segment not in self.test], self.group, seed)
        if len(order) < self.folds:
            raise DataError(
                f"splits: expected at least {self.folds} groups by {self.group} for {self.folds} folds, got "
                f"{len(order)}; lower folds, or group by sample"
            )
        fold = dict(zip(order, _fold_numbers(len(order), self.folds, seed), strict=True))
        return [
            sample.model_copy(update={"split": "test", "fold": None})
            if sample.segment in self.test
            else sample.model_copy(update={"split": "train", "fold": fold[_group(sample, self.group)]})
            for sample in samples
        ]


class ShareSplit(SplitRules):
    """Fixed shares, stratified by ink share.

    Attributes:
        kind: ``shares``.
        train: Share that trains.
        validation: Share that validates.
        test: Share that is kept for the test; the three sum to 1.
        group: Unit that is never divided.
        overlap: Samples that show pixels of a later split: ``refuse``, or ``drop`` them.
    """

    kind: Literal["shares"]
    train: float = Field(gt=0, le=1)
    validation: float = Field(0.0, ge=0, lt=1)
    test: float = Field(0.0, ge=0, lt=1)
    group: GroupName = "sample"
    overlap: OverlapRule = "refuse"

    @model_validator(mode="after")
    def _sums_to_one(self) -> ShareSplit:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"train, validation and test sum to {total:g}; they must sum to 1")
        return self

    deals_samples: ClassVar[bool] = True

    @property
    def drops_shown(self) -> bool:
        """True with ``overlap: drop``."""
        return self.overlap == "drop"

    def divided(self, samples: list[Sample], seed: int) -> list[Sample]:
        """Deal samples in the given shares; see `SplitRules`."""
        order = _ranked(samples, self.group, seed)
        dealt = _deal(len(order), {"train": self.train, "validation": self.validation, "test": self.test})
        to = dict(zip(order, dealt, strict=True))
        return [sample.model_copy(update={"split": to[_group(sample, self.group)]}) for sample in samples]


class BlockSplit(SplitRules):
    """Square blocks inside each segment, with a buffer around them without training samples.

    Attributes:
        kind: ``blocks``.
        block_px: Edge of a block.
        validation: Share of the blocks (stratified by ink) that validates; not with `folds`.
        test: Share of the blocks that is kept for the test.
        folds: Number of folds that the other blocks are dealt into; None: one split.
        buffer_px: Smallest gap between a training sample and a block that validates or tests; None, and at least: a
            sample with its context.
    """

    kind: Literal["blocks"]
    block_px: int = Field(ge=1)
    validation: float = Field(0.2, ge=0, lt=1)
    test: float = Field(0.0, ge=0, lt=1)
    folds: int | None = Field(None, ge=2)
    buffer_px: int | None = Field(None, ge=0)

    def zones(
        self, arrays: Mapping[str, SegmentArrays], sample_px: int, context_px: int, seed: int
    ) -> Mapping[str, Zones]:
        """Deal blocks to splits or folds; see `SplitRules`."""
        return block_zones(arrays, self, sample_px, context_px, seed)


class ListSplit(SplitRules):
    """Given lists of segment ids or sample ids; what is on none is left out.

    Attributes:
        kind: ``lists``.
        train: Ids that train.
        validation: Ids that validate.
        test: Ids that are kept for the test.
        overlap: Samples that show pixels of a later split: ``refuse``, or ``drop`` them.
    """

    kind: Literal["lists"]
    train: tuple[str, ...]
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    overlap: OverlapRule = "refuse"

    deals_samples: ClassVar[bool] = True

    @property
    def drops_shown(self) -> bool:
        """True with ``overlap: drop``."""
        return self.overlap == "drop"

    def divided(self, samples: list[Sample], seed: int) -> list[Sample]:
        """Keep the samples that are listed; see `SplitRules`."""
        return split_by_list(samples, self)


class GivenSplit(SplitRules):
    """Each segment states its split itself (a folder layout that was imported).

    Attributes:
        kind: ``given``.
    """

    kind: Literal["given"]

    def whole_segments(
        self, names: Sequence[str], given: Mapping[str, SplitName] | None
    ) -> Mapping[str, tuple[SplitName, int | None]]:
        """Return the split that each segment states; see `SplitRules`."""
        missing = [name for name in names if name not in (given or {})]
        if missing or given is None:
            raise ConfigError(
                f"splits: kind given needs segments that state their split, {missing[0]!r} does not; "
                "import a folder layout (images), or choose another kind"
            )
        return {name: (given[name], None) for name in names}


Split = Annotated[
    SegmentSplit | KFoldSplit | ShareSplit | BlockSplit | ListedBlockSplit | MaskSplit | ListSplit | GivenSplit,
    Field(discriminator="kind"),
]


def block_zones(
    segments: Mapping[str, SegmentArrays], split: BlockSplit, sample_px: int, context_px: int, seed: int
) -> dict[str, Zones]:
    """Deal the blocks of all segments, those with most ink first, to the splits or folds.

    Raises:
        ConfigError: See `zone_buffer_px`.
    """
    buffer_px = zone_buffer_px(split.block_px, split.buffer_px, sample_px, context_px)
    ranked: list[tuple[float, int, tuple[str, int, int]]] = []
    for name, arrays in segments.items():
        edge = split.block_px
        rows, columns = (np.arange(0, size, edge, dtype=np.int64) for size in arrays.shape_yx)
        counts = count_grid(arrays, rows, columns, (edge, edge))
        for box, papyrus, ink in zip(counts.boxes, counts.papyrus, counts.ink, strict=True):
            if papyrus:
                place = (name, int(box[0]) // edge, int(box[1]) // edge)
                ranked.append((-ink / papyrus, chance.number(seed, "blocks", *place), place))
    places = [place for _, _, place in sorted(ranked)]
    if split.folds is None:
        shares: dict[SplitName, float] = {
            "train": 1 - split.validation - split.test,
            "validation": split.validation,
            "test": split.test,
        }
        dealt: list[SplitName | int] = list(_deal(len(places), shares))
    else:
        tested = _deal(len(places), {"train": 1 - split.test, "validation": 0.0, "test": split.test})
        folds = iter(_fold_numbers(tested.count("train"), split.folds, seed))
        dealt = ["test" if name == "test" else next(folds) for name in tested]
    blocks: dict[str, dict[tuple[int, int], SplitName | int]] = {name: {} for name in segments}
    for (name, y, x), to in zip(places, dealt, strict=True):
        blocks[name][y, x] = to
    return {name: Zones(split.block_px, own, buffer_px) for name, own in blocks.items()}


def split_by_segment(segments: Sequence[str], split: SegmentSplit) -> dict[str, tuple[SplitName, int | None]]:
    """Return (split, fold) of each segment, for leave-one-segment-out.

    Raises:
        ConfigError: An unknown segment, or none to train on.
    """
    test = set(_named(split.test, segments))
    wanted = None if split.held_out is None else _named(split.held_out, segments)
    held = [name for name in segments if name not in test and (wanted is None or name in wanted)]
    if len([name for name in segments if name not in test]) < 2 or not held:
        raise ConfigError(
            f"splits: leave-one-segment-out needs at least two segments beside the test ones, got "
            f"{len(segments) - len(test)}; add segments, or split by blocks"
        )
    found: dict[str, tuple[SplitName, int | None]] = {}
    for name in segments:
        found[name] = ("test", None) if name in test else ("train", held.index(name) if name in held else None)
    return found


def _ranked(samples: Sequence[Sample], group: GroupName, seed: int) -> list[str]:
    """Rank groups of samples by their ink, the most first; chance decides between equals."""
    shares: dict[str, list[float]] = {}
    for sample in samples:
        shares.setdefault(_group(sample, group), []).append(sample.ink_share)
    return sorted(shares, key=lambda name: (-float(np.mean(shares[name])), chance.number(seed, "deal", name), name))


def split_by_list(samples: Sequence[Sample], split: ListSplit) -> list[Sample]:
    """Give each sample the split of the list that names it or its segment; others are left out.

    Raises:
        ConfigError: An id that names nothing, or stands on two lists.
    """
    to: dict[str, SplitName] = {}
    known = {sample.id for sample in samples} | {sample.segment for sample in samples}
    for name in SPLITS:
        for item in _named(getattr(split, name), sorted(known)):
            if item in to:
                raise ConfigError(f"splits: {item!r} is on the lists {to[item]} and {name}; leave it on one")
            to[item] = name
    for sample in samples:
        if sample.id in to and sample.segment in to:
            raise ConfigError(f"splits: {sample.id!r} and its segment are both on a list; leave one of them")
    found = []
    for sample in samples:
        own = to.get(sample.id) or to.get(sample.segment)
        if own:
            found.append(sample.model_copy(update={"split": own}))
    return found


def _group(sample: Sample, group: GroupName) -> str:
    return sample.id if group == "sample" else sample.segment


def _deal(count: int, shares: Mapping[SplitName, float]) -> list[SplitName]:
    """Deal `count` ranked things: each goes to the split that is furthest behind its share."""
    given = dict.fromkeys(SPLITS, 0)
    dealt: list[SplitName] = []
    for rank in range(count):
        name = max(SPLITS, key=lambda split: (shares[split] * (rank + 1) - given[split], -SPLITS.index(split)))
        given[name] += 1
        dealt.append(name)
    return dealt


def _fold_numbers(count: int, folds: int, seed: int) -> list[int]:
    """Deal `count` ranked things to folds: every `folds` neighbours go to different folds, in shuffled order."""
    numbers: list[int] = []
    for start in range(0, count, folds):
        numbers += chance.shuffled(range(folds), seed, "folds", start)
    return numbers[:count]


def _named(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """Replace patterns such as ``train-*`` by the segments or samples that they match.

    Raises:
        ConfigError: A name or pattern that names nothing.
    """
    found = [one for name in names for one in matching(name, known, "splits: segments and samples of this dataset")]
    for name in found:
        require_known(name, known)
    return found
