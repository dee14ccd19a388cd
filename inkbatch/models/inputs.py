"""The one check that every network makes of its input: axes, layers and tile size, refused by name."""

from __future__ import annotations

import math

from torch import Tensor

from inkbatch.errors import ConfigError
from inkbatch.models.base import InkModel


def require_subvolume(model: InkModel, subvolume: Tensor) -> None:
    """Check that a batch has the axes, the depth and the tile size that `model` was built for.

    Looks at shapes only: nothing is copied, no device is waited for.

    Args:
        model: The network; its ``config.depth_layers``, `fixed_tile_px` and `tile_multiple` are the wish.
        subvolume: Batch (B, 1, Z, Y, X).

    Raises:
        ConfigError: Another number of axes, channels or layers, or a tile that `require_tile` refuses.
    """
    shape, name = tuple(subvolume.shape), model.architecture
    if len(shape) != 5 or shape[1] != 1:
        raise ConfigError(f"model {name}: expected a subvolume (B, 1, Z, Y, X), got shape {shape}; add or drop an axis")
    if shape[2] != model.config.depth_layers:
        raise ConfigError(
            f"model {name}: built for {model.config.depth_layers} layers, got a subvolume with {shape[2]}; "
            "change the layer range, or take a model for that depth"
        )
    require_tile(model, shape[3], shape[4])


def require_tile(model: InkModel, height: int, width: int) -> None:
    """Check that `model` takes tiles of this size; for contracts, before any tile is read.

    We never pad, crop or resample: the network would see another scale or border.

    Raises:
        ConfigError: The sides are not `fixed_tile_px`, less than `smallest_tile_px`, or no multiple of `tile_multiple`
            or of `output_scale`.
    """
    name, fixed = model.name, model.fixed_tile_px
    if fixed is not None and (height, width) != (fixed, fixed):
        raise ConfigError(
            f"model {name}: made for tiles of {fixed} px, got {height} x {width} px; set tile_px to {fixed}"
        )
    multiple = math.lcm(model.tile_multiple, model.output_scale)
    if height % multiple or width % multiple:
        near = sorted({max(height // multiple, 1) * multiple, -(-height // multiple) * multiple})
        raise ConfigError(
            f"model {name}: a tile of {height} x {width} px is not a multiple of {multiple} px, the coarsest stride "
            f"inside the network; set tile_px to {' or '.join(map(str, near))}"
        )
    if min(height, width) < model.smallest_tile_px:
        raise ConfigError(
            f"model {name}: a tile of {height} x {width} px is smaller than {model.smallest_tile_px} px, the smallest "
            f"that the network takes; set tile_px to {model.smallest_tile_px} or more"
        )
