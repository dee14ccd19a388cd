"""Layers that can only be decoded whole: each is decoded once per process and kept."""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import ConfigError
from inkbatch.geometry import Box
from inkbatch.io.layers.base import CheckedLayerSource, LayerSource
from inkbatch.io.threads import Tasks, layer_pool
from inkbatch.text import bytes_text

RAM_SHARE = 3  # the stack is kept in memory when it fits a third of the budget


class DecodedLayers(CheckedLayerSource):
    """Decodes groups of layers of another source once, as they are needed.

    Decoded layers stay in memory when the whole stack fits a third of the budget, else in a raw scratch file on the
    local disk, mapped into memory. The scratch file has no name: it is gone when it is closed or the process dies.
    """

    whole_layers = True

    def __init__(self, inner: LayerSource, memory_bytes: int, scratch: str | None) -> None:
        """Wrap `inner`; nothing is decoded yet.

        Args:
            inner: Where layers come from; its `block_layers` are decoded together.
            memory_bytes: Budget of the process.
            scratch: Folder on a local disk for the scratch file; None: the system's folder for temporary files.
        """
        self.uri, self.first_layer, self.shape_zyx = inner.uri, inner.first_layer, inner.shape_zyx
        self.dtype, self.spacing = inner.dtype, inner.spacing
        self.axes, self.fingerprint, self.is_array = inner.axes, inner.fingerprint, inner.is_array
        self.block_yx = inner.shape_zyx[1:]
        self.block_layers = inner.block_layers
        layers, height, width = inner.shape_zyx
        self._layer_bytes = height * width * inner.dtype.itemsize
        stack_bytes = layers * self._layer_bytes
        self.resident_bytes = stack_bytes if stack_bytes * RAM_SHARE <= memory_bytes else 0
        self._inner = inner
        self._scratch_folder = scratch
        groups = -(-layers // self.block_layers)
        self._decoded: list[NDArray[np.generic] | None] = [None] * groups
        self._locks = [threading.Lock() for _ in range(groups)]
        self._scratch: mmap.mmap | None = None
        self._scratch_fd = -1
        self._scratch_lock = threading.Lock()

    def _fill(self, indices: range, box: Box, out: NDArray[np.generic]) -> None:
        wanted = range(indices.start // self.block_layers, -(-indices.stop // self.block_layers))
        missing = [group for group in wanted if self._decoded[group] is None]
        if len(missing) > 1:
            with Tasks(layer_pool) as tasks:
                for group in missing:
                    tasks.start(self._group, group)
        for target, index in zip(out, indices, strict=True):
            group, place = divmod(index, self.block_layers)
            target[...] = self._group(group)[place][box.slices]

    def view(self, layer: int, box: Box) -> NDArray[np.generic] | None:
        """See `LayerSource.view`; decodes the layer when it is needed for the first time."""
        index = self._indices(range(layer, layer + 1)).start
        self._require_inside(box)
        group, place = divmod(index, self.block_layers)
        pixels: NDArray[np.generic] = self._group(group)[place][box.slices]
        pixels.flags.writeable = False
        return pixels

    def _group(self, group: int) -> NDArray[np.generic]:
        """Return the layers of a group; the first thread that asks decodes them, others wait."""
        kept = self._decoded[group]
        if kept is not None:
            return kept
        with self._locks[group]:
            kept = self._decoded[group]
            if kept is None:
                first = group * self.block_layers
                count = min(self.block_layers, self.shape_zyx[0] - first)
                kept = self._room(first, count)
                number = self.first_layer + first
                self._inner.read(range(number, number + count), Box(0, 0, *self.block_yx), out=kept)
                self._decoded[group] = kept
            return kept

    def _room(self, first: int, count: int) -> NDArray[np.generic]:
        """Return memory, or a part of the scratch file, for some layers."""
        shape = (count, *self.block_yx)
        if self.resident_bytes:
            return np.empty(shape, self.dtype)
        start = first * self._layer_bytes
        try:
            mapped = self._mapped_scratch()
            os.posix_fallocate(self._scratch_fd, start, count * self._layer_bytes)  # a full disk fails here, not on use
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.ENOENT, errno.EACCES, errno.EROFS, errno.ENOTDIR):
                raise
            whole = self.shape_zyx[0] * self._layer_bytes
            folder = self._scratch_folder or tempfile.gettempdir()
            raise ConfigError(
                f"{self.uri}: its layers can only be decoded whole, which takes {bytes_text(whole)} of scratch in "
                f"{folder}, and that folder cannot hold them ({error.strerror}); name a scratch folder with more room, "
                "allow more memory, or convert the layers to tiled TIFF or zarr"
            ) from error
        array: NDArray[Any] = np.ndarray(shape, self.dtype, mapped, start)
        return array

    def _mapped_scratch(self) -> mmap.mmap:
        with self._scratch_lock:
            if self._scratch is None:
                size = self.shape_zyx[0] * self._layer_bytes
                with tempfile.TemporaryFile(dir=self._scratch_folder, prefix="inkbatch-layers-") as file:
                    file.truncate(size)
                    self._scratch = mmap.mmap(file.fileno(), size)
                    self._scratch_fd = os.dup(file.fileno())
            return self._scratch

    def close(self) -> None:
        """Let go of decoded layers and of the scratch file; views that were handed out stay valid."""
        self._decoded = [None] * len(self._decoded)
        with self._scratch_lock:
            self._scratch = None
            if self._scratch_fd >= 0:
                os.close(self._scratch_fd)
                self._scratch_fd = -1
        self._inner.close()
