"""Each method against its definition, written with plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import rankdata

from inkbatch.data.maps.combining import LEAST_ODDS_P, Combination, plain_table, rank_table, tables_for, z_table
from inkbatch.data.maps.scoring import BINS
from inkbatch.data.maps.stored import open_map
from inkbatch.errors import DataError
from inkbatch.io.pictures.tones import half_codes
from inkbatch.testing.maps import store_map

SHAPE = (70, 90)
Z_SPAN_SHARE = 1 / 16


def members(count, seed=0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    maps = [rng.beta(0.7, 1.5, SHAPE).astype(np.float16) for _ in range(count)]
    for values in maps:
        values[:, :20] = 0
    return maps


def combined(method, maps, weights=None, spread=True):
    rule = Combination(method, tuple(weights or [1 / len(maps)] * len(maps)), tables_for(method, maps))
    return rule([half_codes(values, "map") for values in maps], spread)


def expected(method, maps, weights):
    values = np.stack([one.astype(np.float64) for one in maps])
    share = np.array(weights)[:, None, None]
    if method in ("mean", "weighted-mean"):
        return (values * share).sum(axis=0)
    if method == "median":
        return np.median(values, axis=0)
    if method == "maximum":
        return values.max(axis=0)
    inside = np.clip(values, LEAST_ODDS_P, 1 - LEAST_ODDS_P)
    odds = np.exp((np.log(inside / (1 - inside)) * share).sum(axis=0))
    return np.where((values == 0).all(axis=0), 0, odds / (1 + odds))


@pytest.mark.parametrize("method", ["mean", "median", "maximum", "odds"])
@pytest.mark.parametrize("count", [2, 3, 4, 5, 8])
def test_a_method_is_its_definition(method, count):
    maps = members(count)
    found, deviation = combined(method, maps)
    np.testing.assert_allclose(found, expected(method, maps, [1 / count] * count), atol=2e-6)
    np.testing.assert_allclose(deviation, np.std([m.astype(np.float64) for m in maps], axis=0), atol=2e-6)
    assert not found[:, :20].any()


@pytest.mark.parametrize("method", ["weighted-mean", "odds"])
def test_weights_are_taken(method):
    maps, weights = members(3), [0.7, 0.0, 0.3]
    found, _ = combined(method, maps, weights)
    np.testing.assert_allclose(found, expected(method, maps, weights), atol=2e-6)


@pytest.mark.parametrize("method", ["mean", "median", "maximum", "odds"])
@given(code=st.integers(int(half_codes(np.float16([LEAST_ODDS_P]), "")[0]), BINS - 1))
@example(code=BINS - 1)
def test_maps_that_agree_are_the_result(method, code):
    maps = [np.full((1, 3), code, np.uint16).view(np.float16)] * 3
    found, deviation = combined(method, maps)
    np.testing.assert_array_equal(found.astype(np.float16), maps[0])
    assert not deviation.astype(np.float16).any()


@pytest.mark.parametrize("method", ["mean", "weighted-mean", "median", "maximum", "odds"])
@pytest.mark.parametrize("spread", [False, True])
def test_what_is_stored_is_the_result_rounded_with_or_without_disagreement(method, spread):
    maps, weights = members(3), [0.5, 0.2, 0.3] if method in ("weighted-mean", "odds") else [1 / 3] * 3
    rule = Combination(method, tuple(weights), tables_for(method, maps))
    codes = [half_codes(values, "map") for values in maps]
    whole, deviation = rule(codes, spread=True)
    found, disagreement = (np.full(whole.shape, np.nan, np.float16) for _ in range(2))
    rule.stored(codes, found, disagreement if spread else None)
    np.testing.assert_array_equal(found, whole.astype(np.float16))
    if spread:
        np.testing.assert_array_equal(disagreement, deviation.astype(np.float16))
    else:
        assert np.isnan(disagreement).all()


def test_the_order_of_maps_changes_the_median_and_maximum_nowhere():
    maps = members(5)
    for method in ("median", "maximum"):
        a, b = combined(method, maps)[0], combined(method, maps[::-1])[0]
        np.testing.assert_array_equal(a, b)


def test_strips_change_no_bit(monkeypatch):
    maps = members(3)
    whole = [combined(method, maps) for method in ("mean", "odds", "median")]
    monkeypatch.setattr("inkbatch.data.maps.combining.STRIP_PX", 777)
    for one, other in zip(whole, [combined(method, maps) for method in ("mean", "odds", "median")], strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_ranks_are_the_quantiles_of_each_maps_own_pixels(tmp_path):
    maps = members(2)
    maps[1][:] = np.where(maps[1] > 0, maps[1] * 0.01, 0)  # a timid model counts as much as a bold one
    stored = []
    for number, values in enumerate(maps):
        store_map(tmp_path, "s", f"m{number}", values)
        stored.append(open_map(str(tmp_path), "s", f"m{number}"))
    rule = Combination("ranks", (0.5, 0.5), tables_for("ranks", stored))
    found, deviation = rule([half_codes(values, "map") for values in maps], spread=True)
    ranks = []
    for values in maps:
        inside = values > 0
        rank = np.zeros(SHAPE)
        rank[inside] = (rankdata(values[inside]) - 0.5) / inside.sum()
        ranks.append(rank)
    np.testing.assert_allclose(found, np.mean(ranks, axis=0), atol=1e-6)
    np.testing.assert_allclose(deviation, np.std(ranks, axis=0), atol=1e-6)


def test_quantiles_of_a_large_map_come_from_a_sample_and_are_close(tmp_path, monkeypatch):
    monkeypatch.setattr("inkbatch.data.maps.combining.RANK_CHUNKS", 3)
    values = np.random.default_rng(0).random((300, 1500)).astype(np.float16)
    store_map(tmp_path, "s", "large", values, unit_px=256)
    table = rank_table(open_map(str(tmp_path), "s", "large"))
    assert np.abs(table - plain_table()).max() < 0.01


def test_ink_that_the_sample_misses_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("inkbatch.data.maps.combining.RANK_CHUNKS", 2)
    values = np.zeros((256, 1300))
    values[:, 520:530] = 0.5
    store_map(tmp_path, "s", "sparse", values, unit_px=256)
    table = rank_table(open_map(str(tmp_path), "s", "sparse"))
    assert table[half_codes(np.float16([0.5]), "")] == 0.5


def test_z_scores_are_distances_from_each_maps_own_mean(tmp_path):
    maps = members(2)
    maps[0] *= np.float16(0.2)
    for name, values in zip("ab", maps, strict=True):
        store_map(tmp_path, "s", name, values, unit_px=64)
    stored = [open_map(str(tmp_path), "s", name) for name in "ab"]
    rule = Combination("zscore", (0.75, 0.25), tables_for("zscore", stored))
    found, deviation = rule([half_codes(values, "map") for values in maps], True)
    scores = []
    for values in maps:
        inside = values[values > 0].astype(np.float64)
        scores.append(Z_SPAN_SHARE * (values.astype(np.float64) - inside.mean()) / inside.std())
    outside = (maps[0] == 0) & (maps[1] == 0)
    wanted = np.clip(0.25 + 0.75 * scores[0] + 0.25 * scores[1], 2.0**-14, 1)
    np.testing.assert_allclose(found, np.where(outside, 0, wanted), atol=1e-6)
    assert outside[:, :20].all()
    np.testing.assert_allclose(deviation, np.where(outside, 0, np.std(scores, axis=0)), atol=1e-6)


def test_a_map_of_one_value_has_no_z_scores(tmp_path):
    store_map(tmp_path, "s", "flat", np.full(SHAPE, 0.5, np.float16), unit_px=64)
    with pytest.raises(DataError, match=r"is 0\.5 everywhere, it has no z-scores"):
        z_table(open_map(str(tmp_path), "s", "flat"))


def test_a_map_of_zeros_has_no_ranks(tmp_path):
    store_map(tmp_path, "s", "empty", np.zeros((40, 40)))
    with pytest.raises(DataError, match="prediction empty: is 0 everywhere"):
        rank_table(open_map(str(tmp_path), "s", "empty"))
