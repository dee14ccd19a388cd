"""Training, validation, infer, infer-pictures, probe and rerun feed a network the same values, by every normaliser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from inkbatch.config import digest
from inkbatch.data.datasets.index import DatasetIndex, DatasetSegment, Sample, SurfaceContract
from inkbatch.errors import ConfigError
from inkbatch.io.pictures.png import png_bytes
from inkbatch.io.store.location import Location
from inkbatch.models import base
from inkbatch.models.base import InkModel, ModelConfig
from inkbatch.models.bundle import Bundle
from inkbatch.predict.reference import made_up_tile, network_input
from inkbatch.run.job import RunContext
from inkbatch.steps import infer_pictures
from inkbatch.steps.infer import job as infer
from inkbatch.steps.probe import job as probe
from inkbatch.steps.provenance.rerun import rerun
from inkbatch.steps.train.job import TrainConfig, run
from inkbatch.testing.training import TILE_PX, planted_segment, tiny_dataset, tiny_run

PLAIN = {"flip": 0.0, "turn": 0.0}  # no augmentation: a tile is fed as it is stored
CASES = {
    "fixed": {"clip": (10, 200), "mean": 0.3, "std": 0.2},
    "multiply": {"scaling": "multiply"},
    "mad-tile": {"normaliser": {"kind": "robust-mad"}},
    "range-tile": {"normaliser": {"kind": "percentile-range", "percentiles": (0, 100), "counts": "nonzero"}},
    "mad-segment": {"normaliser": {"kind": "robust-mad", "statistics": "segment"}},
    "range-segment": {"normaliser": {"kind": "percentile-range", "statistics": "segment"}},
    "network": {"normaliser": {"kind": "network"}},
}
Fed = Callable[..., set[bytes]]


class Spy(InkModel):
    """The smallest network that can be trained; `seen` are the tiles that it was fed, and in which mode."""

    architecture, config_class = "spy", ModelConfig
    seen: ClassVar[list[tuple[bool, bytes]]] = []
    norms = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.mix = nn.Conv2d(config.depth_layers, 1, 1)

    @property
    def output_scale(self) -> int:
        return 1

    @property
    def normalises_input(self) -> bool:
        return self.norms

    def forward(self, subvolume):
        if type(subvolume) is torch.Tensor:  # no stand-in whose operations are counted
            self.seen += [(self.training, tile.numpy().tobytes()) for tile in subvolume.float()]
        return self.mix(subvolume[:, 0])


@pytest.fixture
def fed(monkeypatch) -> Fed:
    """Do something; returns the tiles that the spy was fed: in training, or else."""
    monkeypatch.setitem(base.NETWORKS, "spy", Spy)

    def during(action: Callable[[], object], training: bool = False) -> set[bytes]:
        Spy.seen = []
        action()
        return {tile for is_training, tile in Spy.seen if is_training == training}

    return during


@pytest.fixture(params=[("fixed", "multiply", "network"), ("mad-tile", "range-tile"), ("mad-segment", "range-segment")])
def names(request) -> tuple[str, ...]:
    """Rules that share one dataset, whose making takes longest."""
    return request.param


def test_a_tile_of_a_segment_is_fed_alike(names, fed, tmp_path):
    root = tmp_path / "root"
    tiny_dataset(root)
    for name in names:
        Spy.norms = name == "network"
        require_alike(name, root, fed)


def require_alike(name: str, root: Path, fed: Fed) -> None:
    settings = {"model": {"architecture": "spy"}, "augment": PLAIN, "input": CASES[name], "epochs": 1, "run": name}
    config = TrainConfig.checked(tiny_run(root, **settings), "test")
    trained = fed(lambda: run(config, RunContext()), training=True)
    validated = {tile for is_training, tile in Spy.seen if not is_training}
    asked = {"bundle": str(root / "runs" / name / "bundle"), "root": str(root), "device": "cpu", "name": name}
    reference = {made_up(root, name)}

    def inferred(segment: str) -> set[bytes]:
        return fed(lambda: infer.run(infer.InferConfig(segment=segment, **asked), RunContext())) - reference

    of_training = inferred("s0")
    assert trained
    assert trained <= of_training, name
    assert len(validated) > 10
    assert validated - reference <= inferred("s1"), name
    looked_at = probe.ProbeConfig(segment="s0", **asked, at=((0, 0),), window_px=48, step=1)
    probed = fed(lambda: probe.run(looked_at, RunContext()))
    assert len(probed & of_training) >= 4, name  # the stored order among others
    manifest = root / "predictions" / "s0" / name / "manifest.json"
    repeated = fed(lambda: rerun(str(manifest), str(root.parent / f"again-{name}"), RunContext()))
    assert repeated - reference == of_training, name


def made_up(root: Path, name: str) -> bytes:
    """The reference tile of a run's bundle, as the network is fed it once in a process."""
    contract = Bundle.open(Location.parse(root / "runs" / name / "bundle")).contract
    return network_input(made_up_tile(contract, TILE_PX), contract, torch.device("cpu")).numpy().tobytes()


def pictures_dataset(root: Path) -> None:
    """A dataset of two pictures: ``a`` trains, ``b`` validates; four samples each."""
    folder = root / "pictures"
    folder.mkdir(parents=True)
    segments, samples = [], []
    for number, name in enumerate("ab"):
        (layer,), labels = planted_segment(number, (1, 2 * TILE_PX, 2 * TILE_PX))
        (folder / f"{name}.png").write_bytes(png_bytes(layer))
        (folder / f"{name}_labels.png").write_bytes(png_bytes(labels))
        place = {"surface": f"pictures/{name}.png", "ink_labels": f"pictures/{name}_labels.png", "kind": "grey-image"}
        shape = {"source_layers": (0, 1), "shape_yx": layer.shape, "digest": digest([name])}
        segments.append(DatasetSegment(id=name, **place, **shape))
        for y in (0, TILE_PX):
            for x in (0, TILE_PX):
                box = (y, x, y + TILE_PX, x + TILE_PX)
                row = {"split": "validation" if number else "train", "ink_share": 0.1, "papyrus_share": 1.0}
                samples.append(Sample(id=f"{name}-{y}-{x}", segment=name, box=box, **row))
    contract = SurfaceContract(dtype="uint8", intensity=("keep",), voxel_size_um=None, layer_count=1)
    DatasetIndex(
        name="tiny", sample_px=TILE_PX, contract=contract, segments=tuple(segments), samples=tuple(samples)
    ).save(Location.parse(root / "datasets" / "tiny"))


@pytest.mark.parametrize("name", ["mad-tile", "mad-segment", "range-segment"])
def test_a_tile_of_a_picture_is_fed_alike(name, fed, tmp_path):
    root = tmp_path / "root"
    pictures_dataset(root)
    settings = {"model": {"architecture": "spy"}, "augment": PLAIN, "input": CASES[name], "epochs": 1, "run": name}
    config = TrainConfig.checked(tiny_run(root, **settings), "test")
    trained = fed(lambda: run(config, RunContext()), training=True)
    validated = {tile for is_training, tile in Spy.seen if not is_training}
    asked = {"dataset": "tiny", "root": str(root), "device": "cpu", "bundle": str(root / "runs" / name / "bundle")}
    inferred = fed(lambda: infer_pictures.run(infer_pictures.InferPicturesConfig(**asked, split="all"), RunContext()))
    assert len(trained) == 4
    assert trained <= inferred
    assert len((validated & inferred) - {made_up(root, name)}) == 4


def test_a_stitched_pair_has_no_statistics_of_a_segment(tmp_path, fed):
    root = tmp_path / "root"
    tiny_dataset(root)
    place = Location.parse(root / "datasets" / "tiny")
    index = DatasetIndex.open(place)
    first = index.samples[0]
    halves = ({"segment": "s0", "box": first.box}, {"segment": "s1", "box": first.box})
    pair = Sample(**{**first.model_dump(), "id": "pair", "box": (0, 0, TILE_PX, 2 * TILE_PX), "parts": halves})
    index.model_copy(update={"samples": (pair, *index.samples[1:])}).save(place)
    values = tiny_run(root, model={"architecture": "spy"}, input=CASES["mad-segment"])
    with pytest.raises(ConfigError, match="sample pair: expected a sample of one segment"):
        run(TrainConfig.checked(values, "test"), RunContext())
