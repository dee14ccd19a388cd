"""MixUp and CutMix on stored tiles: the next sample of the epoch's order takes part, on any number of devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.datasets.index import DatasetIndex
from inkbatch.errors import ConfigError
from inkbatch.models.rules import Normaliser
from inkbatch.training.augment_settings import AugmentConfig, Mix
from inkbatch.training.losses import ROUNDING, LossConfig


@dataclass(frozen=True)
class Tile:
    """One tile, cropped, flipped and turned.

    Attributes:
        layers: (Z, Y, X), stored dtype.
        labels: (Y, X) uint8.
        ignore: (Y, X) uint8, 0 where the pixel counts.
    """

    layers: NDArray[Any]
    labels: NDArray[np.uint8]
    ignore: NDArray[np.uint8]


def mix_into(tile: Tile, other: Tile, mix: Mix) -> None:
    """Mix another tile into this one, in place.

    In a box the other tile's layers, labels and ignored pixels take the place of the tile's own. Without a box layers
    and labels become ``share × own + (1 - share) × other``, rounded to the stored dtype, and a pixel is ignored that
    either of them ignores.
    """
    if mix.box is not None:
        y0, x0, y1, x1 = mix.box
        for own, theirs in ((tile.layers, other.layers), (tile.labels, other.labels), (tile.ignore, other.ignore)):
            own[..., y0:y1, x0:x1] = theirs[..., y0:y1, x0:x1]
        return
    for own, theirs in ((tile.layers, other.layers), (tile.labels, other.labels)):
        mean = own * np.float32(mix.share)
        mean += theirs * np.float32(1 - mix.share)
        own[...] = np.rint(mean) if np.issubdtype(own.dtype, np.integer) else mean
    np.maximum(tile.ignore, other.ignore, out=tile.ignore)


def require_mixable(index: DatasetIndex, augment: AugmentConfig, loss: LossConfig, normaliser: Normaliser) -> None:
    """Refuse mixes that the labels, the loss or the normaliser cannot take.

    Raises:
        ConfigError: Classes or labels that a term takes as yes or no were to be averaged, or tiles of two segments
            normalised by the statistics of one.
    """
    place = f"dataset {index.name}"
    if augment.mix_up and index.has_classes:
        raise ConfigError(
            f"{place}: its labels tell objects in three classes, which have no mean; set augment.mix_up to 0, or "
            "augment.cut_mix instead"
        )
    rounding = sorted({term.name for term in loss.terms} & ROUNDING)
    if augment.mix_up and rounding:
        raise ConfigError(
            f"{place}: augment.mix_up makes labels probabilities, and loss term {rounding[0]} takes yes or no; choose "
            "bce, soft-dice or another one, or augment.cut_mix"
        )
    if augment.mixes and normaliser.by_statistics and normaliser.statistics == "segment":
        raise ConfigError(
            f"{place}: augment.mix_up and cut_mix join tiles of two segments, and the normaliser takes the statistics "
            "of one; set both to 0, or input.normaliser.statistics to tile"
        )
