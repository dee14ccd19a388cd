"""Maps of published rule sets by the real jobs: prepare, infer in shards, export; and normalisers in every job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from inkbatch.errors import DataError
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location
from inkbatch.models import InkModel, ModelConfig, base, build_model
from inkbatch.models.bundle import Bundle, BundleDocument, Contract, LayerRule
from inkbatch.models.rules import Normaliser, Stitching
from inkbatch.predict.normalise import normalise_tiles
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import RunContext
from inkbatch.steps.export import picture as export
from inkbatch.steps.export.picture import ExportConfig
from inkbatch.steps.infer import job as infer
from inkbatch.steps.prepare import job as prepare
from inkbatch.steps.probe import job as probe
from inkbatch.testing.golden import make_input
from inkbatch.testing.segments import identity_bundle, random_papyrus, write_layers

STITCH = np.load(Path(__file__).parent.parent.parent / "predict" / "golden" / "stitch-rules-2026.npz")
SEED, TILE = int(STITCH["v8_seed"]), 64
V8 = Stitching(divide_by="count", last_tile="none", tiles="whole", closing_px=7, outside="keep")
RULES: dict[str, dict[str, Any]] = {
    "v8": {"stride_px": 21, "window": "gaussian-cdf", "stitching": V8, "export_rounding": "truncate"},
    "hecate": {"stride_px": 32, "window": "hann-symmetric", "stitching": Stitching(empty_tiles="count")},
    "villa": {
        "stride_px": 32,
        "window": "hann-symmetric",
        "stitching": Stitching(outside="keep"),
        "export_rounding": "truncate",
    },
}
SUPPORT = {"v8": "v8_any", "hecate": "stitch_any", "villa": "stitch_any"}
MAPS = {"v8": "v8_map_sub", "hecate": "hecate_prob_sub", "villa": "villa_prob_sub"}
HALF_STEP = 2.0**-11  # a map is stored as float16


class PublishedTiles(InkModel):
    """The made-up network of the golden values: two planes tell row and column of its tile, it answers with noise."""

    architecture, config_class = "published-tiles", ModelConfig

    @property
    def output_scale(self) -> int:
        return 1

    def forward(self, subvolume):
        steps = torch.arange(TILE, dtype=torch.float32)
        y0 = (subvolume[:, 0, 0] - 1 - steps[:, None]).amax((-2, -1)).clamp(min=0).long()
        x0 = (subvolume[:, 0, 1] - 1 - steps).amax((-2, -1)).clamp(min=0).long()
        origins = zip(y0.tolist(), x0.tolist(), strict=True)
        return torch.stack([make_input(SEED + 1000 * y + x, (1, TILE, TILE)) for y, x in origins])


def stored_map(folder: Location) -> np.ndarray:
    array = Prediction.open(folder).pyramid.levels[0]
    return array.read([slice(0, size) for size in array.layout.shape]).astype(np.float32)


def saved(folder: Path, architecture: str, layers: int, **contract: Any) -> Path:
    rules = Contract(layers=LayerRule(count=layers), voxel_size_um=8.0, activation="none", **contract)
    config = {"depth_layers": layers}
    document = BundleDocument(name=architecture, architecture=architecture, model=config, contract=rules)
    Bundle.save(Location.parse(folder), build_model(architecture, config), document)
    return folder


@pytest.mark.parametrize("rules", RULES)
def test_a_map_from_layers_equals_the_published_one(rules, tmp_path, prepare_config, monkeypatch):
    monkeypatch.setitem(base.NETWORKS, "published-tiles", PublishedTiles)
    support = STITCH[SUPPORT[rules]] > 0
    rows, columns = np.indices(support.shape)
    layers = np.stack([rows + 1, columns + 1]).astype(np.uint8) * support
    prepare.run(prepare_config(write_layers(tmp_path / "layers", layers)), RunContext())
    bundle = saved(tmp_path / "b", "published-tiles", 2, tile_px=TILE, divisor=1, **RULES[rules])
    values = {"segment": "tiny", "bundle": str(bundle), "root": str(tmp_path / "root"), "device": "cpu"}
    whole = infer.run(infer.InferConfig(**values, name="whole", unit_px=256), RunContext())
    for shard in range(2):
        context = RunContext(shard=ShardSpec(shard, 2))
        cut = infer.run(infer.InferConfig(**values, name="cut", unit_px=32), context)
    found = stored_map(whole.location)
    np.testing.assert_array_equal(stored_map(cut.location), found)
    np.testing.assert_allclose(found[::7, ::7], STITCH[MAPS[rules]], atol=HALF_STEP)
    if f"{rules}_u8_sub" in STITCH:
        place = str(tmp_path / "map.png")
        export.run(ExportConfig(segment="tiny", name="whole", root=values["root"], to=place))
        picture = cv2.imread(place, cv2.IMREAD_UNCHANGED)[::7, ::7].astype(int)
        assert np.abs(picture - STITCH[f"{rules}_u8_sub"].astype(int)).max() <= 1
        exact = found[::7, ::7].astype(np.float64) * 255
        expected = np.floor(exact) if RULES[rules].get("export_rounding") else np.rint(exact)
        np.testing.assert_array_equal(picture, expected)


def test_a_surface_that_no_tile_fits_is_refused(tiny_segment, tmp_path):
    rules = {"last_tile": "none"}
    identity_bundle(tmp_path / "b", tile_px=224, stride_px=32, stitching=rules)
    config = infer.InferConfig(segment="tiny", bundle=str(tmp_path / "b"), root=str(tiny_segment.root), device="cpu")
    with pytest.raises(DataError, match=r"no tile of 224 px fits its 150 x 210 px"):
        infer.run(config, RunContext())


class MiddleOf(InkModel):
    """Hands back the logistic function of the middle layer that it is fed: shows what normalisers do."""

    architecture, config_class = "middle-of", ModelConfig

    @property
    def output_scale(self) -> int:
        return 1

    def forward(self, subvolume):
        return subvolume[:, :, 1].sigmoid()


@pytest.mark.parametrize("kind", ["robust-mad", "percentile-range"])
@pytest.mark.parametrize("statistics", ["tile", "segment"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_infer_and_probe_feed_statistics_of_the_tile_or_the_segment(
    kind, statistics, dtype, tmp_path, prepare_config, monkeypatch
):
    monkeypatch.setitem(base.NETWORKS, "middle-of", MiddleOf)
    layers = random_papyrus((3, 70, 90), dtype)
    layers[:, :, :20] //= 3
    source = write_layers(tmp_path / "layers", layers)
    prepare.run(prepare_config(source, intensity="keep"), RunContext())
    rule = Normaliser(kind=kind, statistics=statistics)
    bundle = saved(tmp_path / "b", "middle-of", 3, tile_px=16, stride_px=16, dtype=dtype, normaliser=rule)
    values = {"segment": "tiny", "bundle": str(bundle), "root": str(tmp_path / "root"), "device": "cpu"}
    found = stored_map(infer.run(infer.InferConfig(**values), RunContext()).location)
    whole = Contract(layers=LayerRule(count=3), voxel_size_um=8, tile_px=16, stride_px=16, normaliser={"kind": kind})
    part = layers[:, 16:32, 16:32] if statistics == "tile" else layers
    fed = normalise_tiles(torch.from_numpy(part.copy())[None], whole)[0, 1].sigmoid().numpy()
    fed = fed if statistics == "tile" else fed[16:32, 16:32]
    np.testing.assert_allclose(found[16:32, 16:32], fed, atol=HALF_STEP)
    at = {"at": ((0, 0),), "window_px": 32, "step": 1}
    assert probe.run(probe.ProbeConfig(**values, **at), RunContext()).complete
