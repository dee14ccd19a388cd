"""Base of all splits: what each one decides, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from inkbatch.config import JobConfig
from inkbatch.data.datasets.index import Sample, SplitName
from inkbatch.data.datasets.segment_arrays import SegmentArrays
from inkbatch.data.datasets.zones import HeldOut, SegmentZones
from inkbatch.errors import ConfigError
from inkbatch.text import near_matches


class SplitRules(JobConfig):
    """A division into training, validation and test.

    A split divides whole segments (`whole_segments`), areas of segments (`zones`), or single samples (`divided`).
    """

    deals_samples: ClassVar[bool] = False  # single ones, so that all must be sampled alike

    @property
    def drops_shown(self) -> bool:
        """True to drop samples that show pixels of a later split, without folds."""
        return False

    @property
    def drops_shown_in_fold(self) -> bool:
        """True to drop training samples that show pixels of a fold, while it validates."""
        return False

    def expects(self, name: SplitName) -> bool:
        """Tell whether a split must hold a sample."""
        return bool(getattr(self, name, None))

    def zones(
        self, arrays: Mapping[str, SegmentArrays], sample_px: int, context_px: int, seed: int
    ) -> Mapping[str, SegmentZones]:
        """Lay out areas by segment id; empty where the split knows none.

        Args:
            arrays: All segments, opened.
            sample_px: Edge of a sample.
            context_px: Pixels around a training sample that augmentation may show.
            seed: The dataset's seed.

        Raises:
            ConfigError: A gap smaller than a sample with its context, or an unknown segment.
            DataError: Segments without what the areas are made from.
        """
        return {}

    def held_out_pixels(self, arrays: Mapping[str, SegmentArrays], sample_px: int) -> Mapping[str, HeldOut]:
        """Count, by segment id, the pixels that masks hold out, and what of them would leak; empty without masks."""
        return {}

    def whole_segments(
        self, names: Sequence[str], given: Mapping[str, SplitName] | None
    ) -> Mapping[str, tuple[SplitName, int | None]]:
        """Return (split, fold) of the segments that are not divided, by id.

        Args:
            names: All segments.
            given: The split that each states itself.

        Raises:
            ConfigError: An unknown segment, or one that states no split.
        """
        return {}

    def divided(self, samples: list[Sample], seed: int) -> list[Sample]:
        """Give each sample its split and fold.

        Raises:
            ConfigError: An id that names nothing, or stands on two lists.
            DataError: Fewer groups than folds.
        """
        return samples


def require_known(name: str, known: Sequence[str]) -> None:
    """Refuse a name that is no segment or sample of a dataset."""
    if name not in known:
        raise ConfigError(f"splits: no segment or sample {name!r} in this dataset{near_matches(name, list(known))}")
