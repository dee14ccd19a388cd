"""inkbatch from Python: equal to the jobs to the bit, refused like the jobs, and imported without torch."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import inkbatch
from inkbatch.errors import ConfigError, DataError, MismatchError
from inkbatch.testing.segments import identity_bundle

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    inkbatch.prepare("demo", root=str(folder))
    inkbatch.infer("demo", bundle="demo", root=str(folder), device="cpu")
    return str(folder)


@pytest.fixture(scope="module")
def network():
    return inkbatch.Predictor("demo", device="cpu")


def test_importing_it_brings_neither_torch_nor_pydantic():
    script = "import sys, inkbatch; print([name for name in ('torch', 'pydantic', 'numpy') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_public_name_is_there_and_documented():
    for name in inkbatch.__all__:
        assert name == "__version__" or getattr(inkbatch, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = inkbatch.nothing


def test_the_predictor_gives_the_stored_map(root, network):
    surface, ink = inkbatch.open_surface("demo", root=root), inkbatch.open_prediction("demo", root=root)
    found = network.predict(
        np.asarray(surface.layers), voxel_size_um=surface.voxel_size_um, depth_order="forward", mask=surface.mask[:, :]
    )
    np.testing.assert_array_equal(found.astype(np.float16).astype(np.float32), ink[:, :])


def test_an_edited_bundle_is_refused(tmp_path):
    identity_bundle(tmp_path)
    document = tmp_path / "bundle.json"
    document.write_text(document.read_text().replace('"divisor": 255.0', '"divisor": 200.0'))
    with pytest.raises(MismatchError, match=r"was edited since its weights were stored: divisor \(now 200\.0\)"):
        inkbatch.Predictor(str(tmp_path), device="cpu")


def test_layers_given_in_reversed_order_are_turned(root, network):
    surface = inkbatch.open_surface("demo", root=root)
    part = surface.layers[:, :128, :128]
    stated = {"voxel_size_um": surface.voxel_size_um}
    forward = network.predict(part, depth_order="forward", **stated)
    np.testing.assert_array_equal(network.predict(part[::-1], depth_order="reversed", **stated), forward)


def test_stored_arrays_read_what_is_indexed(root):
    layers = inkbatch.open_surface("demo", root=root).layers
    whole = np.asarray(layers)
    assert (layers.ndim, len(layers), layers.shape, layers.dtype) == (3, whole.shape[0], whole.shape, whole.dtype)
    np.testing.assert_array_equal(layers[2], whole[2])
    np.testing.assert_array_equal(layers[-1, 5:9, 7], whole[-1, 5:9, 7])
    np.testing.assert_array_equal(layers[1:3, -4:], whole[1:3, -4:])
    assert layers[3:3].shape == (0, *whole.shape[1:])
    with pytest.raises(IndexError, match="step 1"):
        layers[::2]
    with pytest.raises(IndexError, match="at most 3"):
        layers[0, 0, 0, 0]
    with pytest.raises(IndexError):
        layers[whole.shape[0]]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"voxel_size_um": 3.24}, MismatchError, "voxel_size_um"),
        ({"layers": np.zeros((5, 64, 64), np.uint8)}, MismatchError, "layers, got 5"),
        ({"layers": np.zeros((13, 64, 64), np.uint16)}, MismatchError, "dtype"),
        ({"layers": np.zeros((64, 64), np.uint8)}, DataError, "array of 2 axes"),
        ({"mask": np.ones((3, 3), bool)}, DataError, "expected a mask of"),
    ],
)
def test_what_does_not_match_is_refused(network, change, error, message):
    count = network.bundle.contract.layers.count
    given = {"layers": np.zeros((count, 64, 64), np.uint8), "voxel_size_um": 7.91, "depth_order": "forward", **change}
    with pytest.raises(error, match=message):
        network.predict(given.pop("layers"), **given)


def test_settings_are_those_of_the_command_line(root):
    with pytest.raises(ConfigError, match="unknown key 'strid_px'"):
        inkbatch.infer("demo", bundle="demo", root=root, strid_px=3)


def test_the_page_and_the_example_run(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0].replace('root="root"', f"root={root!r}")
    names: dict[str, object] = {}
    exec(code, names)
    assert np.shape(names["part"]) == (256, 256)
    example = runpy.run_path(str(REPOSITORY / "examples" / "read_ink.py"))
    example["main"](root)
    assert "mean probability" in capsys.readouterr().out
