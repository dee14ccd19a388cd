"""Settings of augmentation, and the changes of one sample: drawn from its seed, before any pixel moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from inkbatch.models.rules import Grown

Span = tuple[float, float]
Floats = NDArray[np.float32]

CUT_OUT_SHAPE = (0.5, 1.0)  # sides of a cut-out, as shares of `cut_out_px`


class AugmentConfig(Grown):
    """Chances and ranges; the defaults flip and turn only.

    Attributes:
        flip: Chance of each of the two mirrorings.
        turn: Chance of a quarter turn by 90, 180 or 270 degrees.
        warp: Chance that the warps below are applied, all of them in one resampling.
        rotate_deg: Largest free rotation.
        scale: Range of enlargement.
        perspective: Largest shift of a corner, as a share of the tile's edge.
        grid_distortion: Largest shift of a grid node, as a share of a cell.
        grid_cells: Cells per edge of that grid.
        tone: Chance that gamma, brightness and contrast change.
        gamma: Range of the exponent on intensities scaled to [0, 1].
        brightness: Largest shift, as a share of the full range.
        contrast: Range of the factor around the tile's mean.
        blur: Chance of a Gaussian blur.
        blur_px: Range of its sigma.
        noise: Chance of Gaussian noise.
        noise_sigma: Range of its sigma, as a share of the full range.
        depth_shift: Largest shift of the layer window, in layers; no further than the sample's layers reach.
        layer_dropout: Chance that layers are blanked.
        layer_dropout_count: Largest number of them.
        cut_out: Chance of blanked boxes; what they hide counts in no loss.
        cut_out_count: Largest number of them.
        cut_out_px: Largest side of one.
        mix_up: Chance that layers and labels become a weighted mean with those of the next sample (MixUp, Zhang 2018).
        mix_up_alpha: The weight is drawn from a beta distribution with this for both parameters.
        cut_mix: Chance that a box of the next sample takes the place of the tile's (CutMix, Yun 2019).
        cut_mix_alpha: The share of the tile outside the box is drawn from a beta distribution with this, likewise.
    """

    younger: ClassVar[frozenset[str]] = frozenset({"mix_up", "mix_up_alpha", "cut_mix", "cut_mix_alpha"})

    flip: float = Field(0.5, ge=0, le=1)
    turn: float = Field(0.75, ge=0, le=1)
    warp: float = Field(0.0, ge=0, le=1)
    rotate_deg: float = Field(15.0, ge=0, le=180)
    scale: Span = (0.9, 1.1)
    perspective: float = Field(0.0, ge=0, lt=0.5)
    grid_distortion: float = Field(0.0, ge=0, le=0.5)
    grid_cells: int = Field(5, ge=1)
    tone: float = Field(0.0, ge=0, le=1)
    gamma: Span = (0.8, 1.25)
    brightness: float = Field(0.1, ge=0, le=1)
    contrast: Span = (0.9, 1.1)
    blur: float = Field(0.0, ge=0, le=1)
    blur_px: Span = (0.3, 1.5)
    noise: float = Field(0.0, ge=0, le=1)
    noise_sigma: Span = (0.01, 0.05)
    depth_shift: int = Field(0, ge=0)
    layer_dropout: float = Field(0.0, ge=0, le=1)
    layer_dropout_count: int = Field(2, ge=1)
    cut_out: float = Field(0.0, ge=0, le=1)
    cut_out_count: int = Field(3, ge=1)
    cut_out_px: int = Field(32, ge=1)
    mix_up: float = Field(0.0, ge=0, le=1)
    mix_up_alpha: float = Field(0.2, gt=0)
    cut_mix: float = Field(0.0, ge=0, le=1)
    cut_mix_alpha: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _one_mix_at_a_time(self) -> AugmentConfig:
        if self.mix_up + self.cut_mix > 1:
            raise ValueError(f"mix_up, cut_mix: expected chances that sum to 1 at most, got {self.mixes:g}")
        return self

    @property
    def mixes(self) -> float:
        """Chance that a sample is mixed with another one."""
        return self.mix_up + self.cut_mix

    @staticmethod
    def none() -> AugmentConfig:
        """Change nothing."""
        return AugmentConfig(flip=0, turn=0)


@dataclass(frozen=True)
class Mix:
    """Mixing of a tile with that of the next sample.

    Attributes:
        share: Weight of the tile itself, where there is no box.
        box: (y0, x0, y1, x1) that the other tile fills, or None.
    """

    share: float = 1.0
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Changes:
    """Changes made to one sample.

    Attributes:
        crop_yx: First row and column of the tile in the sample.
        first_layer: First layer of the window.
        flip_y: Mirror top and bottom.
        flip_x: Mirror left and right.
        turns: Then quarter turns.
        matrix: 3 x 3 homography from output to input coordinates, both (x, y, 1) in [-1, 1]; None: no warp.
        bend: (cells + 1, cells + 1, 2) shifts of grid nodes in the same coordinates, (x, y); None: no warp.
        tone: (gamma, contrast, brightness).
        blur_px: Sigma, 0 for none.
        noise_sigma: Sigma, 0 for none.
        noise_seed: Seed of the noise.
        blank_layers: Layers of the window that are blanked.
        blank_boxes: (y0, x0, y1, x1) that are blanked.
        mix: Mixing with the next sample, or None.
    """

    crop_yx: tuple[int, int] = (0, 0)
    first_layer: int = 0
    flip_y: bool = False
    flip_x: bool = False
    turns: int = 0
    matrix: Floats | None = None
    bend: Floats | None = None
    tone: tuple[float, float, float] = (1.0, 1.0, 0.0)
    blur_px: float = 0.0
    noise_sigma: float = 0.0
    noise_seed: int = 0
    blank_layers: tuple[int, ...] = ()
    blank_boxes: tuple[tuple[int, int, int, int], ...] = ()
    mix: Mix | None = None


def draw_changes(
    config: AugmentConfig,
    rng: np.random.Generator,
    sample_yx: tuple[int, int],
    tile_px: int,
    sample_layers: int,
    tile_layers: int,
) -> Changes:
    """Draw what happens to one sample.

    Args:
        config: Chances and ranges.
        rng: Made from the run's seed, the epoch and the sample's place in it.
        sample_yx: (height, width) of the sample; a tile is cut out of it anywhere.
        tile_px: Edge of the tile.
        sample_layers: Layers of the sample.
        tile_layers: Layers that the network takes.
    """
    spare_y, spare_x = max(0, sample_yx[0] - tile_px), max(0, sample_yx[1] - tile_px)
    crop = int(rng.integers(spare_y + 1)), int(rng.integers(spare_x + 1))
    spare = sample_layers - tile_layers
    shift = int(rng.integers(-config.depth_shift, config.depth_shift + 1))
    flip_y, flip_x = (bool(rng.random() < config.flip) for _ in range(2))
    turns = int(rng.integers(1, 4)) if rng.random() < config.turn else 0
    matrix, bend = _warp(config, rng) if rng.random() < config.warp else (None, None)
    return Changes(
        crop_yx=crop,
        first_layer=min(max(spare // 2 + shift, 0), spare),
        flip_y=flip_y,
        flip_x=flip_x,
        turns=turns,
        matrix=matrix,
        bend=bend,
        tone=_tone(config, rng),
        blur_px=float(rng.uniform(*config.blur_px)) if rng.random() < config.blur else 0.0,
        noise_sigma=float(rng.uniform(*config.noise_sigma)) if rng.random() < config.noise else 0.0,
        noise_seed=int(rng.integers(2**31)),
        blank_layers=_blank_layers(config, rng, tile_layers),
        blank_boxes=_blank_boxes(config, rng, tile_px),
        mix=_mix(config, rng, tile_px),
    )


def _warp(config: AugmentConfig, rng: np.random.Generator) -> tuple[Floats, Floats]:
    angle = np.deg2rad(rng.uniform(-config.rotate_deg, config.rotate_deg))
    zoom = rng.uniform(*config.scale)
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    turned = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)
    moved = corners + rng.uniform(-2, 2, corners.shape) * config.perspective
    nodes = config.grid_cells + 1
    bend = rng.uniform(-1, 1, (nodes, nodes, 2)) * config.grid_distortion * 2 / config.grid_cells
    return (turned @ _homography(corners, moved)).astype(np.float32), bend.astype(np.float32)


def _homography(corners: NDArray[np.float64], moved: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve for the 3 x 3 matrix that takes four corners to four others, last entry 1 (two equations per corner)."""
    rows, right = [], []
    for (x, y), (u, v) in zip(corners, moved, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    solved = np.linalg.solve(np.array(rows), np.array(right))
    return np.append(solved, 1.0).reshape(3, 3)


def _tone(config: AugmentConfig, rng: np.random.Generator) -> tuple[float, float, float]:
    if rng.random() >= config.tone:
        return 1.0, 1.0, 0.0
    shift = rng.uniform(-config.brightness, config.brightness)
    return float(rng.uniform(*config.gamma)), float(rng.uniform(*config.contrast)), float(shift)


def _blank_layers(config: AugmentConfig, rng: np.random.Generator, layers: int) -> tuple[int, ...]:
    if rng.random() >= config.layer_dropout:
        return ()
    count = int(rng.integers(1, min(config.layer_dropout_count, layers) + 1))
    return tuple(sorted(rng.choice(layers, count, replace=False).tolist()))


def _blank_boxes(
    config: AugmentConfig, rng: np.random.Generator, tile_px: int
) -> tuple[tuple[int, int, int, int], ...]:
    if rng.random() >= config.cut_out:
        return ()
    boxes = []
    for _ in range(int(rng.integers(1, config.cut_out_count + 1))):
        height, width = (max(1, round(config.cut_out_px * rng.uniform(*CUT_OUT_SHAPE))) for _ in range(2))
        y, x = (int(rng.integers(max(1, tile_px - side + 1))) for side in (height, width))
        boxes.append((y, x, min(y + height, tile_px), min(x + width, tile_px)))
    return tuple(boxes)


def _mix(config: AugmentConfig, rng: np.random.Generator, tile_px: int) -> Mix | None:
    """Draw a mix; a box is centred anywhere in the tile and cut off at its border, as published."""
    chance = rng.random()
    if chance < config.mix_up:
        return Mix(share=float(rng.beta(config.mix_up_alpha, config.mix_up_alpha)))
    if chance >= config.mixes:
        return None
    half = tile_px * np.sqrt(1 - rng.beta(config.cut_mix_alpha, config.cut_mix_alpha)) / 2
    y, x = rng.uniform(0, tile_px, 2)
    edges = (y - half, x - half, y + half, x + half)
    y0, x0, y1, x1 = (min(max(round(edge), 0), tile_px) for edge in edges)
    return Mix(box=(y0, x0, y1, x1))
