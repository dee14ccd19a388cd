"""The agreement of windows against plain NumPy: covariance of two bundles at each depth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inkbatch.data.maps.depth_agreement import AGREEMENT_STEPS, no_agreement, scored_pairs
from inkbatch.predict.running import RunningAgreement

SHAPE, DEPTHS = (70, 130), 5
DEVIATIONS = [0.1, 0.2, 0.05]


def maps(bundles: int) -> np.ndarray:
    """(bundles, depths, height, width): something in common, and most of it at the third depth."""
    rng = np.random.default_rng(0)
    shared, height = rng.random(SHAPE), np.array([0.1, 0.2, 0.9, 0.3, 0.1])[:, None, None]
    noise = rng.random((bundles, DEPTHS, *SHAPE))
    return (0.5 * height * shared + 0.3 * noise).astype(np.float16)


def summed(found: np.ndarray, common: np.ndarray):
    running = RunningAgreement(torch.from_numpy(common), len(found), found.shape[1])
    for depth in range(found.shape[1]):
        running.add([torch.from_numpy(one[depth]) for one in found])
    return running.result()


@pytest.mark.parametrize("bundles", [1, 2, 3])
def test_a_profile_is_the_covariance_of_z_values_at_every_depth(bundles):
    found, common = maps(bundles), np.ones(SHAPE, bool)
    common[:, 100:] = False
    agreed = summed(found, common)
    assert agreed.pixels.sum() == common.sum()
    steps = np.rint(found[:, :, common].astype(np.float64) * AGREEMENT_STEPS) / AGREEMENT_STEPS
    z = steps / np.array(DEVIATIONS[:bundles])[:, None, None]
    profile = np.mean(
        [[np.cov(z[a, depth], z[b, depth], ddof=0)[0, 1] for depth in range(DEPTHS)] for a, b in scored_pairs(bundles)],
        axis=0,
    )
    whole = agreed.whole()
    np.testing.assert_allclose(whole.covariances(DEVIATIONS[:bundles]), profile, rtol=1e-6)
    assert int(np.argmax(profile)) == 2


def test_what_is_loud_everywhere_has_no_covariance():
    loud = np.full((2, DEPTHS, *SHAPE), 0.9, np.float16)
    np.testing.assert_allclose(summed(loud, np.ones(SHAPE, bool)).covariances(DEVIATIONS[:2]), 0, atol=1e-9)


def test_nothing_has_no_covariance():
    assert not no_agreement(2, 3, (1, 2)).covariances([0.0, 0.1]).any()
