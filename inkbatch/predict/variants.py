"""Test-time variants: views of a tile (turned, flipped), windows of layers, and how their maps become one.

A view is turned, computed, and its map is turned back before it meets the others, tile by tile and before blending.
Windows are blended each by itself and meet as whole maps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inkbatch.errors import ConfigError
from inkbatch.io.surface import SurfaceVolume
from inkbatch.models.bundle import TTA_AXES, Contract
from inkbatch.predict.names import Combine as Combine
from inkbatch.predict.names import ViewName as ViewName

_SHORT = {"flips": ("flip-y", "flip-x"), "turns": ("turn-90", "turn-180", "turn-270")}


@dataclass(frozen=True)
class View:
    """One way to look at a square tile.

    Attributes:
        name: As in the contract's `tta_axes`; ``as-is`` is the tile itself.
        quarter_turns: Turns by 90 degrees from y towards x, as `numpy.rot90` counts them.
        flipped: Axis that is mirrored, -2 (y) or -1 (x), or None.
    """

    name: str = "as-is"
    quarter_turns: int = 0
    flipped: int | None = None

    def turn(self, tiles: Tensor) -> Tensor:
        """Turn tiles.

        Args:
            tiles: (…, T, T).

        Returns:
            Contiguous, same shape and dtype; the tiles themselves where the view is ``as-is``.
        """
        return self._seen(tiles, self.quarter_turns)

    def turn_back(self, maps: Tensor) -> Tensor:
        """Undo `turn`, to the bit: pixels are moved, never mixed."""
        return self._seen(maps, -self.quarter_turns)

    def _seen(self, tiles: Tensor, turns: int) -> Tensor:
        if self == AS_IS:
            return tiles
        if tiles.device.type != "cpu":
            seen = torch.rot90(tiles, turns, (-2, -1)) if self.flipped is None else tiles.flip(self.flipped)
            return seen.contiguous()
        values: NDArray[Any] = tiles.numpy()  # one copy, where torch makes two
        values = np.rot90(values, turns, (-2, -1)) if self.flipped is None else np.flip(values, self.flipped)
        return torch.from_numpy(np.ascontiguousarray(values))


AS_IS = View()
_VIEWS = {
    "flip-y": View("flip-y", flipped=-2),
    "flip-x": View("flip-x", flipped=-1),
    "turn-90": View("turn-90", 1),
    "turn-180": View("turn-180", 2),
    "turn-270": View("turn-270", 3),
}


def views_of(asked: Sequence[str], contract: Contract, bundle: str) -> tuple[View, ...]:
    """List the views of a job: the tile as it is, then those that were asked for, in one fixed order.

    Args:
        asked: Names of `TTA_AXES`; ``turns`` and ``flips`` are short for all of a kind, ``allowed`` for all that the
            contract allows.
        contract: The bundle's contract.
        bundle: The bundle's name, for messages.

    Raises:
        ConfigError: The contract does not allow a view that was asked for, or nothing where ``allowed`` was asked for.
    """
    wanted: set[str] = set()
    for name in asked:
        wanted.update(contract.tta_axes if name == "allowed" else _SHORT.get(name, (name,)))
    refused = [name for name in TTA_AXES if name in wanted and name not in contract.tta_axes]
    if refused or (asked and not wanted):
        allowed = ", ".join(contract.tta_axes) or "no view at all"
        raise ConfigError(
            f"--tta {','.join(asked)}: bundle {bundle} does not allow {', '.join(refused) or 'any'}; "
            f"its tta_axes allow {allowed}; leave out what it was not trained for, or state "
            "--override 'tta_axes=[…]' (it is recorded)"
        )
    return (AS_IS, *(_VIEWS[name] for name in TTA_AXES if name in wanted))


def combined(maps: Iterable[Tensor], how: Combine) -> Tensor:
    """Combine maps by mean or maximum, summed in the order in which they come.

    The mean is ``first + sum(map - first) / count``: equal maps give back their bits, whatever their number.

    Args:
        maps: One or more, of one shape; a single one is handed back itself.
        how: ``mean`` or ``max``.

    Raises:
        ValueError: There is no map.
    """
    rest = iter(maps)
    first = next(rest, None)
    if first is None:
        raise ValueError("no map to combine")
    total, count = None, 1
    for found in rest:
        count += 1
        if how == "max":
            total = torch.maximum(first if total is None else total, found)
        elif total is None:
            total = found - first
        else:
            total += found - first
    if total is None:
        return first
    return total if how == "max" else total.div_(count).add_(first)


@dataclass(frozen=True)
class LayerWindow:
    """A window of layers that the network is fed.

    Attributes:
        source: Half-open range of source layer numbers; None for what the bundle takes by itself.
        indices: The same layers as indices of the surface, in depth order.
    """

    source: tuple[int, int] | None
    indices: range


def ordered(layers: Tensor, places: NDArray[np.intp]) -> Tensor:
    """Take layers (Z, …) in an order; a view where they lie side by side or are one and the same."""
    first = int(places[0])
    if (places == first).all():
        return layers[first : first + 1].expand(len(places), *layers.shape[1:])
    if (np.diff(places) == 1).all():
        return layers[first : first + len(places)]
    return layers.index_select(0, torch.from_numpy(places.astype(np.int64)).to(layers.device))


def layer_windows(
    contract: Contract, volume: SurfaceVolume, ranges: Sequence[tuple[int, int]]
) -> tuple[LayerWindow, ...]:
    """Check windows of source layer numbers against network and surface.

    Args:
        contract: What the network takes.
        volume: The surface.
        ranges: Half-open ranges of source layer numbers.

    Raises:
        LayerRangeError: A range leaves the surface or is not as deep as the network takes; it is never clamped.
        ConfigError: A range is there twice: it would weigh double.
    """
    found = tuple(LayerWindow(numbers, contract.layer_indices(volume, numbers)) for numbers in ranges)
    twice = sorted({numbers for numbers in ranges if ranges.count(numbers) > 1})
    if twice:
        listed = ", ".join(f"{start}:{stop}" for start, stop in twice)
        raise ConfigError(f"layer groups: {listed} is listed more than once and would weigh more; name each once")
    return found


def hull_of(windows: Sequence[LayerWindow]) -> range:
    """Return the layers from the first to the last that any window takes."""
    return range(min(w.indices.start for w in windows), max(w.indices.stop for w in windows))


def parts_of(windows: Sequence[LayerWindow], *, reverse: bool) -> tuple[NDArray[np.intp], ...]:
    """Locate each window in the layers of `hull_of`.

    Args:
        windows: The windows.
        reverse: The layers were flipped after reading, for a network that was trained against depth order.
    """
    hull = hull_of(windows)
    firsts = (hull.stop - w.indices.stop if reverse else w.indices.start - hull.start for w in windows)
    return tuple(np.arange(first, first + len(w.indices)) for first, w in zip(firsts, windows, strict=True))
