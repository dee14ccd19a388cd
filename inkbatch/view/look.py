"""Settings of a drawing, as the page requests it: validated, frozen, and part of every cache key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Self
from urllib.parse import parse_qs

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from inkbatch.errors import ConfigError
from inkbatch.io.pictures.palettes import ColourMap
from inkbatch.validation import in_words

_LISTS = frozenset({"maps", "box", "range"})


class Look(BaseModel):
    """Base: frozen, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> Self:
        """Validate the values of an address.

        Raises:
            ConfigError: An unknown key or a value out of range.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(f"view: {in_words(error, values, model=cls)}") from error


class PapyrusLook(Look):
    """One layer, or the mean of several.

    Attributes:
        range: Half-open range of layers, counted in depth order.
        low: Grey value that becomes black.
        high: Grey value that becomes white.
    """

    range: tuple[int, int]
    low: float = 0
    high: float = 255

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 <= self.range[0] < self.range[1]:
            raise ValueError(f"range {self.range[0]},{self.range[1]} holds no layer")
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")
        return self


class MapLook(Look):
    """One prediction, several combined, or the difference of two.

    A value is inverted, compared with the threshold, and boosted, in this order.

    Attributes:
        maps: Names of predictions.
        combine: Combination of several.
        minus: Name of a prediction that is subtracted.
        colours: Colour map; a difference has its own.
        blend: ``ink`` is the more transparent the less ink there is, ``cover`` hides the papyrus.
        invert: Show 1 - p.
        threshold: Lower values are shown as no ink.
        solid: Show all that reaches the threshold as 1.
        boost: Factor, capped at 1.
        version: Versions of the predictions, for caches alone.
    """

    maps: tuple[str, ...] = Field(min_length=1, max_length=16)
    combine: Literal["mean", "max"] = "mean"
    minus: str | None = None
    colours: ColourMap = "inferno"
    blend: Literal["ink", "cover"] = "ink"
    invert: bool = False
    threshold: float = Field(0, ge=0, le=1)
    solid: bool = False
    boost: float = Field(1, gt=0, le=100, allow_inf_nan=False)
    version: str = ""


class OutlineLook(Look):
    """Outlines of labels and of the ignore mask, and hatching of pixels that are not computed yet.

    Attributes:
        ink_labels: Draw the outline of the ink labels.
        ignore_mask: Draw the outline of the ignore mask.
        objects: Draw the outlines of the objects of this result.
        picked: Number of the object that is drawn filled.
    """

    ink_labels: bool = False
    ignore_mask: bool = False
    objects: str | None = None
    picked: int | None = Field(None, ge=1, le=0xFFFF_FFFF)


class PictureLook(Look):
    """Picture to save: all that is shown, of one box.

    Attributes:
        box: y0, x0, y1, x1 in full-size pixels, half-open.
        level: Halvings of full size.
        flip: Mirror left and right.
        papyrus: Papyrus below; None is black.
        map: Map over it.
        beside: The second map, for a picture of both side by side.
        opacity: Of the maps.
        outlines: Outlines on top.
    """

    box: tuple[int, int, int, int]
    level: int = Field(0, ge=0, le=24)
    flip: bool = False
    papyrus: PapyrusLook | None = None
    map: MapLook | None = None
    beside: MapLook | None = None
    opacity: float = Field(1, ge=0, le=1)
    outlines: OutlineLook = OutlineLook()


def query_values(query: str) -> dict[str, object]:
    """Parse the values of a query; lists are split at commas.

    Raises:
        ConfigError: A key is given twice, or there are too many.
    """
    try:
        found = parse_qs(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=32)
    except ValueError as error:
        raise ConfigError(f"view: the address cannot be read: {error}") from error
    return {key: _value(key, values) for key, values in found.items()}


def _value(key: str, values: Sequence[str]) -> object:
    if len(values) != 1:
        raise ConfigError(f"view: {key} is given {len(values)} times; give it once")
    return tuple(values[0].split(",")) if key in _LISTS else values[0]
