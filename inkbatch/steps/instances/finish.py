"""End of `inkbatch instances`: tables, outlines and pictures of all units together."""

from __future__ import annotations

import io
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.data.instances.fates import ProposalFate, counts_of, proposal_fates
from inkbatch.data.instances.outlines import coco_document, collection, edges, svg
from inkbatch.data.instances.scoring import quantiles
from inkbatch.data.instances.tables import csv_cell, csv_parts, parquet_bytes
from inkbatch.geometry import Box
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.pictures.png import png_bytes
from inkbatch.io.pictures.preview import preview_level
from inkbatch.io.store.location import Location
from inkbatch.reports.pictures import AMBER
from inkbatch.steps.instances.plan import InstancesPlan
from inkbatch.steps.instances.sources import Source

OVERLAY_PX = 2400  # longest side of an overlay
STRIP_PX = 1024  # rows of labels that are read at a time
SIZE_POINTS = 100  # of a size distribution
PROPOSAL_COLUMNS = ("picture", "y_px", "x_px", "rule", "area_px", "regions", "fate", "reason", "label")


def finish(plan: InstancesPlan) -> Mapping[str, Any]:
    """Write everything that is made of all units; equal results give equal bytes."""
    if "csv" in plan.forms:
        (plan.folder / "instances.csv").write_stream(lambda: csv_parts(_rows(plan)))
    if "parquet" in plan.forms:
        (plan.folder / "instances.parquet").write_bytes(parquet_bytes(_rows(plan)))
    if "coco" in plan.forms:
        _write_coco(plan)
    pictures = [_finish_picture(plan, number) for number in range(len(plan.sources.pictures))]
    lines = [line for one in pictures for line in one.pop("lines")]
    (plan.folder / "proposals.csv").write_bytes(("\n".join([",".join(PROPOSAL_COLUMNS), *lines]) + "\n").encode())
    total: Counter[str] = Counter()
    for one in pictures:
        total.update(one["counts"])
    sizes = np.array([(row["equivalent_diameter_px"], row["larger_than_tile"]) for row in _rows(plan)], np.float64)
    diameters, larger = sizes.reshape(-1, 2).T
    facts = {"instances": len(diameters), "larger_than_tile": int(larger.sum())}
    document = {**facts, "counts": dict(total), "pictures": pictures, "sizes": _sizes(diameters, plan.sources.pixel_um)}
    (plan.folder / "instances.json").write_json(document)
    return facts


def _entries(plan: InstancesPlan, number: int) -> Iterator[dict[str, Any]]:
    """Read the measured instances of a picture in the order of their labels; one row of units is held at a time.

    Labels follow the first pixels of objects from top to bottom, and an object is measured in the unit of its own.
    """
    for _, units in itertools.groupby(plan.units_of(number), lambda unit: plan.parts[unit.index].write_box.y0):
        found = [entry for unit in units for entry in plan.rows_place(unit).read_json()]
        yield from sorted(found, key=lambda entry: int(entry["row"]["label"]))


def _all_entries(plan: InstancesPlan) -> Iterator[dict[str, Any]]:
    for number in range(len(plan.sources.pictures)):
        yield from _entries(plan, number)


def _rows(plan: InstancesPlan) -> Iterator[dict[str, Any]]:
    return (entry["row"] for entry in _all_entries(plan))


def _finish_picture(plan: InstancesPlan, number: int) -> dict[str, Any]:
    """Write the files of one picture; returns its counts and the lines of its proposals."""
    source, outlines = plan.sources.pictures[number], plan.folder / "outlines"
    fates, counts = _accounts(plan, number)
    if "geojson" in plan.forms:
        place = outlines / f"{source.name}.geojson"
        place.write_stream(lambda: collection(entry["feature"] for entry in _entries(plan, number)))
    if "svg" in plan.forms:
        (outlines / f"{source.name}.svg").write_stream(lambda: _svg(plan, number))
    labels = Multiscale.open(plan.labels_place(source) / "labels.zarr")
    if "npy" in plan.forms:
        (plan.folder / f"npy/{source.name}.npy").write_stream(lambda: _npy_parts(labels))
    if "overlay" in plan.forms:
        (plan.folder / f"overlays/{source.name}.png").write_bytes(png_bytes(overlay(source, labels)))
    return {
        "picture": source.name,
        "shape_yx": list(source.shape_yx),
        "instances": len(plan.objects(number).extent),
        "counts": counts,
        "lines": [_proposal_line(source.name, one) for one in fates],
    }


def _svg(plan: InstancesPlan, number: int) -> Iterator[bytes]:
    drawn = ((entry["row"]["label"], entry["rings"]) for entry in _entries(plan, number))
    return svg(drawn, plan.sources.pictures[number].shape_yx, plan.sources.pixel_um)


def _accounts(plan: InstancesPlan, number: int) -> tuple[list[ProposalFate], dict[str, int]]:
    """Settle what became of the proposals of one picture, and count it."""
    found = plan.first_pass(number)
    if plan.network is not None:
        refined = plan.refined(number)
        return refined.fates, refined.counts(found.joined, plan.limits.min_px)
    fates = proposal_fates(found.proposals, found.joined, found.fates, plan.region_at(number))
    return fates, counts_of(fates, found.joined, found.fates, plan.limits.min_px)


def _proposal_line(picture: str, found: ProposalFate) -> str:
    one = found.proposal
    y, x = one.point_yx
    label = found.label or ""
    picture = csv_cell(picture)
    return f"{picture},{y:.3f},{x:.3f},{one.rule},{one.area_px},{one.parts},{found.fate},{found.reason or ''},{label}"


def _write_coco(plan: InstancesPlan) -> None:
    images = [(source.name, source.shape_yx) for source in plan.sources.pictures]
    for name, key in (("coco.json", "polygon"), ("coco-rle.json", "runs")):
        _stream_coco(plan.folder / name, plan, images, key)


def _stream_coco(place: Location, plan: InstancesPlan, images: list[tuple[str, tuple[int, int]]], key: str) -> None:
    place.write_stream(lambda: coco_document(images, (entry[key] for entry in _all_entries(plan))))


def _npy_parts(labels: Multiscale) -> Iterator[bytes]:
    height, width = labels.shape
    head = io.BytesIO()
    header = {"descr": "<u4", "fortran_order": False, "shape": (height, width)}
    np.lib.format.write_array_header_1_0(head, header)
    yield head.getvalue()
    for top in range(0, height, STRIP_PX):
        box = Box(top, 0, min(top + STRIP_PX, height), width)
        yield labels.levels[0].read(box.slices).astype("<u4").tobytes()


def overlay(source: Source, labels: Multiscale) -> NDArray[np.uint8]:
    """Draw the outlines of instances in amber over the picture, or over the map where there is none: (Y, X, 3)."""
    level = preview_level(labels, OVERLAY_PX)
    height, width = labels.levels[level].layout.shape
    numbers = labels.levels[level].read((slice(0, height), slice(0, width)))
    shown = _grey(source, (height, width))
    picture = np.repeat(shown[..., None], 3, axis=2)
    picture[edges(numbers)] = AMBER
    return picture


def _grey(source: Source, shape_yx: tuple[int, int]) -> NDArray[np.uint8]:
    """Read the picture at a smaller size, strip by strip; 8 bits."""
    height, width = source.shape_yx
    factor = -(-height // shape_yx[0])
    out = np.zeros(shape_yx, np.float32)
    rows = max(1, STRIP_PX // factor)
    for top in range(0, shape_yx[0], rows):
        bottom = min(top + rows, shape_yx[0])
        box = Box(top * factor, 0, min(bottom * factor, height), width)
        values = source.grey(box)
        found = source.map(box) * np.float32(255) if values is None else values.astype(np.float32)
        strip = found if found.ndim == 2 else found[1]
        out[top:bottom] = cv2.resize(strip, (shape_yx[1], bottom - top), interpolation=cv2.INTER_AREA)
    most = float(out.max(initial=0))
    scale = 255 / most if most > 255 else 1.0
    tones: NDArray[np.uint8] = np.rint(out * np.float32(scale)).astype(np.uint8)
    return tones


def _sizes(diameters: NDArray[np.float64], pixel_um: float | None) -> dict[str, Any]:
    """Describe the distribution of equivalent diameters, by number and by area."""
    if not len(diameters):
        return {}
    order = np.sort(diameters)
    at = np.linspace(0, 1, SIZE_POINTS + 1)
    by_area = np.cumsum(order**2) / np.sum(order**2)
    places = np.minimum(np.searchsorted(by_area, at), len(order) - 1)
    return {
        "pixel_um": pixel_um,
        "by_number": quantiles(diameters),
        "by_area": quantiles(diameters, by_area=True),
        "share": at.round(4).tolist(),
        "diameter_by_number_px": np.quantile(order, at).round(4).tolist(),
        "diameter_by_area_px": order[places].round(4).tolist(),
    }
