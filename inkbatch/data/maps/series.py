"""Series of a sweep: in which order a network is fed the layers of a window, real ones and nulls.

A null holds the grey values of the real window in an order that papyrus does not have. It shows what networks answer to
anything; a layer of ink is still in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.segments.stable_random import shuffled

Direction = Literal["forward", "reversed"]
Directions = Literal["forward", "reversed", "both"]
Null = Literal["shuffled", "repeated"]

DRAWS = 50  # shuffles that are tried; the one that moves every layer furthest is taken


@dataclass(frozen=True)
class Series:
    """Maps of one bundle over all depths, with the layers in one order.

    Attributes:
        direction: ``forward``: as the bundle reads layers; ``reversed``: the other way.
        null: ``shuffled``: layers in a random order; ``repeated``: the middle layer of the window in place of each;
            None for the layers as they are.
    """

    direction: Direction = "forward"
    null: Null | None = None

    @property
    def name(self) -> str:
        """Name of its folder, for example ``reversed-shuffled``."""
        if self.null == "repeated":
            return "repeated"
        return self.direction if self.null is None else f"{self.direction}-{self.null}"

    def order(self, count: int, *, segment: str, seed: int) -> NDArray[np.intp]:
        """Return, for each layer that a network is given, its place in the window as the bundle reads it.

        Args:
            count: Layers of the window.
            segment: Segment id; a shuffle is one and the same for a whole segment.
            seed: Of the shuffle.
        """
        places = np.arange(count)
        if self.null == "repeated":
            return np.full(count, count // 2)
        if self.null == "shuffled":
            places = shuffled_order(count, segment, seed)
        return places if self.direction == "forward" else places[::-1].copy()


def shuffled_order(count: int, segment: str, seed: int) -> NDArray[np.intp]:
    """Draw a permutation that keeps no layer near its place, if the count allows that; equal words, equal order."""
    layers = [str(place) for place in range(count)]
    tried = [np.array(shuffled(layers, "layers", segment, seed, draw), np.intp) for draw in range(DRAWS)]
    return max(tried, key=lambda order: int(np.abs(order - np.arange(count)).min()))


def series_of(directions: Directions, nulls: Sequence[Null]) -> tuple[Series, ...]:
    """List the series of a job: real ones first, then each null in each direction; `repeated` reads both ways alike."""
    chosen: tuple[Direction, ...] = ("forward", "reversed") if directions == "both" else (directions,)
    found = [Series(direction) for direction in chosen]
    for null in dict.fromkeys(nulls):
        found += [Series(direction, null) for direction in (chosen[:1] if null == "repeated" else chosen)]
    return tuple(found)
