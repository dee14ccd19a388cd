"""Separate objects in the viewer: results of `inkbatch instances`, their outlines, and the row of one object."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.instances.outlines import edges
from inkbatch.data.instances.tables import COLUMNS
from inkbatch.errors import CorruptDataError
from inkbatch.geometry import Box
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.pictures.palettes import OBJECT, PICKED, PICKED_INSIDE
from inkbatch.io.store.location import Location
from inkbatch.view.blocks import level_shape

TABLE = "instances.csv"


@dataclass(frozen=True)
class ShownObjects:
    """The objects of one segment or picture in a finished result.

    Attributes:
        name: Name of the result.
        folder: Its folder.
        picture: Segment id or name of the picture in it.
        labels: (Y, X) uint32: the object at each pixel, 0 is none.
        version: Changes when the result does.
        count: Number of objects.
        pixel_um: Edge of a pixel; None where it is not known.
    """

    name: str
    folder: Location
    picture: str
    labels: Multiscale
    version: str
    count: int
    pixel_um: float | None

    def table(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Read the rows of this picture: the bytes of the table, and by number where its row begins and ends there.

        Raises:
            CorruptDataError: It is no table of instances.
        """
        try:
            data = (self.folder / TABLE).read_bytes()
        except FileNotFoundError:
            return np.zeros(0, np.uint8), np.zeros((0, 2), np.int64)
        places = np.zeros((self.count, 2), np.int64)
        for label, start, end in self._lines(data):
            if not 1 <= label <= self.count:
                raise CorruptDataError(
                    f"{self.folder / TABLE}: expected objects from 1 to {self.count}, got {label}; run inkbatch "
                    "instances again"
                )
            places[label - 1] = start, end
        return np.frombuffer(data, np.uint8), places

    def _lines(self, data: bytes) -> Iterator[tuple[int, int, int]]:
        at = data.find(b"\n") + 1
        while at < len(data):
            end = data.find(b"\n", at)
            end = len(data) if end < 0 else end
            cells = _cells(data[at:end])
            if len(cells) == len(COLUMNS) and cells[0] == self.picture and cells[1].isdecimal():
                yield int(cells[1]), at, end
            at = end + 1


def row_of(table: tuple[NDArray[np.uint8], NDArray[np.int64]], label: int) -> dict[str, Any] | None:
    """Return one object's row, with numbers as numbers and None for what is not known; None without a table."""
    data, places = table
    if not 1 <= label <= len(places) or not places[label - 1, 1]:
        return None
    start, end = places[label - 1].tolist()
    return {
        name: _value(kind, cell)
        for (name, kind), cell in zip(COLUMNS.items(), _cells(data[start:end].tobytes()), strict=True)
    }


def _cells(line: bytes) -> list[str]:
    return next(csv.reader([line.decode("utf-8", "replace")]), [])


def _value(kind: str, cell: str) -> Any:
    if cell == "":
        return None
    if kind == "bool":
        return cell == "true"
    return cell if kind == "string" else int(cell) if kind == "int64" else float(cell)


def results_of(folder: Location, picture: str) -> dict[str, ShownObjects]:
    """Find the finished results in ROOT/instances/{subject} that hold this segment or picture."""
    found = {name: open_objects(folder / name, picture) for name in folder.names()}
    return {name: shown for name, shown in found.items() if shown is not None}


def open_objects(folder: Location, picture: str) -> ShownObjects | None:
    """Open the objects of one picture in a result; None where it is not finished, or has none of it."""
    place = folder / f"labels/{picture}/labels.zarr"
    if not (folder / "complete.json").exists() or not (place / "zarr.json").exists():
        return None
    manifest = (folder / "manifest.json").read_mapping()
    entries = {str(one["picture"]): one for one in (folder / "instances.json").read_mapping()["pictures"]}
    if manifest.get("job") != "instances" or picture not in entries:
        return None
    version, pixel_um = str(manifest["digest"])[:12], manifest["config"].get("pixel_um")
    count = int(entries[picture]["instances"])
    return ShownObjects(folder.name, folder, picture, Multiscale.open(place), version, count, pixel_um)


def pictures_in(folder: Location) -> list[str]:
    """List the pictures of a result."""
    return [str(one["picture"]) for one in (folder / "instances.json").read_mapping()["pictures"]]


def read_labels(labels: Multiscale, shape_yx: tuple[int, int], level: int, box: Box) -> NDArray[np.uint32]:
    """Read the numbers in a box of a level; beyond the pyramid's coarsest one, whose pixels are left out then."""
    beyond = max(0, level - (len(labels.levels) - 1))
    factor = 2**beyond
    height, width = level_shape(shape_yx, level - beyond)
    source = Box(box.y0 * factor, box.x0 * factor, box.y1 * factor, box.x1 * factor).intersect(Box(0, 0, height, width))
    return np.asarray(labels.levels[level - beyond].read(source.slices)[::factor, ::factor], np.uint32)


def draw(numbers: NDArray[np.uint32], picked: int | None, onto: NDArray[np.uint8], inner: tuple[slice, slice]) -> None:
    """Draw the outlines of all objects, and the picked one filled.

    Args:
        numbers: (height, width): the numbers of a box and what is known of the pixels around it.
        picked: Number of the picked object.
        onto: Indices of the box's pixels, see `OUTLINE_COLOURS`.
        inner: Index of the box in `numbers`.
    """
    edge = edges(numbers)[inner]
    onto[edge] = OBJECT
    if picked is not None:
        onto[numbers[inner] == picked] = PICKED_INSIDE
        onto[edge & (numbers[inner] == picked)] = PICKED
