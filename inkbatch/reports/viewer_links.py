"""Links from a page into the viewer: to a place of a segment, with the maps to show there."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

if TYPE_CHECKING:  # the command line asks for the port alone
    from inkbatch.geometry import Box

VIEWER_PORT = 8700  # the first one that `inkbatch view` takes
SHOWN_PX = 480  # of the screen that a linked window fills
MOST_ZOOM = 8.0


def viewer_link(segment: str, box: Box, first: str, second: str | None = None, layer: int | None = None) -> str:
    """Write the address of a window in a viewer that runs on this machine.

    The part behind ``#`` is the viewer's own: centre, screen pixels per pixel, maps, and the marked region.

    Args:
        segment: Segment id.
        box: The window, in pixels of the segment; it is marked.
        first: The map to show.
        second: Another one, side by side with it.
        layer: Layer of the papyrus below, in depth order; None is the viewer's own choice.
    """
    zoom = min(MOST_ZOOM, SHOWN_PX / max(box.shape))
    values = {"seg": segment, "x": (box.x0 + box.x1) // 2, "y": (box.y0 + box.y1) // 2, "z": f"{zoom:.4g}"}
    values |= {"maps": first, "r": f"{box.y0},{box.x0},{box.y1},{box.x1}"}
    values |= {"v": "side", "with": second} if second else {}
    values |= {} if layer is None else {"l": str(layer)}
    return f"http://localhost:{VIEWER_PORT}/#{urlencode(values, safe=',')}"


def objects_link(picture: str, result: str) -> str:
    """Write the address of the objects of a segment or picture in a viewer that runs on this machine."""
    return f"http://localhost:{VIEWER_PORT}/#{urlencode({'seg': picture, 'obj': result})}"
