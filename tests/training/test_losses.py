"""Losses against formulas written out by hand, and what ignored pixels and several devices do to them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation
from skimage.morphology import skeletonize
from torch.nn import functional

from inkbatch.errors import ConfigError
from inkbatch.training.losses import LossConfig, LossTerm, ink_loss
from inkbatch.training.targets import coarse_targets

NAMES = ("dice", "soft-dice", "bce", "tversky", "focal", "lovasz", "boundary", "skeleton-recall")


def config(*names: str, smoothing: float = 0.0, **term) -> LossConfig:
    return LossConfig(terms=tuple(LossTerm(name=name, **term) for name in names), label_smoothing=smoothing)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 1, 8, 8, generator=generator)
    target = (torch.rand(3, 1, 8, 8, generator=generator) > 0.6).float()
    weight = (torch.rand(3, 1, 8, 8, generator=generator) > 0.3).float()
    return logits, target, weight


def test_bce_is_the_mean_over_counted_pixels(batch):
    logits, target, weight = batch
    keep = weight > 0
    expected = functional.binary_cross_entropy_with_logits(logits[keep], target[keep])
    assert ink_loss(*batch, config("bce")).item() == pytest.approx(expected.item(), rel=1e-6)


def test_label_smoothing_moves_targets_towards_one_half(batch):
    logits, target, weight = batch
    keep = weight > 0
    expected = functional.binary_cross_entropy_with_logits(logits[keep], target[keep] * 0.8 + 0.1)
    assert ink_loss(*batch, config("bce", smoothing=0.2)).item() == pytest.approx(expected.item(), rel=1e-6)
    assert ink_loss(*batch, config("dice", smoothing=0.2)) == ink_loss(*batch, config("dice"))


def test_dice_and_tversky_are_soft_counts(batch):
    logits, target, weight = (array.double().numpy() for array in batch)
    p = weight / (1 + np.exp(-logits))
    t = weight * target
    tp, fp, fn = (p * target).sum(), (p * (1 - target)).sum(), ((weight - p) * target).sum()
    dice = 1 - (2 * tp + 1) / (p.sum() + t.sum() + 1)
    tversky = 1 - (tp + 1) / (tp + 0.3 * fp + 0.7 * fn + 1)
    assert ink_loss(*batch, config("dice")).item() == pytest.approx(dice, rel=1e-5)
    assert ink_loss(*batch, config("tversky", alpha=0.3, beta=0.7)).item() == pytest.approx(tversky, rel=1e-5)


def test_soft_dice_is_dice_on_yes_and_no_and_smallest_at_the_probabilities_themselves(batch):
    logits, target, weight = batch
    assert ink_loss(*batch, config("soft-dice")).item() == pytest.approx(ink_loss(*batch, config("dice")).item())
    soft = torch.full_like(target, 0.3)

    def loss(name: str, probability: float) -> float:
        return ink_loss(torch.full_like(logits, probability).logit(), soft, weight, config(name)).item()

    assert loss("soft-dice", 0.3) == pytest.approx(0, abs=1e-6)
    assert min((loss("soft-dice", p), p) for p in (0.1, 0.2, 0.3, 0.4, 0.9))[1] == 0.3
    assert loss("dice", 0.9) < loss("dice", 0.3)


def test_tversky_with_halves_is_dice_without_smoothing(batch):
    tiny = {"smooth": 1e-9}
    halves = ink_loss(*batch, config("tversky", alpha=0.5, beta=0.5, **tiny))
    assert halves.item() == pytest.approx(ink_loss(*batch, config("dice", **tiny)).item(), rel=1e-5)


def test_focal_without_focus_is_bce_and_forgives_what_is_sure(batch):
    assert ink_loss(*batch, config("focal", gamma=0)).item() == pytest.approx(
        ink_loss(*batch, config("bce")).item(), rel=1e-6
    )
    sure = torch.full((1, 1, 4, 4), 3.0), torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    ratio = ink_loss(*sure, config("focal", gamma=2)) / ink_loss(*sure, config("bce"))
    assert ratio.item() == pytest.approx((1 - torch.sigmoid(torch.tensor(3.0)).item()) ** 2, rel=1e-4)


def test_lovasz_is_the_jaccard_loss_at_certain_predictions():
    truth = torch.tensor([1.0, 1, 0, 0, 1, 0]).reshape(1, 1, 2, 3)
    for signs in itertools.product([1.0, -1.0], repeat=6):
        found = torch.tensor(signs).reshape(1, 1, 2, 3)
        wrong_is_two = ink_loss(found, truth, torch.ones_like(truth), config("lovasz")).item()
        union = ((found > 0) | (truth > 0)).sum().item()
        jaccard = ((found > 0) & (truth > 0)).sum().item() / union if union else 1.0
        assert wrong_is_two == pytest.approx(2 * (1 - jaccard), abs=1e-6)  # hinge errors of wrong pixels are 2


def test_boundary_is_the_mean_of_probability_times_signed_distance(batch):
    logits, target, weight = (array.double().numpy()[:, 0] for array in batch)
    counted = weight > 0
    total = 0.0
    for tile, found, keep in zip(target > 0.5, 1 / (1 + np.exp(-logits)), counted, strict=True):
        ink, bare = np.argwhere(tile & keep), np.argwhere(~tile & keep)
        for y, x in np.argwhere(keep):
            to_ink, to_bare = (np.hypot(*(kind - (y, x)).T).min() for kind in (ink, bare))
            total += found[y, x] * (1 - to_bare if tile[y, x] else to_ink)
    assert ink_loss(*batch, config("boundary")).item() == pytest.approx(total / counted.sum(), rel=1e-5)


def test_boundary_says_nothing_where_a_tile_has_no_outline():
    blank = torch.zeros(1, 1, 4, 4)
    for target in (blank, blank + 1):
        assert ink_loss(blank + 2, target, blank + 1, config("boundary")).item() == 0


def test_skeleton_recall_is_the_share_of_the_middle_of_strokes_that_is_found():
    target = torch.zeros(1, 1, 32, 32)
    target[..., 4:15, 3:29], target[..., 20:27, 10:20] = 1, 1
    logits = torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    weight = torch.ones_like(target)
    weight[..., :, 24:] = 0
    ink = (target * weight)[0, 0].numpy() > 0
    tube = binary_dilation(skeletonize(ink), iterations=2) & ink
    assert 0 < tube.sum() < ink.sum() / 2
    found = logits.sigmoid()[0, 0].numpy()[tube].sum(dtype=np.float64)
    expected = 1 - (found + 1) / (tube.sum() + 1)
    assert ink_loss(logits, target, weight, config("skeleton-recall")).item() == pytest.approx(expected, rel=1e-5)


def test_a_thin_stroke_is_its_own_middle_and_false_alarms_cost_no_recall():
    target = torch.zeros(1, 1, 9, 9)
    target[..., 4, 2:7] = 1
    sure = (target * 2 - 1) * 50
    for logits in (sure, sure.abs()):
        assert ink_loss(logits, target, torch.ones_like(target), config("skeleton-recall")).item() == pytest.approx(0)
    assert ink_loss(-sure.abs(), target, torch.ones_like(target), config("skeleton-recall")).item() == pytest.approx(
        5 / 6
    )


@pytest.mark.parametrize("name", NAMES)
def test_ignored_pixels_change_neither_loss_nor_gradient(batch, name):
    logits, target, weight = batch
    other = torch.where(weight > 0, logits, torch.full_like(logits, 7.0))
    flipped = torch.where(weight > 0, target, 1 - target)
    gradients = []
    for pair in ((logits, target), (other, flipped)):
        leaf = pair[0].clone().requires_grad_()
        ink_loss(leaf, pair[1], weight, config(name)).backward()
        gradients.append(leaf.grad)
    assert ink_loss(logits, target, weight, config(name)) == ink_loss(other, flipped, weight, config(name))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-7)
    assert gradients[0][weight == 0].abs().max() == 0
    assert gradients[0].abs().max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_without_counted_pixels_asks_for_nothing(batch, name):
    leaf = batch[0].clone().requires_grad_()
    loss = ink_loss(leaf, batch[1], torch.zeros_like(batch[2]), config(name))
    loss.backward()
    assert loss.item() == 0
    assert leaf.grad is not None
    assert leaf.grad.abs().max() == 0


@pytest.mark.parametrize("name", NAMES)
def test_losses_fall_along_their_gradient(batch, name):
    logits, target, weight = batch
    leaf = logits.clone().requires_grad_()
    optimiser = torch.optim.SGD([leaf], lr=20.0)
    first = ink_loss(leaf, target, weight, config(name)).item()
    for _ in range(40):
        optimiser.zero_grad()
        ink_loss(leaf, target, weight, config(name)).backward()
        optimiser.step()
    assert ink_loss(leaf, target, weight, config(name)).item() < 0.7 * first


def test_terms_are_added_with_their_weights(batch):
    mixed = LossConfig(terms=(LossTerm(name="dice", weight=2), LossTerm(name="bce", weight=0.5)))
    expected = 2 * ink_loss(*batch, config("dice")) + 0.5 * ink_loss(*batch, config("bce"))
    assert ink_loss(*batch, mixed).item() == pytest.approx(expected.item(), rel=1e-6)


def test_coarse_targets_average_counted_pixels_only():
    labels = torch.tensor([[1.0, 0, 1, 1], [1, 1, 0, 0]])[None, None]
    counted = torch.tensor([[True, True, False, False], [True, False, False, False]])[None, None]
    target, weight = coarse_targets(labels, counted, 2)
    torch.testing.assert_close(target[0, 0], torch.tensor([[2 / 3, 0.0]]))
    torch.testing.assert_close(weight[0, 0], torch.tensor([[0.75, 0.0]]))


def test_tiles_that_do_not_fit_the_output_are_refused():
    with pytest.raises(ConfigError, match="4 times coarser; set tile_px to a multiple of 4"):
        coarse_targets(torch.zeros(1, 1, 6, 8), torch.ones(1, 1, 6, 8, dtype=torch.bool), 4)
