"""Resampled layers: exact for any cut, equal to the plain definition, and the field's pooling to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inkbatch.errors import ConfigError, DataError
from inkbatch.geometry import Box
from inkbatch.io.layers import resampled
from inkbatch.io.layers.base import CheckedLayerSource
from inkbatch.io.layers.resampled import (
    ResampledSource,
    area_taps,
    linear_taps,
    pooled_taps,
    pooling_named,
    resampling_to,
)

GOLDEN = np.load(Path(__file__).with_name("pooling_golden.npz"))


class ArraySource(CheckedLayerSource):
    def __init__(self, values):
        self.values, self.uri, self.shape_zyx, self.dtype = values, "array", values.shape, values.dtype

    def _fill(self, indices, box, out):
        out[...] = self.values[indices.start : indices.stop, box.y0 : box.y1, box.x0 : box.x1]


def volume(shape=(12, 37, 41), dtype=np.uint8, seed=0):
    high = 255 if np.dtype(dtype) == np.uint8 else 65535
    return np.random.default_rng(seed).integers(0, high, shape, endpoint=True).astype(dtype)


def whole(source):
    depth, height, width = source.shape_zyx
    return source.read(range(depth), Box(0, 0, height, width))


def exact_area(values, factor, axis):
    """Average of a piecewise constant function over [i f, (i + 1) f), by its exact integral."""
    cells = values.shape[axis]
    integral = np.concatenate(
        [np.zeros_like(values.take([0], axis), float), np.cumsum(values, axis, dtype=float)], axis
    )
    count = int(np.ceil(cells / factor - 1e-3))
    edges = np.minimum(np.arange(count + 1) * factor, cells)
    at = np.apply_along_axis(lambda line: np.interp(edges, np.arange(cells + 1), line), axis, integral)
    shape = [1, 1, 1]
    shape[axis] = -1
    return np.diff(at, axis=axis) / np.diff(edges).reshape(shape)


@pytest.mark.parametrize("planes", [84, 85, 109])
def test_the_fields_pooling_is_met_to_the_bit(planes):
    values = GOLDEN[f"pool_{planes}_in"]
    source = ArraySource(values)
    found = whole(ResampledSource(source, range(planes), pooling_named("level2-zmean4-21slice-v1", source.shape_zyx)))
    np.testing.assert_array_equal(found, GOLDEN[f"pool_{planes}_out"])


@pytest.mark.parametrize(("spacing", "target"), [((2.4, 2.4, 2.4), (9.6,) * 3), ((8.64,) * 3, (9.6,) * 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_area_averages_equal_the_integral(spacing, target, dtype):
    values = volume(dtype=dtype)
    found = whole(ResampledSource(ArraySource(values), range(12), resampling_to(values.shape, spacing, target)))
    factor = target[0] / spacing[0]
    expected = values.astype(float)
    for axis in range(3):
        expected = exact_area(expected, factor, axis)
    tolerance = 0.51 if np.dtype(dtype).kind == "u" else 0.02
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance


@given(st.data())
def test_any_box_holds_the_bytes_of_the_whole(data):
    values = volume()
    target = data.draw(st.sampled_from([(2.4, 5.0, 5.0), (4.8, 4.8, 3.0), (9.6, 2.4, 7.3), (2.6, 2.7, 2.4)]))
    rule = data.draw(st.sampled_from(["mean", "linear"]))
    source = ResampledSource(ArraySource(values), range(1, 12), resampling_to((11, 37, 41), (2.4,) * 3, target, rule))
    everything = whole(source)
    depth, height, width = source.shape_zyx
    y0, x0, z0 = (data.draw(st.integers(0, size - 1)) for size in (height, width, depth))
    y1, x1, z1 = (data.draw(st.integers(low + 1, size)) for low, size in ((y0, height), (x0, width), (z0, depth)))
    part = source.read(range(z0, z1), Box(y0, x0, y1, x1))
    np.testing.assert_array_equal(part, everything[z0:z1, y0:y1, x0:x1])


def test_strips_change_no_byte(monkeypatch):
    values = volume()
    source = ResampledSource(ArraySource(values), range(12), resampling_to(values.shape, (2.4,) * 3, (4.8, 5.1, 5.1)))
    once = whole(source)
    monkeypatch.setattr(resampled, "STRIP_BYTES", 1)
    np.testing.assert_array_equal(whole(source), once)


def test_equal_spacing_leaves_every_value():
    values = volume()
    same = ResampledSource(ArraySource(values), range(12), resampling_to(values.shape, (2.4,) * 3, (2.4001, 2.4, 2.4)))
    np.testing.assert_array_equal(whole(same), values)


def test_linear_depth_reads_between_two_layers():
    values = np.arange(10, dtype=np.float32).reshape(10, 1, 1) * np.ones((1, 2, 2), np.float32)
    source = ResampledSource(
        ArraySource(values), range(10), resampling_to(values.shape, (2.0, 1.0, 1.0), (3.0, 1.0, 1.0), "linear")
    )
    np.testing.assert_allclose(whole(source)[:, 0, 0], [0.25, 1.75, 3.25, 4.75, 6.25, 7.75, 9.0])


def test_a_finer_target_is_refused_unless_asked_for():
    with pytest.raises(ConfigError, match=r"at least the source's 9.6 µm along z, got 2.4 µm.*resample_finer"):
        resampling_to((4, 8, 8), (9.6,) * 3, (2.4,) * 3)
    finer = resampling_to((4, 8, 8), (9.6,) * 3, (2.4,) * 3, allow_finer=True)
    assert (finer.depth.count, finer.rows.count) == (16, 32)


def test_weights_sum_up_to_one_and_stay_inside():
    for taps in (area_taps(37, 2.7), area_taps(5, 9.0), linear_taps(7, 0.4), pooled_taps(90, 84, 4)):
        np.testing.assert_allclose(taps.weight.sum(axis=0), 1, rtol=1e-6)
        assert taps.index.min() >= 0


def test_too_few_planes_and_unknown_rules_are_refused():
    with pytest.raises(DataError, match="expected at least 84 layers, got 65"):
        pooling_named("level2-zmean4-21slice-v1", (65, 8, 8))
    with pytest.raises(ConfigError, match="level2-zmean4-21slice-v1, got 'zmean'"):
        pooling_named("zmean", (84, 8, 8))
