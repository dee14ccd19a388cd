"""Order of samples: a pure function of the seed and the epoch, on every machine and after every resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from inkbatch.data.datasets.index import Sample
from inkbatch.errors import ConfigError, DataError
from inkbatch.models.rules import Grown

FITTING_ROUNDS = 100
TINY = 1e-300


class SamplerConfig(Grown):
    """Rules for drawing an epoch's samples.

    Attributes:
        samples_per_epoch: Length of an epoch; None: as many as there are.
        by_segment: Every segment gets the same share of the epoch, whatever its number of samples.
        ink_share: Share of drawn samples that hold ink; None: as they come.
        ink_from: Share of ink from which a sample counts as one that holds ink.
        quotas: Samples of each scroll in every batch; they sum to the batch. A segment without a scroll stands for
            itself. Within a scroll samples are drawn as the other settings say. Empty: scrolls play no part.
        new_share: Share of every batch that samples take which the dataset marks as new (``newer_than``), the others
            as the rest; None: they count like any other. A scroll without new samples gives none.
    """

    younger: ClassVar[frozenset[str]] = frozenset({"quotas", "new_share"})

    samples_per_epoch: int | None = Field(None, ge=1)
    by_segment: bool = False
    ink_share: float | None = Field(None, ge=0, le=1)
    ink_from: float = Field(0.001, gt=0, le=1)
    quotas: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    new_share: float | None = Field(None, gt=0, lt=1)

    @property
    def balanced(self) -> bool:
        """True if samples are drawn with replacement, by weight."""
        return self.by_segment or self.ink_share is not None


def draw_weights(samples: Sequence[Sample], config: SamplerConfig) -> NDArray[np.float64]:
    """Compute the probability of each sample in one draw; sums to 1.

    Shares of ink and of segments are met together by scaling to each in turn (iterative proportional fitting). Where
    that cannot be, because a segment lacks one kind of samples, the share of ink stands.

    Raises:
        DataError: The ink share needs samples with ink, or without, and there are none.
    """
    weights = np.ones(len(samples))
    segment = np.unique([sample.segment for sample in samples], return_inverse=True)[1]
    groups = [] if config.ink_share is None else _by_ink(samples, config, config.ink_share)
    for _ in range(FITTING_ROUNDS if config.by_segment and groups else 1):
        if config.by_segment:
            weights /= np.maximum(np.bincount(segment, weights), TINY)[segment]
        for which, share in groups:
            weights[which] *= share / max(weights[which].sum(), TINY)
    chances: NDArray[np.float64] = weights / weights.sum()
    return chances


def _by_ink(samples: Sequence[Sample], config: SamplerConfig, share: float) -> list[tuple[NDArray[np.bool_], float]]:
    """Group the samples into those with ink and those without, each with its share of the draws."""
    inked = np.array([sample.ink_share >= config.ink_from for sample in samples])
    groups = [(inked, share, "with"), (~inked, 1 - share, "without")]
    for which, wanted, words in groups:
        if wanted and not which.any():
            raise DataError(
                f"sampler: ink_share {share}: expected samples {words} ink (ink share of at least "
                f"{config.ink_from}), got "
                f"none among {len(samples)}; change sampler.ink_share, or build the dataset with such "
                "samples"
            )
    return [(which, wanted) for which, wanted, _ in groups]


def places_by_scroll(samples: Sequence[Sample], scrolls: Mapping[str, str]) -> dict[str, NDArray[np.int64]]:
    """List places in `samples` by scroll, ascending; a segment that `scrolls` lacks stands for itself."""
    found: dict[str, list[int]] = {}
    for place, sample in enumerate(samples):
        found.setdefault(scrolls.get(sample.segment, sample.segment), []).append(place)
    return {scroll: np.array(places, np.int64) for scroll, places in found.items()}


def require_drawable(samples: Sequence[Sample], config: SamplerConfig, scrolls: Mapping[str, str], batch: int) -> None:
    """Refuse settings that these samples cannot fill.

    Args:
        samples: The training samples.
        config: How they are to be drawn.
        scrolls: Scroll by segment.
        batch: Samples per forward pass, all devices together.

    Raises:
        ConfigError: Quotas that do not sum to the batch, or leave out a scroll that has samples.
        DataError: A quota or a share of ink that no sample can fill.
    """
    if config.new_share is not None and not round(config.new_share * batch):
        raise ConfigError(
            f"sampler.new_share {config.new_share:g}: of a batch of {batch} that is no sample; make one of them larger"
        )
    if not config.quotas:
        _require_kinds(samples, config)
        return
    total, places = sum(config.quotas.values()), places_by_scroll(samples, scrolls)
    if total != batch:
        raise ConfigError(f"sampler.quotas: expected quotas that sum to the batch of {batch}, got {total}")
    if left_out := sorted(set(places) - set(config.quotas)):
        raise ConfigError(
            "sampler.quotas: expected one for each scroll of the training samples, got none for "
            f"{', '.join(left_out)}; 0 leaves a scroll out"
        )
    for scroll, count in config.quotas.items():
        if count and scroll not in places:
            raise DataError(
                f"sampler.quotas: {scroll} has no training sample; the dataset's scrolls are {', '.join(places)} "
                "(build-dataset takes the scroll of each segment: segments: [{id: …, scroll: …}])"
            )
        if count:
            _require_kinds([samples[place] for place in places[scroll].tolist()], config)


def _require_kinds(samples: Sequence[Sample], config: SamplerConfig) -> None:
    """Refuse shares that no sample can fill; new samples and others are drawn apart where they have shares.

    Raises:
        DataError: See `draw_weights`.
    """
    for _, places in new_and_others(samples, np.arange(len(samples)), config):
        draw_weights([samples[place] for place in places.tolist()], config)


def new_and_others(
    samples: Sequence[Sample], places: NDArray[np.int64], config: SamplerConfig
) -> list[tuple[float, NDArray[np.int64]]]:
    """Part places in `samples` into new ones and others, each with its share; those that are empty are left out."""
    share = config.new_share
    if share is None:
        return [(1.0, places)]
    new = np.array([samples[place].is_new is True for place in places.tolist()], bool)
    if new.all() or not new.any():
        return [(1.0, places)]
    return [(share, places[new]), (1 - share, places[~new])]


@dataclass(frozen=True)
class Drawn:
    """One place in an epoch.

    Attributes:
        epoch: From 0.
        position: Place in the epoch's order, from 0; with seed and epoch it names the augmentation.
        index: Index of the sample.
        next: Position and index of the sample that follows in the order (of the last one: the first), to mix it with.
    """

    epoch: int
    position: int
    index: int
    next: tuple[int, int] = (0, 0)

    @property
    def follower(self) -> Drawn:
        """The place that follows in the order."""
        return Drawn(self.epoch, *self.next)


@dataclass(frozen=True)
class EpochPlan:
    """Division of an epoch into optimiser steps.

    Step s takes the next ``batch x devices x accumulate`` samples of the order; within it, micro batches follow each
    other, and devices take turns inside a micro batch. So two devices with batch B see in one step what one device
    with batch 2 B sees. Samples that do not fill a step wait for another epoch; an order too short for one is repeated.

    Attributes:
        samples: The training samples.
        sampler: Rules for drawing them.
        seed: Seed of the run.
        batch: Samples per device and forward pass.
        devices: Processes that train together.
        accumulate: Forward passes per optimiser step.
        scrolls: Scroll by segment, for quotas; a segment that is not listed stands for itself.
    """

    samples: Sequence[Sample]
    sampler: SamplerConfig
    seed: int
    batch: int
    devices: int = 1
    accumulate: int = 1
    scrolls: Mapping[str, str] = field(default_factory=dict)

    @property
    def step_samples(self) -> int:
        """Samples of one optimiser step, all devices together."""
        return self.batch * self.devices * self.accumulate

    @property
    def length(self) -> int:
        """Samples of an epoch before it is cut into steps."""
        return self.sampler.samples_per_epoch or len(self.samples)

    @property
    def steps(self) -> int:
        """Optimiser steps per epoch."""
        return max(1, self.length // self.step_samples)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the indices of an epoch's samples, a whole number of steps."""
        rng = np.random.default_rng([self.seed, epoch, 0])
        wanted = self.steps * self.step_samples
        if self.sampler.quotas or self.sampler.new_share is not None:
            return self._in_batches(rng, wanted)
        return self._drawn(rng, self.samples, wanted)

    def _drawn(self, rng: np.random.Generator, samples: Sequence[Sample], wanted: int) -> NDArray[np.int64]:
        """Draw so many places in `samples`."""
        count = len(samples)
        if self.sampler.balanced:
            return rng.choice(count, wanted, p=draw_weights(samples, self.sampler))
        rounds = [rng.permutation(count) for _ in range(-(-wanted // count))]
        return np.concatenate(rounds)[:wanted]

    def _in_batches(self, rng: np.random.Generator, wanted: int) -> NDArray[np.int64]:
        """Draw batches with every scroll's quota and the share of new samples in each, mixed within the batch."""
        size = self.batch * self.devices
        batches = wanted // size
        columns = []
        for count, own in self._groups(size):
            if count:
                drawn = self._drawn(rng, [self.samples[place] for place in own.tolist()], batches * count)
                columns.append(own[drawn].reshape(batches, count))
        return rng.permuted(np.concatenate(columns, axis=1), axis=1).reshape(-1)

    def _groups(self, size: int) -> list[tuple[int, NDArray[np.int64]]]:
        """List the groups of samples that every batch takes, each with its number of them."""
        places, quotas = places_by_scroll(self.samples, self.scrolls), self.sampler.quotas
        if not quotas:
            places, quotas = {"": np.arange(len(self.samples))}, {"": size}
        groups = []
        for scroll, count in sorted(quotas.items()):
            if count:
                parts = new_and_others(self.samples, places[scroll], self.sampler)
                first = round(parts[0][0] * count)
                groups += [(first, parts[0][1]), *((count - first, part) for _, part in parts[1:])]
        return groups

    def step(self, order: NDArray[np.int64], epoch: int, step: int, device: int) -> list[list[Drawn]]:
        """Return the micro batches of one step on one device.

        Args:
            order: Result of `order` for this epoch.
            epoch: From 0.
            step: From 0.
            device: Rank of this process.
        """
        micro = []
        for number in range(self.accumulate):
            first = ((step * self.accumulate + number) * self.devices + device) * self.batch
            micro.append([self._drawn_at(order, epoch, place) for place in range(first, first + self.batch)])
        return micro

    def _drawn_at(self, order: NDArray[np.int64], epoch: int, place: int) -> Drawn:
        following = (place + 1) % len(order)
        return Drawn(epoch, place, int(order[place]), (following, int(order[following])))
