"""Label volumes as the field writes them: an OME-Zarr pyramid with as many planes as the surface."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray


def on_plane(picture: NDArray[np.uint8], planes: int, plane: int) -> NDArray[np.uint8]:
    """Put a picture (Y, X) on one of so many planes; the others are 0."""
    volume = np.zeros((planes, *picture.shape), np.uint8)
    volume[plane] = picture
    return volume


def write_label_volume(
    place: Path, volume: NDArray[Any], *, zarr_format: Literal[2, 3] = 2, levels: int = 2, um: float = 8.0
) -> Path:
    """Write a volume (Z, Y, X) as an OME-Zarr group; each level takes every second pixel along y and x."""
    group = zarr.create_group(place, zarr_format=zarr_format)
    encoding: Any = {"name": "v2", "separator": "/"} if zarr_format == 2 else {"name": "default", "separator": "/"}
    datasets: list[Any] = []
    for level in range(levels):
        step = 2**level
        data = np.ascontiguousarray(volume[:, ::step, ::step])
        chunks = (min(4, len(data)), 32, 32)
        group.create_array(
            str(level),
            data=data,
            chunks=chunks,
            chunk_key_encoding=encoding,
            config={"write_empty_chunks": True},  # as a writer does that knows nothing of fill values
        )
        scale = [um, um * step, um * step]
        datasets.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    axes: list[Any] = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    image: dict[str, Any] = {"axes": axes, "datasets": datasets, "name": place.stem, "version": "0.4"}
    found: dict[str, Any] = {"multiscales": [image]}
    group.attrs.update(found if zarr_format == 2 else {"ome": {"version": "0.5", **found}})
    return place
