"""Made tiles of known fault, for the verdicts of `inkbatch preflight`: 18 kinds, any seed.

A tile is papyrus of fibres with scanner noise, thick or thin, bright or dark, at one of the field's scales, in which
one thing is wrong; or real papyrus (the shipped crop, mirrored in depth below an envelope). Everything that a verdict
does not speak of is drawn at random.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.testing.papyrus import bare_demo_stack, demo_letters

Floats = NDArray[np.float32]
Rng = np.random.Generator

EDGE_PX = 256
FIBRES_UM = (
    (41.0, 270.0),
    (270.0, 41.0),
    (54.0, 54.0),
)  # standard deviations along y and x; the grain of the shipped crop
SLICE_STEP = 3  # layers between slices of texture that are drawn; those between are interpolated
SCALES_UM = (7.91, 8.64, 9.362)
REAL_UM = 7.91


@dataclass(frozen=True, eq=False)
class MadeTile:
    """A tile and the truth about it.

    Attributes:
        kind: Key of `KINDS`.
        layers: (Z, Y, X), uint8.
        voxel_um: Edge of a voxel, as the segment states it.
        verdict: What is to be said.
        number: The number that goes with it; None where none is known.
        expected_um: Edge of the voxels that the network was trained on, where the kind needs it.
    """

    kind: str
    layers: NDArray[np.uint8]
    voxel_um: float
    verdict: str
    number: float | None = None
    expected_um: float | None = None


def made_tile(kind: str, seed: int) -> MadeTile:
    """Make a tile of one kind; same kind and seed, same tile."""
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode())])
    return KINDS[kind](kind, rng)


@dataclass(frozen=True, eq=False)
class Sheet:
    """Papyrus before noise and rounding.

    Attributes:
        values: (Z, Y, X), grey values.
        um: Edge of a voxel.
        centre: Layer of the sheet's middle.
        thick: Its thickness in layers.
        noise: Standard deviation of scanner noise, grey values.
    """

    values: Floats
    um: float
    centre: float
    thick: float
    noise: float

    def finished(self, rng: Rng) -> NDArray[np.uint8]:
        """Add noise and round to 1 to 255: 0 means outside the volume."""
        return finished(self.values, self.noise, rng)


def finished(values: Floats, noise: float, rng: Rng) -> NDArray[np.uint8]:
    """Add scanner noise, blurred a little as reconstruction does it, and round to 1 to 255."""
    grain = rng.standard_normal(values.shape, np.float32)
    for layer in grain:
        cv2.GaussianBlur(layer, (0, 0), 0.6, dst=layer)
    grain *= np.float32(noise / 0.45)
    grain += values
    return np.clip(np.rint(grain), 1, 255).astype(np.uint8)


def texture(depth: int, um: float, rng: Rng, edge: int = EDGE_PX) -> Floats:
    """Make fibres of mean 0 and standard deviation 1, (depth, edge, edge); neighbours in depth resemble each other."""
    stretch = rng.uniform(0.85, 1.15)
    count = -(-depth // SLICE_STEP) + 2
    slices = np.zeros((count, edge, edge), np.float32)
    for sigma_y, sigma_x in FIBRES_UM:
        for plane in slices:
            noise = rng.standard_normal((edge, edge), np.float32)
            plane += _normed(cv2.GaussianBlur(noise, (0, 0), stretch * sigma_x / um, sigmaY=stretch * sigma_y / um))
    places = np.arange(depth) / SLICE_STEP
    below = places.astype(int)
    share = (places - below).astype(np.float32)[:, None, None]
    return np.stack([_normed(one) for one in slices[below] * (1 - share) + slices[below + 1] * share])


def _normed(plane: Any) -> Floats:
    found: Floats = (plane - plane.mean()) / plane.std()
    return found


def envelope(depth: int, centre: float, thick: float, soft: float = 1.2) -> Floats:
    """Return how much of each layer is sheet, 0 to 1."""
    z = np.arange(depth)
    found: Floats = (1 / (1 + np.exp(-(thick / 2 - np.abs(z - centre)) / soft))).astype(np.float32)
    return found


def sheet(rng: Rng, depth: int | None = None, offset: float | None = None, fibres: Floats | None = None) -> Sheet:
    """Make a sheet near the middle of its layers, now and then with the next sheet at their far end."""
    um = REAL_UM if fibres is not None else float(rng.choice(SCALES_UM))
    depth = depth or int(rng.choice([41, 53, 65]))
    centre = (depth - 1) / 2 + (rng.uniform(-2, 2) if offset is None else offset)
    thick = rng.uniform(110, 180) / um
    within = envelope(depth, centre, thick)
    if depth == 65 and offset is None and rng.random() < 0.4:
        within = np.maximum(within, envelope(depth, float(rng.choice([1, 63])), rng.uniform(8, 14)))
    fibres = texture(depth, um, rng) if fibres is None else fibres
    void, bright, rough = rng.uniform(25, 60), rng.uniform(50, 90), rng.uniform(24, 42)
    values = (
        void + within[:, None, None] * np.float32(bright) + fibres * (2 + within[:, None, None] * np.float32(rough))
    )
    return Sheet(np.asarray(values, np.float32), um, centre, thick, rng.uniform(4, 12))


@cache
def _real() -> Floats:
    stack = bare_demo_stack().astype(np.float32)
    found: Floats = stack - stack.mean(axis=(1, 2), keepdims=True)
    return found


def real_fibres(depth: int, rng: Rng, edge: int = EDGE_PX) -> Floats:
    """Cut real papyrus at a random place and mirror it in depth, brought to a standard deviation of 1."""
    stack = _real()
    y, x = (int(rng.integers(0, size - edge + 1)) for size in stack.shape[1:])
    count = len(stack)
    there_and_back = np.concatenate([np.arange(count), np.arange(count - 2, 0, -1)])
    start = int(rng.integers(0, len(there_and_back)))
    chosen = there_and_back[(start + np.arange(depth)) % len(there_and_back)]
    part = stack[chosen, y : y + edge, x : x + edge]
    return np.asarray(part / part.std(), np.float32)


def _fine(kind: str, rng: Rng) -> MadeTile:
    made = sheet(rng)
    return MadeTile(kind, made.finished(rng), made.um, "fine", expected_um=made.um)


def _fine_real(kind: str, rng: Rng) -> MadeTile:
    made = sheet(rng, 65, fibres=real_fibres(65, rng))
    return MadeTile(kind, made.finished(rng), made.um, "fine", expected_um=made.um)


def _fine_thin(kind: str, rng: Rng) -> MadeTile:
    """Take layers that lie inside the sheet: their profile tells nothing."""
    layers = np.rint(128 + real_fibres(13, rng) * 48)
    return MadeTile(kind, np.clip(layers, 1, 255).astype(np.uint8), REAL_UM, "fine", expected_um=REAL_UM)


def _fine_inked(kind: str, rng: Rng) -> MadeTile:
    made = sheet(rng)
    letters = demo_letters()
    y, x = (int(rng.integers(0, size - EDGE_PX + 1)) for size in letters.shape)
    part = letters[y : y + EDGE_PX, x : x + EDGE_PX]
    depth = np.exp(-0.5 * ((np.arange(len(made.values)) - made.centre + made.thick / 3) / 1.5) ** 2)
    values = made.values + np.float32(rng.uniform(20, 60)) * depth[:, None, None].astype(np.float32) * part
    return MadeTile(kind, finished(values, made.noise, rng), made.um, "fine", expected_um=made.um)


def _outside(kind: str, rng: Rng) -> MadeTile:
    depth = int(rng.choice([33, 65]))
    return MadeTile(kind, np.zeros((depth, EDGE_PX, EDGE_PX), np.uint8), 7.91, "outside", 1.0)


def _outside_in_part(kind: str, rng: Rng) -> MadeTile:
    made = sheet(rng)
    layers = made.finished(rng)
    lost = int(rng.integers(round(0.3 * len(layers)), round(0.6 * len(layers))))
    cut = slice(0, lost) if rng.random() < 0.5 else slice(len(layers) - lost, None)
    layers[cut] = 0
    return MadeTile(kind, layers, made.um, "outside", lost / len(layers))


def _blank_even(kind: str, rng: Rng) -> MadeTile:
    layers = np.full((int(rng.choice([33, 65])), EDGE_PX, EDGE_PX), rng.integers(1, 256), np.uint8)
    return MadeTile(kind, layers, 7.91, "blank", 0.0)


def _blank_noise(kind: str, rng: Rng) -> MadeTile:
    values = np.full((int(rng.choice([33, 65])), EDGE_PX, EDGE_PX), rng.uniform(30, 120), np.float32)
    return MadeTile(kind, finished(values, rng.uniform(2, 14), rng), float(rng.choice(SCALES_UM)), "blank")


def _no_sheet(kind: str, rng: Rng) -> MadeTile:
    um, depth = float(rng.choice(SCALES_UM)), int(rng.choice([41, 53, 65]))
    values = rng.uniform(80, 140) + texture(depth, um, rng) * np.float32(rng.uniform(22, 42))
    return MadeTile(kind, finished(np.asarray(values, np.float32), rng.uniform(4, 12), rng), um, "no sheet")


def _two_sheets(kind: str, rng: Rng) -> MadeTile:
    um, depth = float(rng.choice(SCALES_UM)), 65
    thick = [rng.uniform(70, 110) / um for _ in range(2)]
    apart = sum(thick) / 2 + rng.uniform(6, 9)
    first = (depth - 1) / 2 - apart / 2 + rng.uniform(-2, 2)
    strength = [1.0, rng.uniform(0.75, 1.0)]
    within = np.maximum(
        strength[0] * envelope(depth, first, thick[0]), strength[1] * envelope(depth, first + apart, thick[1])
    )
    if rng.random() < 0.5:
        within = within[::-1]
    fibres = texture(depth, um, rng) * (2 + within[:, None, None] * np.float32(rng.uniform(24, 42)))
    values = rng.uniform(25, 60) + within[:, None, None] * np.float32(rng.uniform(50, 90)) + fibres
    return MadeTile(kind, finished(np.asarray(values, np.float32), rng.uniform(4, 12), rng), um, "two sheets", apart)


def _off_centre(sign: int) -> Callable[[str, Rng], MadeTile]:
    def make(kind: str, rng: Rng) -> MadeTile:
        number = sign * rng.uniform(6, 11)
        real = rng.random() < 0.3
        made = sheet(rng, 65, number, real_fibres(65, rng) if real else None)
        return MadeTile(kind, made.finished(rng), made.um, "off-centre", number)

    return make


def _side(rng: Rng) -> NDArray[np.bool_]:
    """Divide a tile by a straight line of any direction through its middle part."""
    angle = rng.uniform(0, np.pi)
    y, x = np.mgrid[:EDGE_PX, :EDGE_PX] - (EDGE_PX - 1) / 2
    side: NDArray[np.bool_] = y * np.sin(angle) + x * np.cos(angle) > rng.uniform(-50, 50)
    return side


def _seam_aside(kind: str, rng: Rng) -> MadeTile:
    """Join two patches of a surface whose places do not agree: the texture jumps."""
    made = sheet(rng)
    values = np.where(_side(rng), made.values, np.rot90(made.values, int(rng.choice([1, 3])), (1, 2)))
    return MadeTile(kind, finished(values, made.noise, rng), made.um, "seam")


def _seam_in_depth(kind: str, rng: Rng) -> MadeTile:
    """Join two patches of a surface at different depths."""
    made = sheet(rng, 65, 0.0)
    step = int(rng.integers(5, 9))
    layers = made.values
    moved = np.concatenate([layers[step:], layers[-1:].repeat(step, axis=0)])
    values = np.where(_side(rng), layers, moved)
    return MadeTile(kind, finished(values, made.noise, rng), made.um, "seam")


def _seam_real(kind: str, rng: Rng) -> MadeTile:
    one = sheet(rng, 65, 0.0, real_fibres(65, rng))
    values = np.where(_side(rng), one.values, np.rot90(one.values, int(rng.choice([1, 3])), (1, 2)))
    return MadeTile(kind, finished(values, one.noise, rng), one.um, "seam")


def _scaled(factor: float) -> Callable[[str, Rng], MadeTile]:
    """Make a tile whose voxels are `factor` of what the network was trained on."""

    def make(kind: str, rng: Rng) -> MadeTile:
        trained = float(rng.choice(SCALES_UM))
        true = trained * factor
        within = envelope(65, 32 + rng.uniform(-2, 2), 18)[:, None, None]
        fibres = texture(65, true, rng) * (2 + within * np.float32(rng.uniform(24, 42)))
        values = rng.uniform(25, 60) + within * np.float32(rng.uniform(50, 90)) + fibres
        layers = finished(np.asarray(values, np.float32), rng.uniform(4, 12), rng)
        return MadeTile(kind, layers, trained, "scale", factor, trained)

    return make


def _lossy(kind: str, rng: Rng) -> MadeTile:
    """Send every layer through JPG; the grid of its blocks begins anywhere."""
    real = rng.random() < 0.4
    made = sheet(rng, 65 if real else None, fibres=real_fibres(65, rng) if real else None)
    y, x = (int(rng.integers(0, 8)) for _ in range(2))
    quality = int(rng.integers(30, 81))
    found = []
    for layer in np.roll(made.finished(rng), (y, x), (1, 2)):
        coded = cv2.imencode(".jpg", layer, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        decoded = np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE), np.uint8)
        found.append(np.maximum(decoded, 1))
    layers = np.roll(np.stack(found), (-y, -x), (1, 2)).astype(np.uint8)
    return MadeTile(kind, layers, made.um, "lossy codec", expected_um=made.um)


KINDS: Mapping[str, Callable[[str, Rng], MadeTile]] = {
    "fine": _fine,
    "fine, real papyrus": _fine_real,
    "fine, layers inside the sheet": _fine_thin,
    "fine, with ink": _fine_inked,
    "outside": _outside,
    "outside in part": _outside_in_part,
    "blank, one value": _blank_even,
    "blank, noise": _blank_noise,
    "no sheet": _no_sheet,
    "two sheets": _two_sheets,
    "off-centre down": _off_centre(1),
    "off-centre up": _off_centre(-1),
    "seam aside": _seam_aside,
    "seam in depth": _seam_in_depth,
    "seam, real papyrus": _seam_real,
    "voxels too small": _scaled(0.5),
    "voxels too large": _scaled(2.0),
    "lossy codec": _lossy,
}
