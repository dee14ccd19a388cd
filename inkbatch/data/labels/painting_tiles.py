"""Tiles of painted labels: one zarr array per layer, of which only tiles with marks are stored, and an overview.

Each layer is an OME-Zarr group that any zarr reader opens; a tile that was never painted is not stored and reads as 0.
The overview holds the codes of 8 x 8 pixels each; it says which tiles have marks, and coarse zoom levels are made from
it. Tiles that changed wait in memory, packed, until `write` has stored them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from inkbatch.data.labels.painting import LAYERS, TILE_PX, Codes, LayerName, Tile, halved_codes, tile_box
from inkbatch.data.labels.painting_packing import unpacked
from inkbatch.geometry import Box, cells
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.store.ledger import make_durable, recording
from inkbatch.io.store.location import Location

OVERVIEW_LEVEL = 3
CELL_PX = 2**OVERVIEW_LEVEL
KEPT_TILES = 512  # decoded, 32 MiB
PUTS_AT_ONCE = 16


class PaintedTiles:
    """Tiles of one label version. Safe to use from several threads.

    Args:
        folder: The version's folder.
        shape_yx: (height, width) of the segment.
        overview: Codes of 8 x 8 px each; None: nothing is painted.
    """

    def __init__(self, folder: Location, shape_yx: tuple[int, int], overview: Codes | None = None) -> None:
        self.folder, self.shape_yx = folder, shape_yx
        grid = tuple(-(-size // TILE_PX) * (TILE_PX // CELL_PX) for size in shape_yx)
        self.overview: Codes = np.zeros(grid, np.uint8) if overview is None else overview
        self._arrays = {name: Multiscale.open(folder / f"{kind.array}.zarr").levels[0] for name, kind in LAYERS.items()}
        self._waiting: dict[Tile, bytes] = {}
        self._kept: OrderedDict[Tile, Codes] = OrderedDict()
        self._stored = self.overview.copy()  # what the arrays hold, for which layers have to be written
        self._puts: dict[Tile, int] = {}  # counts, by which a reader sees that its tile changed meanwhile
        self._lock = threading.RLock()

    @staticmethod
    def create(folder: Location, shape_yx: tuple[int, int], voxel_size_um: float, facts: dict[str, Any]) -> None:
        """Write the metadata of the arrays of a new version."""
        for name, kind in LAYERS.items():
            Multiscale.create_flat(
                folder / f"{kind.array}.zarr",
                shape_yx,
                edge_px=TILE_PX,
                voxel_size_um=voxel_size_um,
                provenance={"kind": kind.array, "layer": name, **facts},
            )

    @property
    def kept(self) -> int:
        """Stored tiles that are in memory."""
        return len(self._kept)

    @property
    def waiting(self) -> int:
        """Tiles that are not stored yet."""
        return len(self._waiting)

    def marked_tiles(self, bits: int = 255) -> list[Tile]:
        """List the tiles that have some of these marks, row-major."""
        with self._lock:
            edge = TILE_PX // CELL_PX
            rows, columns = (size // edge for size in self.overview.shape)
            any_mark = np.bitwise_or.reduce(self.overview.reshape(rows, edge, columns, edge), axis=(1, 3)) & bits
            return [(int(y), int(x)) for y, x in zip(*np.nonzero(any_mark), strict=True)]

    def read_tile(self, tile: Tile) -> Codes:
        """Read a tile, (256, 256) whatever lies outside the segment; do not change it.

        Raises:
            CorruptDataError: A stored tile is damaged or missing.
        """
        while True:
            with self._lock:
                if tile in self._kept:
                    self._kept.move_to_end(tile)
                    return self._kept[tile]
                waiting, puts = self._waiting.get(tile), self._puts.get(tile)
                bits = int(np.bitwise_or.reduce(self._cells(self._stored, tile), axis=None))
            codes = unpacked(waiting) if waiting is not None else self._decoded(tile, bits)
            with self._lock:
                if self._puts.get(tile) == puts:
                    self._keep(tile, codes)
                    return codes

    def _decoded(self, tile: Tile, bits: int) -> Codes:
        codes = np.zeros((TILE_PX, TILE_PX), np.uint8)
        box = tile_box(tile, self.shape_yx)
        inside = codes[: box.height, : box.width]
        for name, kind in LAYERS.items():
            if bits & kind.bit:
                inside[self._arrays[name].read(box.slices) > 0] |= np.uint8(kind.bit)
        return codes

    def _keep(self, tile: Tile, codes: Codes) -> None:
        self._kept[tile] = codes
        self._kept.move_to_end(tile)
        while len(self._kept) > KEPT_TILES:
            self._kept.popitem(last=False)

    def read(self, box: Box) -> Codes:
        """Read the codes of a box; zeros outside the segment."""
        out = np.zeros(box.shape, np.uint8)
        for cell in cells(box.intersect(Box(0, 0, *self.shape_yx)), TILE_PX, TILE_PX):
            tile = cell.y0 // TILE_PX, cell.x0 // TILE_PX
            whole = tile_box(tile, self.shape_yx)
            out[cell.within(box)] = self.read_tile(tile)[: whole.height, : whole.width][cell.within(whole)]
        return out

    def put(self, tile: Tile, codes: bytes) -> None:
        """Take a tile's new packed codes; they wait until `write`."""
        decoded = unpacked(codes)
        with self._lock:
            self._waiting[tile] = codes
            self._puts[tile] = self._puts.get(tile, 0) + 1
            self._keep(tile, decoded)
            self._cells(self.overview, tile)[...] = halved_codes(decoded, OVERVIEW_LEVEL)

    @staticmethod
    def _cells(overview: Codes, tile: Tile) -> Codes:
        edge = TILE_PX // CELL_PX
        return overview[tile[0] * edge : (tile[0] + 1) * edge, tile[1] * edge : (tile[1] + 1) * edge]

    def level_tile(self, level: int, row: int, column: int) -> Codes:
        """Read a tile of a zoom level, (256, 256): the marks of all pixels that each of its pixels covers."""
        if level < OVERVIEW_LEVEL:
            edge = 2**level
            out = np.zeros((TILE_PX * edge, TILE_PX * edge), np.uint8)
            for y in range(edge):
                for x in range(edge):
                    tile = row * edge + y, column * edge + x
                    if all(part * TILE_PX < size for part, size in zip(tile, self.shape_yx, strict=True)):
                        out[y * TILE_PX : (y + 1) * TILE_PX, x * TILE_PX : (x + 1) * TILE_PX] = self.read_tile(tile)
            return halved_codes(out, level)
        extra = level - OVERVIEW_LEVEL
        edge = TILE_PX << extra
        with self._lock:
            part = self.overview[row * edge : (row + 1) * edge, column * edge : (column + 1) * edge].copy()
        out = np.zeros((TILE_PX, TILE_PX), np.uint8)
        small = halved_codes(part, extra)
        out[: small.shape[0], : small.shape[1]] = small
        return out

    def snapshot(self) -> tuple[dict[Tile, bytes], Codes]:
        """Return the tiles that wait, and the overview as it will be when they are stored."""
        with self._lock:
            return dict(self._waiting), self.overview.copy()

    def write(self, waiting: dict[Tile, bytes], overview: Codes) -> None:
        """Store tiles of a `snapshot`, whole, and force them onto the disk.

        Raises:
            StorageError: The store gave up; they wait on.
        """
        with recording() as ledger:
            if self.folder.is_local:
                for tile, codes in waiting.items():
                    self._write_tile(tile, codes)
            else:
                with ThreadPoolExecutor(PUTS_AT_ONCE) as pool:
                    list(pool.map(lambda item: self._write_tile(*item), waiting.items()))
        make_durable(ledger)
        with self._lock:
            self._stored = overview
            for tile, codes in waiting.items():
                if self._waiting.get(tile) is codes:
                    del self._waiting[tile]

    def _write_tile(self, tile: Tile, codes: bytes) -> None:
        box = tile_box(tile, self.shape_yx)
        inside = unpacked(codes)[: box.height, : box.width]
        before = int(np.bitwise_or.reduce(self._cells(self._stored, tile), axis=None))
        now = int(np.bitwise_or.reduce(inside, axis=None))
        for name, kind in LAYERS.items():
            if (before | now) & kind.bit:
                block = np.where(inside & kind.bit, np.uint8(kind.value), np.uint8(0))
                self._arrays[name].write_shard(tile, block)

    def stored_layers(self, tiles: Iterable[Tile]) -> list[tuple[LayerName, Tile, Location]]:
        """List the stored objects of tiles: layer, tile and place; only what `write` has stored."""
        found = []
        for tile in tiles:
            bits = int(np.bitwise_or.reduce(self._cells(self._stored, tile), axis=None))
            for name, kind in LAYERS.items():
                if bits & kind.bit:
                    found.append((name, tile, self._arrays[name].shard_location(tile)))
        return found
