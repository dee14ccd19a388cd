"""Answers of the viewer: the scene, tiles, values under the cursor, depth profiles, pictures. No HTTP in here."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch import __version__
from inkbatch.config import digest
from inkbatch.documents import parse_json
from inkbatch.errors import ConfigError
from inkbatch.geometry import Box
from inkbatch.io.pictures.png import indexed_png
from inkbatch.view.blocks import TILE_PX, BoundedCache
from inkbatch.view.look import MapLook, OutlineLook, PapyrusLook, PictureLook, query_values
from inkbatch.view.picture import SavedPicture
from inkbatch.view.render import Layer, Renderer, UnknownNameError
from inkbatch.view.scene import Group, Scene

JPEG_QUALITY = 92
KEEP_S = 300  # a browser's cache; an address names the versions of its predictions
AROUND_PX = 4  # the depth profile's second curve is the mean of a square of 2 * AROUND_PX + 1
STRETCH = (0.5, 99.5)  # percentiles of papyrus that become black and white


@dataclass(frozen=True)
class Answer:
    """Response to a request.

    Attributes:
        body: Bytes, unless `write` is given.
        kind: Media type.
        keep_s: Seconds that a browser may keep it.
        write: Writes a body of unknown length.
        name: File name for a download.
        headers: Further headers.
    """

    body: bytes = b""
    kind: str = "application/json; charset=utf-8"
    keep_s: int = 0
    write: Callable[[BinaryIO], None] | None = None
    name: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class Viewer:
    """Viewer of a scene, in bounded memory.

    Args:
        scene: Scene to show.
        memory_bytes: Room for decoded pieces and rendered tiles together.
        can_edit: Tell the page that labels can be painted.
    """

    def __init__(self, scene: Scene, memory_bytes: int = 256 << 20, *, can_edit: bool = False) -> None:
        self._scene, self._can_edit = scene, can_edit
        self._blocks: BoundedCache[Any] = BoundedCache(memory_bytes * 3 // 4, _block_bytes)
        self._tiles: BoundedCache[tuple[bytes, str]] = BoundedCache(memory_bytes // 4, lambda tile: len(tile[0]))
        self._renderers = self._made()

    @property
    def used_bytes(self) -> int:
        """Memory that decoded pieces and rendered tiles take."""
        return self._blocks.used_bytes + self._tiles.used_bytes

    def _made(self) -> list[Renderer]:
        return [Renderer(group, self._blocks, _identity(group)) for group in self._scene.groups]

    def scene(self) -> Answer:
        """Describe all groups, after looking for new predictions, so that reloading the page shows them."""
        self._scene.refresh()
        self._renderers = self._made()
        groups = [{**r.group.describe(), "levels": r.levels} for r in self._renderers]
        found = {"inkbatch": __version__, "tile_px": TILE_PX, "groups": groups}
        return json_answer({**found, "edit": True} if self._can_edit else found)

    def _renderer(self, number: int) -> Renderer:
        if number >= len(self._renderers):
            raise UnknownNameError(f"expected a segment from 0 to {len(self._renderers) - 1}, got {number}")
        return self._renderers[number]

    @property
    def groups(self) -> tuple[Group, ...]:
        """The segments that are shown."""
        return self._scene.groups

    def map_reader(self, number: int, look: MapLook) -> Callable[[Box], NDArray[np.float64]]:
        """Open one map, or several combined; the reader gives shares at full size, NaN where there are none yet."""
        return self._renderer(number).reader(look)

    def tile(self, number: int, kind: str, level: int, row: int, column: int, query: str) -> Answer:
        """Answer with a tile: JPEG of papyrus, PNG of a map or of outlines.

        Raises:
            ConfigError: A value of the address is not valid.
            UnknownNameError: There is no such segment or prediction.
            InkbatchError: It cannot be read.
        """
        renderer, values = self._renderer(number), query_values(query)
        draw: Callable[[], tuple[bytes, str]]
        if kind == "papyrus":
            papyrus = PapyrusLook.parse({key: value for key, value in values.items() if key != "version"})

            def draw() -> tuple[bytes, str]:
                return _jpeg(renderer.papyrus(papyrus, level, row, column)), "image/jpeg"
        elif kind == "map":
            look = MapLook.parse(values)

            def draw() -> tuple[bytes, str]:
                return _png(renderer.map(look, level, row, column)), "image/png"
        else:
            names = tuple(str(name) for name in _strings(values.pop("maps", ())))
            values.pop("version", None)
            outlines = OutlineLook.parse(values)

            def draw() -> tuple[bytes, str]:
                return _png(renderer.outlines(outlines, names, level, row, column)), "image/png"

        key: Hashable = (renderer.key, kind, level, row, column, query)
        body, media = self._tiles.get(key, draw)
        return Answer(body, media, KEEP_S)

    def about(self, what: str, number: int, query: str) -> Answer:
        """Answer with a value, a depth profile, a grey range, an object or a picture.

        Raises:
            ConfigError: A value of the address is not valid.
            UnknownNameError: There is no such segment or prediction.
            InkbatchError: It cannot be read.
        """
        renderer, values = self._renderer(number), query_values(query)
        if what == "picture":
            return _picture(renderer, values)
        if what == "range":
            return json_answer(_grey_range(renderer, values))
        if what == "object":
            return json_answer(_object(renderer, values))
        y, x = (_whole(values, key) for key in ("y", "x"))
        height, width = renderer.group.shape_yx
        if not (0 <= y < height and 0 <= x < width):
            raise ConfigError(f"view: pixel y {y}, x {x} lies outside {height} × {width} px")
        if what == "value":
            return json_answer(_value(renderer, y, x, values))
        return json_answer(_profile(renderer, y, x))


def _value(renderer: Renderer, y: int, x: int, values: Mapping[str, object]) -> dict[str, Any]:
    place = (0, y // TILE_PX, x // TILE_PX)
    inside = (y % TILE_PX, x % TILE_PX)
    found: dict[str, Any] = {"y": y, "x": x, "papyrus": None, "maps": {}}
    if "range" in values and renderer.group.surface is not None:
        look = PapyrusLook.parse({"range": values["range"]})
        found["papyrus"] = int(renderer.papyrus_block(look.range, *place)[inside])
    for name in _strings(values.get("maps", ())):
        block, missing = renderer.map_block(name, *place)
        scale = renderer.group.maps[name].scale
        found["maps"][name] = None if missing is not None and missing[inside] else scale.value(float(block[inside]))
    return found


def _object(renderer: Renderer, values: Mapping[str, object]) -> dict[str, Any]:
    """Describe the object of a number, or the one at a pixel: its number, None where there is none, and its row."""
    shown = renderer.objects(str(values.get("name", "")))
    if "label" in values:
        label = _whole(values, "label")
        if not 1 <= label <= shown.count:
            raise UnknownNameError(f"expected an object from 1 to {shown.count:,}, got {label}")
    else:
        y, x = (_whole(values, key) for key in ("y", "x"))
        if not Box(0, 0, *renderer.group.shape_yx).contains(Box(y, x, y + 1, x + 1)):
            raise UnknownNameError(f"pixel y {y}, x {x} lies outside the picture")
        label = int(shown.labels.levels[0].read((slice(y, y + 1), slice(x, x + 1)))[0, 0])
    return {"name": shown.name, "label": label or None, "row": renderer.row(shown, label) if label else None}


def _profile(renderer: Renderer, y: int, x: int) -> dict[str, Any]:
    group = renderer.group
    if group.surface is None:
        raise UnknownNameError("this prediction is shown without its surface: there is no depth")
    height, width = group.shape_yx
    grown = Box(max(0, y - AROUND_PX), max(0, x - AROUND_PX), y + AROUND_PX + 1, x + AROUND_PX + 1)
    near = grown.intersect(Box(0, 0, height, width))
    block = group.surface.read(range(group.surface.layer_count), near)
    around = block.reshape(len(block), -1).mean(axis=1)
    return {
        "y": y,
        "x": x,
        "layers": group.layer_numbers(),
        "values": [int(value) for value in block[:, y - near.y0, x - near.x0]],
        "around": [round(float(value), 2) for value in around],
        "around_px": 2 * AROUND_PX + 1,
    }


def _grey_range(renderer: Renderer, values: Mapping[str, object]) -> dict[str, Any]:
    """Return grey percentiles of papyrus, from the coarsest level."""
    if renderer.group.surface is None:
        raise UnknownNameError("this prediction is shown without its surface")
    look = PapyrusLook.parse({"range": values.get("range")})
    level = renderer.levels - 1
    height, width = (-(-size // 2**level) for size in renderer.group.shape_yx)
    found = []
    for row, column, _ in renderer.tile_grid(level, Box(0, 0, height, width))[:64]:
        block = renderer.papyrus_block(look.range, level, row, column)
        found.append(block[block > 0])
    grey = np.concatenate(found)
    if not grey.size:
        return {"low": 0, "high": 255}
    low, high = (round(float(value)) for value in np.percentile(grey, STRETCH))
    return {"low": low, "high": max(high, low + 1)}


def _picture(renderer: Renderer, values: dict[str, object]) -> Answer:
    """Answer with a picture; its nested settings are JSON under ``look``."""
    document = parse_json(str(values.get("look", "")), "view: the picture's settings")
    if not isinstance(document, dict) or set(values) != {"look"}:
        raise ConfigError("view: the picture's settings cannot be read")
    picture = SavedPicture(renderer, PictureLook.parse(document))
    return Answer(kind="image/png", write=picture.write, name=picture.name)


def _whole(values: Mapping[str, object], key: str) -> int:
    text = str(values.get(key, ""))
    if not text.isdecimal() or len(text) > 9:
        raise ConfigError(f"view: {key}=expected a whole number, got {text!r}")
    return int(text)


def _strings(value: object) -> tuple[str, ...]:
    return tuple(str(part) for part in value if part) if isinstance(value, tuple) else ()


def _identity(group: Group) -> str:
    """Return a key that changes when a group's surface is replaced."""
    made = None if group.surface is None else group.surface.provenance.model_dump(mode="json")
    below = "" if group.photograph is None else group.photograph.place.uri
    return f"{group.segment}/{group.shape_yx}/{below if made is None else digest(made)}"


def _block_bytes(item: Any) -> int:
    parts = item if isinstance(item, tuple) else (item,)
    return sum(part.nbytes for part in parts if isinstance(part, np.ndarray))


def json_answer(value: object) -> Answer:
    """Answer with JSON."""
    return Answer(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())


def _png(layer: Layer) -> bytes:
    return indexed_png(layer.indices, layer.colours)


def _jpeg(grey: NDArray[np.uint8]) -> bytes:
    seen = grey if grey.ndim == 2 else cv2.cvtColor(grey, cv2.COLOR_RGB2BGR)
    fine, data = cv2.imencode(".jpg", seen, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not fine:
        raise ValueError(f"a tile of {grey.shape} cannot be encoded as JPEG")
    return data.tobytes()
