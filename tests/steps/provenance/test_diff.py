"""diff names what differs between two runs, and measures their maps as plain numpy would."""

from __future__ import annotations

import json

import numpy as np
import pytest

from inkbatch.geometry import Box
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location
from inkbatch.run.job import RunContext
from inkbatch.steps.infer import job as infer
from inkbatch.steps.provenance import map_difference
from inkbatch.steps.provenance.diff import diff
from inkbatch.steps.provenance.map_difference import compare_maps
from inkbatch.testing.segments import identity_bundle


def stored_map(folder, values, unit_px=64) -> Multiscale:
    prediction = Prediction.create(Location.parse(folder), values.shape, unit_px, 8.0, {})
    for y in range(0, values.shape[0], unit_px):
        for x in range(0, values.shape[1], unit_px):
            part = values[y : y + unit_px, x : x + unit_px]
            prediction.write(Box(y, x, y + part.shape[0], x + part.shape[1]), part)
    return prediction.pyramid


@pytest.fixture
def pair(tmp_path):
    random = np.random.default_rng(3)
    one = random.random((150, 210), dtype=np.float32)
    other = np.clip(one + random.normal(0, 0.02, one.shape).astype(np.float32), 0, 1)
    one[:, 150:], other[:, 150:] = 0, 0
    other[:40] = one[:40]
    return stored_map(tmp_path / "a", one), stored_map(tmp_path / "b", other, 128)


@pytest.mark.parametrize("window_values", [64 * 64, 4 << 20])
def test_numbers_are_those_of_numpy_however_the_map_is_cut(pair, monkeypatch, window_values):
    monkeypatch.setattr(map_difference, "PIECE_VALUES", window_values)
    found = compare_maps(*pair)
    a, b = (map_.levels[0].read((slice(0, 150), slice(0, 210))).astype(np.float64) for map_ in pair)
    inside = (a != 0) | (b != 0)
    apart = np.abs(a - b)
    assert found.values == inside.sum()
    assert found.maximum == apart.max()
    assert found.maximum_at == np.unravel_index(apart.argmax(), apart.shape)
    assert found.mean == pytest.approx(apart[inside].mean(), rel=1e-9)
    assert found.share == pytest.approx((apart[inside] != 0).mean(), rel=1e-12)
    assert found.share_noticeable == pytest.approx((apart[inside] > 0.01).mean(), rel=1e-12)
    assert found.correlation == pytest.approx(np.corrcoef(a[inside], b[inside])[0, 1], rel=1e-9)


def test_equal_empty_and_constant_maps_are_said_to_be_so(tmp_path):
    zeros = stored_map(tmp_path / "zeros", np.zeros((70, 70), np.float32))
    ones = stored_map(tmp_path / "ones", np.ones((70, 70), np.float32))
    assert str(compare_maps(zeros, zeros)) == "both are 0 everywhere"
    assert str(compare_maps(ones, ones)) == "equal in all 4,900 values"
    assert compare_maps(zeros, ones).correlation is None


@pytest.fixture
def infer_tiny(tiny_segment, tmp_path):
    def run(name, bundle="bundle", **changes):
        values = {"segment": "tiny", "root": str(tiny_segment.root), "device": "cpu", "unit_px": 64}
        config = infer.InferConfig(**values, bundle=str(tmp_path / bundle), name=name, **changes)
        return str(infer.run(config, RunContext()).location)

    return run


def test_each_kind_of_difference_stands_in_its_group(infer_tiny, tmp_path):
    identity_bundle(tmp_path / "bundle")
    identity_bundle(tmp_path / "other", divisor=300.0)
    one, other = infer_tiny("a"), infer_tiny("b", "other", stride_px=8, override={"voxel_size_um": 8.0})
    rows = json.loads((Location.parse(other) / "run.json").read_bytes())
    rows |= {"code_sha256": "0" * 64, "device": "cuda", "device_name": "NVIDIA L4"}
    (Location.parse(other) / "run.json").write_json(rows)
    found = diff(one, other)
    keys = {name: {key for key, _, _ in rows} for name, rows in found.groups.items()}
    assert {"config.name", "config.override.stride_px", "config.override.voxel_size_um"} <= keys["config"]
    assert {"config.contract.divisor", "config.contract.stride_px"} <= keys["bundle"]
    assert keys["code"] == {"code_sha256"}
    assert keys["device"] == {"device", "device_name"}
    assert keys["data"] == keys["job"] == set()
    assert "bundle" in keys["asked"]
    assert found.maps is not None
    assert found.maps.correlation is not None
    text = str(found)
    assert "config.contract.divisor: A 255.0, B 300.0" in text
    assert 'device_name: A nothing, B "NVIDIA L4"' in text


def test_another_surface_is_a_difference_of_data(infer_tiny, tmp_path):
    identity_bundle(tmp_path / "bundle")
    one, other = infer_tiny("a"), infer_tiny("a2")
    document = (Location.parse(other) / "manifest.json").read_json()
    document["inputs"]["surface"] = "f" * 64
    (Location.parse(other) / "manifest.json").write_json(document)
    assert [key for key, _, _ in diff(one, other, maps=False).groups["data"]] == ["inputs.surface"]


def test_maps_that_cannot_be_compared_say_why(infer_tiny, tiny_segment, tmp_path):
    identity_bundle(tmp_path / "bundle")
    one = infer_tiny("a")
    assert "B is (5, 150, 210)" in str(diff(one, str(tiny_segment.folder)))
    assert str(diff(str(tiny_segment.folder), str(tiny_segment.folder))).endswith("equal in all 126,000 values")
    (Location.parse(one) / "complete.json").delete()
    assert diff(one, one).maps_note == "not compared: A is incomplete"
