"""Tiny labelled segments, in memory and prepared, whose counts are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.datasets.segment_arrays import SegmentArrays
from inkbatch.geometry import Box
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceProvenance
from inkbatch.run.record import RunFolder, RunManifest

VOXEL_SIZE_UM = 8.0


class ArraySegment(SegmentArrays):
    """A segment in memory: labels 0 to 255, papyrus and held-out pixels, (Y, X); its one layer shows the labels."""

    def __init__(
        self,
        labels: NDArray[np.uint8],
        papyrus: NDArray[np.bool_] | None = None,
        held_out: NDArray[np.bool_] | None = None,
    ) -> None:
        self.held_out, self.holds_out = held_out, held_out is not None
        self.labels = labels
        self.papyrus = np.ones(labels.shape, bool) if papyrus is None else papyrus
        self.shape_yx, self.digest = (labels.shape[0], labels.shape[1]), ""

    def read_layers(self, box: Box, layers: range | None = None) -> NDArray[Any]:
        """Read layers; see `SegmentArrays.read_layers`."""
        shown = self._cut(self.labels, box)[None]
        return shown if layers is None else shown[layers.start : layers.stop]

    def read_flat(self, box: Box) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read labels and ignore mask; see `SegmentArrays.read_flat`."""
        return self._cut(self.labels, box), (~self.read_mask(box)).astype(np.uint8)

    def read_mask(self, box: Box) -> NDArray[np.bool_]:
        """Read the segment mask; see `SegmentArrays.read_mask`."""
        return self._cut(self.papyrus, box)

    def read_held_out(self, box: Box) -> NDArray[np.bool_]:
        """Read the held-out pixels; see `SegmentArrays.read_held_out`."""
        return super().read_held_out(box) if self.held_out is None else self._cut(self.held_out, box)

    def _cut(self, array: NDArray[Any], box: Box) -> NDArray[Any]:
        out = np.zeros(box.shape, array.dtype)
        inside = box.intersect(Box(0, 0, *self.shape_yx))
        if inside.area:
            out[inside.within(box)] = array[inside.slices]
        return out


def inked(shape_yx: tuple[int, int], *boxes: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Make labels with ink in these boxes (y0, x0, y1, x1)."""
    labels = np.zeros(shape_yx, np.uint8)
    for box in boxes:
        labels[Box(*box).slices] = 255
    return labels


def labelled_segment(
    root: Path | str,
    segment: str,
    labels: NDArray[np.uint8],
    *,
    layers: NDArray[Any] | None = None,
    ignore: NDArray[np.uint8] | None = None,
    papyrus: NDArray[np.bool_] | None = None,
    held_out: NDArray[np.bool_] | None = None,
    soft: bool = False,
    shard_px: int = 64,
    **provenance: Any,
) -> Location:
    """Write a prepared and labelled segment as `inkbatch prepare` and `inkbatch labels` leave it.

    Args:
        root: ROOT.
        segment: Its id.
        labels: (Y, X), 0 to 255.
        layers: (Z, Y, X); None makes three seeded ones.
        ignore: (Y, X), non-zero where ignored.
        papyrus: Segment mask; None is papyrus everywhere.
        held_out: Validation mask; None holds nothing out.
        soft: Labels are probabilities.
        shard_px: Edge of a zarr shard.
        **provenance: Other provenance of the surface.
    """
    folder = Location.parse(root) / "segments" / segment
    if layers is None:
        seed = sum(segment.encode())
        layers = np.random.default_rng(seed).integers(1, 255, (3, *labels.shape), dtype=np.uint8)
    made = SurfaceProvenance.model_validate(
        {
            "segment": segment,
            "source": f"memory://{segment}",
            "source_dtype": layers.dtype.name,
            "source_layers": (0, len(layers)),
            "depth_order": "forward",
            "intensity": "keep",
            "voxel_size_um": VOXEL_SIZE_UM,
            "mask": "derived",
            **provenance,
        }
    )
    mask = np.ones(labels.shape, np.uint8) if papyrus is None else papyrus.astype(np.uint8)
    _store(folder / "surface.zarr", layers, made.model_dump(mode="json"), shard_px)
    _store(folder / "mask.zarr", mask, made.model_dump(mode="json"), shard_px)
    _store(folder / "ink_labels.zarr", labels, {"ink": int(labels.sum()), **({"soft": True} if soft else {})}, shard_px)
    if held_out is not None:
        _store(folder / "validation_mask.zarr", held_out.astype(np.uint8), {"held": int(held_out.sum())}, shard_px)
    if ignore is not None:
        _store(folder / "ignore_mask.zarr", ignore, {"ignored": int(ignore.sum())}, shard_px)
    record = RunFolder(folder / "prepare", RunManifest("prepare", made.model_dump(mode="json"), {}, 0))
    record.begin()
    record.complete()
    return folder


def _store(place: Location, array: NDArray[Any], provenance: dict[str, Any], shard_px: int) -> None:
    deep = array.shape[:-2]
    pyramid = Multiscale.create(
        place,
        array.shape,
        dtype=array.dtype.name,
        chunk=(*deep, 32, 32),
        shard_px=shard_px,
        voxel_size_um=VOXEL_SIZE_UM,
        provenance=provenance,
    )
    pyramid.write(Box(0, 0, *array.shape[-2:]), array)
