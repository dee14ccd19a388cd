"""Drawings of ceramic vessels with known answers: profiles with random shapes and fillings, and their masks.

Archaeologists draw a vessel as half a section and half an outer view, on both sides of its axis. The section (the cut
through the wall) is the target of a network: filled black, grey, hatched, dotted, or left white, and real drawings
are few; here a seed makes any number of them::

      rim line      ────────┬────────
                   ▓▓       │      /
      section  ▓▓▓▓         │     |   outer view
                  ▓▓▓▓▓▓▓▓▓▓│▁▁▁▁▁/
                           axis

Drawing `i` of a seed is the same on every machine, however many are made.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from inkbatch.config import JobConfig
from inkbatch.io.pictures.png import png_bytes, write_png
from inkbatch.io.store.location import Location

Filling = Literal["black", "grey", "hatched", "dotted", "white"]
FILLINGS: tuple[Filling, ...] = get_args(Filling)
PROFILE = 255  # mask value
PAPER = 255
_SUBPIXEL = 16  # OpenCV draws with 4 fractional bits
_SHIFT = 4


DOCUMENT = "vessels.json"


class VesselConfig(JobConfig):
    """Generated drawings.

    Attributes:
        shape_yx: (height, width) of a drawing in pixels.
        count: Number of drawings.
        seed: Of all of them.
        fillings: Fillings of the section, drawn with equal chance.
        both_sides: Chance that the section lies on the right instead of the left.
        tilt_deg: Largest turn of the drawing, both ways.
        noise: Standard deviation of the grain of the paper, in grey values of 255.
        shares: Shares of train, val and test in `write_vessels`; they add up to 1.
    """

    shape_yx: tuple[int, int] = (512, 512)
    count: int = Field(100, ge=1)
    seed: int = Field(0, ge=0)
    fillings: tuple[Filling, ...] = FILLINGS
    both_sides: float = Field(0.3, ge=0, le=1)
    tilt_deg: float = Field(2.0, ge=0, le=45)
    noise: float = Field(4.0, ge=0, le=64)
    shares: tuple[float, float, float] = (0.7, 0.15, 0.15)

    @model_validator(mode="after")
    def _can_be_drawn(self) -> VesselConfig:
        if min(self.shape_yx) < 64:
            raise ValueError(f"shape_yx {self.shape_yx}: expected at least 64 px along both sides")
        if not self.fillings:
            raise ValueError(f"fillings is empty; choose some of {', '.join(FILLINGS)}")
        if min(self.shares) < 0 or not math.isclose(sum(self.shares), 1, abs_tol=1e-6):
            raise ValueError(f"shares {self.shares}: expected three shares that add up to 1")
        return self


@dataclass(frozen=True)
class VesselDrawing:
    """One drawing and its answer.

    Attributes:
        image: (height, width, 3) uint8, RGB.
        mask: (height, width) uint8: 255 on the section, 0 elsewhere.
        filling: Filling of the section.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    filling: Filling


def draw_vessel(config: VesselConfig, index: int) -> VesselDrawing:
    """Draw vessel number `index` of a configuration, whatever its count."""
    chance = np.random.default_rng([config.seed, index])
    outer, inner = _wall(chance)
    turned = float(chance.uniform(-config.tilt_deg, config.tilt_deg))
    mirrored = bool(chance.random() < config.both_sides)
    place = _placement(config.shape_yx, outer, turned, mirrored, chance)
    filling = config.fillings[int(chance.integers(len(config.fillings)))]
    section = place(np.concatenate([outer, inner[::-1]]) * [1, -1])
    height, width = config.shape_yx
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [_fixed(section)], PROFILE, shift=_SHIFT)
    grey = np.full((height, width), PAPER, np.uint8)
    _fill(grey, mask, filling, chance)
    line_px = int(chance.integers(1, 2 + max(1, min(config.shape_yx) // 256)))
    _lines(grey, [section], closed=True, line_px=line_px)
    _lines(grey, [place(part) for part in _view(outer, chance)], closed=False, line_px=line_px)
    return VesselDrawing(_on_paper(grey, config.noise, chance), mask, filling)


def write_vessels(folder: Location, config: VesselConfig) -> dict[str, int]:
    """Write drawings as ``{split}/{number}.png`` and masks as ``{split}_annotations/{number}.png``.

    The splits ``train``, ``val`` and ``test`` get consecutive numbers by their shares. The same configuration writes
    the same bytes.

    Returns:
        Drawings per split.
    """
    dealt = numbers_of(config)
    for split, numbers in dealt.items():
        for number in numbers:
            drawing, (image, mask) = draw_vessel(config, number), paths_of(split, number)
            (folder / image).write_bytes(png_bytes(drawing.image))
            file = io.BytesIO()
            write_png(file, config.shape_yx, drawing.mask.dtype, [drawing.mask])
            (folder / mask).write_bytes(file.getbuffer())
    (folder / DOCUMENT).write_json({"job": "vessels", **config.model_dump(mode="json")})
    return {split: len(numbers) for split, numbers in dealt.items()}


def numbers_of(config: VesselConfig) -> dict[str, range]:
    """Deal the numbers of all drawings to the splits, by their shares."""
    train, val = (round(share * config.count) for share in config.shares[:2])
    ends = (0, train, min(train + val, config.count), config.count)
    return {split: range(*ends[at : at + 2]) for at, split in enumerate(("train", "val", "test"))}


def paths_of(split: str, number: int) -> tuple[str, str]:
    """Return the paths of a drawing and of its mask below their folder."""
    return f"{split}/{number:05d}.png", f"{split}_annotations/{number:05d}.png"


def _wall(chance: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw the wall's outer and inner line from rim to axis, as (height, radius); height runs down from 0 to 1."""
    base = chance.uniform(0.15, 0.5)
    belly = np.clip(0.7 + np.cumsum(chance.uniform(-0.22, 0.22, 4)), 0.35, 1)
    knots = np.array([*belly, base])
    places = np.array([0, 0.25, 0.5, 0.75, 1]) + np.array([0, *chance.uniform(-0.08, 0.08, 3), 0])
    y = np.linspace(0, 1, 160)
    radius = _smooth_curve(places, knots, y)
    thickness = chance.uniform(0.06, 0.14) * (1 + chance.uniform(0, 0.8) * y)
    rim = chance.uniform(-0.3, 1.2)  # a lip that thins or thickens
    thickness = thickness * (1 + rim * np.exp(-y / 0.05))
    floor = chance.uniform(0.04, 0.12)
    outer = np.concatenate([np.stack([y, radius], 1), [[1.0, 0.0]]])
    above = y <= 1 - floor
    inside = np.maximum(radius - thickness, 0.02)[above]
    inner = np.concatenate([np.stack([y[above], inside], 1), [[1 - floor, 0.0]]])
    return outer, inner


def _smooth_curve(places: NDArray[Any], values: NDArray[Any], at: NDArray[Any]) -> NDArray[np.float64]:
    """Interpolate by a cubic Hermite curve through the knots; slopes are means of the neighbouring ones."""
    slopes = np.gradient(values, places)
    cell = np.clip(np.searchsorted(places, at, side="right") - 1, 0, len(places) - 2)
    width = places[cell + 1] - places[cell]
    t = (at - places[cell]) / width
    curve = (
        (2 * t**3 - 3 * t**2 + 1) * values[cell]
        + (t**3 - 2 * t**2 + t) * width * slopes[cell]
        + (3 * t**2 - 2 * t**3) * values[cell + 1]
        + (t**3 - t**2) * width * slopes[cell + 1]
    )
    radius: NDArray[np.float64] = np.clip(curve, 0.15, 1.1)
    return radius


def _placement(
    shape_yx: tuple[int, int],
    outer: NDArray[np.float64],
    turned_deg: float,
    mirrored: bool,
    chance: np.random.Generator,
) -> Any:
    """Return a function from vessel coordinates (height, signed radius) to pixels (y, x), the whole drawing inside."""
    height, width = shape_yx
    widest = float(outer[:, 1].max())
    stretch = chance.uniform(0.8, 2.0)  # height of the vessel by its radius
    room = math.hypot(2 * widest, stretch)
    scale = chance.uniform(0.75, 0.92) * min(height, width) / room
    centre = np.array([height / 2, width / 2]) + chance.uniform(-0.03, 0.03, 2) * [height, width]
    cosine, sine = math.cos(math.radians(turned_deg)), math.sin(math.radians(turned_deg))
    turn = np.array([[cosine, -sine], [sine, cosine]])

    def place(points: NDArray[np.float64]) -> NDArray[np.float64]:
        local = (points - [0.5, 0]) * [stretch, -1.0 if mirrored else 1.0] * scale
        placed: NDArray[np.float64] = local @ turn.T + centre
        return placed

    return place


def _view(outer: NDArray[np.float64], chance: np.random.Generator) -> list[NDArray[np.float64]]:
    """Draw the lines of the outer view: outline, rim, base, axis, and some decoration around the vessel."""
    rim, base = outer[0, 1], outer[-2, 1]
    lines = [
        outer[:-1],
        np.array([[0.0, -rim], [0.0, rim]]),
        np.array([[1.0, 0.0], [1.0, base]]),
        np.array([[0.0, 0.0], [1.0, 0.0]]),
    ]
    for place in chance.uniform(0.08, 0.92, int(chance.integers(0, 5))):
        radius = float(np.interp(place, outer[:-1, 0], outer[:-1, 1]))
        lines.append(np.array([[place, 0.0], [place, radius]]))
    return lines


def _fill(grey: NDArray[np.uint8], mask: NDArray[np.uint8], filling: Filling, chance: np.random.Generator) -> None:
    """Fill the section of a drawing in place."""
    inside = mask != 0
    rows, columns = np.indices(mask.shape)
    spacing = int(chance.integers(5, 12))
    dark = int(chance.integers(0, 70))
    if filling == "black":
        grey[inside] = dark
    elif filling == "grey":
        grey[inside] = int(chance.integers(90, 200))
    elif filling == "hatched":
        direction = 1 if chance.random() < 0.5 else -1
        grey[inside & ((rows + direction * columns) % spacing < 2)] = dark
    elif filling == "dotted":
        dots = chance.random(mask.shape) < 1.5 / spacing**2
        grown = cv2.dilate(dots.astype(np.uint8), np.ones((2, 2), np.uint8)) != 0
        grey[inside & grown] = dark


def _lines(grey: NDArray[np.uint8], lines: Sequence[NDArray[np.float64]], *, closed: bool, line_px: int) -> None:
    points = [_fixed(line) for line in lines]
    cv2.polylines(grey, points, closed, 0, line_px, cv2.LINE_AA, _SHIFT)


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """Convert points (y, x) to OpenCV's fixed-point (x, y)."""
    return np.rint(points[:, ::-1] * _SUBPIXEL).astype(np.int32)


def _on_paper(grey: NDArray[np.uint8], noise: float, chance: np.random.Generator) -> NDArray[np.uint8]:
    """Put a drawing on tinted, grainy paper, RGB."""
    tint = 255 - chance.uniform(0, [12, 18, 40])
    grain = chance.standard_normal(grey.shape, np.float32) * noise
    image = grey[..., None] / 255 * tint + grain[..., None]
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
