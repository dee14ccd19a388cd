"""Layers that lie in files as strips or tiles (TIFF, raw arrays): read only the bytes of a box."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from inkbatch.geometry import Box
from inkbatch.io.layers.base import CheckedLayerSource
from inkbatch.io.layers.files import REMOTE_PART_BYTES, Buffer, MappedFiles, Part, merged_runs, run_reads
from inkbatch.io.layers.planes import Plane
from inkbatch.io.store.meter import READ


class PlaneStack(CheckedLayerSource):
    """A stack of planes of equal shape and dtype, one per layer."""

    def __init__(self, uri: str, planes: Sequence[Plane], first_layer: int = 0) -> None:
        self.uri = uri
        self.first_layer = first_layer
        self.shape_zyx = (len(planes), *planes[0].shape_yx)
        self.dtype = planes[0].dtype.newbyteorder("=")
        self._planes = list(planes)
        self._files = MappedFiles()
        blocks = [_cheapest_block(plane) for plane in planes]
        self.block_yx = (
            min(max(block[0] for block in blocks), self.shape_zyx[1]),
            min(max(block[1] for block in blocks), self.shape_zyx[2]),
        )

    @property
    def largest_block_bytes(self) -> int:
        """Decoded bytes of the largest compressed strip or tile; 0 where nothing is compressed."""
        return max((plane.block_bytes for plane in self._planes if plane.codec != "none"), default=0)

    @property
    def has_single_block_layers(self) -> bool:
        """True where some layer is one compressed strip or tile."""
        return any(plane.codec != "none" and plane.block_count == 1 for plane in self._planes)

    def _fill(self, indices: range, box: Box, out: NDArray[np.generic]) -> None:
        parts: list[Part] = []
        for index, target in zip(indices, out, strict=True):
            plane = self._planes[index]
            if plane.raw_offset is None:
                parts += _block_parts(plane, box, target)
            elif plane.location.is_local:
                target[...] = self._view(plane, box)
            else:
                parts += _row_parts(plane, box, target)
        run_reads(parts, self._files)

    def view(self, layer: int, box: Box) -> NDArray[np.generic] | None:
        """See `LayerSource.view`: served for local, uncompressed, native, contiguous integer layers."""
        plane = self._planes[self._indices(range(layer, layer + 1)).start]
        self._require_inside(box)
        mapped = plane.raw_offset is not None and plane.location.is_local
        if not mapped or not plane.dtype.isnative or plane.dtype.kind == "f" or not box.area:
            return None
        pixels = self._view(plane, box)
        return pixels if pixels.flags.aligned else None

    def _view(self, plane: Plane, box: Box) -> NDArray[np.generic]:
        mostly = 2 * box.width >= plane.shape_yx[1]
        data = self._files.buffer(plane.location, *plane.raw_range(box), all_at_once=mostly)
        pixels = plane.raw_view(data, *box.shape)
        READ.add(pixels.nbytes)
        return pixels

    def close(self) -> None:
        """Let go of the memory maps."""
        self._files.close()


def _cheapest_block(plane: Plane) -> tuple[int, int]:
    """Return the (rows, columns) that reading one pixel costs: itself in a local map, else its row or block."""
    if plane.codec == "none" and plane.location.is_local:
        return 1, 1
    if plane.raw_offset is not None:
        return 1, plane.shape_yx[1]
    return plane.block_yx


def _row_parts(plane: Plane, box: Box, target: NDArray[np.generic]) -> Iterator[Part]:
    """Cut rows of a raw remote plane into requests."""
    step = max(1, REMOTE_PART_BYTES // plane.row_bytes)
    for y0 in range(box.y0, box.y1, step):
        rows = Box(y0, box.x0, min(y0 + step, box.y1), box.x1)
        pixels = target[y0 - box.y0 : rows.y1 - box.y0]

        def use(data: Buffer, pixels: NDArray[np.generic] = pixels) -> None:
            pixels[...] = plane.raw_view(data, *pixels.shape)

        yield Part(plane.location, *plane.raw_range(rows), use)


def _block_parts(plane: Plane, box: Box, target: NDArray[np.generic]) -> Iterator[Part]:
    """List the strips or tiles that touch the box, near ones merged."""
    blocks = plane.blocks(box)
    offsets, counts = plane.offsets[blocks], plane.counts[blocks]
    for run in merged_runs(offsets, counts, plane.location.is_local):
        start, stop = int(offsets[run[0]]), int((offsets[run] + counts[run]).max())

        def use(data: Buffer, run: NDArray[np.intp] = run, start: int = start) -> None:
            view = memoryview(data)
            for position in run:
                index, first = int(blocks[position]), int(offsets[position]) - start
                block = plane.decode(index, view[first : first + int(counts[position])])
                stored = plane.block_box(index)
                common = stored.intersect(box)
                rows, columns = common.within(stored)
                target[common.within(box)] = block[rows, columns]

        yield Part(plane.location, start, stop, use)
