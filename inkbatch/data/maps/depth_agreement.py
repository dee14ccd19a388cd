"""Agreement of bundles at every depth, which windows are ranked by (`common_depth`).

``C(d)`` is the covariance of the z values of two bundles over a window's pixels at depth ``d``, averaged over all pairs
of bundles; of a single bundle it is the variance of its z values. Ink lies at one depth, and two bundles draw it alike
in the same place. What is loud everywhere in a window has no covariance.

All sums are whole numbers, so neither order nor cutting changes them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

AGREEMENT_STEPS = 4096  # of a probability, in sums of products that 64 bits hold

COMMON_PIXELS = "common_pixels"
"""Name of the counts of pixels of blocks at which every bundle has a value."""

Doubles = NDArray[np.float64]
Whole = NDArray[np.int64]


def pairs_of(bundles: int) -> list[tuple[int, int]]:
    """List all pairs of different bundles."""
    return list(itertools.combinations(range(bundles), 2))


def scored_pairs(bundles: int) -> list[tuple[int, int]]:
    """List the pairs that a score is made of; a single bundle is its own."""
    return pairs_of(bundles) or [(0, 0)]


def common_sum_name(series: int) -> str:
    """Name the sums of a series in counts, by its place."""
    return f"common_sum-{series}"


def common_product_name(series: int) -> str:
    """Name the sums of products of a series in counts, by its place."""
    return f"common_product-{series}"


@dataclass(frozen=True, eq=False)
class DepthAgreement:
    """Sums of one series over blocks, or over windows; the last axes are theirs.

    Attributes:
        pixels: At which every bundle has a value, (…).
        sums: Of values there, in steps of ``1 / AGREEMENT_STEPS``, (bundles, depths, …).
        products: Of products of two values in such steps, (pairs, depths, …), see `scored_pairs`.
    """

    pixels: Whole
    sums: Whole
    products: Whole

    def covariances(self, deviations: list[float]) -> Doubles:
        """Return ``C(d)``, (depths, …); 0 where no pixel has a value.

        Args:
            deviations: Of each bundle's stretch; one that is 0 gives z values of 0.
        """
        count = np.maximum(self.pixels, 1)
        means = self.sums / count
        found = []
        for number, (a, b) in enumerate(scored_pairs(len(self.sums))):
            scale = deviations[a] * deviations[b] * AGREEMENT_STEPS**2
            found.append((self.products[number] / count - means[a] * means[b]) / scale if scale else 0 * means[a])
        return np.asarray(np.mean(found, axis=0), np.float64)

    def whole(self) -> DepthAgreement:
        """Add up all blocks."""
        return DepthAgreement(
            *(part.reshape(*part.shape[:-2], -1).sum(axis=-1) for part in (self.pixels, self.sums, self.products))
        )


def no_agreement(bundles: int, depths: int, blocks: tuple[int, int]) -> DepthAgreement:
    """Make the sums of blocks without a value."""
    pairs = len(scored_pairs(bundles))
    return DepthAgreement(
        np.zeros(blocks, np.int64),
        np.zeros((bundles, depths, *blocks), np.int64),
        np.zeros((pairs, depths, *blocks), np.int64),
    )
