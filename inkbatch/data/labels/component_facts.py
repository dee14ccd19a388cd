"""Facts about the connected components of one unit that other units need: small, stored as JSON."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from inkbatch.data.labels.components import Bools, Ints, UnitComponents
from inkbatch.errors import CorruptDataError
from inkbatch.validation import in_words

HISTOGRAM_BINS = 40  # bin k counts areas from 2**k to 2**(k + 1) - 1 pixels


class Component(BaseModel):
    """One connected component of ink.

    Attributes:
        area: Pixels.
        box: (y0, x0, y1, x1), half-open, full-resolution pixels.
        seed: (y, x) of its first pixel in row-major order; tells it apart from others in its box.
        touches_border: True if it touches the border (see `border_pixels`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    area: int
    box: tuple[int, int, int, int]
    seed: tuple[int, int]
    touches_border: bool


class OpenInk(Component):
    """A part of an ink component that a seam cuts.

    Attributes:
        hole_px: Pixels of the closed bare areas inside it.
        outside: True if it reaches the border of the surface: removing it leaves no hole.
        hole_at_border: True if a component that touches the border lies in one of these holes.
    """

    hole_px: int
    outside: bool
    hole_at_border: bool


class OpenBare(BaseModel):
    """A part of a bare area that a seam cuts.

    Attributes:
        area: Pixels.
        outside: True if it reaches the border of the surface, hence is no hole.
        at_border: True if a closed component that touches the border (see `border_pixels`) lies in or around it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    area: int
    outside: bool
    at_border: bool


class UnitFacts(BaseModel):
    """Facts about one unit that other units need: JSON, some hundred kilobytes at most.

    Attributes:
        box: Write box of the unit.
        ink: Open ink components, numbered from 1.
        bare: Open bare areas, numbered from 1; empty where holes are not looked for.
        pairs: (ink number, bare number) of open components that share an edge of a pixel.
        edges: Per side (``top``, ``bottom``, ``left``, ``right``), runs of (number, pixels) along it:
            positive for open ink, negative for open bare surface, 0 for everything else.
        kept: Closed ink components that are large enough, the largest first; perhaps not all (`kept_count`).
        kept_count: Number of closed ink components that are large enough.
        kept_px: Their pixels.
        removed_count: Number of closed ink components that are too small.
        removed_px: Their pixels.
        histogram: Closed ink components per power of two of their area.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    box: tuple[int, int, int, int]
    ink: tuple[OpenInk, ...]
    bare: tuple[OpenBare, ...]
    pairs: tuple[tuple[int, int], ...]
    edges: dict[str, tuple[tuple[int, int], ...]]
    kept: tuple[Component, ...]
    kept_count: int
    kept_px: int
    removed_count: int
    removed_px: int
    histogram: tuple[int, ...]

    @classmethod
    def stored(cls, value: Any, place: str) -> Self:
        """Read stored facts; `place` opens the message of a failure.

        Raises:
            CorruptDataError: They are damaged.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise CorruptDataError(
                f"{place}: damaged facts of a unit: {in_words(error, value, model=cls, most=2)}; run the job again "
                "with --replace"
            ) from error


def facts_of(parts: UnitComponents, listed: int | None = None) -> UnitFacts:
    """Derive a unit's facts; at most `listed` closed components are listed, the largest ones (None: all)."""
    box = parts.box
    closed = ~parts.ink_open
    closed[0] = False
    areas = np.concatenate([parts.ink.areas[closed], parts.removed])
    ink_rank, bare_rank = _ranks(parts.ink_open), _ranks(parts.bare_open)
    both = parts.ink_open[parts.pairs[:, 0]] & parts.bare_open[parts.pairs[:, 1]]
    pairs = [(int(ink_rank[a]), int(bare_rank[b])) for a, b in parts.pairs[both]]
    return UnitFacts(
        box=(box.y0, box.x0, box.y1, box.x1),
        ink=_open_ink(parts),
        bare=_open_bare(parts),
        pairs=tuple(pairs),
        edges=_edges(parts, ink_rank, bare_rank),
        kept=_components(parts, closed, listed),
        kept_count=int(np.count_nonzero(closed)),
        kept_px=int(parts.ink.areas[closed].sum()),
        removed_count=len(parts.removed),
        removed_px=int(parts.removed.sum()),
        histogram=tuple(int(count) for count in area_histogram(areas)),
    )


def area_histogram(areas: Ints) -> Ints:
    """Count areas per power of two, `HISTOGRAM_BINS` entries."""
    bins = np.frexp(np.maximum(areas, 1).astype(np.float64))[1] - 1
    return np.bincount(bins, minlength=HISTOGRAM_BINS)[:HISTOGRAM_BINS].astype(np.int64)


def _ranks(is_open: Bools) -> Ints:
    """Number the open labels from 1; the others get 0."""
    ranks: Ints = np.where(is_open, np.cumsum(is_open), 0).astype(np.int64)
    return ranks


def _components(parts: UnitComponents, chosen: Bools, limit: int | None) -> tuple[Component, ...]:
    numbers = np.flatnonzero(chosen)
    numbers = numbers[np.lexsort((numbers, -parts.ink.areas[numbers]))][:limit]
    return tuple(Component.model_validate(_values(parts, int(number))) for number in numbers)


def _values(parts: UnitComponents, number: int) -> dict[str, object]:
    y, x = parts.box.y0, parts.box.x0
    y0, x0, y1, x1 = (int(value) for value in parts.ink.boxes[number])
    first = parts.ink.seed(number)
    return {
        "area": int(parts.ink.areas[number]),
        "box": (y0 + y, x0 + x, y1 + y, x1 + x),
        "seed": (first[0] + y, first[1] + x),
        "touches_border": bool(parts.ink_border[number]),
    }


def _open_ink(parts: UnitComponents) -> tuple[OpenInk, ...]:
    numbers = np.flatnonzero(parts.ink_open)
    if not len(numbers):
        return ()
    holes = np.zeros(len(parts.ink.areas), np.int64)
    at_border = np.zeros(len(holes), bool)
    if parts.bare is not None:
        first, second = parts.pairs.T
        inside = parts.bare_closed[second]
        np.add.at(holes, first[inside], parts.bare.areas[second[inside]])
        at_border[first[inside & parts.bare_at_border[second]]] = True
    return tuple(
        OpenInk.model_validate(
            {
                **_values(parts, int(number)),
                "hole_px": int(holes[number]),
                "outside": bool(parts.ink_outside[number]),
                "hole_at_border": bool(at_border[number]),
            }
        )
        for number in numbers
    )


def _open_bare(parts: UnitComponents) -> tuple[OpenBare, ...]:
    if parts.bare is None:
        return ()
    flags = parts.bare_at_border
    return tuple(
        OpenBare(area=int(parts.bare.areas[n]), outside=bool(parts.bare_outside[n]), at_border=bool(flags[n]))
        for n in np.flatnonzero(parts.bare_open)
    )


def _edges(parts: UnitComponents, ink_rank: Ints, bare_rank: Ints) -> dict[str, tuple[tuple[int, int], ...]]:
    found = {}
    for side, cut in (("top", np.s_[0, :]), ("bottom", np.s_[-1, :]), ("left", np.s_[:, 0]), ("right", np.s_[:, -1])):
        numbers: Ints = ink_rank[parts.ink.labels[cut]]
        if parts.bare is not None:
            numbers = numbers - bare_rank[parts.bare.labels[cut]]
        starts = np.concatenate([[0], np.flatnonzero(np.diff(numbers)) + 1])
        lengths = np.diff(np.concatenate([starts, [len(numbers)]]))
        found[side] = tuple((int(numbers[start]), int(length)) for start, length in zip(starts, lengths, strict=True))
    return found
