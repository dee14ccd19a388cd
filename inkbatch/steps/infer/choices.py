"""Choices of one run beside its bundle's contract: step of the grid, blending window, depth order that a probe found.

A bundle proposes them; choosing others feeds the network nothing else than it was trained on. In manifests they are
stored under ``override``, together with the values that a user replaced by hand. Equal runs must stay equal, so that
this form is kept: `stored_override` writes it, `chosen` and `replaced` read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inkbatch.errors import ConfigError

if TYPE_CHECKING:
    from inkbatch.models.bundle import Contract

CHOSEN_KEYS = ("stride_px", "window")
PROBED_KEY = "depth_order"


@dataclass(frozen=True)
class RunChoices:
    """Values of one run; None takes what the contract says.

    Attributes:
        depth_order: Order of the layers that a probe found.
        stride_px: Step between tile origins.
        window: Blending window.
    """

    depth_order: str | None = None
    stride_px: int | None = None
    window: str | None = None

    @property
    def values(self) -> dict[str, Any]:
        """Values that are chosen, by their keys in a contract."""
        listed = ((PROBED_KEY, self.depth_order), ("stride_px", self.stride_px), ("window", self.window))
        return {key: value for key, value in listed if value is not None}

    def applied(self, contract: Contract) -> Contract:
        """Return the contract that this run follows.

        Raises:
            ConfigError: A step larger than the tile.
        """
        if self.stride_px is not None and self.stride_px > contract.tile_px:
            raise ConfigError(
                f"stride_px: expected at most the tile's {contract.tile_px} px, got {self.stride_px}; a larger step "
                "leaves pixels out"
            )
        return contract.overridden(self.values)


def stored_override(by_hand: Mapping[str, Any], choices: RunChoices) -> dict[str, Any]:
    """Merge values that a user replaced by hand with the run's choices, as manifests store them."""
    return {**by_hand, **choices.values}


def chosen(config: Mapping[str, Any]) -> dict[str, Any]:
    """Read the grid step and the blending window that a stored run chose.

    Args:
        config: The manifest's ``config``.
    """
    override = config.get("override", {})
    return {key: override[key] for key in CHOSEN_KEYS if key in override}


def replaced(config: Mapping[str, Any]) -> dict[str, Any]:
    """Read the values of the contract that a user replaced by hand: neither choices nor found by a probe.

    Args:
        config: The manifest's ``config``.
    """
    known = (*CHOSEN_KEYS, PROBED_KEY) if "probe" in config else CHOSEN_KEYS
    return {key: value for key, value in config.get("override", {}).items() if key not in known}
