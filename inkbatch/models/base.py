"""Models: a config that is data, a network, and a registry by name.

A new architecture is one file in this folder with a frozen config and a registered class; `models/__init__.py`
imports it; its test subclasses `inkbatch.testing.models.ModelContract`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from inkbatch.errors import ConfigError
from inkbatch.text import near_matches
from inkbatch.validation import reason


class ModelConfig(BaseModel):
    """Shape of one network, as stored under ``model`` in ``bundle.json``. Unknown keys are errors.

    Attributes:
        depth_layers: Layers Z of the subvolume that the network takes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    depth_layers: int


class InkModel(nn.Module):
    """A network from subvolumes to ink logits.

    `forward` takes (B, 1, Z, Y, X) floats, in depth order, already normalised by the bundle's contract, and returns
    logits (B, classes, Y / output_scale, X / output_scale). Sigmoid and softmax are not part of the network.
    """

    architecture: ClassVar[str]
    config_class: ClassVar[type[ModelConfig]]

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def name(self) -> str:
        """Registered name, or the class's where it is not registered."""
        return getattr(self, "architecture", type(self).__name__)

    @property
    @abstractmethod
    def output_scale(self) -> int:
        """Input pixels per output pixel along y and x (1, 4, 16, …)."""

    @property
    def classes(self) -> int:
        """1 for ink, or 3 for background, object and boundary."""
        return 1

    @property
    def normalises_input(self) -> bool:
        """True if the first layer takes the tile's own statistics; its contract's normaliser is ``network`` then."""
        return False

    @property
    def tile_multiple(self) -> int:
        """Both sides of a tile must be a multiple of this many pixels: the coarsest stride inside, or the one tile."""
        return self.fixed_tile_px or 1

    @property
    def fixed_tile_px(self) -> int | None:
        """The only tile side that this network takes (it has a table of positions); None where many will do."""
        return None

    @property
    def smallest_tile_px(self) -> int:
        """The smallest tile side that this network takes."""
        return 1

    @property
    def decoder_stages(self) -> tuple[nn.Module, ...]:
        """Modules that each answer a map (B, C, y, x), coarsest first; the last one feeds the head. Empty: unknown."""
        return ()

    def ask_for_gradients(self) -> None:
        """Settle which parameters ask for gradients; called once before training, not for inference."""
        return

    @abstractmethod
    def forward(self, subvolume: Tensor) -> Tensor:
        """Map (B, 1, Z, Y, X) to logits (B, 1, Y / output_scale, X / output_scale)."""


NETWORKS: dict[str, type[InkModel]] = {}


def register_model(name: str, config_class: type[ModelConfig]) -> Callable[[type[InkModel]], type[InkModel]]:
    """Make a class decorator that registers an architecture as `name`, built from `config_class`."""

    def register(network: type[InkModel]) -> type[InkModel]:
        if name in NETWORKS:
            raise ValueError(f"architecture {name!r} is registered twice")
        network.architecture = name
        network.config_class = config_class
        NETWORKS[name] = network
        return network

    return register


def known_architectures() -> list[str]:
    """List the registered names, sorted."""
    return sorted(NETWORKS)


def model_class(name: str) -> type[InkModel]:
    """Look up the class of a registered architecture.

    Raises:
        ConfigError: There is none of that name; near matches or all names are listed.
    """
    if name not in NETWORKS:
        known = known_architectures()
        hint = near_matches(name, known) or f"; known are {', '.join(known)}"
        raise ConfigError(f"model: unknown architecture {name!r}{hint}")
    return NETWORKS[name]


def build_model(architecture: str, config: dict[str, Any]) -> InkModel:
    """Build a network with fresh weights.

    Raises:
        ConfigError: The architecture is unknown, or its config does not validate.
    """
    network = model_class(architecture)
    try:
        parsed = network.config_class.model_validate(config)
    except ValueError as error:
        raise ConfigError(f"model {architecture}: config does not validate: {reason(error)}") from error
    return network(parsed)
