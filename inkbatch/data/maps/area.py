"""A rectangular part of a segment, as settings name it."""

from __future__ import annotations

from inkbatch.errors import ConfigError
from inkbatch.geometry import Box


def area_box(
    area: tuple[int, int, int, int] | None, shape_yx: tuple[int, int], what: str = "area", whose: str = "the segment"
) -> Box:
    """Return an area as a box; None is the whole segment.

    Args:
        area: (y0, x0, y1, x1) in pixels, half-open.
        shape_yx: (height, width) of the segment, or of a picture.
        what: Name of the setting, for messages.
        whose: What the area is a part of, for messages.

    Raises:
        ConfigError: It is empty or leaves the segment.
    """
    whole = Box(0, 0, *shape_yx)
    if area is None:
        return whole
    y0, x0, y1, x1 = area
    if not (0 <= y0 < y1 <= whole.y1 and 0 <= x0 < x1 <= whole.x1):
        raise ConfigError(
            f"{what} {y0}, {x0}, {y1}, {x1} (y0, x0, y1, x1) is empty or leaves the {whole.height} × {whole.width} px "
            f"(height × width) of {whose}; choose a part of it, in full-resolution pixels"
        )
    return Box(y0, x0, y1, x1)
