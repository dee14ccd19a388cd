"""A stored sweep: its places, and the exact counts that its units leave.

Layout: docs/decisions/sweep.md. Counts are whole numbers, so that sums over units, and all that follows from them, do
not depend on how a segment is cut and who computed it.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.segments.catalog import check_segment_id
from inkbatch.geometry import Unit, cut
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.npz import read_npz
from inkbatch.io.pictures.tones import CODES as CODES
from inkbatch.io.store.location import Location
from inkbatch.run.record import require_complete

BLOCK_PX = 64  # edge of the blocks whose sums are kept at every depth

GRID = 1 << 24  # every float16 from 0 to 1 is a whole number of 1 / GRID

MAPS_NAME, COUNTS_NAME, DOCUMENT_NAME = "maps", "counts", "sweep.json"
COUNT_NAME = "count.zarr"
MEAN, DEVIATION, BEST, BEST_DEPTH, DEPTHS = (
    "mean.zarr",
    "deviation.zarr",
    "best.zarr",
    "best_depth.zarr",
    "depths.zarr",
)
Z, MAXIMUM = "z.zarr", "maximum.zarr"

Counts = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Stretch:
    """Mean and standard deviation of many values, each exact before it was rounded to float64."""

    mean: float
    deviation: float
    values: int

    def document(self) -> dict[str, Any]:
        """Return the stored form."""
        return {"mean": self.mean, "deviation": self.deviation, "values": self.values}

    def applied(self, values: NDArray[np.float16]) -> NDArray[np.float32]:
        """Turn values into z values, in float32; 0 where all values were the same."""
        if self.deviation == 0:
            return np.zeros(values.shape, np.float32)
        z: NDArray[np.float32] = (values.astype(np.float32) - np.float32(self.mean)) / np.float32(self.deviation)
        return z


def stretch_of(histogram: NDArray[np.int64]) -> Stretch:
    """Take mean and standard deviation (biased) of float16 values by how often each code occurs, (CODES,)."""
    codes = np.flatnonzero(histogram)
    steps = (codes.astype(np.uint16).view(np.float16).astype(np.float64) * GRID).astype(np.int64)
    counts = [int(count) for count in histogram[codes]]
    number = sum(counts)
    if not number:
        return Stretch(0.0, 0.0, 0)
    first = sum(count * int(step) for count, step in zip(counts, steps, strict=True))
    second = sum(count * int(step) ** 2 for count, step in zip(counts, steps, strict=True))
    variance = Fraction(number * second - first * first, (number * GRID) ** 2)
    return Stretch(float(Fraction(first, number * GRID)), float(variance) ** 0.5, number)


def correlations(total: int, sums: NDArray[np.int64], products: NDArray[np.int64]) -> list[list[float | None]]:
    """Compute correlations (n, n) of whole numbers from their count, sums (n,) and sums of products (n, n).

    None stands where one of the two is the same everywhere.
    """
    first = [int(value) for value in sums]
    covariance = [
        [total * int(product) - first[i] * first[j] for j, product in enumerate(row)] for i, row in enumerate(products)
    ]
    spread = [float(covariance[i][i]) ** 0.5 for i in range(len(first))]
    return [
        [value / (spread[i] * spread[j]) if spread[i] and spread[j] else None for j, value in enumerate(row)]
        for i, row in enumerate(covariance)
    ]


def counts_bytes(counts: Counts) -> bytes:
    """Write one unit's counts as npz; equal counts give equal bytes."""
    out = io.BytesIO()
    arrays: dict[str, Any] = dict(counts)
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def summed(units: Iterable[Counts], names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Add up arrays of one shape over units, by name."""
    total: dict[str, NDArray[Any]] = {}
    for counts in units:
        for name in names:
            total[name] = total[name] + counts[name] if name in total else counts[name].copy()
    return total


def histogram_name(bundle: int, series: int) -> str:
    """Name the histogram of a bundle and a series, by their places."""
    return f"histogram-{bundle}-{series}"


def block_sum_name(bundle: int, series: int) -> str:
    """Name the sums of blocks of a bundle and a series, by their places."""
    return f"block_sum-{bundle}-{series}"


def block_pixels_name(bundle: int) -> str:
    """Name the pixels of blocks that have a value of a bundle, by its place."""
    return f"block_pixels-{bundle}"


@dataclass(frozen=True)
class StoredSweep:
    """A finished sweep.

    Attributes:
        folder: ``ROOT/sweeps/{segment}/{name}``.
        document: Content of ``sweep.json``.
    """

    folder: Location
    document: Mapping[str, Any]

    @staticmethod
    def open(root: str, segment: str, name: str) -> StoredSweep:
        """Open a finished sweep by name, or by address (with a ``/``).

        Raises:
            DataError: It is not there, or not complete.
        """
        folder = (
            Location.parse(name) if "/" in name else Location.parse(root) / "sweeps" / check_segment_id(segment) / name
        )
        require_complete(folder, f"sweep {segment}/{name}", "run inkbatch sweep again until it says complete")
        return StoredSweep(folder, (folder / DOCUMENT_NAME).read_mapping())

    @property
    def depths(self) -> list[int]:
        """Depths, in layers from what each bundle takes by itself."""
        return list(self.document["depths"])

    @property
    def series(self) -> list[str]:
        """Names of the series."""
        return [row["name"] for row in self.document["series"]]

    @property
    def bundles(self) -> list[str]:
        """Names of the bundles."""
        return [row["name"] for row in self.document["bundles"]]

    @property
    def shape_yx(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self.document["shape_yx"]
        return int(height), int(width)

    def map(self, series: str, name: str = Z) -> Multiscale:
        """Open a map of all bundles together: `Z`, `MEAN`, `MAXIMUM` or `BEST_DEPTH`."""
        return Multiscale.open(self.folder / series / name)

    def bundle_map(self, bundle: str, series: str, name: str = MEAN) -> Multiscale:
        """Open a map of one bundle: `MEAN`, `DEVIATION`, `BEST`, `BEST_DEPTH` or, if it was kept, `DEPTHS`."""
        return Multiscale.open(self.folder / MAPS_NAME / bundle / series / name)

    def count(self, bundle: str) -> Multiscale:
        """Open the number of depths at which a bundle has a value, by pixel."""
        return Multiscale.open(self.folder / MAPS_NAME / bundle / COUNT_NAME)

    def stretch(self, bundle: str) -> Stretch:
        """Return the stretch of a bundle's z values."""
        row = self.document["bundles"][self.bundles.index(bundle)]
        return Stretch(**row["stretch"])

    @cached_property
    def units(self) -> dict[tuple[int, int], Location]:
        """Counts of units by the upper left pixel of each; a listing, which may lag behind, is not asked."""
        folder, unit_px = self.folder / MAPS_NAME / COUNTS_NAME, int(self.document["unit_px"])
        boxes = cut(self.shape_yx, unit_px, unit_px)
        return {(box.y0, box.x0): folder / f"{Unit(0, box, box).name}.npz" for box in boxes}

    def histogram(self, bundle: str, series: str) -> NDArray[np.int64]:
        """Add up how often each float16 code occurs, (CODES,)."""
        name = histogram_name(self.bundles.index(bundle), self.series.index(series))
        found: NDArray[np.int64] = summed(map(read_counts, self.units.values()), [name])[name]
        return found

    def block_profiles(self, bundle: str, series: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Read the mean map of each block at every depth.

        Returns:
            Means (depths, rows, columns), 0 where a block has no value, and pixels that have one, (rows, columns);
            blocks of `BLOCK_PX` from (0, 0).
        """
        b, s = self.bundles.index(bundle), self.series.index(series)
        rows, columns = (-(-side // BLOCK_PX) for side in self.shape_yx)
        sums = np.zeros((len(self.depths), rows, columns), np.int64)
        pixels = np.zeros((rows, columns), np.int64)
        for (y, x), place in self.units.items():
            counts = read_counts(place)
            part, number = counts[block_sum_name(b, s)], counts[block_pixels_name(b)]
            where = np.s_[y // BLOCK_PX :, x // BLOCK_PX :]
            sums[:, *where][:, : part.shape[1], : part.shape[2]] = part
            pixels[where][: number.shape[0], : number.shape[1]] = number
        return sums / GRID / np.maximum(pixels, 1), pixels


def read_counts(place: Location) -> dict[str, NDArray[Any]]:
    """Read one unit's counts.

    Raises:
        DataError: They are damaged.
    """
    return read_npz(place, "counts of a sweep's unit", "delete it and run the sweep again")
