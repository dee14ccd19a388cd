"""Tiny volumes of scrolls and surface meshes, as files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

VOLUME_UM = 7.91


def write_volume(
    folder: Path,
    levels: list[NDArray[Any]],
    *,
    zarr_format: Literal[2, 3] = 2,
    axes: str = "zyx",
    um: float | None = VOLUME_UM,
    unit: str = "micrometer",
    chunk: int = 32,
    fill_value: int = 0,
    compressors: Any = None,
    meta: Mapping[str, Any] | None = None,
    shards: tuple[int, ...] | None = None,
) -> Path:
    """Write an OME-Zarr of these levels."""
    datasets = [
        {"path": str(n), "coordinateTransformations": [{"type": "scale", "scale": [(um or 1) * 2**n] * 3}]}
        for n in range(len(levels))
    ]
    named = [{"name": name, "type": "space", "unit": unit} for name in axes]
    image: dict[str, Any] = {"version": "0.4", "axes": named, "datasets": datasets}
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
    """Write a tifxyz folder; `xyz` is (3, rows, columns), `scale` columns first."""
    folder.mkdir(parents=True)
    for name, plane in zip("xyz", np.asarray(xyz, np.float32), strict=True):
        tifffile.imwrite(folder / f"{name}.tif", np.ascontiguousarray(plane))
    if mask is not None:
        tifffile.imwrite(folder / "mask.tif", mask)
    meta = {"type": "seg", "format": "tifxyz", "uuid": folder.name, "scale": list(map(float, scale))}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def write_open_data(root: Path, um: float = 9.362) -> Path:
    """Write a small copy of the field's open data: three segments of one scroll, and what belongs to them.

    ``w001`` has layers at two spacings, labels and a mesh; ``w002`` only a mesh that names its volume; ``w003`` only a
    mesh whose volume the index knows. Sizes stand in names alone, as for many public arrays.

    Args:
        root: Folder to write.
        um: Voxel size of the volume.
    """
    sample, rng = root / "PHerc0009", np.random.default_rng(0)
    scan = rng.integers(1, 255, (32, 96, 104), dtype=np.uint8)
    coarse, fine = "20250728140407", "20260102150214"
    write_volume(sample / "volumes" / f"{coarse}-{um:.3f}um-1.2m-113keV-masked.zarr", [scan], um=None, unit="")
    first = sample / "segments" / "20250108000000-w001"
    for place in (f"{um:.3f}um-1.2m-113keV-volume-{coarse}", f"2.399um-0.22m-78keV-volume-{fine}"):
        write_volume(first / "surface-volumes" / f"{place}.zarr", [scan[:13, :80, :90]], um=None, unit="")
    labels = np.zeros((80, 90), np.uint8)
    labels[20:40, 20:60] = 255
    for day, values in (("20260801", labels), ("20260918", labels)):
        release = first / "ink-labels" / f"2.399um-volume-{fine}" / day
        for name in ("inklabels", "supervision"):
            zarr.create_group(release / f"{name}.zarr").create_array("0", data=values)
    (first / "ink-detection").mkdir()
    (first / "ink-detection" / "map.tif").write_bytes(b"not looked at")
    mesh = flat_mesh(9, 10, z=14, tilt=0.02)
    write_mesh(first / "mesh" / f"20250108000000-on-{fine}-2.399um.tifxyz", mesh)
    write_mesh(sample / "segments" / "w002" / "mesh" / f"w002-on-{coarse}-{um:.3f}um.tifxyz", mesh)
    write_mesh(sample / "segments" / "20250108000002-w003" / "mesh" / "tifxyz", mesh)
    index = {"samples": {"PHerc0009": {"segments": {"20250108000002": {"original_volume_id": coarse}}}}}
    (root / "metadata.json").write_bytes(gzip.compress(json.dumps(index).encode()))
    return root


def flat_mesh(
    rows: int = 12, columns: int = 16, step: float = 10, z: float = 48.3, tilt: float = 0.0
) -> NDArray[np.float32]:
    """Make a plane (x, y, z), a vertex every `step` voxels, that climbs by `tilt` per voxel along x."""
    y, x = np.meshgrid(np.arange(rows) * step + 4.2, np.arange(columns) * step + 4.6, indexing="ij")
    return np.stack([x, y, z + tilt * x]).astype(np.float32)
