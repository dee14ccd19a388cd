"""A small volume of integer arithmetic and small meshes, as the golden renders have them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

SHAPE = (96, 128, 160)
CHUNK = 32
VOXEL_UM = 7.91
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


def write_volume(
    folder: Path,
    levels: list[NDArray[Any]],
    *,
    zarr_format: int = 2,
    axes: str = "zyx",
    um: float | None = VOXEL_UM,
    unit: str = "micrometer",
    chunk: int = CHUNK,
    fill_value: int = 0,
    compressors: Any = None,
    meta: Mapping[str, Any] | None = None,
    shards: tuple[int, ...] | None = None,
) -> Path:
    """An OME-Zarr of these levels."""
    datasets = [
        {"path": str(n), "coordinateTransformations": [{"type": "scale", "scale": [(um or 1) * 2**n] * 3}]}
        for n in range(len(levels))
    ]
    named = [{"name": name, "type": "space", "unit": unit} for name in axes]
    image = {"version": "0.4", "axes": named, "datasets": datasets}
    group = zarr.create_group(folder, zarr_format=zarr_format)
    group.attrs.update(
        {"ome": {"version": "0.5", "multiscales": [image]}} if zarr_format == 3 else {"multiscales": [image]}
    )
    encoding: dict[str, Any] = {"name": "v2", "separator": "/"} if zarr_format == 2 else {"name": "default"}
    for number, level in enumerate(levels):
        array = group.create_array(
            str(number),
            shape=level.shape,
            dtype=level.dtype,
            chunks=(chunk,) * 3,
            shards=shards,
            compressors=compressors,
            fill_value=fill_value,
            chunk_key_encoding=encoding,
        )
        array[...] = level
    if meta is not None:
        (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def write_mesh(
    folder: Path, xyz: NDArray[Any], scale: tuple[float, float] = (0.1, 0.1), mask: NDArray[Any] | None = None
) -> Path:
    """A tifxyz folder; `xyz` is (3, rows, columns), `scale` columns first."""
    folder.mkdir(parents=True)
    for name, plane in zip("xyz", np.asarray(xyz, np.float32), strict=True):
        tifffile.imwrite(folder / f"{name}.tif", np.ascontiguousarray(plane))
    if mask is not None:
        tifffile.imwrite(folder / "mask.tif", mask)
    meta = {"type": "seg", "format": "tifxyz", "uuid": folder.name, "scale": list(map(float, scale))}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def plane(
    rows: int = 12, columns: int = 16, step: float = 10, z: float = 48.3, tilt: float = 0.0
) -> NDArray[np.float32]:
    """A plane (x, y, z), a vertex every `step` voxels, that climbs by `tilt` per voxel along x."""
    y, x = np.meshgrid(np.arange(rows) * step + 4.2, np.arange(columns) * step + 4.6, indexing="ij")
    return np.stack([x, y, z + tilt * x]).astype(np.float32)


@pytest.fixture(scope="session")
def volumes() -> dict[str, list[NDArray[Any]]]:
    """Levels of the made volumes."""
    return made_volumes()


@pytest.fixture(scope="session")
def stored(volumes: dict[str, list[NDArray[Any]]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``u8.zarr``, ``u16.zarr`` and the golden ``surfaces/``."""
    root = tmp_path_factory.mktemp("render")
    for name, levels in volumes.items():
        write_volume(root / f"{name}.zarr", levels, meta={"voxelsize": VOXEL_UM})
    with np.load(GOLDEN) as golden:
        for key in golden.files:
            if key.startswith("surface/xyz/"):
                name = key.rsplit("/", 1)[1]
                mask = golden[f"surface/mask/{name}"] if f"surface/mask/{name}" in golden.files else None
                write_mesh(root / "surfaces" / name, golden[key], tuple(golden[f"surface/scale/{name}"]), mask)
    return root
