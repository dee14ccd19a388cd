"""Layers are what the field's renderer makes of the same mesh and volume."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from inkbatch.geometry import Box
from inkbatch.render.geometry import Raster
from inkbatch.render.mesh import open_mesh
from inkbatch.render.surface import Layers, RenderedSurface
from inkbatch.render.volume import open_volume

from .conftest import GOLDEN

SHA256 = {
    "u8": "a1dc556efa17c83ddc0f1c49a830e9202e1cc2a1a100cea95ef2f0743865a81d",
    "u16": "0ac1cb338e3bd001f43bbe9ce727fd9fcde47eaafdbbba46a0d43ab2fec33946",
}
MAY_DIFFER = {"u8": 0.0002, "u16": 0.01}  # share of pixels, by one grey value


@dataclass(frozen=True)
class Case:
    surface: str
    count: int = 9
    volume: str = "u8"
    step: float = 1.0
    scale: float = 1.0
    level: int = 0
    mesh_factor: float = 1.0
    corner: tuple[int, int] = (0, 0)


CASES = {
    "plane": Case("plane"),
    "tilt": Case("tilt"),
    "sine": Case("sine"),
    "holes": Case("holes"),
    "leaves": Case("leaves"),
    "sine_u16": Case("sine", volume="u16"),
    "sine_half_step": Case("sine", step=0.5),
    "sine8_scale05": Case("sine8", scale=0.5),
    "tilt_scale123": Case("tilt", count=5, scale=1.23),
    "sine8_level1": Case("sine8", level=1),
    "sine8_level1_u16": Case("sine8", volume="u16", step=2.0, level=1),
    "sine_even": Case("sine", count=4, step=1.5),
    "plane_crop": Case("plane", count=3, corner=(13, 21)),
    "sine8_scaleseg": Case("sine8", count=3, mesh_factor=0.5),
    "sine_one": Case("sine", count=1),
}


@pytest.fixture(scope="module")
def golden() -> dict[str, NDArray[Any]]:
    with np.load(GOLDEN) as file:
        return dict(file)


def opened(stored: Path, case: Case) -> RenderedSurface:
    mesh = open_mesh(str(stored / "surfaces" / case.surface))
    volume = open_volume(str(stored / f"{case.volume}.zarr"), level=case.level)
    raster = Raster(mesh, case.scale * 2.0**-case.level, 2.0**-case.level, case.mesh_factor)
    return RenderedSurface(raster, volume, Layers(case.count, case.step))


@pytest.mark.parametrize("kind", SHA256)
def test_the_volumes_are_those_of_the_golden_renders(volumes, kind):
    assert hashlib.sha256(volumes[kind][0].tobytes()).hexdigest() == SHA256[kind]


@pytest.mark.parametrize("name", CASES)
def test_layers_are_those_of_the_field_to_one_grey_value(stored, golden, name):
    case = CASES[name]
    surface = opened(stored, case)
    count, height, width = golden[f"{name}/shape"].tolist()
    layers = surface.read(range(count), Box(0, 0, height, width).shift(*case.corner))
    y, x, rows, columns = golden[f"{name}/place"].tolist()
    window = layers[count // 2, y : y + rows, x : x + columns].astype(int)
    assert np.abs(window - golden[f"{name}/window"]).max() <= 1
    sums = layers.sum(axis=(1, 2), dtype=np.int64)
    assert np.abs(sums - golden[f"{name}/sums"]).max() <= max(2, MAY_DIFFER[case.volume] * height * width)
    differ = np.unpackbits(np.packbits(layers > 0)) != np.unpackbits(golden[f"{name}/nonzero"])
    assert differ.sum() <= 2
    if not any(case.corner):
        assert surface.shape_zyx == (count, height, width)


def test_flipped_normals_turn_the_layers_round(stored):
    case = CASES["tilt"]
    surface = opened(stored, case)
    flipped = RenderedSurface(surface.raster, surface.volume, Layers(case.count, case.step, flip=True))
    box = Box(40, 50, 80, 90)
    np.testing.assert_array_equal(flipped.read(range(9), box), surface.read(range(9), box)[::-1])
