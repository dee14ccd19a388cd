"""sweep: what NumPy makes of the single maps, to the bit; refusals by name; the viewer shows it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from inkbatch.data.maps.sweep import (
    BEST,
    BEST_DEPTH,
    BLOCK_PX,
    DEPTHS,
    DEVIATION,
    MAXIMUM,
    MEAN,
    Z,
    stretch_of,
)
from inkbatch.errors import ConfigError, LayerRangeError
from inkbatch.geometry import Box
from inkbatch.io.prediction import Prediction
from inkbatch.run.job import RunContext
from inkbatch.steps.infer import job as infer
from inkbatch.steps.sweep.job import run
from inkbatch.steps.sweep.page import one_network
from inkbatch.steps.sweep.plan import make_plan
from inkbatch.testing.swept import (
    BUNDLES,
    COUNT,
    DEPTHS_ASKED,
    FIRST,
    SERIES,
    SHAPE,
    config_for,
    opened,
    prepared,
    read,
)
from inkbatch.view.scene import Scene
from inkbatch.view.viewer import Viewer


@pytest.fixture(scope="module")
def single_maps(swept) -> dict[tuple[str, str], np.ndarray]:
    """The maps of `infer`, one by one, of a surface that holds every window of a series side by side."""
    orders = [series.order(COUNT, segment="page", seed=0) for series in SERIES]
    windows = [swept.layers[FIRST + depth :][order] for order in orders for depth in DEPTHS_ASKED]
    prepared(swept.folder, "windows", np.concatenate(windows))
    groups = tuple((COUNT * place, COUNT * (place + 1)) for place in range(len(windows)))
    found = {}
    for name, bundle in zip(BUNDLES, ("identity", "network"), strict=True):
        asked = {"segment": "windows", "root": swept.root, "bundle": str(swept.folder / bundle), "device": "cpu"}
        asked |= {"layer_groups": groups, "store_windows": True, "unit_px": 128}
        report = infer.run(infer.InferConfig(**asked), RunContext())
        maps = [Prediction.open(one).read(Box(0, 0, *SHAPE[1:])) for one in (report.location, *report.beside)]
        for place, series in enumerate(SERIES):
            found[name, series.name] = np.stack(maps[place * len(DEPTHS_ASKED) :][: len(DEPTHS_ASKED)])
    return found


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("series", [one.name for one in SERIES])
def test_statistics_are_those_of_the_maps_that_infer_stores(swept, single_maps, bundle, series):
    maps = single_maps[bundle, series].astype(np.float32)
    stored = {name: read(swept.sweep.bundle_map(bundle, series, name)) for name in (MEAN, DEVIATION, BEST, BEST_DEPTH)}
    steps, number = maps - maps[0], np.float32(len(maps))
    total, squares = np.zeros(SHAPE[1:], np.float32), np.zeros(SHAPE[1:], np.float32)
    for step in steps[1:]:
        total += step
        squares += step * step
    shift = total / number
    np.testing.assert_array_equal(stored[MEAN], (maps[0] + shift).astype(np.float16))
    spread = np.sqrt(np.maximum(squares / number - shift * shift, 0)).astype(np.float16)
    np.testing.assert_array_equal(stored[DEVIATION], spread)
    np.testing.assert_array_equal(stored[BEST], maps.max(axis=0).astype(np.float16))
    count = read(swept.sweep.count(bundle))
    np.testing.assert_array_equal(stored[BEST_DEPTH], np.where(count > 0, 1 + maps.argmax(axis=0), 0))
    exact = maps.astype(np.float64)
    np.testing.assert_allclose(stored[MEAN], exact.mean(axis=0), atol=2.0**-12)
    np.testing.assert_allclose(stored[DEVIATION], exact.std(axis=0), atol=2.0**-10)
    kept = read(swept.sweep.bundle_map(bundle, series, DEPTHS))
    np.testing.assert_array_equal(kept, np.rint(maps * 255).astype(np.uint8))


def test_pixels_on_papyrus_count_every_depth(swept):
    papyrus = swept.layers.any(axis=0)
    for bundle in BUNDLES:
        np.testing.assert_array_equal(read(swept.sweep.count(bundle)), papyrus * len(DEPTHS_ASKED))


@pytest.mark.parametrize("series", [one.name for one in SERIES])
def test_z_values_are_the_mean_over_depths_and_bundles_by_one_stretch_per_bundle(swept, single_maps, series):
    papyrus, z, loudest = swept.layers.any(axis=0), [], []
    for bundle in BUNDLES:
        real = np.stack([single_maps[bundle, name] for name in ("forward", "reversed")]).astype(np.float64)
        mean, deviation = real[..., papyrus].mean(), real[..., papyrus].std()
        stretch = swept.sweep.stretch(bundle)
        assert stretch.values == real[..., papyrus].size
        np.testing.assert_allclose((stretch.mean, stretch.deviation), (mean, deviation), rtol=1e-9)
        stored = read(swept.sweep.bundle_map(bundle, series, MEAN)).astype(np.float32)
        z.append((stored - np.float32(stretch.mean)) / np.float32(stretch.deviation))
        exact = ((single_maps[bundle, series] - mean) / deviation).mean(axis=0)
        np.testing.assert_allclose(z[-1][papyrus], exact[papyrus], atol=0.01)
        loudest.append((single_maps[bundle, series].max(axis=0) - mean) / deviation)
    wanted = np.where(papyrus, (z[0] + z[1]) / np.float32(2), 0).astype(np.float16)
    np.testing.assert_array_equal(read(swept.sweep.map(series, Z)), wanted)
    bests = [read(swept.sweep.bundle_map(bundle, series, BEST)) for bundle in BUNDLES]
    np.testing.assert_array_equal(read(swept.sweep.map(series, MAXIMUM)), np.maximum(*bests))
    places = [read(swept.sweep.bundle_map(bundle, series, BEST_DEPTH)) for bundle in BUNDLES]
    sure = papyrus & (np.abs(loudest[1] - loudest[0]) > 0.01)
    best = read(swept.sweep.map(series, BEST_DEPTH))
    np.testing.assert_array_equal(best[sure], np.where(loudest[1] > loudest[0], places[1], places[0])[sure])
    means = [read(swept.sweep.bundle_map(bundle, series, MEAN)).astype(np.float32) for bundle in BUNDLES]
    np.testing.assert_array_equal(
        read(swept.sweep.map(series, MEAN)), ((means[0] + means[1]) / np.float32(2)).astype(np.float16)
    )


def test_profiles_of_blocks_are_means_at_every_depth(swept, single_maps):
    papyrus = swept.layers.any(axis=0)
    for bundle, series in (("tiny-identity", "forward"), ("tiny-smp", "repeated")):
        found, pixels = swept.sweep.block_profiles(bundle, series)
        assert found.shape == (3, 2, 2)
        assert pixels.sum() == papyrus.sum()
        for y in range(2):
            for x in range(2):
                where = np.s_[y * BLOCK_PX : (y + 1) * BLOCK_PX, x * BLOCK_PX : (x + 1) * BLOCK_PX]
                inside = papyrus[where]
                block = single_maps[bundle, series][:, *where][:, inside].astype(np.float64)
                wanted = block.mean(axis=1) if inside.any() else np.zeros(3)
                np.testing.assert_allclose(found[:, y, x], wanted, atol=1e-12)
        row = swept.sweep.document["bundles"][BUNDLES.index(bundle)]["series"][series]
        whole = single_maps[bundle, series][:, papyrus].astype(np.float64)
        np.testing.assert_allclose(row["profile"], whole.mean(axis=1), atol=1e-12)
        assert swept.sweep.histogram(bundle, series).sum() == whole.size


def test_agreement_is_the_correlation_of_the_bundles_means(swept):
    papyrus = swept.layers.any(axis=0)
    for series in swept.sweep.series:
        means = [read(swept.sweep.bundle_map(one, series, MEAN))[papyrus].astype(np.float64) for one in BUNDLES]
        np.testing.assert_allclose(swept.sweep.document["agreement"][series], np.corrcoef(means), atol=2e-3)


def test_two_phases_are_all_tiles_of_both_grids_in_one_weighted_mean(swept):
    """A plain reading: every tile by itself, added up in float64."""
    import torch

    from inkbatch.models.bundle import Bundle, bundle_location
    from inkbatch.predict.normalise import normalise
    from inkbatch.predict.windows import window_of

    run(config_for(swept.folder, phases=2, name="phases", directions="forward", nulls=()), RunContext())
    stored = read(opened(swept.folder, "phases").bundle_map("tiny-smp", "forward", MEAN))
    bundle = Bundle.open(bundle_location(str(swept.folder / "network")))
    contract, model = bundle.contract, bundle.build()
    papyrus, weights = swept.layers.any(axis=0), window_of(contract).full.astype(np.float64)
    tile, stride, maps = contract.tile_px, contract.stride_px, []
    for depth in DEPTHS_ASKED:
        total, divisor = np.zeros(SHAPE[1:]), np.zeros(SHAPE[1:])
        for shift in (0, stride // 2):
            rows, columns = (sorted({*range(shift, length - tile + 1, stride), length - tile}) for length in SHAPE[1:])
            for y in rows:
                for x in columns:
                    where = np.s_[y : y + tile, x : x + tile]
                    if papyrus[where].any():
                        layers = torch.from_numpy(swept.layers[FIRST + depth : FIRST + depth + COUNT, *where].copy())
                        with torch.inference_mode():
                            found = model(normalise(layers, contract)[None, None]).sigmoid()
                        found = torch.nn.functional.interpolate(found, size=(tile, tile), mode="bilinear")
                        total[where] += weights * found[0, 0].numpy()
                        divisor[where] += weights
        maps.append(np.where(papyrus, total / np.maximum(divisor, 1e-30), 0))
    np.testing.assert_allclose(stored, np.mean(maps, axis=0), atol=1e-3)
    plain = read(swept.sweep.bundle_map("tiny-smp", "forward", MEAN))
    assert np.abs(stored.astype(np.float32) - plain)[papyrus].max() > 5e-3  # another phase says something else


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"depths": "-3:2"}, LayerRangeError, r"expected depths inside -2:3 .* got -3:2; pass --depths=-2:3"),
        ({"depths": "0:5"}, LayerRangeError, "got 0:5"),
        ({"depths": "3:1"}, ConfigError, "expected START:STOP"),
        ({"control": [40, 1000]}, ConfigError, "control.1: expected 255 or less, got 1000"),
        ({"control": [0]}, ConfigError, "plants no ink"),
        ({"control": [40, 40.0000001]}, ConfigError, "expected different contrasts"),
        ({"control": [40, -40]}, ConfigError, "all brighter or all darker"),
        ({"window_mm": float("inf")}, ConfigError, "window_mm: expected a finite number"),
        ({"depths": "0:300"}, ConfigError, "at most 255 depths"),
        ({"phases": 6}, ConfigError, "at most the stride's 5"),
        ({"unit_px": 32}, ConfigError, "power of two of at least 64"),
        ({"nulls": ["mirrored"]}, ConfigError, "shuffled"),
        ({"blank": [[0, 0, 71, 10]]}, ConfigError, r"blank 0, 0, 71, 10 .* leaves the 70 × 100 px .* of segment page"),
        ({"blank": [[0, 0, 9, 9], [-5, 0, 10, 10]]}, ConfigError, "blank -5, 0, 10, 10"),
        ({"blank": [[5, 5, 5, 9]]}, ConfigError, "is empty"),
        ({"directions": "forward", "blank_side": "reversed"}, ConfigError, "expected a direction that is swept, forw"),
    ],
)
def test_what_cannot_be_swept_is_refused_in_words(swept, changes, error, words):
    with pytest.raises(error, match=words):
        make_plan(config_for(swept.folder, **changes))


def test_bundles_of_one_name_need_names(swept):
    twice = [str(swept.folder / "identity")] * 2
    with pytest.raises(ConfigError, match="two of them are named tiny-identity"):
        make_plan(config_for(swept.folder, bundles=twice))
    named = [{"bundle": twice[0], "name": name} for name in ("a", "b")]
    assert [member.name for member in make_plan(config_for(swept.folder, bundles=named)).members] == ["a", "b"]
    with pytest.raises(ConfigError, match="done is the name of another folder"):
        make_plan(config_for(swept.folder, bundles=[{"bundle": twice[0], "name": "done"}]))


def test_bundles_with_the_same_weights_are_one_network_and_the_sweep_says_so(swept):
    twice = [{"bundle": str(swept.folder / "identity"), "name": name} for name in ("a", "b")]
    members = make_plan(config_for(swept.folder, bundles=twice)).members
    assert list(one_network([(one.name, one.bundle.document.weights_sha256) for one in members])) == [
        "a, b have the same weights: they are one network, and that they agree tells nothing."
    ]
    assert not list(one_network([("a", "1"), ("b", "2")]))


def test_a_stretch_is_exact_whatever_the_order():
    values = np.random.default_rng(0).random(10_000).astype(np.float16)
    histogram = np.bincount(values.view(np.uint16), minlength=15361)
    found = stretch_of(histogram)
    wanted = values.astype(np.float64)
    np.testing.assert_allclose((found.mean, found.deviation), (wanted.mean(), wanted.std()), rtol=1e-12)
    assert found.values == 10_000
    assert stretch_of(np.bincount([0x3800], minlength=15361)).deviation == 0
    assert stretch_of(np.zeros(15361, np.int64)).values == 0


def test_sweep_json_holds_what_was_asked(swept):
    document = json.loads((Path(swept.report.location.path) / "sweep.json").read_text())
    assert document["depths"] == list(DEPTHS_ASKED)
    assert document["series"][2] == {"name": "forward-shuffled", "direction": "forward", "null": "shuffled"}


def test_the_viewer_shows_z_values_and_best_depths_as_maps_of_the_segment(swept):
    viewer = Viewer(Scene(["page"], swept.root))
    (group,) = json.loads(viewer.scene().body)["groups"]
    names = [one["name"] for one in group["maps"] if one["name"].startswith("sweep-")]
    ways, kinds = ("forward", "reversed"), ("z", "best-depth", "shuffled-z")
    assert {f"sweep-{way}-{kind}" for way in ways for kind in kinds} | {"sweep-repeated-z"} == set(names)
    scales = {one["name"]: one["scale"] for one in group["maps"]}
    assert scales["sweep-forward-shuffled-z"] == {"low": -1.0, "high": 4.0, "unit": "z"}
    assert scales["sweep-forward-best-depth"] == {"low": -1, "high": 1, "unit": "layers"}
    stored = read(swept.sweep.map("forward", Z)), read(swept.sweep.map("forward", BEST_DEPTH))
    assert viewer.tile(0, "map", 0, 0, 0, "maps=sweep-forward-z").kind == "image/png"
    for y, x in ((10, 12), (60, 70)):
        asked = f"y={y}&x={x}&maps=sweep-forward-z,sweep-forward-best-depth"
        found = json.loads(viewer.about("value", 0, asked).body)["maps"]
        assert found["sweep-forward-z"] == pytest.approx(float(stored[0][y, x]), abs=0.006)
        assert found["sweep-forward-best-depth"] == DEPTHS_ASKED[stored[1][y, x] - 1]
    outside = json.loads(viewer.about("value", 0, "y=10&x=95&maps=sweep-forward-z,sweep-forward-best-depth").body)
    assert set(outside["maps"].values()) == {None}
