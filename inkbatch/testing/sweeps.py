"""Finished sweeps with known values, without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.maps.depth_agreement import (
    AGREEMENT_STEPS,
    COMMON_PIXELS,
    common_product_name,
    common_sum_name,
    scored_pairs,
)
from inkbatch.data.maps.sweep import (
    BLOCK_PX,
    CODES,
    COUNT_NAME,
    COUNTS_NAME,
    DOCUMENT_NAME,
    GRID,
    MAPS_NAME,
    MEAN,
    StoredSweep,
    block_pixels_name,
    block_sum_name,
    counts_bytes,
    histogram_name,
    stretch_of,
)
from inkbatch.geometry import Box, cut
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location
from inkbatch.testing.segments import VOXEL_SIZE_UM

Maps = Mapping[str, Mapping[str, NDArray[np.float16]]]  # bundle -> series -> (depths, height, width)


def store_sweep(
    folder: Path | str,
    maps: Maps,
    depths: Sequence[int],
    *,
    unit_px: int = 256,
    voxel_size_um: float = VOXEL_SIZE_UM,
    has_value: NDArray[np.bool_] | None = None,
) -> StoredSweep:
    """Store the maps of a sweep as its first stage leaves them, and ``sweep.json``.

    Args:
        folder: The sweep's folder.
        maps: Series are named as `inkbatch sweep` names them: ``forward``, ``forward-shuffled``, ``repeated``, …
        depths: Depths of the maps.
        unit_px: Edge of a unit.
        voxel_size_um: Edge of a pixel.
        has_value: Where every bundle has a value, (height, width); None: where its maps are not 0.
    """
    known = {bundle: _known(rows, has_value) for bundle, rows in maps.items()}
    place = Location.parse(folder)
    series = list(next(iter(maps.values())))
    shape = next(iter(next(iter(maps.values())).values())).shape[1:]
    shape_yx = (shape[0], shape[1])
    for bundle, rows in maps.items():
        counted = Multiscale.create_mask(
            place / MAPS_NAME / bundle / COUNT_NAME,
            shape_yx,
            shard_px=unit_px,
            voxel_size_um=voxel_size_um,
            provenance={"kind": "sweep"},
        )
        for box in cut(shape_yx, unit_px, unit_px):
            counted.write(box, known[bundle][box.slices].astype(np.uint8) * np.uint8(len(depths)))
        for name, values in rows.items():
            target = place / MAPS_NAME / bundle / name
            mean = values.astype(np.float32).mean(axis=0)
            stored = Prediction.create(target, shape_yx, unit_px, voxel_size_um, {"kind": "sweep"}, MEAN)
            for box in cut(shape_yx, unit_px, unit_px):
                stored.write(box, mean[box.slices])
    for box in cut(shape_yx, unit_px, unit_px):
        (place / MAPS_NAME / COUNTS_NAME / f"y{box.y0:05d}-x{box.x0:05d}.npz").write_bytes(
            counts_bytes(_counts(maps, known, box))
        )
    document = {
        "segment": "s",
        "shape_yx": list(shape_yx),
        "unit_px": unit_px,
        "voxel_size_um": voxel_size_um,
        "depths": list(depths),
        "series": [
            {"name": name, "direction": name.split("-")[0].replace("repeated", "forward"), "null": _null_of(name)}
            for name in series
        ],
        "bundles": [{"name": bundle, "stretch": _stretch(rows, known[bundle])} for bundle, rows in maps.items()],
    }
    (place / DOCUMENT_NAME).write_json(document)
    return StoredSweep(place, document)


def _null_of(series: str) -> str | None:
    return "repeated" if series == "repeated" else "shuffled" if series.endswith("-shuffled") else None


def _known(rows: Mapping[str, NDArray[np.float16]], has_value: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    return next(iter(rows.values()))[0] > 0 if has_value is None else has_value


def _histogram(values: NDArray[np.float16], known: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.bincount(values[:, known].ravel().view(np.uint16), minlength=CODES).astype(np.int64)


def _stretch(rows: Mapping[str, NDArray[np.float16]], known: NDArray[np.bool_]) -> dict[str, Any]:
    real = [_histogram(values, known) for name, values in rows.items() if _null_of(name) is None]
    return stretch_of(np.asarray(sum(real), np.int64)).document()


def _counts(maps: Maps, known: Mapping[str, NDArray[np.bool_]], box: Box) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    for b, (bundle, rows) in enumerate(maps.items()):
        here = known[bundle][box.slices]
        for s, values in enumerate(rows.values()):
            part = values[:, *box.slices]
            found[histogram_name(b, s)] = _histogram(part, here)
            steps = (part.astype(np.float64) * GRID).astype(np.int64)
            found[block_sum_name(b, s)] = _by_block(steps)
            found[block_pixels_name(b)] = _by_block(here[None].astype(np.int64))[0]
    return found | _common(maps, known, box)


def _common(maps: Maps, known: Mapping[str, NDArray[np.bool_]], box: Box) -> dict[str, NDArray[Any]]:
    """Sum up what all bundles have in common."""
    found: dict[str, NDArray[Any]] = {}
    common = np.logical_and.reduce([one[box.slices] for one in known.values()])
    found[COMMON_PIXELS] = _by_block(common[None].astype(np.int64))[0]
    for s, name in enumerate(next(iter(maps.values()))):
        parts = [rows[name][:, *box.slices] for rows in maps.values()]
        steps = [np.rint(part.astype(np.float32) * AGREEMENT_STEPS).astype(np.int64) * common for part in parts]
        found[common_sum_name(s)] = np.stack([_by_block(one) for one in steps])
        pairs = [steps[a] * steps[b] for a, b in scored_pairs(len(steps))]
        found[common_product_name(s)] = np.stack([_by_block(one) for one in pairs])
    return found


def _by_block(values: NDArray[np.int64]) -> NDArray[np.int64]:
    rows, columns = (np.arange(0, size, BLOCK_PX) for size in values.shape[1:])
    summed: NDArray[np.int64] = np.add.reduceat(np.add.reduceat(values, rows, axis=1), columns, axis=2)
    return summed
