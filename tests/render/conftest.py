"""A small volume of integer arithmetic and small meshes, as the golden renders have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from inkbatch.testing.scrolls import VOLUME_UM, write_mesh, write_volume

SHAPE = (96, 128, 160)
CHUNK = 32
SEED = 20260612
GOLDEN = Path(__file__).with_name("golden") / "renders.npz"


def _numbers(seed: int = SEED):
    """A linear congruential generator: the upper 24 bits of 32."""
    state = seed
    while True:
        state = (state * 1664525 + 1013904223) % 2**32
        yield state // 256


def _noise(count: int) -> NDArray[np.int64]:
    """A hash of each index."""
    mixed = np.arange(count, dtype=np.uint32) ^ np.uint32(SEED)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        mixed = (mixed ^ (mixed >> np.uint32(shift))) * np.uint32(factor)
    return mixed.astype(np.int64)


def made_volumes() -> dict[str, list[NDArray[Any]]]:
    """Blobs on a ramp with noise: levels 0 and 1, of 8 and of 16 bits."""
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    field = (3 * x + 2 * y + 5 * z) * 16
    numbers = _numbers()
    for _ in range(60):
        centre = [next(numbers) % size for size in SHAPE]
        radius = 10 + next(numbers) % 22
        height = 4000 + next(numbers) % 14000
        distance = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2
        bump = np.maximum(radius**2 - distance, 0)
        field = field + height * bump * bump // radius**4
    noise = _noise(field.size).reshape(SHAPE)
    full = {
        "u8": np.clip(12 + field // 256 + noise % 32, 1, 255).astype(np.uint8),
        "u16": np.clip(3000 + field * 3 // 4 + noise % 4096, 1, 65535).astype(np.uint16),
    }
    return {name: [level, halved(level)] for name, level in full.items()}


def halved(level: NDArray[Any]) -> NDArray[Any]:
    """Mean of 2 x 2 x 2, rounded half up."""
    z, y, x = (size // 2 for size in level.shape)
    sums = level.astype(np.int64).reshape(z, 2, y, 2, x, 2).sum(axis=(1, 3, 5))
    return ((sums + 4) // 8).astype(level.dtype)


@pytest.fixture(scope="session")
def volumes() -> dict[str, list[NDArray[Any]]]:
    """Levels of the made volumes."""
    return made_volumes()


@pytest.fixture(scope="session")
def stored(volumes: dict[str, list[NDArray[Any]]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``u8.zarr``, ``u16.zarr`` and the golden ``surfaces/``."""
    root = tmp_path_factory.mktemp("render")
    for name, levels in volumes.items():
        write_volume(root / f"{name}.zarr", levels, meta={"voxelsize": VOLUME_UM})
    with np.load(GOLDEN) as golden:
        for key in golden.files:
            if key.startswith("surface/xyz/"):
                name = key.rsplit("/", 1)[1]
                mask = golden[f"surface/mask/{name}"] if f"surface/mask/{name}" in golden.files else None
                write_mesh(root / "surfaces" / name, golden[key], tuple(golden[f"surface/scale/{name}"]), mask)
    return root
