"""Finished predictions, masks and labels with known values, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.geometry import Unit, cut
from inkbatch.io.halving import Pooling
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location
from inkbatch.run.record import RunFolder, RunManifest
from inkbatch.testing.segments import VOXEL_SIZE_UM


def store_map(
    root: Path | str,
    segment: str,
    name: str,
    values: NDArray[Any],
    *,
    unit_px: int = 64,
    complete: bool = True,
    voxel_size_um: float = VOXEL_SIZE_UM,
    **config: Any,
) -> Location:
    """Store a map (height, width) of probabilities as a finished prediction, as `inkbatch infer` leaves one.

    Args:
        root: ROOT.
        segment: Segment id.
        name: Name of the prediction.
        values: (height, width) in [0, 1].
        unit_px: Edge of its zarr shards.
        complete: Store every unit; else the last one is missing.
        voxel_size_um: Edge of a pixel.
        config: More settings for its manifest.

    Returns:
        Its folder.
    """
    folder = Location.parse(root) / "predictions" / segment / name
    units = [Unit(index, box, box) for index, box in enumerate(cut(values.shape, unit_px, unit_px))]
    manifest = RunManifest("infer", {"segment": segment, "name": name, **config}, {"bundle": name}, len(units))
    record = RunFolder(folder, manifest)
    record.begin()
    stored = Prediction.create(folder, values.shape, unit_px, voxel_size_um, {"digest": manifest.digest})
    for unit in units if complete else units[:-1]:
        stored.write(unit.write_box, values[unit.write_box.slices].astype(np.float32))
        record.mark(unit, {})
    if complete:
        record.complete()
    return folder


def store_picture(
    root: Path | str, segment: str, name: str, values: NDArray[Any], *, shard_px: int = 64, pooling: Pooling = "mean"
) -> Multiscale:
    """Store ``mask.zarr``, ``ink_labels.zarr`` or ``ignore_mask.zarr`` of a segment: uint8 (height, width)."""
    pyramid = Multiscale.create_mask(
        Location.parse(root) / "segments" / segment / f"{name}.zarr",
        (values.shape[0], values.shape[1]),
        shard_px=shard_px,
        voxel_size_um=VOXEL_SIZE_UM,
        provenance={"kind": name, "segment": segment},
        pooling=pooling,
    )
    for box in cut(values.shape, shard_px, shard_px):
        pyramid.write(box, np.ascontiguousarray(values[box.slices]).astype(np.uint8))
    return pyramid
