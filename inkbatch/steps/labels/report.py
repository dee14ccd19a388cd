"""Report of `inkbatch labels`: statistics of the components, and a picture of before and after."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inkbatch.data.labels.seams import Merged
from inkbatch.data.maps.label_source import LabelSource
from inkbatch.geometry import Box
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.pictures.png import write_png
from inkbatch.io.pictures.preview import preview_level
from inkbatch.io.store.location import Location

PREVIEW_PX = 1_500
IGNORED_GREY, GAP_GREY, GAP_PX = 128, 64, 8


def write_statistics(
    folder: Location, merged: Merged | None, markers: Sequence[Mapping[str, Any]], shape_yx: tuple[int, int]
) -> dict[str, Any]:
    """Write ``components.json``.

    Args:
        folder: Where it goes.
        merged: The components; None for soft labels.
        markers: Of all units.
        shape_yx: Size of the surface.

    Returns:
        Its sums: counts and pixels of kept and removed components, filled, ink and ignored pixels. Of soft labels, ink
        is what has at least half of full scale.
    """
    ink_px, ignored_px, both = (
        sum(marker.get(key, 0) for marker in markers) for key in ("ink_px", "ignored_px", "ignored_ink_px")
    )
    facts: dict[str, Any] = {}
    statistics: dict[str, Any] = {}
    if merged is not None:
        facts = {
            "components": merged.kept_count,
            "component_px": merged.kept_px,
            "removed_components": merged.removed_count,
            "removed_px": merged.removed_px,
            "filled_px": ink_px - merged.kept_px,
        }
        statistics = {
            "components_by_least_area_px": {str(2**k): count for k, count in enumerate(merged.histogram) if count},
            "largest": [component.model_dump(mode="json") for component in merged.components],
        }
    facts |= {
        "ink_px": ink_px,
        "ink_share": ink_px / (shape_yx[0] * shape_yx[1]),
        "ignored_px": ignored_px,
        "ignored_ink_px": both,
    }
    statistics = {**facts, **statistics}
    (folder / "components.json").write_json(statistics)
    return facts


def write_before_and_after(
    folder: Location, source: LabelSource, labels: Multiscale, ignore_mask: Multiscale | None, unit_px: int
) -> None:
    """Write ``preview.png``: the source on the left, the labels on the right, ignored pixels in middle grey.

    Args:
        folder: Where it goes.
        source: The labels before.
        labels: The labels after.
        ignore_mask: Of the same size, or None.
        unit_px: Edge of the squares in which `source` is read.
    """
    level = preview_level(labels, PREVIEW_PX)
    before = np.rint(source.overview(level, unit_px) * 255).astype(np.uint8)
    whole = Box(0, 0, *labels.levels[level].layout.shape).slices
    after = labels.levels[level].read(whole)
    if ignore_mask is not None:
        after[ignore_mask.levels[level].read(whole) != 0] = IGNORED_GREY
    gap = np.full((before.shape[0], GAP_PX), GAP_GREY, np.uint8)
    picture = np.concatenate([before, gap, after], axis=1)
    file = io.BytesIO()
    write_png(file, picture.shape, picture.dtype, [picture], "ink labels before and after cleaning")
    (folder / "preview.png").write_bytes(file.getbuffer())
