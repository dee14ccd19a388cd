"""From segments to samples: candidates, zones, choice, splits, pairs, and the leakage check, in this order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from inkbatch.config import JobConfig
from inkbatch.data.datasets.counting import BoxCounts
from inkbatch.data.datasets.index import DatasetSegment, Sample, SplitName, training, validating
from inkbatch.data.datasets.leakage import find_leaks, require_no_leaks, shown_boxes
from inkbatch.data.datasets.pairs import PairConfig, make_pairs
from inkbatch.data.datasets.sampling import GridSampling, Sampling
from inkbatch.data.datasets.segment_arrays import SegmentArrays
from inkbatch.data.datasets.splits import Split
from inkbatch.data.datasets.zones import HeldOut, SegmentZones
from inkbatch.errors import ConfigError, DataError

SHARE_DIGITS = 6


class SamplePlan(JobConfig):
    """Rules that decide a dataset's samples.

    Attributes:
        sample_px: Edge of a sample in full-resolution pixels.
        context_px: Pixels around a training sample that augmentation may show; they must not be held out either.
        seed: Seed of all chance.
        sampling: Sampling of training samples; None is a grid without overlap.
        held_out_sampling: Sampling of validation and test samples, if it differs; needs a split by segments or
            blocks, or one that is given.
        splits: Division into training, validation and test.
        pairs: Stitched pairs of training samples, or None.
    """

    sample_px: int = Field(ge=1)
    context_px: int = Field(0, ge=0)
    seed: int = Field(0, ge=0)
    sampling: Sampling = Field(default_factory=GridSampling)
    held_out_sampling: Sampling | None = None
    splits: Split
    pairs: PairConfig | None = None

    @field_validator("sampling", "held_out_sampling", mode="before")
    @classmethod
    def _grid_unless_stated(cls, value: Any) -> Any:
        return {"kind": "grid", **value} if isinstance(value, dict) else value


@dataclass(frozen=True)
class Assembled:
    """The samples of a dataset.

    Attributes:
        samples: In storage order: by segment, split and place; pairs last.
        dropped: By fold (as text): ids that do not train while that fold validates.
        left_out: Samples that were dropped because they see held-out pixels, or lie in a buffer.
        held_out: Held-out pixels by segment, where validation masks make the split, and what would have leaked.
    """

    samples: tuple[Sample, ...]
    dropped: dict[str, tuple[str, ...]]
    left_out: int
    held_out: Mapping[str, HeldOut] = field(default_factory=dict)


def assemble(
    segments: Sequence[DatasetSegment],
    arrays: Mapping[str, SegmentArrays],
    plan: SamplePlan,
    surface_of: Mapping[str, str],
    given: Mapping[str, SplitName] | None = None,
) -> Assembled:
    """Take the samples of a dataset; the same plan and data give the same samples, in any process.

    Args:
        segments: The segments, in order.
        arrays: Each of them, opened.
        plan: The rules.
        surface_of: By segment id: what names its surface; segments of one surface share pixels.
        given: The split of each segment, for ``splits: {kind: given}``.

    Raises:
        ConfigError: Settings that contradict each other.
        DataError: An empty split, no ink, or training samples that see held-out pixels.
    """
    split = plan.splits
    if plan.held_out_sampling is not None and split.deals_samples:
        raise ConfigError(
            f"held_out_sampling: {split.kind} deals single samples, so all must be sampled alike; leave it out, or "
            "split by segments or blocks"
        )
    zones = split.zones(arrays, plan.sample_px, plan.context_px, plan.seed)
    whole = split.whole_segments([segment.id for segment in segments], given)
    samples: list[Sample] = []
    left_out = ink = bare = 0
    for segment in segments:
        taken, lost, shown = _of_segment(segment.id, arrays[segment.id], plan, zones.get(segment.id), whole)
        samples += taken
        left_out += lost
        ink, bare = ink + shown[0], bare + shown[1]
    _require_unique(samples)
    if ink and not bare and not plan.sampling.has_own_shapes:  # boxes may be drawn around ink
        raise DataError(
            "the dataset: expected bare papyrus among the pixels that count, every one of them is ink; a network would "
            "learn to see ink everywhere: label bare papyrus, too, or let the ignore mask leave some of it"
        )
    samples = split.divided(samples, plan.seed)
    samples, lost = _without_overlaps(samples, split, surface_of, plan.context_px)
    if plan.pairs is not None:
        pairs = make_pairs(samples, plan.pairs, plan.seed)
        samples = (samples if plan.pairs.keep_singles else _held_out_only(samples)) + pairs
    dropped = _dropped(samples, split, zones, surface_of, plan.context_px)
    _check(samples, dropped, split, surface_of, plan.context_px)
    return Assembled(tuple(samples), dropped, left_out + lost, split.held_out_pixels(arrays, plan.sample_px))


def _of_segment(
    name: str,
    arrays: SegmentArrays,
    plan: SamplePlan,
    zones: SegmentZones | None,
    whole: Mapping[str, tuple[SplitName, int | None]],
) -> tuple[list[Sample], int, tuple[int, int]]:
    """Take the samples of one segment.

    Returns:
        The samples; how many candidates of a grid lie in a buffer; (ink, bare) pixels that samples show.
    """
    train_places = plan.sampling.candidates(arrays, name, plan.sample_px)
    other = plan.held_out_sampling
    held_out = train_places if other is None else other.candidates(arrays, name, plan.sample_px)
    if zones is None:
        split, fold = whole.get(name, ("train", None))
        pools = _pools_of_whole(split, fold, train_places, held_out, same=other is None)
        lost = 0
    else:
        pools = _pools_of_zones(zones, train_places, held_out, same=other is None)
        pools = [replace(p, found=zones.scored(p.found)) if p.split == "validation" else p for p in pools]
        kept = sum(len(pool.found.boxes) for pool in pools)
        lost = len(train_places.boxes) - kept if plan.sampling.takes_every_place and other is None else 0
    samples: list[Sample] = []
    ink = bare = 0
    for pool in pools:
        sampling = plan.sampling if pool.split == "train" or other is None else other
        picks = sampling.choose(pool.found, name, plan.seed, pool.split).tolist() if len(pool.found.boxes) else []
        samples += _as_samples(name, pool, picks, with_shape=sampling.has_own_shapes)
        shown = int(pool.found.ink[picks].sum())
        ink, bare = ink + shown, bare + int(pool.found.counted[picks].sum()) - shown
    return samples, lost, (ink, bare)


@dataclass(frozen=True)
class _Pool:
    """Candidates of one split, each with its fold."""

    split: SplitName
    found: BoxCounts
    folds: list[int | None]


def _pools_of_whole(
    split: SplitName, fold: int | None, places: BoxCounts, held_out: BoxCounts, *, same: bool
) -> list[_Pool]:
    if split != "train":
        return [_Pool(split, held_out, [fold] * len(held_out.boxes))]
    pools = [_Pool("train", places, [fold] * len(places.boxes))]
    if fold is not None and not same:
        pools.append(_Pool("validation", held_out, [fold] * len(held_out.boxes)))
    return pools


def _pools_of_zones(zones: SegmentZones, places: BoxCounts, held_out: BoxCounts, *, same: bool) -> list[_Pool]:
    """Sort candidates by split, ``train`` first."""
    homes = zones.home(places.boxes)
    others = homes if same else zones.home(held_out.boxes)

    def pool(split: SplitName, found: BoxCounts, at: Sequence[SplitName | int | None], taken: list[bool]) -> _Pool:
        folds = [home if isinstance(home, int) else None for home, is_on in zip(at, taken, strict=True) if is_on]
        return _Pool(split, found.take(np.array(taken, bool)), folds)

    pools = [pool("train", places, homes, [home == "train" or isinstance(home, int) for home in homes])]
    in_folds = [isinstance(home, int) and not same for home in others]
    pools.append(
        pool(
            "validation",
            held_out,
            others,
            [home == "validation" or x for home, x in zip(others, in_folds, strict=True)],
        )
    )
    pools.append(pool("test", held_out, others, [home == "test" for home in others]))
    return pools


def _as_samples(name: str, pool: _Pool, picks: list[int], *, with_shape: bool) -> list[Sample]:
    samples = []
    boxes = pool.found.boxes.tolist()
    ink, papyrus = (
        np.round(share, SHARE_DIGITS).tolist() for share in (pool.found.ink_share, pool.found.papyrus_share)
    )
    for pick in picks:
        y0, x0, y1, x1 = boxes[pick]
        tail = f"-{y1 - y0}x{x1 - x0}" if with_shape else ""
        if pool.split == "validation" and pool.folds[pick] is not None:
            tail += "-v"  # the same place may train while another fold validates
        samples.append(
            Sample(
                id=f"{name}-y{y0:05d}-x{x0:05d}{tail}",
                segment=name,
                box=(y0, x0, y1, x1),
                split=pool.split,
                fold=pool.folds[pick],
                ink_share=ink[pick],
                papyrus_share=papyrus[pick],
            )
        )
    return samples


def _require_unique(samples: Sequence[Sample]) -> None:
    twice = [name for name, count in Counter(sample.id for sample in samples).items() if count > 1]
    if twice:
        raise DataError(f"sampling: {len(twice)} samples occur twice, for example {twice[0]}; check the sampling rules")


def _held_out_only(samples: Sequence[Sample]) -> list[Sample]:
    """Drop the samples that train; those that alone validate in their fold stay, for validation."""
    apart = any(s.split == "validation" for s in samples)
    kept = [s for s in samples if s.split != "train" or (s.fold is not None and not apart)]
    return [s.model_copy(update={"split": "validation"}) if s.split == "train" else s for s in kept]


def _without_overlaps(
    samples: list[Sample], split: Split, surface_of: Mapping[str, str], context_px: int
) -> tuple[list[Sample], int]:
    """Leave out samples that show pixels of a later split (``overlap: drop``, without folds)."""
    if not split.drops_shown:
        return samples, 0
    by = {name: [s for s in samples if s.split == name] for name in ("train", "validation", "test")}
    lost = set(find_leaks(by["validation"], by["test"], surface_of, 0).training)
    kept = [s for s in samples if s.id not in lost]
    held_out = [s for s in kept if s.split != "train"]
    lost |= find_leaks(by["train"], held_out, surface_of, context_px).training
    return [s for s in samples if s.id not in lost], len(lost)


def _folds(samples: Sequence[Sample]) -> range:
    return range(max((sample.fold + 1 for sample in samples if sample.fold is not None), default=0))


def _dropped(
    samples: Sequence[Sample],
    split: Split,
    zones: Mapping[str, SegmentZones],
    surface_of: Mapping[str, str],
    context_px: int,
) -> dict[str, tuple[str, ...]]:
    """List, per fold, the samples that may not train while it validates."""
    found: dict[str, tuple[str, ...]] = {}
    for fold in _folds(samples):
        others = training(samples, fold, ())
        names: set[str] = set()
        if zones:
            names = _near_zones(others, zones, fold)
        elif split.drops_shown_in_fold:
            names = set(find_leaks(others, validating(samples, fold), surface_of, context_px).training)
        if names:
            found[str(fold)] = tuple(s.id for s in others if s.id in names)
    return found


def _near_zones(samples: Sequence[Sample], zones: Mapping[str, SegmentZones], fold: int) -> set[str]:
    """Return the ids of samples that show pixels within the buffer of a fold's blocks."""
    names: set[str] = set()
    for segment, (ids, boxes) in shown_boxes(samples, {name: name for name in zones}).items():
        names |= {ids[place] for place in np.flatnonzero(zones[segment].near(boxes, fold)).tolist()}
    return names


def _check(
    samples: Sequence[Sample],
    dropped: Mapping[str, Sequence[str]],
    split: Split,
    surface_of: Mapping[str, str],
    context_px: int,
) -> None:
    """Refuse leaks, empty splits, and training without ink."""
    test = [s for s in samples if s.split == "test"]
    folds = _folds(samples)
    rounds = [
        (f"fold {fold}", training(samples, fold, dropped.get(str(fold), ())), validating(samples, fold))
        for fold in folds
    ]
    if not folds:
        of_split = [[s for s in samples if s.split == name] for name in ("train", "validation")]
        rounds = [("the dataset", of_split[0], of_split[1])]
    for what, trains, validates in rounds:
        if not trains:
            raise DataError(f"{what}: no sample trains; lower min_papyrus, min_ink or the buffer, or check splits")
        if not any(s.ink_share > 0 for s in trains):
            raise DataError(f"{what}: no training sample holds any ink; check the labels, the mask and the ignore mask")
        if not validates and (folds or split.expects("validation")):
            raise DataError(f"{what}: no sample validates; check splits, or lower min_papyrus and min_ink")
        require_no_leaks(find_leaks(trains, validates, surface_of, context_px), what, context_px)
        require_no_leaks(find_leaks(trains, test, surface_of, context_px), f"{what} (test)", context_px)
        require_no_leaks(find_leaks(validates, test, surface_of, 0), f"{what} (validation and test)", 0)
    if not test and split.expects("test"):
        raise DataError("the dataset: no sample is kept for the test; check splits, or lower min_papyrus and min_ink")
