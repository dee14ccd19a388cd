"""Views and windows: turned back to the bit, refused by name where a bundle does not allow them, cut as one likes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from inkbatch.errors import ConfigError
from inkbatch.geometry import TileGrid
from inkbatch.models import InkModel, ModelConfig, build_model
from inkbatch.models.bundle import TTA_AXES, Contract, LayerRule
from inkbatch.predict.predictor import Predictor, SubVolume
from inkbatch.predict.tiles import tiles_of
from inkbatch.predict.variants import AS_IS, LayerWindow, combined, hull_of, parts_of, views_of

CPU = torch.device("cpu")
LAYERS = 3
SUBSETS = [names for count in range(6) for names in itertools.combinations(TTA_AXES, count)]


def contract(tile=8, stride=3, **changes) -> Contract:
    values = {"layers": LayerRule(count=LAYERS), "voxel_size_um": 8.0, "tile_px": tile, "stride_px": stride}
    return Contract(**{**values, "activation": "none", "tta_axes": TTA_AXES, **changes})


ALL_VIEWS = views_of(("allowed",), contract(), "any")


class TinyNet(InkModel):
    """A small real network whose answer depends on which way its tile lies."""

    def __init__(self) -> None:
        super().__init__(ModelConfig(depth_layers=LAYERS))
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(LAYERS, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 1, 3, padding=1))
        self.eval()

    @property
    def output_scale(self) -> int:
        return 1

    def forward(self, subvolume):
        return self.net(subvolume[:, 0])


def loaded_of(volume, mask, grid, unit) -> SubVolume:
    box = unit.read_box
    layers = np.zeros((len(volume), *box.shape), volume.dtype)
    part = volume[:, box.y0 : box.y1, box.x0 : box.x1]
    layers[:, : part.shape[1], : part.shape[2]] = part
    inside = np.zeros(box.shape, bool)
    inside[: part.shape[1], : part.shape[2]] = mask[box.y0 : box.y1, box.x0 : box.x1]
    return SubVolume(layers, inside, tiles_of(grid, unit.write_box, inside, box))


def predict(model, wanted, volume, mask=None, unit_px=64, batch=5, views=(AS_IS,), combine="mean", windows=None):
    """Maps of a whole volume, one per window, unit by unit."""
    predictor = Predictor(model, wanted, CPU, batch_tiles=batch, views=views, combine=combine)
    grid = TileGrid(volume.shape[1:], wanted.tile_px, wanted.stride_px)
    mask = np.ones(volume.shape[1:], bool) if mask is None else mask
    windows = windows or (np.arange(len(volume)),)
    result = np.full((len(windows), *volume.shape[1:]), np.nan, np.float32)
    for unit in grid.units(unit_px):
        maps = predictor.blend_windows(unit, loaded_of(volume, mask, grid, unit), windows)
        for number, found in enumerate(maps):
            result[number][unit.write_box.slices] = found
    return result


@pytest.fixture(scope="module")
def volume():
    return np.random.default_rng(0).integers(0, 256, (LAYERS + 2, 45, 52), dtype=np.uint8)


@pytest.mark.parametrize("view", ALL_VIEWS, ids=lambda view: view.name)
def test_a_view_turned_back_is_what_it_was_to_the_bit(view):
    tiles = torch.rand((3, 1, 2, 7, 7))
    turned = view.turn(tiles)
    assert turned.is_contiguous()
    assert torch.equal(view.turn_back(turned[:, 0, 0]), tiles[:, 0, 0])
    assert torch.equal(turned, tiles) == (view == AS_IS)


def test_views_are_what_their_names_say():
    tile = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    seen = {view.name: view.turn(tile).flatten().tolist() for view in ALL_VIEWS}
    assert seen["flip-y"] == [3, 4, 1, 2]
    assert seen["flip-x"] == [2, 1, 4, 3]
    assert seen["turn-90"] == [2, 4, 1, 3]
    assert seen["turn-180"] == [4, 3, 2, 1]
    assert seen["turn-270"] == [3, 1, 4, 2]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("view", ALL_VIEWS, ids=lambda view: view.name)
def test_a_device_turns_as_the_cpu_does(view):
    tiles = torch.rand((2, 1, 3, 8, 8))
    assert torch.equal(view.turn(tiles.cuda()).cpu(), view.turn(tiles))
    assert torch.equal(view.turn_back(view.turn(tiles.cuda())).cpu(), tiles)


@pytest.mark.parametrize("names", SUBSETS, ids="+".join)
@pytest.mark.parametrize("combine", ["mean", "max"])
def test_identity_with_any_views_gives_the_same_map_to_the_bit(volume, names, combine):
    model = build_model("identity", {"depth_layers": LAYERS, "layer": 1}).eval()
    views = views_of(names, contract(), "any")
    assert len(views) == len(names) + 1
    plain = predict(model, contract(), volume[:LAYERS])
    np.testing.assert_array_equal(predict(model, contract(), volume[:LAYERS], views=views, combine=combine), plain)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(8, 60), st.sampled_from([0.01, 0.5, 1.0]), st.sampled_from(SUBSETS), st.sampled_from(["mean", "max"])
)
def test_units_change_no_bit_of_a_real_network_with_views_and_windows(volume, unit_px, share, names, combine):
    mask = np.random.default_rng(0).random(volume.shape[1:]) < share
    wanted = contract(activation="sigmoid")
    how = {"views": views_of(names, wanted, "any"), "combine": combine, "windows": (np.arange(0, 3), np.arange(2, 5))}
    whole = predict(TinyNet(), wanted, volume, mask, 64, **how)
    np.testing.assert_array_equal(whole, predict(TinyNet(), wanted, volume, mask, unit_px, **how))


@pytest.mark.parametrize("combine", ["mean", "max"])
def test_a_tiles_views_are_averaged_as_if_each_had_been_computed_alone(volume, combine):
    tile, model, wanted = volume[:LAYERS, :8, :8].copy(), TinyNet(), contract(stride=8)
    views = views_of(("turns", "flip-y"), wanted, "any")
    alone = []
    for view in views:
        turned = view.turn(torch.from_numpy(tile)).numpy()
        alone.append(view.turn_back(torch.from_numpy(predict(model, wanted, turned)[0])).numpy())
    assert np.abs(alone[0] - alone[1]).max() > 1e-3
    expected = np.max(alone, axis=0) if combine == "max" else np.mean(alone, axis=0)
    found = predict(model, wanted, tile, views=views, combine=combine)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_averaging_all_quarter_turns_makes_a_map_that_turns_with_its_tile(volume):
    tile, wanted = volume[:LAYERS, :8, :8].copy(), contract(stride=8)
    views = views_of(("turns",), wanted, "any")
    upright = predict(TinyNet(), wanted, tile, views=views)[0]
    turned = predict(TinyNet(), wanted, np.ascontiguousarray(np.rot90(tile, 1, (1, 2))), views=views)[0]
    np.testing.assert_allclose(turned, np.rot90(upright), rtol=1e-5, atol=1e-6)


def test_windows_of_one_load_are_the_maps_of_each_window_alone_to_the_bit(volume):
    windows = (np.arange(0, 3), np.arange(1, 4), np.array([4, 3, 2]), np.array([2, 0, 3]), np.array([1, 1, 1]))
    together = predict(TinyNet(), contract(), volume, windows=windows)
    for window, found in zip(windows, together, strict=True):
        np.testing.assert_array_equal(found, predict(TinyNet(), contract(), volume[window])[0])


def test_a_view_is_one_forward_pass_more_per_tile(volume):
    seen = []

    class Counting(TinyNet):
        def forward(self, subvolume):
            seen.append(len(subvolume))
            return super().forward(subvolume)

    predict(Counting(), contract(stride=8), volume[:LAYERS])
    plain, seen[:] = sum(seen), []
    predict(Counting(), contract(stride=8), volume[:LAYERS], views=views_of(("turns",), contract(), "any"))
    assert sum(seen) == 4 * plain


def test_out_of_memory_halves_the_batch_of_all_views_and_changes_nothing(volume):
    class Hungry(TinyNet):
        def forward(self, subvolume):
            if len(subvolume) > 3:
                raise torch.OutOfMemoryError("too much")
            return super().forward(subvolume)

    hungry = predict(Hungry(), contract(), volume[:LAYERS], batch=16, views=ALL_VIEWS)
    np.testing.assert_array_equal(hungry, predict(TinyNet(), contract(), volume[:LAYERS], batch=2, views=ALL_VIEWS))


def test_the_tile_as_it_is_comes_first_and_the_order_of_asking_does_not_matter():
    asked = [view.name for view in views_of(("turn-180", "flip-x", "flips"), contract(), "any")]
    assert asked == ["as-is", "flip-y", "flip-x", "turn-180"]
    assert views_of((), contract(), "any") == (AS_IS,)


@pytest.mark.parametrize("asked", [("turn-90",), ("turns",), ("flip-y", "turn-90")])
def test_views_that_the_bundle_does_not_allow_are_refused_by_name(asked):
    narrow = contract(tta_axes=("flip-y", "turn-180"))
    with pytest.raises(ConfigError, match=r"bundle small does not allow turn-90.*allow flip-y, turn-180.*--override"):
        views_of(asked, narrow, "small")
    assert [view.name for view in views_of(("allowed",), narrow, "small")] == ["as-is", "flip-y", "turn-180"]


@pytest.mark.parametrize("asked", [("allowed",), ("flip-x",)])
def test_a_bundle_that_allows_nothing_says_so(asked):
    with pytest.raises(ConfigError, match="allow no view at all"):
        views_of(asked, contract(tta_axes=()), "strict")


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7])
def test_the_mean_of_equal_maps_is_the_map_to_the_bit(count):
    values = torch.rand(1000)
    assert torch.equal(combined((values.clone() for _ in range(count)), "mean"), values)
    assert torch.equal(combined((values.clone() for _ in range(count)), "max"), values)


def test_mean_and_maximum_leave_their_inputs_alone():
    maps = [torch.rand(50) for _ in range(4)]
    kept = [found.clone() for found in maps]
    np.testing.assert_allclose(combined(maps, "mean"), torch.stack(maps).mean(0), rtol=1e-6)
    assert torch.equal(combined(maps, "max"), torch.stack(maps).amax(0))
    assert all(torch.equal(a, b) for a, b in zip(maps, kept, strict=True))
    with pytest.raises(ValueError, match="no map"):
        combined([], "mean")


@pytest.mark.parametrize("reverse", [False, True])
def test_parts_of_a_load_are_the_windows_layers(reverse):
    windows = [LayerWindow(None, range(4, 7)), LayerWindow(None, range(2, 5)), LayerWindow(None, range(7, 10))]
    hull = hull_of(windows)
    assert hull == range(2, 10)
    loaded = np.array(hull)[::-1] if reverse else np.array(hull)
    for window, part in zip(windows, parts_of(windows, reverse=reverse), strict=True):
        assert loaded[part].tolist() == (list(window.indices)[::-1] if reverse else list(window.indices))
