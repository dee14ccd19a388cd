"""Normalisers: the published values to the bit, one tile at a time or many, bytes counted or floats sorted."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from inkbatch.errors import LayerRangeError
from inkbatch.models.bundle import Contract, LayerRule
from inkbatch.models.rules import Normaliser
from inkbatch.predict.normalise import bincount_without_waiting, normalise, normalise_tiles, statistics_of
from inkbatch.testing.golden import make_input

GOLDEN = Path(__file__).parent / "golden"
RULES = np.load(GOLDEN / "input-rules-2026.npz")
PLANES = json.loads((GOLDEN / "plane-choice-2026.json").read_text())
CASES = [key.removesuffix("_mad") for key in RULES if key.endswith("_mad")]
NORMALISERS = {
    "mad": Normaliser(kind="robust-mad"),
    "minmax_1_99": Normaliser(kind="percentile-range"),
    "minmax_05_995": Normaliser(kind="percentile-range", percentiles=(0.5, 99.5)),
}


def contract(normaliser: Normaliser | None = None, **values) -> Contract:
    fixed = {"layers": LayerRule(count=3), "voxel_size_um": 8.0, "tile_px": 8, "stride_px": 4}
    return Contract(**{**fixed, "normaliser": normaliser or Normaliser(), **values})


def full_tile() -> np.ndarray:
    tile = (80 + np.floor(64 * make_input(int(RULES["tile_seed"]), (17, 128, 128)).numpy())).astype(np.uint8)
    tile[..., 100:] = 0
    return tile


def step_tile() -> np.ndarray:
    values = np.full(17 * 128 * 128, 10, np.uint8)
    values[: int(0.01 * (values.size - 1)) + 1] = 0
    values[int(0.99 * (values.size - 1)) + 1 :] = 200
    return values.reshape(17, 128, 128)


@pytest.mark.parametrize("as_float", [False, True])
@pytest.mark.parametrize("rule", NORMALISERS)
@pytest.mark.parametrize("case", CASES)
def test_published_values_come_out(case, rule, as_float):
    patch, expected = RULES[f"{case}_in"], RULES[f"{case}_{rule}"]
    tiles = torch.from_numpy(patch.astype(np.float32) if as_float else patch)[None]
    found = normalise_tiles(tiles, contract(NORMALISERS[rule]))[0].numpy()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("as_float", [False, True])
@pytest.mark.parametrize("case", RULES["mad_stats_rows"].tolist())
def test_published_statistics_come_out(case, as_float):
    made = {"tile": full_tile, "step": step_tile}
    patch = made[case]() if case in made else RULES[f"{case}_in"]
    tiles = torch.from_numpy(patch.astype(np.float32) if as_float else patch)[None]
    found = [float(value) for value in statistics_of(tiles, NORMALISERS["mad"])]
    expected = RULES["mad_stats"][RULES["mad_stats_rows"].tolist().index(case)]
    np.testing.assert_allclose(found, expected, rtol=2e-7)


def test_a_full_tile_follows_the_published_rule():
    found = normalise_tiles(torch.from_numpy(full_tile())[None], contract(NORMALISERS["mad"]))[0]
    np.testing.assert_array_equal(found[::8, ::16, ::16].numpy(), RULES["tile_mad_sub"])


@pytest.mark.parametrize(
    ("row", "values"),
    [
        ("bytes_div_200", {"divisor": 200}),
        ("bytes_div_255", {"divisor": 255}),
        ("bytes_mul_255", {"divisor": 255, "scaling": "multiply"}),
        ("bytes_clip_200_mul_255", {"divisor": 255, "scaling": "multiply", "clip": (0, 200)}),
    ],
)
def test_dividing_and_multiplying_differ_in_the_last_bit(row, values):
    every_byte = torch.arange(256, dtype=torch.uint8)[None, None]
    np.testing.assert_array_equal(normalise(every_byte, contract(**values))[0, 0].numpy(), RULES[row])


def numpy_rule(values: np.ndarray, rule: Normaliser) -> np.ndarray:
    """The rule for one tile, written again with numpy alone."""
    data = values.astype(np.float32)
    counted = data[data != 0] if rule.counts == "nonzero" else data
    if counted.size == 0:
        return np.zeros_like(data)
    lower, upper = (np.float32(np.percentile(counted, q)) for q in rule.percentiles)
    if rule.kind == "percentile-range":
        span = upper - lower
        return (np.clip(data, lower, upper) - lower) / span if span >= 1e-6 else np.zeros_like(data)
    median = np.median(np.clip(counted, lower, upper))
    scale = 1.4826 * np.median(np.abs(np.clip(counted, lower, upper) - median))
    for fallback in (counted.std(), (upper - lower) / 2, 1.0):
        scale = scale if scale >= 1e-6 else fallback
    return (np.clip(data, lower, upper) - median) / np.float32(scale)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_batch_follows_the_rule_tile_by_tile(data):
    rule = Normaliser(
        kind=data.draw(st.sampled_from(["robust-mad", "percentile-range"])),
        percentiles=data.draw(st.sampled_from([(1.0, 99.0), (0.0, 100.0), (0.5, 99.5), (20.0, 70.0)])),
        counts=data.draw(st.sampled_from(["all", "nonzero"])),
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    top = data.draw(st.sampled_from([2, 4, 256]))
    tiles = rng.integers(0, top, (4, 3, 5, data.draw(st.integers(1, 6))), dtype=np.uint8)
    tiles[1] = 0
    tiles[2, :, :4] = 0
    for stored in (tiles, tiles.astype(np.uint16), tiles.astype(np.float32)):
        found = normalise_tiles(torch.from_numpy(stored), contract(rule)).numpy()
        for one, expected in zip(found, tiles, strict=True):
            np.testing.assert_allclose(one, numpy_rule(expected, rule), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_tiles_bits_do_not_depend_on_its_neighbours(dtype):
    tiles = torch.from_numpy(np.random.default_rng(0).integers(0, 200, (5, 3, 9, 9)).astype(dtype))
    for rule in NORMALISERS.values():
        together = normalise_tiles(tiles, contract(rule))
        alone = [normalise_tiles(tiles[number : number + 1], contract(rule))[0] for number in range(5)]
        assert torch.equal(together, torch.stack(alone))


@pytest.mark.parametrize("kind", ["robust-mad", "percentile-range"])
@pytest.mark.parametrize("counts", ["all", "nonzero"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
def test_nothing_on_a_gpu_waits_for_values(kind, counts, dtype):
    """Tensors without values, as if on CUDA: an operation that needed a value on the host would raise."""
    rule = Normaliser(kind=kind, counts=counts)
    with FakeTensorMode():
        found = normalise_tiles(torch.empty((4, 1, 3, 8, 8), dtype=dtype, device="cuda"), contract(rule))
        assert (found.device.type, found.dtype, found.shape) == ("cuda", torch.float32, (4, 1, 3, 8, 8))
        with pytest.raises(DataDependentOutputException):
            found.max().item()


def test_counts_on_a_gpu_are_those_of_a_cpu():
    values = torch.from_numpy(np.random.default_rng(0).integers(0, 900, 5000, dtype=np.int32))
    assert torch.equal(bincount_without_waiting(values, 1024), torch.bincount(values, minlength=1024))


def test_infinite_and_missing_values_become_zero():
    tiles = torch.full((1, 1, 1, 101), 5.0)
    tiles[0, 0, 0, 0] = torch.nan
    assert normalise_tiles(tiles, contract(NORMALISERS["mad"])).isfinite().all()


def test_statistics_of_a_segment_are_applied_and_never_taken_from_a_tile():
    rule = Normaliser(kind="robust-mad", statistics="segment")
    segment = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 40, 40), dtype=np.uint8))
    whole = normalise_tiles(segment, contract(NORMALISERS["mad"]))
    part = normalise_tiles(segment[..., :8, :8], contract(rule), statistics_of(segment, rule))
    assert torch.equal(part, whole[..., :8, :8])
    with pytest.raises(ValueError, match="expected statistics"):
        normalise_tiles(segment, contract(rule))


LAYER_RULES = {
    "ink_9um": LayerRule(count=17, centre="halves", counted_in="source"),
    "hecate_9.6um": LayerRule(count=16, centre="halves", counted_in="reading"),
    "hecate_2.4um": LayerRule(count=64, centre="halves", counted_in="reading"),
    "v8in": LayerRule(count=24),
}


@pytest.mark.parametrize("planes", PLANES)
@pytest.mark.parametrize(
    ("network", "turned"),
    [*itertools.product([*LAYER_RULES][:3], ["forward", "network", "source"]), ("v8in", "forward")],
)
def test_planes_are_chosen_as_published(network, turned, planes):
    """Layers are read backwards because the network wants it, or because preparing turned the source round."""
    key = f"{network}_{'forward' if turned == 'forward' else 'reverse'}"
    total, expected = int(planes), PLANES[planes][key]
    provenance = SimpleNamespace(segment="s", depth_order="reversed" if turned == "source" else "forward")
    volume = SimpleNamespace(provenance=provenance, layer_count=total)
    order = "reversed" if turned == "network" else "forward"
    wanted = contract(layers=LAYER_RULES[network], depth_order=order)
    if expected is None or (network == "ink_9um" and total < 17):
        with pytest.raises(LayerRangeError):
            wanted.layer_indices(volume)
        return
    indices = list(wanted.layer_indices(volume))
    read = indices[::-1] if turned == "network" else indices
    numbers = [total - 1 - index for index in read] if turned == "source" else read
    assert [numbers[0], numbers[-1]] == expected
    assert len(numbers) == LAYER_RULES[network].count


def test_the_middle_can_be_rounded_up():
    """Planes that are pooled begin at ceil((Z - 84) / 2)."""
    assert [LayerRule(count=84, centre="ceil").first_of(total, mirrored=False) for total in (84, 85, 109)] == [0, 1, 13]
