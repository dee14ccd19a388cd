"""Requests of the label editor as the page sends them: validated, bounded, frozen."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from inkbatch.data.labels.painting import LayerName, Marks
from inkbatch.data.labels.painting_shapes import Shape, polygon, rectangle, stroke
from inkbatch.errors import ConfigError
from inkbatch.geometry import Box

MOST_ROWS = 4_000_000  # of pixels that a stroke's parts cross, together
FARTHEST_PX = 1_000_000.0

Coordinate = Annotated[float, Field(ge=-FARTHEST_PX, le=FARTHEST_PX, allow_inf_nan=False)]
Pressure = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Radius = Annotated[float, Field(gt=0, le=2000, allow_inf_nan=False)]
Corner = tuple[Coordinate, Coordinate]
BrushPoint = tuple[Coordinate, Coordinate, Pressure]
BoxRow = tuple[int, int, int, int]
TabName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
Author = Annotated[str, Field(max_length=80, pattern=r"^[^\x00-\x1f\x7f]*$")]
VersionName = Annotated[str, Field(pattern=r"^v[0-9]{3,6}$")]


class Message(BaseModel):
    """Base: frozen, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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
        ys = [y for y, _, _ in self.points]
        rows = sum(abs(one - other) for one, other in itertools.pairwise(ys)) + 2 * self.radius * len(ys)
        _require_rows(rows)
        return self

    @property
    def shape(self) -> Shape:
        """Its pixels."""
        return stroke([(y, x, max(self.radius * pressure, 0.5)) for y, x, pressure in self.points])


class Brush(Line, Drawn):
    """Stroke of a round brush or eraser."""

    kind: Literal["brush"]

    def draw(self, shape_yx: tuple[int, int]) -> Iterator[Marks]:
        """Draw onto a segment of this (height, width)."""
        return self.marks(self.shape, shape_yx)


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

    def draw(self, shape_yx: tuple[int, int]) -> Iterator[Marks]:
        """Draw onto a segment of this (height, width)."""
        return self.marks(polygon(self.points), shape_yx)


class Rectangle(Drawn):
    """Filled rectangle.

    Attributes:
        box: y0, x0, y1, x1, half-open.
    """

    kind: Literal["rectangle"]
    box: BoxRow

    def draw(self, shape_yx: tuple[int, int]) -> Iterator[Marks]:
        """Draw onto a segment of this (height, width)."""
        return self.marks(rectangle(box_inside(self.box, shape_yx)), shape_yx)


class Carry(Message):
    """Undo or redo."""

    kind: Literal["undo", "redo"]


Op = Annotated[Brush | Polygon | Rectangle | Carry, Field(discriminator="kind")]


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


def parsed(model: type[Message], document: Any) -> Any:
    """Validate a message.

    Raises:
        ConfigError: A missing or unknown key, or a value out of range.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        rows = [f"{'.'.join(map(str, row['loc'])) or 'message'}: {row['msg']}" for row in error.errors()[:4]]
        raise ConfigError(f"edit: {'; '.join(rows)}") from error


def box_inside(row: BoxRow, shape_yx: tuple[int, int]) -> Box:
    """Clip y0, x0, y1, x1 to a segment.

    Raises:
        ConfigError: It is empty or inverted.
    """
    y0, x0, y1, x1 = row
    if not (y0 < y1 and x0 < x1):
        raise ConfigError(f"edit: box {y0}, {x0}, {y1}, {x1}: expected y0 < y1 and x0 < x1")
    return Box(y0, x0, y1, x1).intersect(Box(0, 0, *shape_yx))


def _require_rows(rows: float) -> None:
    if rows > MOST_ROWS:
        raise ValueError(f"expected at most {MOST_ROWS:,} rows of pixels in one stroke, got {int(rows):,}")
