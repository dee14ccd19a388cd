"""Every layout on every store gives back what was stored, for any window."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inkbatch.errors import LayerRangeError
from inkbatch.geometry import Box
from inkbatch.io.layers import open_layer_source


def spans(length: int):
    return st.tuples(st.integers(0, length), st.integers(0, length)).map(sorted)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_box_equals_slicing(any_layout, store_locally, tmp_path_factory, request, data) -> None:
    cache = request.node.__dict__.setdefault("opened", {})
    if not cache:
        stored = store_locally(any_layout)
        cache["source"] = open_layer_source(stored.uri, **stored.options)
        cache["expected"], cache["first"] = stored.expected, stored.layout.first_layer
        request.addfinalizer(cache["source"].close)
    source, expected, first = cache["source"], cache["expected"], cache["first"]
    depth, height, width = expected.shape
    (z0, z1), (y0, y1), (x0, x1) = data.draw(spans(depth)), data.draw(spans(height)), data.draw(spans(width))
    block = source.read(range(first + z0, first + z1), Box(y0, x0, y1, x1))
    assert block.dtype == expected.dtype
    assert block.dtype.isnative
    np.testing.assert_array_equal(block, expected[z0:z1, y0:y1, x0:x1])


def test_a_source_says_what_it_is(any_layout, store_locally) -> None:
    stored = store_locally(any_layout)
    with open_layer_source(stored.uri, **stored.options) as source:
        assert source.shape_zyx == stored.expected.shape
        assert source.dtype == stored.expected.dtype
        assert source.first_layer == stored.layout.first_layer
        assert source.uri.startswith(stored.uri)
        assert source.whole_layers == stored.layout.whole
        if stored.layout.block_yx:
            assert source.block_yx == stored.layout.block_yx
        assert source.block_yx <= source.shape_zyx[1:]


def test_remote_boxes_equal_slicing(remote_layout, store_remotely) -> None:
    stored = store_remotely(remote_layout)
    depth, height, width = stored.expected.shape
    rng = np.random.default_rng(1)
    with open_layer_source(stored.uri, **stored.options) as source:
        first = source.first_layer
        for _ in range(4):
            (z0, z1), (y0, y1), (x0, x1) = (sorted(rng.choice(n + 1, 2, replace=False)) for n in (depth, height, width))
            block = source.read(range(first + z0, first + z1), Box(y0, x0, y1, x1))
            np.testing.assert_array_equal(block, stored.expected[z0:z1, y0:y1, x0:x1])
        np.testing.assert_array_equal(
            source.read(range(first, first + depth), Box(0, 0, height, width)), stored.expected
        )


def test_many_threads_read_one_source(any_layout, store_locally) -> None:
    stored = store_locally(any_layout)
    depth, height, width = stored.expected.shape
    boxes = [
        Box(y, x, min(y + 25, height), min(x + 40, width)) for y in range(0, height, 9) for x in range(0, width, 30)
    ]
    with open_layer_source(stored.uri, **stored.options) as source, ThreadPoolExecutor(8) as pool:
        layers = range(source.first_layer, source.first_layer + depth)
        for box, block in zip(boxes, pool.map(lambda box: source.read(layers, box), boxes), strict=True):
            np.testing.assert_array_equal(block, stored.expected[(slice(None), *box.slices)])


def test_a_given_array_is_filled_and_returned(any_layout, store_locally) -> None:
    stored = store_locally(any_layout)
    with open_layer_source(stored.uri, **stored.options) as source:
        first, box = source.first_layer, Box(5, 7, 40, 50)
        out = np.zeros((2, *box.shape), source.dtype)
        assert source.read(range(first + 1, first + 3), box, out=out) is out
        np.testing.assert_array_equal(out, stored.expected[(slice(1, 3), *box.slices)])
        wide = np.zeros((2, box.height, 2 * box.width), source.dtype)
        source.read(range(first + 1, first + 3), box, out=wide[:, :, ::2])
        np.testing.assert_array_equal(wide[:, :, ::2], out)
        assert not wide[:, :, 1::2].any()


def test_layers_that_are_not_stored_are_refused(any_layout, store_locally) -> None:
    stored = store_locally(any_layout)
    with open_layer_source(stored.uri, **stored.options) as source:
        first, after = source.first_layer, source.first_layer + stored.expected.shape[0]
        for layers in (
            range(first - 1, after),
            range(first, after + 1),
            range(after, after + 1),
            range(first, after, 2),
        ):
            with pytest.raises(LayerRangeError, match=f"{first}:{after}"):
                source.read(layers, Box(0, 0, 1, 1))


def test_a_box_outside_or_a_wrong_array_is_a_bug_of_the_caller(store_locally) -> None:
    stored = store_locally("tif")
    with open_layer_source(stored.uri) as source:
        with pytest.raises(ValueError, match="leaves"):
            source.read(range(1), Box(0, 0, 62, 83))
        with pytest.raises(ValueError, match="expected out to be"):
            source.read(range(1), Box(0, 0, 4, 4), out=np.zeros((1, 4, 5), np.uint16))
        with pytest.raises(ValueError, match="expected out to be"):
            source.read(range(1), Box(0, 0, 4, 4), out=np.zeros((1, 4, 4), np.uint8))


def test_views_equal_reading_or_are_not_offered(any_layout, store_locally) -> None:
    stored = store_locally(any_layout)
    box = Box(3, 5, 50, 60)
    with open_layer_source(stored.uri, **stored.options) as source:
        first = source.first_layer
        view = source.view(first + 2, box)
        assert source.view(first, Box(4, 4, 4, 9)) is None or source.view(first, Box(4, 4, 4, 9)).size == 0
        with pytest.raises(LayerRangeError):
            source.view(first + 5, box)
    if view is not None:  # it outlives the source
        assert view.dtype == stored.expected.dtype
        assert not view.flags.writeable
        np.testing.assert_array_equal(view, stored.expected[(2, *box.slices)])


@pytest.mark.parametrize("name", ["tif", "tif-uint8", "tif-bigtiff", "tif-pages", "png", "tif-lzw-one-strip", "npy"])
def test_views_are_offered_without_a_copy(name, store_locally) -> None:
    stored = store_locally(name)
    with open_layer_source(stored.uri, **stored.options) as source:
        one, two = source.view(1, Box(0, 0, 20, 30)), source.view(1, Box(10, 10, 20, 30))
        assert np.shares_memory(one, two)


@pytest.mark.parametrize("name", ["tif-big-endian", "tif-float32", "tif-lzw", "zarr3"])
def test_views_are_not_offered_where_bytes_must_change_or_be_checked(name, store_locally) -> None:
    stored = store_locally(name)
    with open_layer_source(stored.uri, **stored.options) as source:
        assert source.view(1, Box(0, 0, 20, 30)) is None
