"""Augmentation: layers, labels and counted pixels move together, the same way for the same seed."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from inkbatch.training.augment import apply_changes, arrange
from inkbatch.training.augment_settings import AugmentConfig, Changes, draw_changes

EVERYTHING = AugmentConfig(
    warp=1,
    rotate_deg=40,
    scale=(0.7, 1.4),
    perspective=0.1,
    grid_distortion=0.3,
    tone=1,
    blur=1,
    noise=1,
    depth_shift=2,
    layer_dropout=1,
    cut_out=1,
)
IDENTITY = np.eye(3, dtype=np.float32)
NO_BEND = np.zeros((3, 3, 2), np.float32)


def drawn(config: AugmentConfig, seed: int = 0, sample=(64, 64), tile=32, layers=(9, 5)) -> Changes:
    return draw_changes(config, np.random.default_rng([seed, 7]), sample, tile, *layers)


def smooth_picture(edge: int = 64) -> torch.Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 6, edge), torch.linspace(0, 5, edge), indexing="ij")
    return (torch.sin(y) * torch.cos(x) + 1) / 2


def moved(picture: torch.Tensor, change: Changes) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The picture as two layers and as labels, everything counted."""
    layers = picture.expand(1, 2, -1, -1).clone()
    labels = picture[None, None].clone()
    return apply_changes(layers, labels, torch.ones_like(labels, dtype=torch.bool), [change])


def test_the_same_seed_draws_the_same_and_others_do_not():
    first, again, other = drawn(EVERYTHING), drawn(EVERYTHING), drawn(EVERYTHING, seed=1)
    assert first.noise_seed == again.noise_seed != other.noise_seed
    np.testing.assert_array_equal(first.matrix, again.matrix)
    np.testing.assert_array_equal(first.bend, again.bend)
    assert not np.array_equal(first.matrix, other.matrix)


def test_the_same_changes_give_the_same_pixels():
    layers = torch.rand(2, 5, 32, 32, generator=torch.Generator().manual_seed(0))
    labels, counted = (layers[:, :1] > 0.5).float(), layers[:, 1:2] > 0.1
    changes = [drawn(EVERYTHING, seed) for seed in range(2)]
    first, again = (apply_changes(layers.clone(), labels, counted, changes) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)
    alone = apply_changes(layers[1:].clone(), labels[1:], counted[1:], changes[1:])
    torch.testing.assert_close(alone[0][0], first[0][1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_layers_labels_and_counted_pixels_move_together(seed):
    config = AugmentConfig(warp=1, rotate_deg=60, scale=(0.6, 1.6), perspective=0.15, grid_distortion=0.4)
    change = dataclasses.replace(drawn(config, seed, sample=(64, 64), tile=64), noise_sigma=0)
    layers, labels, counted = moved(smooth_picture(), change)
    assert torch.equal(layers[0, 0], layers[0, 1])
    torch.testing.assert_close(layers[0, 0][counted[0, 0]], labels[0, 0][counted[0, 0]], rtol=0, atol=1e-6)
    assert 0.2 < counted.float().mean() <= 1
    assert not torch.equal(labels[0, 0], smooth_picture())


@pytest.mark.parametrize("seed", range(4))
def test_exact_changes_move_all_arrays_alike(seed):
    change = drawn(AugmentConfig(flip=0.5, turn=1), seed)
    picture = np.arange(64 * 64).reshape(64, 64)
    one = arrange(picture, change, 32)
    np.testing.assert_array_equal(arrange(np.stack([picture, picture]), change, 32)[1], one)
    y, x = change.crop_yx
    assert sorted(one.ravel()) == sorted(picture[y : y + 32, x : x + 32].ravel())


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float16", "int64"])
def test_flips_come_before_turns_whatever_the_dtype(dtype):
    before = np.arange(3 * 9 * 20).reshape(3, 9, 20).astype(dtype)
    picture = before[:, 1:8, 4:11]
    for flip_y, flip_x, turns in itertools.product((False, True), (False, True), range(4)):
        wanted = picture[:, :: -1 if flip_y else 1, :: -1 if flip_x else 1]
        wanted = np.rot90(wanted, turns, axes=(1, 2))
        changes, given = Changes(flip_y=flip_y, flip_x=flip_x, turns=turns), np.empty((2, 3, 7, 7), dtype)
        for out in (None, given[1]):
            got = arrange(picture, changes, 7, out=out)
            np.testing.assert_array_equal(got, wanted)
            assert got.dtype == dtype
        np.testing.assert_array_equal(given[1], wanted)
        np.testing.assert_array_equal(arrange(picture[0], changes, 7), wanted[0])
    np.testing.assert_array_equal(before, np.arange(3 * 9 * 20).reshape(3, 9, 20).astype(dtype))


@pytest.mark.parametrize(
    "out",
    [np.zeros((1, 8, 8), np.uint8), np.zeros((3, 8, 8), np.uint16), np.zeros((8, 3, 8), np.uint8).swapaxes(0, 1)],
)
def test_a_place_that_cannot_hold_the_tile_is_refused(out):
    with pytest.raises(ValueError, match="does not fit into"):
        arrange(np.ones((3, 8, 8), np.uint8), Changes(turns=1), 8, out=out)


def test_a_part_that_was_cropped_before_is_not_cropped_again():
    change = drawn(AugmentConfig(flip=0.5, turn=1), 3)
    picture = np.arange(64 * 64).reshape(64, 64)
    y, x = change.crop_yx
    assert y
    assert x
    part = picture[y : y + 32, x : x + 32]
    np.testing.assert_array_equal(arrange(part, change, 32), arrange(picture, change, 32))


def test_a_sample_smaller_than_the_tile_is_filled_up():
    filled = arrange(np.zeros((5, 7), np.uint8), Changes(), 8, fill=1)
    assert filled.shape == (8, 8)
    assert filled.sum() == 64 - 35
    assert (filled[:5, :7] == 0).all()


def test_a_warp_that_does_nothing_changes_nothing():
    picture = smooth_picture()
    layers, labels, counted = moved(picture, Changes(matrix=IDENTITY, bend=NO_BEND))
    torch.testing.assert_close(layers[0, 0], picture, rtol=0, atol=2e-6)
    torch.testing.assert_close(labels[0, 0], picture, rtol=0, atol=2e-6)
    assert counted.all()


def test_a_quarter_turn_by_the_matrix_is_a_quarter_turn():
    matrix = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]], np.float32)
    picture = torch.rand(16, 16, generator=torch.Generator().manual_seed(0))
    layers, _, counted = moved(picture, Changes(matrix=matrix, bend=NO_BEND))
    assert counted.all()
    torch.testing.assert_close(layers[0, 0], torch.rot90(picture, 1), rtol=0, atol=1e-5)


def test_scale_enlarges_about_the_middle_and_shrinking_leaves_a_rim_that_does_not_count():
    def zoomed(zoom: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        matrix = np.diag([1 / zoom, 1 / zoom, 1]).astype(np.float32)
        disc = torch.zeros(32, 32)
        disc[12:20, 12:20] = 1
        return moved(disc, Changes(matrix=matrix, bend=NO_BEND))

    larger, smaller = zoomed(2.0), zoomed(0.5)
    assert larger[1].sum() == pytest.approx(4 * 64, rel=0.05)
    assert smaller[1].sum() == pytest.approx(64 / 4, rel=0.05)
    assert larger[2].all()
    assert smaller[2].float().mean() == pytest.approx(1 / 4, abs=0.06)


def test_pixels_resampled_from_ignored_ones_do_not_count():
    counted = torch.ones(1, 1, 32, 32, dtype=torch.bool)
    counted[..., 16] = False
    matrix = np.array([[1, 0, 0.5 / 16], [0, 1, 0], [0, 0, 1]], np.float32)  # half a pixel along x
    blank = torch.zeros(1, 1, 32, 32)
    found = apply_changes(blank.clone(), blank, counted, [Changes(matrix=matrix, bend=NO_BEND)])[2]
    assert found[0, 0, 5].logical_not().nonzero().flatten().tolist() == [15, 16, 31]


def test_cut_outs_blank_layers_and_do_not_count():
    layers, labels, counted = moved(torch.full((16, 16), 0.5), Changes(blank_boxes=((2, 3, 6, 9),)))
    assert (layers[..., 2:6, 3:9] == 0).all()
    assert layers.count_nonzero() == 2 * (256 - 24)
    assert counted.logical_not().sum() == 24
    assert (labels == 0.5).all()


def test_layer_dropout_blanks_whole_layers():
    change = drawn(AugmentConfig(layer_dropout=1, layer_dropout_count=2))
    layers = torch.ones(1, 5, 8, 8)
    apply_changes(layers, torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8, dtype=torch.bool), [change])
    blank = (layers == 0).flatten(2).all(2)[0].nonzero().flatten().tolist()
    assert tuple(blank) == change.blank_layers
    assert 1 <= len(blank) <= 2


def test_tones_are_gamma_then_contrast_then_brightness():
    picture = smooth_picture(16)
    layers = moved(picture, Changes(tone=(1.3, 1.1, -0.05)))[0][0, 0]
    curved = picture**1.3
    expected = ((curved - curved.mean()) * 1.1 + curved.mean() - 0.05).clamp(0, 1)
    torch.testing.assert_close(layers, expected, rtol=1e-5, atol=1e-6)


def test_blur_keeps_the_mean_and_spreads_by_its_sigma():
    dot = torch.zeros(33, 33)
    dot[16, 16] = 1
    layers = moved(dot, Changes(blur_px=1.5))[0][0, 0]
    offsets = torch.arange(33.0) - 16
    assert layers.sum().item() == pytest.approx(1, abs=1e-5)
    assert (layers.sum(0) * offsets**2).sum().sqrt().item() == pytest.approx(1.5, rel=0.02)


def test_noise_has_its_sigma_and_its_seed():
    grey = torch.full((64, 64), 0.5)
    one, same, other = (moved(grey, Changes(noise_sigma=0.03, noise_seed=seed))[0] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.std().item() == pytest.approx(0.03, rel=0.05)


def test_the_depth_window_shifts_within_the_sample():
    config = AugmentConfig(depth_shift=2)
    firsts = {drawn(config, seed, layers=(9, 5)).first_layer for seed in range(60)}
    assert firsts == {0, 1, 2, 3, 4}
    assert {drawn(config, seed, layers=(6, 5)).first_layer for seed in range(30)} == {0, 1}
    assert {drawn(AugmentConfig(), seed, layers=(9, 5)).first_layer for seed in range(9)} == {2}


def test_crops_reach_every_part_of_a_sample():
    crops = [drawn(AugmentConfig(), seed, sample=(34, 33)).crop_yx for seed in range(80)]
    assert set(crops) == {(y, x) for y in range(3) for x in range(2)}
