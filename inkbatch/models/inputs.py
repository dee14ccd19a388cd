"""The one check that every network makes of its input: axes, layers and tile size, refused by name."""

from __future__ import annotations

from torch import Tensor

from inkbatch.errors import ConfigError
from inkbatch.models.base import InkModel


def require_subvolume(model: InkModel, subvolume: Tensor, fixed_tile_px: int | None = None) -> None:
    """Check that a batch has the axes, the depth and the tile size that `model` was built for.

    Looks at shapes only: nothing is copied, no device is waited for.

    Args:
        model: The network; its ``config.depth_layers`` and `tile_multiple` are the wish.
        subvolume: Batch (B, 1, Z, Y, X).
        fixed_tile_px: The only tile side that the network takes, where it has a table of positions.

    Raises:
        ConfigError: Another number of axes, channels or layers, or a tile whose sides are no multiple of
            `tile_multiple` or is not `fixed_tile_px`. We never pad, crop or resample: the network would see another
            scale or border.
    """
    shape, name = tuple(subvolume.shape), model.architecture
    if len(shape) != 5 or shape[1] != 1:
        raise ConfigError(f"model {name}: wants a subvolume (B, 1, Z, Y, X), got shape {shape}; add or drop an axis")
    if shape[2] != model.config.depth_layers:
        raise ConfigError(
            f"model {name}: built for {model.config.depth_layers} layers, got a subvolume with {shape[2]}; "
            "change the layer range, or take a model for that depth"
        )
    height, width = shape[3:]
    if fixed_tile_px is not None and (height, width) != (fixed_tile_px, fixed_tile_px):
        raise ConfigError(
            f"model {name}: its position table is made for tiles of {fixed_tile_px} px, got {height} x {width} px; "
            f"set tile_px to {fixed_tile_px}"
        )
    multiple = model.tile_multiple
    if height % multiple or width % multiple:
        near = sorted({max(height // multiple, 1) * multiple, -(-height // multiple) * multiple})
        raise ConfigError(
            f"model {name}: a tile of {height} x {width} px is not a multiple of {multiple} px, the coarsest stride "
            f"inside the network; set tile_px to {' or '.join(map(str, near))}"
        )
