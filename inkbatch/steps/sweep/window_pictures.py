"""Pictures of a sweep's windows: papyrus, z values, those of the loudest null, and best depths, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.data.maps.sweep import BEST_DEPTH, Z
from inkbatch.geometry import Box
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.pictures.z_maps import SHOWN_Z, grey_of_z
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume
from inkbatch.reports.page import Link, Picture
from inkbatch.reports.pictures import coloured, surface_read
from inkbatch.reports.stored import shown
from inkbatch.reports.viewer_links import viewer_link
from inkbatch.run.finished import StoredRun

PANEL_PX, GAP_PX, GAP_GREY = 200, 4, 128
NO_VALUE = 24  # grey of what has no value in pictures of depths, and of what lies beyond the border
DARKEST, BRIGHTEST = 0.5, 99.5  # percentiles of a window's papyrus that become black and white

Colours = NDArray[np.uint8]  # (Y, X, 3)


@dataclass(frozen=True)
class WindowSource:
    """Stored files that pictures of windows are made of.

    Attributes:
        folder: Of the sweep.
        document: Its ``sweep.json``.
        name: Of the sweep.
        volume: The surface that was read; None if ROOT does not have it any more.
    """

    folder: Location
    document: Mapping[str, Any]
    name: str
    volume: SurfaceVolume | None

    @staticmethod
    def of(run: StoredRun, root: Location, document: Mapping[str, Any]) -> WindowSource:
        """Gather the files of a finished sweep below ROOT."""
        config = run.manifest["config"]
        volume = surface_read(root, config["segment"], run.manifest["inputs"]["surface"])
        return WindowSource(run.folder, document, config["name"], volume)


def loudest_null(document: Mapping[str, Any], series: str, number: int) -> str | None:
    """Name the null that scores highest in a window; None where none was swept."""
    direction = next(row["direction"] for row in document["series"] if row["name"] == series)
    nulls = [
        row["name"]
        for row in document["series"]
        if row["null"] == "repeated" or (row["null"] and row["direction"] == direction)
    ]
    rows = document["evidence"]["series"]
    return max(nulls, key=lambda name: rows[name]["score"][number] or 0.0, default=None)


def window_picture(source: WindowSource, number: int) -> Picture:
    """Draw a window of the evidence, with a link into the viewer."""
    document, evidence = source.document, source.document["evidence"]
    box = Box(*evidence["at"][number])
    series = evidence["direction"][number]
    null = loudest_null(document, series, number)
    layer = _shown_layer(source, number, series)
    panels = dict(_panels(source, box, layer, series, null))
    gap = np.full((PANEL_PX, GAP_PX, 3), GAP_GREY, np.uint8)
    parts = [part for panel in panels.values() for part in (gap, panel)][1:]
    low, high = SHOWN_Z
    depths, rank = document["depths"], evidence["rank"][number]
    seen = ", ".join(panels)
    return Picture(
        np.concatenate(parts, axis=1),
        alt=f"Window of rank {rank} from row {box.y0}, column {box.x0}; from left to right: {seen}.",
        caption=(
            f"Rank {rank}, q {shown(evidence['q'][number], 3)}: rows {box.y0:,} to {box.y1:,}, columns {box.x0:,} to "
            f"{box.x1:,}. From left to right: {seen}. z from {low:g} (black) to {high:g}; depths from {depths[0]} "
            f"(dark) to {depths[-1]}."
        ),
        link=Link("In the viewer", _address(source, box, layer, series, null)),
    )


def _address(source: WindowSource, box: Box, layer: int | None, series: str, null: str | None) -> str:
    """Link to a window in the viewer, which names z maps after the sweep."""
    second = f"{source.name}-{null}-z" if null else None
    return viewer_link(source.document["segment"], box, f"{source.name}-{series}-z", second, layer)


def _shown_layer(source: WindowSource, number: int, series: str) -> int | None:
    """Return the layer of the papyrus that is shown: a window's own, or the nearest one; None without a surface."""
    layer = layer_of(source.document, number, series)
    if source.volume is None or layer is None:
        return None
    return min(max(layer, 0), source.volume.layer_count - 1)


def _panels(
    source: WindowSource, box: Box, layer: int | None, series: str, null: str | None
) -> Iterator[tuple[str, Colours]]:
    if source.volume is not None and layer is not None:
        yield f"papyrus, layer {layer}", _grey(_papyrus(source.volume, layer, box))
    for name in (series, null):
        if name:
            yield f"z of {name}", _grey(grey_of_z(_read(source.folder / name / Z, box)))
    places = _read(source.folder / series / BEST_DEPTH, box)
    yield "best depth", _sized(depth_colours(places, len(source.document["depths"])))


def depth_colours(places: NDArray[np.uint8], depths: int) -> Colours:
    """Colour best depths as they are stored: the first of `depths` is dark, the last one bright, no value grey."""
    tones = np.rint(np.maximum(places.astype(np.float32) - 1, 0) * (255 / max(depths - 1, 1))).astype(np.uint8)
    colours = coloured(tones, "viridis")
    colours[places == 0] = NO_VALUE
    return colours


def layer_of(document: Mapping[str, Any], number: int, series: str) -> int | None:
    """Return the layer of the segment in the middle of what the first of its bundles takes at a window's depth."""
    depth: float | None = document["evidence"]["series"][series]["depth"][number]
    here = [one for one in document["bundles"] if one["segment"] == document["segment"]]
    if not here or depth is None:
        return None
    start, stop = map(int, here[0]["layers"])
    return round((start + stop - 1) / 2 + depth)


def _papyrus(volume: SurfaceVolume, layer: int, box: Box) -> NDArray[np.uint8]:
    grey = volume.read(range(layer, layer + 1), box)[0].astype(np.float32)
    black, white = np.percentile(grey, (DARKEST, BRIGHTEST))
    share = (grey - black) / max(float(white - black), 1.0)
    return np.asarray(np.rint(np.clip(share, 0, 1) * 255), np.uint8)


def _read(place: Location, box: Box) -> NDArray[Any]:
    return Multiscale.open(place).levels[0].read(box.slices)


def _grey(tones: NDArray[np.uint8]) -> Colours:
    return _sized(np.repeat(tones[..., None], 3, axis=2))


def _sized(colours: Colours) -> Colours:
    """Bring a panel to `PANEL_PX` square; windows that the border cuts keep their scale, beside void."""
    height, width = colours.shape[:2]
    size = [max(1, round(PANEL_PX * side / max(height, width))) for side in (width, height)]
    panel = np.full((PANEL_PX, PANEL_PX, 3), NO_VALUE, np.uint8)
    panel[: size[1], : size[0]] = cv2.resize(colours, size, interpolation=cv2.INTER_AREA)
    return panel
