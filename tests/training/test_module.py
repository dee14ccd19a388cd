"""The module: stored intensities become what the contract says; coarse outputs meet averaged labels."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from inkbatch.data.datasets.index import DatasetIndex, Sample
from inkbatch.data.datasets.sample_reader import SampleReader
from inkbatch.data.datasets.segment_arrays import StoredArrays
from inkbatch.errors import NonFiniteError, Preempted
from inkbatch.io.store.location import Location
from inkbatch.models.base import InkModel, ModelConfig
from inkbatch.models.bundle import Contract, LayerRule
from inkbatch.models.rules import Normaliser, Stitching
from inkbatch.predict.normalise import normalise_tiles, statistics_of
from inkbatch.predict.windows import window_of
from inkbatch.run.signals import StopFlag
from inkbatch.training.augment_settings import Changes
from inkbatch.training.data import Batch
from inkbatch.training.losses import LossConfig
from inkbatch.training.metrics import scores
from inkbatch.training.module import InkModule
from inkbatch.training.optimise import OptimiserConfig
from inkbatch.training.statistics import SampleStatistics
from inkbatch.training.validate import Validator


class MeanNet(InkModel):
    """Logit = weight x (mean layer - 0.5), at a coarser resolution."""

    def __init__(self, scale: int = 1, weight: float = 20.0) -> None:
        super().__init__(ModelConfig(depth_layers=2))
        self.scale = scale
        self.weight = nn.Parameter(torch.tensor(weight))

    @property
    def output_scale(self) -> int:
        return self.scale

    def forward(self, subvolume: Tensor) -> Tensor:
        return nn.functional.avg_pool2d((subvolume.mean(2) - 0.5) * self.weight, self.scale)


def contract(**changes: Any) -> Contract:
    values = {"layers": LayerRule(count=2), "voxel_size_um": 8.0, "tile_px": 16, "stride_px": 8, **changes}
    return Contract(**values)


def module_of(net: InkModel, **changes: Any) -> InkModule:
    return InkModule(net, contract(**changes), LossConfig(), OptimiserConfig())


def batch_of(layers: np.ndarray, labels: np.ndarray, counted: np.ndarray) -> Batch:
    two = [torch.from_numpy(np.stack([array, array])) for array in (layers, labels[None], counted[None])]
    return Batch(*two, (Changes(), Changes()), ("s", "s"))


@pytest.mark.parametrize(("dtype", "divisor"), [("uint8", 255.0), ("uint16", 65535.0)])
def test_intensities_follow_the_contract(dtype, divisor):
    rng = np.random.default_rng(0)
    top = np.iinfo(dtype).max
    layers = rng.integers(0, top, (2, 16, 16), dtype=np.dtype(dtype), endpoint=True)
    clip = (0.1 * top, 0.8 * top)
    module = module_of(MeanNet(), dtype=dtype, divisor=divisor, clip=clip, mean=0.3, std=0.5)
    batch = batch_of(layers, np.zeros((16, 16), np.uint8), np.ones((16, 16), bool))
    subvolume, _, _ = module.prepare(batch.to(torch.device("cpu")))
    expected = (np.clip(layers.astype(np.float64), *clip) / divisor - 0.3) / 0.5
    np.testing.assert_allclose(subvolume[1, 0].numpy(), expected, atol=1e-5)


def test_a_coarse_output_is_trained_on_averaged_labels():
    labels = np.zeros((16, 16), np.uint8)
    labels[:2, :4] = 255
    counted = np.ones((16, 16), bool)
    counted[4:8] = False
    module = module_of(MeanNet(scale=4))
    prepared = module.prepare(batch_of(np.full((2, 16, 16), 99, np.uint8), labels, counted))
    assert prepared[1].shape == prepared[2].shape == (2, 1, 4, 4)
    assert prepared[1][0, 0, 0].tolist() == [0.5, 0, 0, 0]
    assert prepared[2][0, 0, :, 0].tolist() == [1, 0, 1, 1]
    loss = module.training_step(*prepared)
    loss.backward()
    assert torch.isfinite(loss)
    assert module.net.weight.grad.abs() > 0


@pytest.mark.parametrize("kind", ["robust-mad", "percentile-range"])
def test_tiles_are_normalised_by_their_statistics_as_in_inference(kind):
    rng = np.random.default_rng(0)
    layers = rng.integers(0, 256, (2, 16, 16), dtype=np.uint8)
    labels, counted = np.zeros((16, 16), np.uint8), np.ones((16, 16), bool)
    rules = contract(normaliser={"kind": kind})
    found, _, _ = module_of(MeanNet(), normaliser={"kind": kind}).prepare(batch_of(layers, labels, counted))
    expected = normalise_tiles(torch.from_numpy(layers)[None], rules)[0]
    np.testing.assert_allclose(found[1, 0].numpy(), expected.numpy(), atol=1e-5)


def test_statistics_of_a_segment_go_with_its_samples():
    layers = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 2, 16, 16), dtype=np.uint8))
    rule = Normaliser(kind="robust-mad", statistics="segment")
    segments = {name: statistics_of(layers[place : place + 1] // (place + 1), rule) for place, name in enumerate("ab")}
    module = module_of(MeanNet(), normaliser=rule)
    module.statistics = SampleStatistics({"1": "b", "2": "a"}, segments)
    found = module.normalised(layers, ["1", "2"])
    for place, name in enumerate("ba"):
        expected = normalise_tiles(layers[place : place + 1], module.contract, segments[name])
        assert torch.equal(found[place], expected)


class Bright:
    """A reader whose layers are bright where there is ink, whatever the sample."""

    def __init__(self, edge: int = 64) -> None:
        rng = np.random.default_rng(0)
        self.labels = np.kron(rng.random((edge // 8, edge // 8)) > 0.6, np.ones((8, 8))).astype(np.uint8) * 255
        self.ignore = np.zeros_like(self.labels)
        self.ignore[:, 40:44] = 1

    def read_stored(self, sample: Sample) -> StoredArrays:
        where = sample.area.slices
        layers = np.stack([self.labels[where] // 2 + 60] * 4)
        return StoredArrays(layers, self.labels[where], self.ignore[where])


def samples_of(edge: int, step: int, size: int = 64) -> list[Sample]:
    places = range(0, size - edge + 1, step)
    boxes = [(y, x, y + edge, x + edge) for y in places for x in places]
    return [
        Sample(id=f"{n}", segment="a", box=box, split="validation", ink_share=0.1, papyrus_share=1)
        for n, box in enumerate(boxes)
    ]


def validated(net: InkModel, samples: list[Sample], **changes: Any) -> Any:
    validator = Validator(Bright(), samples, batch=3, stop=StopFlag(), **changes)  # type: ignore[arg-type]
    return validator.run(module_of(net), torch.device("cpu"), contextlib.nullcontext)


@pytest.mark.parametrize(("edge", "step"), [(16, 16), (16, 8), (32, 16), (64, 64), (24, 20)])
def test_a_perfect_network_scores_one_and_each_pixel_is_counted_once(edge, step):
    found = validated(MeanNet(), samples_of(edge, step))
    histogram = found.histograms["a"]
    assert histogram.ink.sum() + histogram.bare.sum() == 64 * 60
    result = scores(histogram)
    assert (result["f05"], result["auc"]) == (1, 1)
    assert found.loss < 0.2


def test_coarse_maps_are_enlarged_to_the_labels():
    found = validated(MeanNet(scale=4), samples_of(32, 16))
    assert found.histograms["a"].ink.sum() + found.histograms["a"].bare.sum() == 64 * 60
    assert scores(found.histograms["a"])["auc"] > 0.98


def test_a_stitched_pair_is_an_area_of_its_own():
    from inkbatch.data.datasets.index import DatasetPart

    part = DatasetPart(segment="a", box=(0, 0, 16, 16))
    pair = Sample(
        id="p", segment="a", box=(0, 0, 16, 32), split="validation", ink_share=0.1, papyrus_share=1, parts=(part, part)
    )
    found = validated(MeanNet(), [*samples_of(16, 16), pair])
    assert sorted(found.histograms) == ["a", "p"]


def test_validation_divides_by_the_number_of_tiles_where_the_contract_does():
    rules = {"stitching": Stitching(divide_by="count"), "window": "gaussian-cdf"}
    validator = Validator(Bright(), samples_of(16, 16), batch=3, stop=StopFlag())  # type: ignore[arg-type]
    found = []
    for changes in ({}, rules):
        seen = validator.run(module_of(MeanNet(weight=0.0), **changes), torch.device("cpu"), contextlib.nullcontext)
        counts = seen.histograms["a"].ink + seen.histograms["a"].bare  # bins are the float16 values from 0 to 1
        found.append(np.flatnonzero(counts).astype(np.uint16).view(np.float16))
    assert found[0].tolist() == [0.5]  # the network says so everywhere
    window = window_of(contract(window="gaussian-cdf")).full
    assert found[1].max() == np.float16(0.5 * window.max())  # seen by one tile alone, at its middle
    assert found[1].min() == np.float16(0.5 * window.min())


def test_validation_names_the_sample_that_broke_it():
    with pytest.raises(NonFiniteError, match="validation sample 0: the network returned NaN"):
        validated(MeanNet(weight=float("nan")), samples_of(16, 16))


def test_a_stop_ends_validation_and_leaves_training_mode():
    stop = StopFlag()
    stop.set("a test")
    validator = Validator(Bright(), samples_of(16, 16), batch=3, stop=stop)  # type: ignore[arg-type]
    module = module_of(MeanNet())
    with pytest.raises(Preempted):
        validator.run(module, torch.device("cpu"), contextlib.nullcontext)
    assert module.training


def test_areas_are_shared_out_to_devices(root):
    place = Location.parse(root) / "datasets" / "tiny"
    index = DatasetIndex.open(place)
    alone = {"add_up": lambda values: values}
    validator = Validator(SampleReader(index, place), index.samples, batch=4, stop=StopFlag(), **alone)
    module = InkModule(MeanNet(), contract(tile_px=32, stride_px=16), LossConfig(), OptimiserConfig())
    run = [
        replace(validator, rank=rank, devices=2).run(module, torch.device("cpu"), contextlib.nullcontext)
        for rank in range(2)
    ]
    whole = validator.run(module, torch.device("cpu"), contextlib.nullcontext)
    for number, name in enumerate(("s0", "s1")):
        np.testing.assert_array_equal(run[number].histograms[name].ink, whole.histograms[name].ink)
        assert run[1 - number].histograms[name].ink.sum() == 0
        assert list(run[number].pictures) == [name]
