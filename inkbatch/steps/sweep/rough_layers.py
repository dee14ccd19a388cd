"""Contrast of a sweep's layers in blocks spread over its papyrus, and what the page says of a rough one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from inkbatch.data.maps.layer_contrast import ROUGH, contrasts, quieter, times_rougher
from inkbatch.data.maps.sweep import BLOCK_PX
from inkbatch.geometry import cut
from inkbatch.steps.sweep.window_pictures import layer_of

if TYPE_CHECKING:
    from inkbatch.steps.sweep.plan import SweepPlan

SAMPLED = 100  # blocks; those that are not papyrus all over are left out


def layer_contrast(plan: SweepPlan) -> dict[str, Any] | None:
    """Measure the contrast of the layers that are swept, as ``sweep.json`` holds it; None where no bundle reads them.

    The same blocks for every process; only they are read.
    """
    own = next((one for one in plan.surfaces if one.segment == plan.config.segment), None)
    if own is None:
        return None
    whole = [box for box in cut(plan.volume.shape_yx, BLOCK_PX, BLOCK_PX) if box.shape == (BLOCK_PX, BLOCK_PX)]
    places = np.unique(np.linspace(0, len(whole) - 1, SAMPLED).round().astype(int)) if whole else np.zeros(0, int)
    blocks = [whole[place] for place in places if plan.read_mask(whole[place]).all()]
    grey = quieter([contrasts(own.volume.read(own.layers, box)) for box in blocks])
    return {"layers": [own.layers.start, own.layers.stop], "blocks": len(blocks), "contrast": grey}


def rough_layer(document: Mapping[str, Any]) -> str | None:
    """Warn of called windows that lie in a layer which is rougher than those beside it; None if they do not."""
    evidence, found = document.get("evidence"), document.get("layer_contrast")
    if not (evidence and found and evidence["called"]):
        return None
    called = [number for number, q in enumerate(evidence["q"]) if q <= evidence["q_called"]]
    layers = [layer_of(document, number, evidence["direction"][number]) for number in called]
    known = [layer for layer in layers if layer is not None]
    if not known:
        return None
    layer = round(float(np.median(known)))
    times = times_rougher(found["contrast"], layer - found["layers"][0])
    if times is None or times < ROUGH:
        return None
    return (
        f"Around layer {layer}, where windows are called, the papyrus has {times:.1f} times the contrast of the layers "
        f"beside it nearly everywhere, not only where there may be ink: a rough layer is called like a written one."
    )
