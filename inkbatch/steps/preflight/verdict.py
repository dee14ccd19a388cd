"""From what was measured in a tile to one verdict with one number.

A profile can only be judged where the layers reach beyond the sheet; see `MIN_DEPTH_UM`. All limits were set on made
tiles (`inkbatch.testing.faulty`) and the shipped crop of real papyrus; `make test-probe` states how often they hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from inkbatch.steps.preflight.measure import TileMeasures

Word = Literal["fine", "outside", "blank", "seam", "no sheet", "two sheets", "off-centre", "scale", "lossy codec"]
WORDS: tuple[Word, ...] = get_args(Word)
UNIT_OF: dict[Word, str] = {
    "fine": "",
    "outside": "of its voxels are outside the volume",
    "blank": "grey values of structure",
    "no sheet": "of the texture's contrast is all that the profile changes",
    "two sheets": "layers apart",
    "off-centre": "layers below the middle",
    "seam": "times as sharp a step along a line as elsewhere",
    "scale": "times the voxels of the training data, by the grain of the papyrus",
    "lossy codec": "more change across the lines of a grid of 8 px",
}

MIN_DEPTH_UM = 200.0  # a sheet is 100 to 180 µm thick: thinner stacks may lie inside it
MOST_MISSING = 0.2  # of a tile's voxels
LEAST_INSIDE = 0.05
BLANK_GREY = 3.0
FLAT = 0.4  # of the texture's standard deviation
SMOOTH_UM = 14.0
GAP_UM = 12.0  # dips of a profile that are no gap between sheets
HALFWAY = 0.5
SHARP = 2.9
GRAIN_UM = 103.0  # of papyrus: distance at which half of its texture is shared; the shipped crop has 95 to 116
GRAIN_FACTOR = 1.5
CODEC_SHARE, CODEC_SURE = 0.06, 6.0


@dataclass(frozen=True)
class Expectation:
    """Expectations of a network on a tile.

    Attributes:
        layer_um: Spacing of the layers.
        first: First layer that it reads.
        stop: Layer after the last one.
        off_centre_layers: How far from the middle of these the sheet may lie.
        pixel_um: Edge of the pixels that it was trained on, divided by that of the surface; None judges no scale.
    """

    layer_um: float
    first: int
    stop: int
    off_centre_layers: int = 4
    pixel_um: float | None = None


@dataclass(frozen=True)
class TileVerdict:
    """Verdict on a tile.

    Attributes:
        word: What is wrong, the gravest fault first; ``fine`` if nothing is.
        number: Its number, in `UNIT_OF`; 0 of fine tiles.
    """

    word: Word
    number: float


def judge(found: TileMeasures, expected: Expectation) -> TileVerdict:
    """Give a tile its verdict."""
    if found.inside < LEAST_INSIDE:
        return TileVerdict("outside", 1 - found.inside)
    if found.missing > MOST_MISSING:
        return TileVerdict("outside", found.missing)
    if found.structure < BLANK_GREY:
        return TileVerdict("blank", found.structure)
    if found.seam > SHARP:
        return TileVerdict("seam", found.seam)
    if profile_is_judged(len(found.profile), expected.layer_um):
        verdict = _of_profile(found, expected)
        if verdict is not None:
            return verdict
    if expected.pixel_um and not np.isnan(found.grain_px):
        factor = GRAIN_UM / (found.grain_px * expected.pixel_um)
        if not 1 / GRAIN_FACTOR <= factor <= GRAIN_FACTOR:
            return TileVerdict("scale", factor)
    if found.blocks > CODEC_SHARE and found.blocks_sure > CODEC_SURE:
        return TileVerdict("lossy codec", found.blocks)
    return TileVerdict("fine", 0.0)


def profile_is_judged(layers: int, layer_um: float) -> bool:
    """Tell if so many layers reach beyond a sheet of papyrus."""
    return layers * layer_um >= MIN_DEPTH_UM


def _of_profile(found: TileMeasures, expected: Expectation) -> TileVerdict | None:
    profile = smoothed(found.profile.astype(np.float64), SMOOTH_UM / expected.layer_um)
    low, high = float(profile.min()), float(profile.max())
    change = (high - low) / found.structure
    if change < FLAT:
        return TileVerdict("no sheet", change)
    sheets = sheets_of(profile, GAP_UM / expected.layer_um)
    middle, reach = (expected.first + expected.stop - 1) / 2, (expected.stop - expected.first) / 2
    inner = [centre for centre, _, _ in sheets if abs(centre - middle) <= reach]
    if len(inner) > 1:
        return TileVerdict("two sheets", inner[-1] - inner[0])
    nearest = min(sheets, key=lambda sheet: max(0.0, sheet[1] - middle, middle - sheet[2]))
    offset = nearest[0] - middle
    if abs(offset) > expected.off_centre_layers:
        return TileVerdict("off-centre", offset)
    return None


def smoothed(profile: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Blur a profile with a Gaussian; its ends go on as they end."""
    reach = max(1, round(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-6)) ** 2)
    return np.convolve(np.pad(profile, reach, mode="edge"), kernel / kernel.sum(), mode="valid")


def sheets_of(profile: NDArray[np.float64], gap: float) -> list[tuple[float, int, int]]:
    """Find the sheets of a profile: runs of layers brighter than halfway from the darkest to the brightest.

    Args:
        profile: Mean grey value of each layer, smooth.
        gap: Layers; shorter dips do not part a sheet.

    Returns:
        (centre of gravity, first layer, last layer) of each, ascending.
    """
    level = profile.min() + HALFWAY * (profile.max() - profile.min())
    bright = np.flatnonzero(profile >= level)
    runs = np.split(bright, np.flatnonzero(np.diff(bright) > max(1.0, gap)) + 1)
    found = []
    for run in runs:
        places = np.arange(run[0], run[-1] + 1)
        weight = np.maximum(profile[places] - level, 0) + 1e-9
        found.append((float((places * weight).sum() / weight.sum()), int(run[0]), int(run[-1])))
    return found
