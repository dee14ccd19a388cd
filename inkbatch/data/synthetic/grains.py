"""Thin sections of rock with known answers: grains that touch, in two illuminations, more or less sharp.

Every grain has a centre, two axes and a turn, and so a distance of its own, ``|A (p - c)|``, in which its outline is
the unit circle; places are bent by a smooth field first. A pixel belongs to the grain that is nearest in this sense, if
it lies inside that grain's outline: neighbours share a border where they meet, and are round where they do not.

Section `i` of a seed is the same on every machine, however many are made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from inkbatch.config import JobConfig
from inkbatch.io.pictures.png import png_bytes
from inkbatch.io.store.location import Location

Illumination = Literal["plain", "crossed"]
ILLUMINATIONS: tuple[Illumination, ...] = get_args(Illumination)
LEAST_PX = 60
"""A grain of fewer pixels is left out: nobody would outline it."""


class GrainConfig(JobConfig):
    """Made thin sections.

    Attributes:
        shape_yx: (height, width) of a section in pixels.
        count: Number of sections.
        seed: Of all of them.
        radius_px: Smallest and largest mean half axis of a grain, in pixels.
        cover: Share of the section that grains fill, about.
        blur_px: Smallest and largest standard deviation of the blur, in pixels.
        noise: Standard deviation of the noise, in grey values of 255.
        illuminations: ``plain`` light shows outlines and little else; between ``crossed`` polarisers each grain has a
            colour of its own, and some are dark. Taken in turn.
    """

    shape_yx: tuple[int, int] = (384, 384)
    count: int = Field(8, ge=1)
    seed: int = Field(0, ge=0)
    radius_px: tuple[float, float] = (10.0, 34.0)
    cover: float = Field(0.7, gt=0, lt=1)
    blur_px: tuple[float, float] = (0.6, 1.6)
    noise: float = Field(6.0, ge=0, le=64)
    illuminations: tuple[Illumination, ...] = Field(ILLUMINATIONS, min_length=1)

    @model_validator(mode="after")
    def _can_be_drawn(self) -> GrainConfig:
        if not 4 <= self.radius_px[0] <= self.radius_px[1]:
            raise ValueError(f"radius_px {self.radius_px}: expected 4 <= smallest <= largest")
        if min(self.shape_yx) < 2 * self.radius_px[1]:
            raise ValueError(f"shape_yx {self.shape_yx}: expected room for a grain of radius {self.radius_px[1]:g}")
        if not 0 <= self.blur_px[0] <= self.blur_px[1]:
            raise ValueError(f"blur_px {self.blur_px}: expected 0 <= smallest <= largest")
        return self


@dataclass(frozen=True)
class MadeSection:
    """One made thin section and its answer.

    Attributes:
        picture: (height, width, 3) uint8, RGB.
        instances: (height, width) uint16; 0 between grains, each grain a number from 1 on, all in one piece.
        illumination: Light that it is seen in.
    """

    picture: NDArray[np.uint8]
    instances: NDArray[np.uint16]
    illumination: Illumination


def make_section(config: GrainConfig, number: int) -> MadeSection:
    """Make section `number` of a configuration."""
    rng = np.random.default_rng([config.seed, number])
    illumination = config.illuminations[number % len(config.illuminations)]
    instances, depth = _packed(config, rng)
    picture = _lit(instances, depth, illumination, rng)
    blur = float(rng.uniform(*config.blur_px))
    if blur > 0:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), blur), np.float32)
    picture += rng.normal(0, config.noise, picture.shape).astype(np.float32)
    return MadeSection(np.clip(picture.round(), 0, 255).astype(np.uint8), instances, illumination)


def write_sections(folder: Location, config: GrainConfig) -> int:
    """Write ``images/section-000.png`` (RGB) and ``instances/section-000.png`` (uint16); return their number.

    A file that holds the same bytes already is left as it is, so that results made from it are not out of date.
    """
    for number in range(config.count):
        made = make_section(config, number)
        for kind, pixels in (("images", made.picture), ("instances", made.instances)):
            file, data = folder / kind / f"section-{number:03d}.png", png_bytes(pixels)
            if not file.exists() or file.read_bytes() != data:
                file.write_bytes(data)
    return config.count


def _packed(config: GrainConfig, rng: np.random.Generator) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """Lay out the grains.

    Returns:
        (their numbers, distance from the centre of each pixel's grain, 1 at its outline where it stands alone).
    """
    height, width = config.shape_yx
    y, x = np.mgrid[:height, :width].astype(np.float32)
    y, x = y + _smooth(rng, config.shape_yx, 24, 4.0), x + _smooth(rng, config.shape_yx, 24, 4.0)
    nearest = np.full(config.shape_yx, np.float32(np.inf))
    owner = np.zeros(config.shape_yx, np.uint16)
    filled, number = 0.0, 0
    while filled < config.cover * height * width * 1.25:  # neighbours take a fifth of each other
        number += 1
        radius, stretch, turn = float(rng.uniform(*config.radius_px)), float(rng.uniform(1, 1.7)), rng.uniform(0, np.pi)
        centre_y, centre_x = _free_place(owner, rng)
        reach = int(radius * stretch * 1.3) + 8
        part = tuple(slice(max(0, int(at) - reach), int(at) + reach + 1) for at in (centre_y, centre_x))
        dy, dx = y[part] - centre_y, x[part] - centre_x
        along = (np.cos(turn) * dx + np.sin(turn) * dy) / (radius * np.sqrt(stretch))
        across = (np.cos(turn) * dy - np.sin(turn) * dx) / (radius / np.sqrt(stretch))
        distance = np.hypot(along, across).astype(np.float32)
        mine = (distance < 1) & (distance < nearest[part])
        nearest[part][mine] = distance[mine]
        owner[part][mine] = number
        filled += np.pi * radius * radius
        if number >= np.iinfo(np.uint16).max:
            break
    return _in_one_piece(owner, number), nearest


def _free_place(owner: NDArray[np.uint16], rng: np.random.Generator) -> tuple[float, float]:
    """Draw a place between the grains that are there, if one of eight tries finds it."""
    places = rng.uniform(0, owner.shape, (8, 2))
    free = [place for place in places if owner[int(place[0]), int(place[1])] == 0]
    y, x = free[0] if free else places[0]
    return float(y), float(x)


def _in_one_piece(owner: NDArray[np.uint16], last: int) -> NDArray[np.uint16]:
    """Keep the largest piece of each grain if it is large enough, and number those that are left from 1 on."""
    kept = np.zeros_like(owner)
    count = 0
    for number in range(1, last + 1):
        rows, columns = np.nonzero(owner == number)
        if len(rows) < LEAST_PX:
            continue
        part = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
        mask = (owner[part] == number).astype(np.uint8)
        mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        _, pieces, facts, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
        areas = facts[1:, cv2.CC_STAT_AREA]
        if len(areas) and areas.max() >= LEAST_PX:
            count += 1
            kept[part][pieces == 1 + int(areas.argmax())] = count
    return kept


def _smooth(rng: np.random.Generator, shape: tuple[int, int], cell_px: float, spread: float) -> NDArray[np.float32]:
    """Draw a field that changes over `cell_px`, of standard deviation `spread`."""
    rows, columns = (max(2, int(np.ceil(edge / cell_px)) + 1) for edge in shape)
    coarse = rng.normal(0, 1, (rows, columns)).astype(np.float32)
    field = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return (field * np.float32(spread / max(float(field.std()), 1e-6))).astype(np.float32)


def _lit(
    instances: NDArray[np.uint16], depth: NDArray[np.float32], illumination: Illumination, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Colour the grains and what lies between them: (height, width, 3) float32, about 0 to 255."""
    count = int(instances.max())
    shape = (instances.shape[0], instances.shape[1])
    if illumination == "plain":
        colours = np.array([205, 198, 186], np.float32) + rng.normal(0, 9, (count + 1, 3)).astype(np.float32)
        colours += rng.normal(0, 7, (count + 1, 1)).astype(np.float32)
        colours[0] = (172, 158, 140)
        edge_tone, relief = 0.72, 10.0
    else:
        tones = rng.uniform(70, 235, (count + 1, 1)) * rng.uniform(0.75, 1.05, (count + 1, 3))
        colours = tones.astype(np.float32)
        colours[rng.random(count + 1) < 0.15] *= 0.4  # grains in extinction
        colours[0] = (52, 46, 40)
        edge_tone, relief = 0.86, 16.0
    picture = colours[instances]
    texture = _smooth(rng, shape, 5, 3.0) + _smooth(rng, shape, 40, 6.0)
    grain_slope = np.where(instances > 0, relief * (0.5 - np.minimum(depth, 1)), 0).astype(np.float32)
    between = np.where(instances == 0, _smooth(rng, shape, 4, 12.0), 0).astype(np.float32)
    picture += (texture + grain_slope + between)[..., None]
    picture *= np.where(_outlines(instances), np.float32(edge_tone), np.float32(1))[..., None]
    inclusions = (rng.random(shape) < 0.0012).astype(np.uint8)
    spots = cv2.dilate(inclusions, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))) > 0
    picture[spots] *= 0.6
    return picture


def _outlines(instances: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Mark pixels of a grain beside a pixel of another one or of none."""
    square = np.ones((3, 3), np.uint8)
    marked: NDArray[np.bool_] = (cv2.dilate(instances, square) != cv2.erode(instances, square)) & (instances > 0)
    return marked
