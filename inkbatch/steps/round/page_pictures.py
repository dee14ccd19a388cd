"""Pictures of a round's page: maps of this round and of the one before, and the regions to look at next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inkbatch.data.maps.stored import StoredMap, open_map
from inkbatch.errors import InkbatchError
from inkbatch.geometry import Box
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume
from inkbatch.reports.page import Gallery, Link, Picture, Pixels
from inkbatch.reports.pictures import as_grey, coloured, legend_of, map_tones, over_papyrus
from inkbatch.reports.stored import pixels
from inkbatch.reports.viewer_links import viewer_link

SHOWN_SEGMENTS, SHOWN_REGIONS = 4, 12
MAP_REM, REGION_REM = 22, 14
MEAN_LAYERS = 5  # in the middle of the depth, below a region's ink
LAST = 255


def changed_maps(root: Location, now: Mapping[str, Any], before: Mapping[str, Any]) -> list[Gallery]:
    """Show the maps of two rounds side by side, the segments that changed most first; those that are gone are left out.

    Args:
        root: ROOT.
        now: ``round.json`` of the round.
        before: Of the round before it.
    """
    found = []
    for segment, name in now["maps"].items():
        pair = [_opened(root, segment, one) for one in (str(before["maps"].get(segment, "")), str(name))]
        if pair[0] is not None and pair[1] is not None:
            tones = map_tones(pair[0].prediction), map_tones(pair[1].prediction)
            found.append((float(np.abs(tones[1].astype(np.int16) - tones[0]).mean()), pair[0], pair[1], tones))
    found.sort(key=lambda one: (-one[0], one[1].segment))
    return [
        Gallery(
            (
                _map(first, old, before["round"], None),
                _map(second, new, now["round"], _side_by_side(first, second)),
            ),
            MAP_REM,
        )
        for _, first, second, (old, new) in found[:SHOWN_SEGMENTS]
    ]


def _opened(root: Location, segment: str, name: str) -> StoredMap | None:
    try:
        return open_map(root.uri, segment, name) if name else None
    except (InkbatchError, FileNotFoundError):
        return None


def _side_by_side(first: StoredMap, second: StoredMap) -> Link:
    address = viewer_link(first.segment, Box(0, 0, *first.shape_yx), first.name, second.name)
    return Link("both in the viewer", address)


def _map(found: StoredMap, tones: Pixels, number: int, link: Link | None) -> Picture:
    words = f"{found.segment}, round {number}"
    alt = f"Map of {words}: the brighter, the more probable is ink."
    width_um = found.shape_yx[1] * found.pixel_um
    return Picture(coloured(tones), alt, words, width_um, legend_of("inferno", "0", "1"), link=link)


def region_pictures(root: Location, folder: Location, regions: Sequence[Mapping[str, Any]]) -> list[Gallery]:
    """Show the best regions: ink out of fold over papyrus, beside the first label.

    Args:
        root: ROOT, for surfaces and maps; a region whose surface is gone is shown by its first label alone.
        folder: The round's folder.
        regions: Rows of ``proposals.json``.
    """
    shown: list[Picture] = []
    for one in regions[:SHOWN_REGIONS]:
        seen, first = _seen(root, folder, one), pixels(folder / str(one["first_label"]))
        words = f"Region {one['rank']}, {one['segment']}"
        view = Link("in the viewer", one["view"])
        if seen is not None:
            alt = f"{words}: papyrus, and over it in amber the ink that the networks see."
            shown.append(Picture(seen, alt, f"{words}: ink out of fold.", link=view))
        if first is not None:
            alt = f"{words}: its first label."
            shown.append(Picture(first, alt, "Its first label: white ink, black bare, grey ignored.", crisp=True))
    return [Gallery(tuple(shown), REGION_REM)] if shown else []


def _seen(root: Location, folder: Location, one: Mapping[str, Any]) -> Pixels | None:
    """Draw a region's map over its papyrus."""
    found = _opened(root, str(one["segment"]), f"{folder.parent.name}-r{folder.name.removeprefix('round-')}")
    if found is None:
        return None
    try:
        volume = SurfaceVolume.open(root / "segments" / found.segment)
    except (InkbatchError, FileNotFoundError):
        return None
    box, start = Box(*one["box"]), max(0, (volume.layer_count - MEAN_LAYERS) // 2)
    layers = volume.read(range(start, min(start + MEAN_LAYERS, volume.layer_count)), box)
    papyrus = as_grey(layers.mean(axis=0, dtype=np.float32), volume.read_mask(box))
    tones = np.rint(found.prediction.read(box).astype(np.float32) * LAST).astype(np.uint8)
    return over_papyrus(tones, papyrus)
