"""Requests of the label editor as the page sends them: validated, bounded, frozen."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from inkbatch.data.labels.components import Bools
from inkbatch.data.labels.painting import LayerName, Marks, Tile
from inkbatch.data.labels.painting_export import ExportFormat
from inkbatch.data.labels.painting_shapes import Shape, polygon, rectangle, stroke
from inkbatch.data.labels.painting_tools import ReadCodes, ReadMap, component_at, fill, smart, specks, take
from inkbatch.data.labels.painting_version import AUTHOR, LONGEST_AUTHOR
from inkbatch.errors import ConfigError
from inkbatch.geometry import Box
from inkbatch.validation import in_words

MOST_ROWS = 4_000_000  # of pixels that a stroke's parts cross, together
FARTHEST_PX = 1_000_000.0

Coordinate = Annotated[float, Field(ge=-FARTHEST_PX, le=FARTHEST_PX, allow_inf_nan=False)]
Pressure = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Radius = Annotated[float, Field(gt=0, le=2000, allow_inf_nan=False)]
Corner = tuple[Coordinate, Coordinate]
BrushPoint = tuple[Coordinate, Coordinate, Pressure]
BoxRow = tuple[int, int, int, int]
TabName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Pixel = tuple[Annotated[int, Field(ge=0, le=FARTHEST_PX)], Annotated[int, Field(ge=0, le=FARTHEST_PX)]]
Author = Annotated[str, Field(max_length=LONGEST_AUTHOR, pattern=AUTHOR)]
VersionName = Annotated[str, Field(pattern=r"^v[0-9]{3,6}$")]


class Message(BaseModel):
    """Base: frozen, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MapNames(Message):
    """Several maps, combined as the viewer does.

    Attributes:
        maps: Their names.
        combine: Their mean or maximum.
        invert: Take 1 - p.
    """

    maps: tuple[str, ...] = Field(min_length=1, max_length=16)
    combine: Literal["mean", "max"] = "mean"
    invert: bool = False


MapChoice = Annotated[str, Field(min_length=1, max_length=200)] | MapNames


@dataclass(frozen=True)
class Ground:
    """Ground that strokes are drawn on.

    Attributes:
        shape_yx: (height, width) of the segment.
        read: Reads codes of the version.
        marked: Lists the tiles with marks of a layer.
        map: Opens a map.
    """

    shape_yx: tuple[int, int]
    read: ReadCodes
    marked: Callable[[LayerName], list[Tile]]
    map: Callable[[str | MapNames], ReadMap]


class Drawn(Message):
    """Base of strokes that mark or erase on one layer.

    Attributes:
        layer: The layer.
        erase: Take marks away.
    """

    layer: LayerName
    erase: bool = False

    def marks(self, shape: Shape, shape_yx: tuple[int, int]) -> Iterator[Marks]:
        """Draw a shape onto a segment."""
        for box, mask in shape.strips(shape_yx):
            yield Marks(box, mask, self.layer, self.erase)


class Line(Message):
    """Line of a round brush.

    Attributes:
        points: y, x and pressure (0 to 1, a share of the radius).
        radius: In pixels of full resolution.
    """

    points: tuple[BrushPoint, ...] = Field(min_length=1, max_length=20_000)
    radius: Radius

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        _require_rows(_rows_of_line(self.points, self.radius))
        return self

    @property
    def shape(self) -> Shape:
        """Its pixels."""
        return brushed(self.points, self.radius)


class Brush(Line, Drawn):
    """Stroke of a round brush or eraser."""

    kind: Literal["brush"]

    def draw(self, ground: Ground) -> Iterator[Marks]:
        """Draw onto a version."""
        return self.marks(self.shape, ground.shape_yx)


class Polygon(Drawn):
    """Filled polygon.

    Attributes:
        points: Corners (y, x).
    """

    kind: Literal["polygon"]
    points: tuple[Corner, ...] = Field(min_length=3, max_length=20_000)

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        ys = [y for y, _ in self.points]
        _require_rows(sum(abs(one - other) for one, other in zip(ys, ys[1:] + ys[:1], strict=True)))
        return self

    def draw(self, ground: Ground) -> Iterator[Marks]:
        """Draw onto a version."""
        return self.marks(polygon(self.points), ground.shape_yx)


class Rectangle(Drawn):
    """Filled rectangle.

    Attributes:
        box: y0, x0, y1, x1, half-open.
    """

    kind: Literal["rectangle"]
    box: BoxRow

    def draw(self, ground: Ground) -> Iterator[Marks]:
        """Draw onto a version."""
        return self.marks(rectangle(box_inside(self.box, ground.shape_yx)), ground.shape_yx)


class Fill(Drawn):
    """Fill of what is joined to a pixel.

    Attributes:
        at: y and x of the pixel.
    """

    kind: Literal["fill"]
    at: Pixel

    def draw(self, ground: Ground) -> Iterator[Marks]:
        """Draw onto a version."""
        return fill(ground.read, self.at, ground.shape_yx, self.layer, erase=self.erase)


class Take(Message):
    """Acceptance of a map: in a box, along a line, or of the component below the pointer.

    Attributes:
        map: Name of a map, or several and how they are combined.
        threshold: Least share that becomes ink.
        band: Shares (low, high) that become ignored; None: none.
        box: y0, x0, y1, x1.
        points: Line of a brush; needs `radius`.
        radius: In pixels of full resolution.
        at: y and x below the pointer.
    """

    kind: Literal["take"]
    map: MapChoice
    threshold: Share
    band: tuple[Share, Share] | None = None
    box: BoxRow | None = None
    points: tuple[BrushPoint, ...] | None = Field(None, min_length=1, max_length=20_000)
    radius: Radius | None = None
    at: Pixel | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        places = [self.box is not None, self.points is not None, self.at is not None]
        if sum(places) != 1 or (self.points is None) != (self.radius is None):
            raise ValueError("expected box, or at, or points with radius")
        if self.band is not None and not self.band[0] < self.band[1]:
            raise ValueError(f"band: expected low < high, got {self.band[0]:g}, {self.band[1]:g}")
        if self.points is not None and self.radius is not None:
            _require_rows(_rows_of_line(self.points, self.radius))
        return self

    def draw(self, ground: Ground) -> Iterator[Marks]:
        """Draw onto a version."""
        read_map = ground.map(self.map)
        return take(self._areas(ground, read_map), read_map, self.threshold, self.band)

    def _areas(self, ground: Ground, read_map: ReadMap) -> Iterable[tuple[Box, Bools]]:
        if self.at is not None:
            least = min(self.threshold, self.band[0]) if self.band else self.threshold
            return [component_at(lambda box: read_map(box) >= least, self.at, ground.shape_yx)]
        if self.points is not None and self.radius is not None:
            return brushed(self.points, self.radius).strips(ground.shape_yx)
        return rectangle(box_inside(self.box or (0, 0, 0, 0), ground.shape_yx)).strips(ground.shape_yx)


class Smart(Line, Drawn):
    """Stroke that snaps to a map's edge.

    Attributes:
        map: Name of a map, or several and how they are combined.
    """

    kind: Literal["smart"]
    map: MapChoice

    def draw(self, ground: Ground) -> Iterator[Marks]:
        """Draw onto a version."""
        core = stroke([(y, x, 1.0) for y, x, _ in self.points])
        box, mask = smart(self.shape, core, ground.shape_yx, ground.map(self.map))
        yield Marks(box, mask, self.layer, self.erase)


class Clean(Message):
    """Removal of specks that lie wholly in a box.

    Attributes:
        box: y0, x0, y1, x1.
        below_px: Least pixels of what stays.
        layer: The layer.
    """

    kind: Literal["clean"]
    box: BoxRow
    below_px: int = Field(ge=1, le=100_000)
    layer: LayerName = "ink"

    def draw(self, ground: Ground) -> Iterator[Marks]:
        """Draw onto a version."""
        box = box_inside(self.box, ground.shape_yx)
        return specks(ground.read, ground.marked(self.layer), box, ground.shape_yx, self.below_px, self.layer)


class Carry(Message):
    """Undo or redo."""

    kind: Literal["undo", "redo"]


Op = Annotated[Brush | Polygon | Rectangle | Fill | Take | Smart | Clean | Carry, Field(discriminator="kind")]


class OpMessage(Message):
    """A stroke in its envelope; see `inkbatch.data.labels.painting_session.Sent`."""

    tab: TabName
    seq: int = Field(ge=1, le=1 << 40)
    base: int = Field(ge=0, le=1 << 40)
    version: VersionName
    op: Op


class VersionMessage(Message):
    """Branch from a version, or switch to it."""

    tab: TabName
    action: Literal["branch", "switch"]
    source: VersionName = Field(alias="from")
    author: Author = ""


class SeenMessage(Message):
    """A sign of life of a tab; `revision` is the newest one that it shows."""

    tab: TabName
    author: Author = ""
    version: VersionName | None = None
    revision: int | None = Field(None, ge=0, le=1 << 40)


class ExportMessage(Message):
    """Export of a version: `as` is the kind of file, `layer` the layer of a picture."""

    kind: ExportFormat = Field(alias="as")
    layer: LayerName = "ink"


def parsed(model: type[Message], document: Any) -> Any:
    """Validate a message.

    Raises:
        ConfigError: A missing or unknown key, or a value out of range.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise ConfigError(f"edit: {in_words(error, document, model=model, most=4)}") from error


def box_inside(row: BoxRow, shape_yx: tuple[int, int]) -> Box:
    """Clip y0, x0, y1, x1 to a segment.

    Raises:
        ConfigError: It is empty or inverted.
    """
    y0, x0, y1, x1 = row
    if not (y0 < y1 and x0 < x1):
        raise ConfigError(f"edit: box {y0}, {x0}, {y1}, {x1}: expected y0 < y1 and x0 < x1")
    return Box(y0, x0, y1, x1).intersect(Box(0, 0, *shape_yx))


def brushed(points: Sequence[BrushPoint], radius: float) -> Shape:
    """Return the shape of a line of a round brush; see `Line`."""
    return stroke([(y, x, max(radius * pressure, 0.5)) for y, x, pressure in points])


def _rows_of_line(points: Sequence[BrushPoint], radius: float) -> float:
    ys = [y for y, _, _ in points]
    return sum(abs(one - other) for one, other in itertools.pairwise(ys)) + 2 * radius * len(ys)


def _require_rows(rows: float) -> None:
    if rows > MOST_ROWS:
        raise ValueError(f"expected at most {MOST_ROWS:,} rows of pixels in one stroke, got {int(rows):,}")
