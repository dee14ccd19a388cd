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
        plane_px_um: Edge of a pixel of a single plane that is shown at every depth; None of volumes.
    """

    name: str
    address: str
    shader: str
    plane_px_um: float | None = None

    def state(self) -> dict[str, Any]:
        """Return the layer as the viewer's state has it.

        A plane's z is renamed ``z'``: the viewer keeps a dimension with a prime inside its layer, so the position along
        the shared z does not move it out of sight.
        """
        found: dict[str, Any] = {
            "type": "image",
            "source": {"url": f"zarr://{self.address}"},  # the viewer finds out whether it is v2 or v3
            "name": self.name,
            "shader": self.shader,
            "opacity": 1,  # the viewer's own default is a half
            "blend": "default",
        }
        if self.plane_px_um is not None:
            edge = [self.plane_px_um * 1e-6, "m"]
            found["source"]["transform"] = {"outputDimensions": {"z'": edge, "y": edge, "x": edge}}
            found |= {"localDimensions": {"z'": edge}, "localPosition": [0]}
        return found


def papyrus_layer(address: str, name: str = "papyrus") -> ImageLayer:
    """Make a grey layer."""
    return ImageLayer(name, address, PAPYRUS_SHADER)


def ink_layer(address: str, name: str = "ink", plane_px_um: float | None = None) -> ImageLayer:
    """Make a layer that lays ink in red over what is below it; with the edge of its pixels, at every depth."""
    return ImageLayer(name, address, INK_SHADER, plane_px_um)


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
        "position": [width // 2, height // 2, depth // 2],  # the middle of voxel n lies at n
        "crossSectionScale": max(1.0, max(height, width) / 1000) * x / min(x, y, z),  # counts in the finest spacing
        "layers": [layer.state() for layer in layers],
        "layout": "xy",
        "showAxisLines": False,
    }
    return f"{VIEWER}#!{quote(json.dumps(state, separators=(',', ':')), safe='')}"
