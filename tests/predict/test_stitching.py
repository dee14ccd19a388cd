"""Stitching rules of published networks: whole small maps, from layers to the stitched map, to the golden values."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inkbatch.data.datasets.picture_layers import cut_out
from inkbatch.geometry import Box, TileAxis, TileGrid
from inkbatch.models import InkModel, ModelConfig, build_model
from inkbatch.models.bundle import Contract, LayerRule
from inkbatch.models.rules import Normaliser, Stitching
from inkbatch.predict.blend import Blender, add_tile, divided, map_of
from inkbatch.predict.coverage import closed, covered_tiles, grid_of
from inkbatch.predict.normalise import normalise_tiles
from inkbatch.predict.predictor import Predictor, SubVolume
from inkbatch.predict.tiles import tiles_of
from inkbatch.predict.windows import divisor_of, window_1d, window_of
from inkbatch.testing.golden import make_input

CPU = torch.device("cpu")
STITCH = np.load(Path(__file__).parent / "golden" / "stitch-rules-2026.npz")
SEED = int(STITCH["v8_seed"])
TILE = 64
RULES = {
    "v8": {
        "stride_px": 21,
        "window": "gaussian-cdf",
        "stitching": Stitching(divide_by="count", last_tile="none", tiles="whole", closing_px=7, outside="keep"),
    },
    "hecate": {"stride_px": 32, "window": "hann-symmetric", "stitching": Stitching(empty_tiles="count")},
    "villa": {"stride_px": 32, "window": "hann-symmetric", "stitching": Stitching(outside="keep")},
}
MAPS = {"v8": "v8_map_sub", "hecate": "hecate_prob_sub", "villa": "villa_prob_sub"}
SUPPORT = {"v8": "v8_any", "hecate": "stitch_any", "villa": "stitch_any"}


def contract(layers: int = 2, tile: int = TILE, **values) -> Contract:
    fixed = {"layers": LayerRule(count=layers), "voxel_size_um": 8.0, "tile_px": tile, "divisor": 1}
    return Contract(**{**fixed, "activation": "none", **values})


class PublishedTiles(InkModel):
    """The made-up network of the golden values: it reads from two planes where its tile lies, and answers with noise.

    Attributes:
        seen: Origins (y, x) of the tiles that it was given.
    """

    def __init__(self) -> None:
        super().__init__(ModelConfig(depth_layers=2))
        self.seen: list[tuple[int, int]] = []

    @property
    def output_scale(self) -> int:
        return 1

    def forward(self, subvolume):
        steps = torch.arange(TILE, dtype=torch.float32)
        y0 = (subvolume[:, 0, 0] - 1 - steps[:, None]).amax((-2, -1))
        x0 = (subvolume[:, 0, 1] - 1 - steps).amax((-2, -1))
        answers = []
        for y, x in zip(y0.long().tolist(), x0.long().tolist(), strict=True):
            self.seen.append((y, x))
            answers.append(make_input(SEED + 1000 * max(y, 0) + max(x, 0), (1, TILE, TILE)))
        return torch.stack(answers)


def layers_of(support: np.ndarray) -> np.ndarray:
    """Two planes that tell row and column, counted from 1; zero where there is no papyrus."""
    rows, columns = np.indices(support.shape)
    return np.stack([rows + 1, columns + 1]).astype(np.uint8) * support


def stitched(model, wanted: Contract, volume, mask, unit_px: int = 256, batch: int = 3):
    """A whole map, unit by unit; and the predictor."""
    predictor = Predictor(model.eval(), wanted, CPU, batch_tiles=batch)
    grid = grid_of(wanted, mask.shape)
    result = np.full(mask.shape, np.nan, np.float32)
    for unit in grid.units(unit_px):
        found, tiles = covered_tiles(wanted, grid, unit.write_box, lambda box: cut_out(mask, box))
        result[unit.write_box.slices] = predictor.blend(unit, SubVolume(cut_out(volume, unit.read_box), found, tiles))
    return result, predictor


def run_tiles(rules: str) -> list[tuple[int, int]]:
    """Origins (y, x) of the tiles that the original runs."""
    if rules == "v8":
        return [(y, x) for x, y in STITCH["v8_tiles_xy"].tolist()]
    return [(y, x) for y, x, is_run in STITCH[f"{rules}_tiles_yx_run"].tolist() if is_run]


@pytest.mark.parametrize("unit_px", [256, 32])
@pytest.mark.parametrize("rules", RULES)
def test_a_whole_map_equals_the_published_one(rules, unit_px):
    support = STITCH[SUPPORT[rules]] > 0
    model = PublishedTiles()
    found, _ = stitched(model, contract(**RULES[rules]), layers_of(support), support, unit_px)
    np.testing.assert_allclose(found[::7, ::7], STITCH[MAPS[rules]], atol=1e-6)
    assert set(run_tiles(rules)) <= set(model.seen)
    if unit_px == 256:  # slots of a batch that are not in use come out as tiles beyond the border or seen before
        assert {origin for origin in model.seen if min(origin) >= 0} == set(run_tiles(rules))


def test_the_rules_of_two_networks_differ_where_there_is_no_papyrus_and_agree_elsewhere():
    support = STITCH["stitch_any"] > 0
    hecate, villa = (
        stitched(PublishedTiles(), contract(**RULES[key]), layers_of(support), support)[0]
        for key in ("hecate", "villa")
    )
    apart = np.abs(hecate - villa)
    assert apart[~support].max() > 0.9
    assert apart[support].max() < 1e-6


def test_the_mask_is_closed_by_the_published_ellipse():
    np.testing.assert_array_equal(closed(STITCH["v8_any"] > 0, 7), STITCH["v8_closed"] > 0)


@pytest.mark.parametrize(
    ("window", "tile", "rows"),
    [
        ("hann-symmetric", 64, {"hann_64_row_mid": 32, "hann_64_row_0": 0, "hann_64_row_3": 3}),
        ("hann-symmetric", 128, {"hann_128_row_mid": 64}),
        ("hann-symmetric", 256, {"hann_256_row_mid": 128}),
        ("gaussian-cdf", 64, {"gauss_row_0": 0, "gauss_row_32": 32}),
    ],
)
def test_windows_are_the_published_ones(window, tile, rows):
    full = window_of(contract(tile=tile, stride_px=tile, window=window)).full
    for key, row in rows.items():
        np.testing.assert_allclose(full[row], STITCH[key], rtol=3e-7)


def test_a_gaussian_of_an_eighth_of_the_tile_is_the_published_one_but_for_its_peak():
    found = window_1d("gaussian", 128, 0.125)
    np.testing.assert_allclose(found / found.max(), STITCH["gauss_eighth_128_row_mid"], rtol=1e-6)


@pytest.mark.parametrize("window", ["hann-symmetric", "gaussian-cdf"])
@pytest.mark.parametrize("tile", [1, 2, 7, 64])
def test_the_new_windows_are_strictly_positive_and_symmetric(window, tile):
    full = window_of(contract(tile=tile, stride_px=tile, window=window)).full
    assert full.dtype == np.float32
    assert (full.min() > 0, full.max()) == (True, 1)
    np.testing.assert_allclose(full, full[::-1, ::-1], atol=3e-7)
    np.testing.assert_array_equal(full, full.T)


rule_sets = st.builds(
    Stitching,
    divide_by=st.sampled_from(["weights", "count"]),
    last_tile=st.sampled_from(["flush", "none"]),
    tiles=st.sampled_from(["any", "whole"]),
    closing_px=st.sampled_from([0, 3, 7]),
    empty_tiles=st.sampled_from(["skip", "count"]),
    outside=st.sampled_from(["zero", "keep"]),
)


@settings(max_examples=60, deadline=None)
@given(rule_sets, st.integers(2, 12), st.data())
def test_no_rule_makes_a_bit_depend_on_how_units_are_cut(rules, tile, data):
    shape = data.draw(st.tuples(st.integers(1, 45), st.integers(1, 45)))
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    volume = rng.integers(0, 256, (3, *shape), dtype=np.uint8)
    mask = rng.random(shape) < data.draw(st.sampled_from([0.02, 0.5, 0.97, 1.0]))
    window = data.draw(st.sampled_from(["hann", "uniform", "hann-symmetric", "gaussian-cdf"]))
    kind = data.draw(st.sampled_from(["fixed", "robust-mad", "percentile-range"]))
    values = {"stride_px": data.draw(st.integers(1, tile)), "window": window, "stitching": rules, "divisor": 255}
    wanted = contract(3, tile, **values, normaliser=Normaliser(kind=kind))
    model = build_model("identity", {"depth_layers": 3, "layer": 1})
    whole, _ = stitched(model, wanted, volume, mask, 64, batch=7)
    cut, _ = stitched(model, wanted, volume, mask, data.draw(st.integers(3, 30)), batch=data.draw(st.integers(1, 9)))
    np.testing.assert_array_equal(whole, cut)


def sums_by_hand(volume, mask, wanted: Contract) -> np.ndarray:
    """The stitching rules written again, pixel by pixel of each tile, in float64."""
    rules, edge, shape = wanted.stitching, wanted.tile_px, mask.shape
    ground = closed(mask, rules.closing_px) if rules.closing_px else mask
    window = window_of(wanted).full.astype(np.float64)
    total, divisor = np.zeros(shape), np.zeros(shape)
    grid = grid_of(wanted, shape)
    for row in range(grid.rows.count):
        for column in range(grid.columns.count):
            y, x = grid.rows.origin(row), grid.columns.origin(column)
            here = (slice(y, y + edge), slice(x, x + edge))
            papyrus = ground[here]
            is_run = papyrus.all() if rules.tiles == "whole" else papyrus.any()
            if is_run:
                total[here] += volume[1][here] / 255 * window
            if is_run or rules.empty_tiles == "count":
                divisor[here] += 1 if rules.divide_by == "count" else window
    made = np.divide(total, divisor, out=np.zeros(shape), where=divisor > 0)
    return np.where(mask, made, 0) if rules.outside == "zero" else made


@settings(max_examples=40, deadline=None)
@given(rule_sets, st.sampled_from(["hann", "hann-symmetric", "gaussian-cdf"]), st.integers(0, 99))
def test_the_map_is_what_the_rules_say(rules, window, seed):
    rng = np.random.default_rng(seed)
    volume, mask = rng.integers(0, 256, (3, 31, 26), dtype=np.uint8), rng.random((31, 26)) < 0.9
    mask[:12, :9] = False
    wanted = contract(3, 8, stride_px=3, window=window, stitching=rules, divisor=255)
    found, _ = stitched(build_model("identity", {"depth_layers": 3, "layer": 1}), wanted, volume, mask)
    np.testing.assert_allclose(found, sums_by_hand(volume, mask, wanted), rtol=1e-5, atol=1e-6)


def test_a_tile_sees_its_own_statistics_and_not_its_neighbours():
    """Robust MAD in the pipeline equals robust MAD of the tile cut out by hand, whatever the batch."""
    volume = np.random.default_rng(3).integers(0, 256, (3, 40, 40), dtype=np.uint8)
    volume[:, 20:] //= 8
    seen: list[torch.Tensor] = []

    class Listening(PublishedTiles):
        def forward(self, subvolume):
            seen.extend(subvolume.clone())
            return subvolume[:, :, 0] * 0

    rule = Normaliser(kind="robust-mad")
    wanted = contract(3, 20, stride_px=20, normaliser=rule, divisor=255)
    stitched(Listening(), wanted, volume, np.ones((40, 40), bool), batch=4)
    for y, x in [(0, 0), (0, 20), (20, 0), (20, 20)]:
        expected = normalise_tiles(torch.from_numpy(volume[:, y : y + 20, x : x + 20].copy())[None], wanted)
        assert any(torch.equal(one, expected) for one in seen), (y, x)


axes = st.integers(1, 12).flatmap(lambda tile: st.tuples(st.integers(1, 60), st.just(tile), st.integers(1, tile)))


@given(axes)
def test_without_a_flush_tile_the_others_stay_where_they_are(values):
    length, tile, stride = values
    plain, flush = TileAxis(length, tile, stride, flush=False), TileAxis(length, tile, stride)
    origins = [plain.origin(index) for index in range(plain.count)]
    assert origins == [start for start in range(0, length, stride) if start + tile <= length]
    assert origins == [flush.origin(index) for index in range(flush.regular_count) if length >= tile]
    for start in range(length):
        touching = [index for index, origin in enumerate(origins) if origin <= start < origin + tile]
        assert list(plain.touching(start, start + 1)) == touching


def test_a_read_box_holds_the_rim_that_no_tile_reaches():
    grid = TileGrid((50, 50), 16, 16, flush=False)
    assert grid.read_box(Box(48, 0, 50, 50)) == Box(48, 0, 50, 50)
    assert grid.read_box(Box(40, 40, 50, 50)) == Box(32, 32, 50, 50)
    assert dataclasses.replace(grid, flush=True).read_box(Box(48, 0, 50, 50)) == Box(34, 0, 50, 50)


@pytest.mark.parametrize("name", RULES)
def test_tiles_added_one_by_one_as_in_validation_make_the_map_of_inference(name):
    wanted = contract(**RULES[name])
    grid, whole = grid_of(wanted, (150, 170)), Box(0, 0, 150, 170)
    window = window_of(wanted)
    divisor = divisor_of(window, wanted.stitching)
    tiles = tiles_of(grid, whole, np.ones(whole.shape, bool), whole)
    hull = Box(0, 0, grid.rows.origin(grid.rows.count - 1) + TILE, grid.columns.origin(grid.columns.count - 1) + TILE)
    blender = Blender(tiles, hull, window, CPU, wanted.stitching)
    sums = np.zeros((2, *hull.shape), np.float32)
    for row in tiles.rows:
        maps = make_input(row, (len(tiles.columns), TILE, TILE)).numpy()
        blender.add_row(row, torch.from_numpy(maps * window.full))
        for column, tile in zip(tiles.columns, maps, strict=True):
            y0, x0 = grid.rows.origin(row), grid.columns.origin(column)
            add_tile(sums, Box(y0, x0, y0 + TILE, x0 + TILE).slices, tile, window.full, divisor.full)
    np.testing.assert_allclose(divided(sums), map_of(*blender.sums(hull)).numpy(), rtol=1e-5, atol=1e-6)
