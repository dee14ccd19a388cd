"""Stitching: identity in, identity out; cut, masked and batched as one likes, the bits stay the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from inkbatch.errors import ConfigError, InkbatchError, NonFiniteError, Preempted
from inkbatch.geometry import TileGrid
from inkbatch.models import InkModel, ModelConfig, build_model
from inkbatch.models.bundle import Contract, LayerRule
from inkbatch.predict.device import choose_device, choose_precision
from inkbatch.predict.normalise import normalise
from inkbatch.predict.passes import cpu_threads
from inkbatch.predict.predictor import Predictor, SubVolume
from inkbatch.predict.tiles import tiles_of
from inkbatch.predict.windows import window_1d
from inkbatch.run.signals import StopFlag

CPU = torch.device("cpu")
LAYERS = 3


def contract(tile=8, stride=3, **changes) -> Contract:
    values = {"layers": LayerRule(count=LAYERS), "voxel_size_um": 8.0, "tile_px": tile, "stride_px": stride}
    return Contract(**{**values, "activation": "none", **changes})


class TinyNet(InkModel):
    """Two convolutions over layers as channels: a real network that mixes neighbouring pixels."""

    def __init__(self, scale: int = 1) -> None:
        super().__init__(ModelConfig(depth_layers=LAYERS))
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(LAYERS, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.GELU(),
            nn.Conv2d(8, 1, 3, padding=1, stride=scale),
        )
        self.scale = scale
        self.eval()

    @property
    def output_scale(self) -> int:
        return self.scale

    def forward(self, subvolume):
        return self.net(subvolume[:, 0])


def predict(model, wanted: Contract, volume, mask, unit_px, batch=5, stop=None):
    """Blend a whole volume unit by unit."""
    predictor = Predictor(model, wanted, CPU, batch_tiles=batch, stop=stop or StopFlag())
    grid = TileGrid(volume.shape[1:], wanted.tile_px, wanted.stride_px)
    result = np.full(volume.shape[1:], np.nan, np.float32)
    for unit in grid.units(unit_px):
        box = unit.read_box
        layers = np.zeros((len(volume), *box.shape), volume.dtype)
        inside_mask = np.zeros(box.shape, bool)
        part = volume[:, box.y0 : box.y1, box.x0 : box.x1]
        layers[:, : part.shape[1], : part.shape[2]] = part
        inside_mask[: part.shape[1], : part.shape[2]] = mask[box.y0 : box.y1, box.x0 : box.x1]
        tiles = tiles_of(grid, unit.write_box, inside_mask, box)
        result[unit.write_box.slices] = predictor.blend(unit, SubVolume(layers, inside_mask, tiles))
    return result, predictor


@pytest.fixture(scope="module")
def volume():
    return np.random.default_rng(0).integers(0, 256, (LAYERS, 45, 52), dtype=np.uint8)


shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(2, 12), st.data())
def test_identity_in_identity_out(shape, tile, data):
    stride = data.draw(st.integers(1, tile))
    window = data.draw(st.sampled_from(["hann", "gaussian", "uniform"]))
    volume = np.random.default_rng(1).integers(0, 256, (LAYERS, *shape), dtype=np.uint8)
    model = build_model("identity", {"depth_layers": LAYERS, "layer": 1}).eval()
    mask = np.ones(shape, bool)
    result, _ = predict(model, contract(tile, stride, window=window), volume, mask, data.draw(st.integers(4, 40)))
    np.testing.assert_allclose(result, volume[1] / np.float32(255), rtol=2e-6, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.data())
def test_cutting_into_units_and_batches_changes_no_bit(volume, tile, data):
    stride = data.draw(st.integers(1, tile))
    volume = volume[:, :23, :26]
    mask = np.random.default_rng(data.draw(st.integers(0, 5))).random(volume.shape[1:]) < data.draw(
        st.sampled_from([0.002, 0.3, 1.0])
    )
    model = build_model("identity", {"depth_layers": LAYERS, "layer": 2}).eval()
    wanted = contract(tile, stride, window=data.draw(st.sampled_from(["hann", "gaussian", "uniform"])))
    whole, _ = predict(model, wanted, volume, mask, 32, batch=7)
    cut, _ = predict(model, wanted, volume, mask, data.draw(st.integers(3, 20)), batch=data.draw(st.integers(1, 9)))
    np.testing.assert_array_equal(whole, cut)


@settings(max_examples=15, deadline=None)
@given(st.integers(8, 60), st.sampled_from([0.01, 0.5, 1.0]), st.sampled_from([1, 2]))
def test_a_real_network_gives_the_same_bits_however_units_are_cut(volume, unit_px, share, scale):
    mask = np.random.default_rng(0).random(volume.shape[1:]) < share
    wanted = contract(8, 3, activation="sigmoid")
    whole, _ = predict(TinyNet(scale), wanted, volume, mask, 64)
    cut, _ = predict(TinyNet(scale), wanted, volume, mask, unit_px)
    np.testing.assert_array_equal(whole, cut)


def test_tiles_without_papyrus_are_not_computed_and_outside_is_zero(volume):
    mask = np.zeros(volume.shape[1:], bool)
    mask[18:22, 33:36] = True
    model = build_model("identity", {"depth_layers": LAYERS}).eval()
    result, predictor = predict(model, contract(8, 8), volume, mask, 64)
    assert predictor.tiles_done == 1
    assert not result[~mask].any()
    np.testing.assert_allclose(result[mask], volume[0][mask] / np.float32(255), rtol=1e-6)


def test_a_coarser_output_is_upsampled_bilinearly_before_blending(volume):
    model = build_model("identity", {"depth_layers": LAYERS, "scale": 4}).eval()
    flat = np.full_like(volume, 100)
    result, _ = predict(model, contract(8, 4), flat, np.ones(volume.shape[1:], bool), 64)
    np.testing.assert_allclose(result, 100 / 255, rtol=1e-6)
    one_tile, _ = predict(model, contract(8, 8), volume[:, :8, :8].copy(), np.ones((8, 8), bool), 8)
    coarse = torch.from_numpy(volume[0, :8:4, :8:4] / np.float32(255))[None, None]
    expected = nn.functional.interpolate(coarse, size=(8, 8), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(one_tile, expected[0, 0].numpy(), rtol=1e-5)


def test_nan_from_the_model_stops_with_the_units_name(volume):
    class Broken(TinyNet):
        def forward(self, subvolume):
            return super().forward(subvolume) * float("nan")

    with pytest.raises(NonFiniteError, match="y00000-x00000"):
        predict(Broken(), contract(), volume, np.ones(volume.shape[1:], bool), 64)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("too much"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    ],
)
def test_out_of_memory_halves_the_batch_and_changes_nothing(volume, error):
    seen = []

    class Hungry(TinyNet):
        def forward(self, subvolume):
            seen.append(len(subvolume))
            if len(subvolume) > 3:
                raise error
            return super().forward(subvolume)

    mask = np.ones(volume.shape[1:], bool)
    hungry, predictor = predict(Hungry(), contract(), volume, mask, 64, batch=16)
    calm, _ = predict(TinyNet(), contract(), volume, mask, 64, batch=2)
    np.testing.assert_array_equal(hungry, calm)
    assert predictor.passes.batch_tiles == 2
    assert list(dict.fromkeys(seen)) == [16, 8, 4, 2]


def test_another_error_of_a_device_is_no_lack_of_memory(volume):
    class Broken(TinyNet):
        def forward(self, subvolume):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        predict(Broken(), contract(), volume, np.ones(volume.shape[1:], bool), 64)


@pytest.mark.parametrize("threads", [2, 3])
def test_bits_do_not_depend_on_how_many_cores_compute(volume, threads):
    torch.manual_seed(0)
    config = {"depth_layers": LAYERS, "encoder": "resnet18", "decoder": {"decoder_channels": [16, 16, 8, 8, 8]}}
    model = build_model("smp", config).eval()
    mask = np.ones(volume.shape[1:], bool)
    with cpu_threads(1):
        alone, _ = predict(model, contract(32, 16), volume, mask, 64)
    with cpu_threads(threads):
        together, predictor = predict(model, contract(32, 16), volume, mask, 64)
    assert predictor.passes.workers == threads
    np.testing.assert_array_equal(alone, together)


def test_a_stop_ends_the_passes_that_were_begun(volume):
    stop, seen = StopFlag(), []

    class Stopping(TinyNet):
        def forward(self, subvolume):
            seen.append(len(subvolume))
            stop.set("SIGTERM")
            return super().forward(subvolume)

    with cpu_threads(2), pytest.raises(Preempted):
        predict(Stopping(), contract(), volume, np.ones(volume.shape[1:], bool), 64, batch=1, stop=stop)
    assert len(seen) <= 2


def test_memory_that_runs_out_in_a_worker_names_the_cure(volume):
    class Starving(TinyNet):
        def forward(self, subvolume):
            raise torch.OutOfMemoryError("too much")

    with cpu_threads(2), pytest.raises(InkbatchError, match="larger device"):
        predict(Starving(), contract(), volume, np.ones(volume.shape[1:], bool), 64)


def test_a_single_tile_that_does_not_fit_is_an_error_with_a_cure(volume):
    class Starving(TinyNet):
        def forward(self, subvolume):
            raise torch.OutOfMemoryError("too much")

    with pytest.raises(InkbatchError, match="larger device"):
        predict(Starving(), contract(), volume, np.ones(volume.shape[1:], bool), 64)


def test_batches_have_one_fixed_shape(volume):
    shapes = set()

    class Watching(TinyNet):
        def forward(self, subvolume):
            shapes.add(tuple(subvolume.shape))
            return super().forward(subvolume)

    predict(Watching(), contract(), volume, np.random.default_rng(0).random(volume.shape[1:]) < 0.01, 16, batch=6)
    assert shapes == {(6, 1, LAYERS, 8, 8)}


def test_a_stop_drops_the_unit_between_batches(volume):
    stop = StopFlag()
    stop.set("SIGTERM")
    with pytest.raises(Preempted):
        predict(TinyNet(), contract(), volume, np.ones(volume.shape[1:], bool), 64, stop=stop)


@pytest.mark.parametrize("name", ["hann", "gaussian", "uniform"])
@pytest.mark.parametrize("tile", [1, 2, 7, 64, 256])
def test_windows_are_strictly_positive_and_symmetric(name, tile):
    weights = window_1d(name, tile)
    assert weights.dtype == np.float32
    assert weights.min() > 0
    assert weights.max() <= 1
    np.testing.assert_array_equal(weights, weights[::-1])


def test_normalisation_clips_then_divides_then_standardises():
    stored = torch.tensor([[[0, 100, 250]]], dtype=torch.uint8)
    wanted = contract(clip=(0, 200), divisor=200, mean=0.5, std=0.25)
    np.testing.assert_allclose(normalise(stored, wanted).numpy(), [[[-2.0, 0.0, 2.0]]])


def test_a_tile_that_the_network_cannot_take_is_refused(volume):
    class Stepped(TinyNet):
        tile_multiple = 32

    with pytest.raises(ConfigError, match="multiple of 32"):
        Predictor(Stepped(), contract(8, 4), CPU)


def test_a_device_that_is_not_there_is_refused_and_never_replaced():
    if not torch.cuda.is_available():
        with pytest.raises(Exception, match="expected cuda, this machine has no usable cuda device"):
            choose_device("cuda")
    assert choose_device("cpu") == CPU
    assert choose_precision("auto", CPU) == torch.float32
    assert choose_precision("bf16", CPU) == torch.bfloat16
