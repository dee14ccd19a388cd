"""Links that open stored volumes in Neuroglancer: the viewer's whole state stands in the address."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

VIEWER = "https://neuroglancer-demo.appspot.com/"
PAPYRUS_SHADER = "#uicontrol invlerp normalized\nvoid main() { emitGrayscale(normalized()); }"
# Ink over papyrus: red, as opaque as the probability is high; the slider hides what is below it.
INK_SHADER = (
    "#uicontrol float threshold slider(min=0, max=1, default=0.3)\n"
    '#uicontrol vec3 color color(default="red")\n'
    "void main() { float p = toNormalized(getDataValue()); emitRGBA(vec4(color, p < threshold ? 0.0 : p)); }"
)


@dataclass(frozen=True)
class ImageLayer:
    """An image layer of the viewer.

    Attributes:
        name: Shown in the viewer.
        address: The OME-Zarr group as the browser reaches it: ``https://…``, ``s3://…`` or ``gs://…``.
        shader: How values become colours.
    """

    name: str
    address: str
    shader: str


def papyrus_layer(address: str, name: str = "papyrus") -> ImageLayer:
    """Make a grey layer."""
    return ImageLayer(name, address, PAPYRUS_SHADER)


def ink_layer(address: str, name: str = "ink") -> ImageLayer:
    """Make a layer that lays ink in red over what is below it."""
    return ImageLayer(name, address, INK_SHADER)


def neuroglancer_link(
    layers: Sequence[ImageLayer], shape_zyx: tuple[int, int, int], spacing_zyx_um: tuple[float, float, float]
) -> str:
    """Return an address that shows the layers from above, the whole segment in view.

    Args:
        layers: From the lowest to the topmost.
        shape_zyx: (layers, height, width); the middle layer is shown.
        spacing_zyx_um: Micrometres between values along z, y and x.
    """
    depth, height, width = shape_zyx
    z, y, x = (um * 1e-6 for um in spacing_zyx_um)
    state: dict[str, Any] = {
        "dimensions": {"x": [x, "m"], "y": [y, "m"], "z": [z, "m"]},
        "position": [width / 2, height / 2, depth // 2 + 0.5],
        "crossSectionScale": max(1.0, max(height, width) / 1000),
        "layers": [
            {
                "type": "image",
                "source": {"url": f"zarr2://{layer.address}"},
                "name": layer.name,
                "shader": layer.shader,
                "opacity": 1,  # the viewer's own default is a half
                "blend": "default",
            }
            for layer in layers
        ],
        "layout": "xy",
        "showAxisLines": False,
    }
    return f"{VIEWER}#!{quote(json.dumps(state, separators=(',', ':')), safe='')}"
