"""Properties of instances, in pixels and millimetres, as a row each: CSV and Parquet."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import regionprops

from inkbatch.geometry import Box

COLUMNS: dict[str, str] = {
    "picture": "string",
    "label": "int64",
    "y0": "int64",
    "x0": "int64",
    "y1": "int64",
    "x1": "int64",
    "centroid_y_px": "double",
    "centroid_x_px": "double",
    "area_px": "int64",
    "equivalent_diameter_px": "double",
    "major_axis_px": "double",
    "minor_axis_px": "double",
    "perimeter_px": "double",
    "area_mm2": "double",
    "equivalent_diameter_mm": "double",
    "major_axis_mm": "double",
    "minor_axis_mm": "double",
    "perimeter_mm": "double",
    "orientation_deg": "double",
    "circularity": "double",
    "solidity": "double",
    "mean_intensity": "double",
    "mean_probability": "double",
    "predicted_iou": "double",
    "source": "string",
    "larger_than_tile": "bool",
}
GROUP_ROWS = 1 << 16  # of a table that are held at a time
DIGITS = 6  # of real numbers in CSV and GeoJSON


@dataclass(frozen=True, eq=False)
class Cutout:
    """One instance, cut out of its picture.

    Attributes:
        box: Its box in the picture.
        mask: (box.height, box.width): its pixels.
        probability: The same pixels of the map.
        intensity: The same pixels of the picture, grey, or None where there is none.
    """

    box: Box
    mask: NDArray[np.bool_]
    probability: NDArray[np.float32]
    intensity: NDArray[Any] | None = None


def properties(cut: Cutout, pixel_um: float | None) -> dict[str, Any]:
    """Measure an instance by scikit-image's region properties.

    Orientation is the angle of the major axis to the columns' axis in degrees, from -90 to 90, counter-clockwise as a
    reader sees the picture. Circularity is 4 pi area / perimeter squared, above 1 for some objects of few pixels.
    Millimetres are None where the edge of a pixel is not known.
    """
    one: Any = regionprops(cut.mask.astype(np.uint8))[0]  # type: ignore[no-untyped-call]
    perimeter = float(one.perimeter)
    row: dict[str, Any] = dict(
        zip(("y0", "x0", "y1", "x1"), (cut.box.y0, cut.box.x0, cut.box.y1, cut.box.x1), strict=True)
    )
    area = int(one.area)
    row |= {
        "centroid_y_px": float(one.centroid[0]) + cut.box.y0,
        "centroid_x_px": float(one.centroid[1]) + cut.box.x0,
        "area_px": area,
        "equivalent_diameter_px": float(one.equivalent_diameter_area),
        "major_axis_px": float(one.axis_major_length),
        "minor_axis_px": float(one.axis_minor_length),
        "perimeter_px": perimeter,
        "orientation_deg": (float(np.degrees(one.orientation)) + 180) % 180 - 90,
        "circularity": 4 * np.pi * area / perimeter**2 if perimeter else None,
        "solidity": float(one.solidity),
        "mean_intensity": None if cut.intensity is None else float(cut.intensity[cut.mask].mean(dtype=np.float64)),
        "mean_probability": float(cut.probability[cut.mask].mean(dtype=np.float64)),
    }
    mm = None if pixel_um is None else pixel_um / 1000
    row["area_mm2"] = None if mm is None else area * mm**2
    for name in ("equivalent_diameter", "major_axis", "minor_axis", "perimeter"):
        row[f"{name}_mm"] = None if mm is None else row[f"{name}_px"] * mm
    return row


def in_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """Put a row's values into the order of `COLUMNS`; NaN becomes None, real numbers are rounded."""
    found = {}
    for name, kind in COLUMNS.items():
        value = row.get(name)
        if kind == "double" and value is not None:
            value = None if value != value else round(float(value), DIGITS)
        found[name] = value
    return found


def csv_parts(rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Write rows as CSV, line by line; what is not known stays empty."""
    yield (",".join(COLUMNS) + "\n").encode()
    for row in rows:
        yield (",".join(csv_cell(row[name]) for name in COLUMNS) + "\n").encode()


def csv_cell(value: Any) -> str:
    """Write a value for a CSV, in quotes where it needs them; nothing for None."""
    if value is None:
        return ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text


def parquet_bytes(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Write rows as Parquet, with the types of `COLUMNS`, `GROUP_ROWS` at a time; equal rows give equal bytes."""
    import pyarrow
    import pyarrow.parquet

    kinds = {"string": pyarrow.string(), "int64": pyarrow.int64(), "double": pyarrow.float64(), "bool": pyarrow.bool_()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    buffer, left = io.BytesIO(), iter(rows)
    with pyarrow.parquet.ParquetWriter(buffer, schema, compression="zstd") as writer:
        while group := list(itertools.islice(left, GROUP_ROWS)):
            columns = {name: [row[name] for row in group] for name in COLUMNS}
            writer.write_table(pyarrow.Table.from_pydict(columns, schema))
    return buffer.getvalue()
