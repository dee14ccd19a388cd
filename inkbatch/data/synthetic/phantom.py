"""Phantom segments: known ink planted into real papyrus, so that the truth is exact.

The planted signal is a product of planes and one depth profile::

    ink(z, y, x) = amplitude * mask(y, x) * (1 + crackle * noise(y, x)) * papyrus(y, x)
                             * exp(-((z - depth_layer) / width_layers)^2 / 2)

It is added to the stored grey values and saturates at the ends of their range. Every plane is a function of the
pixel's own coordinates and the seed, hence cutting a phantom into boxes or layers changes no value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from inkbatch.config import JobConfig
from inkbatch.data.labels.ink import LAST_BARE
from inkbatch.errors import ConfigError, DataError, LayerRangeError
from inkbatch.geometry import Box, cut
from inkbatch.io.layers.base import LayerSource

GREY_UNIT = {"uint8": 1, "uint16": 257}  # stored steps per grey value of 255
TRUTH_LEVEL = 0.5  # mask value from which a pixel counts as ink
BAND_ROWS = 256  # bounds the temporary planes of the noise
_DIRECTIONS = 16


def _some_ink(amplitude: float) -> float:
    if amplitude == 0:
        raise ValueError("amplitude 0 plants no ink; give for example 50, or -50 for ink darker than papyrus")
    return amplitude


Amplitude = Annotated[float, Field(ge=-255, le=255), AfterValidator(_some_ink)]


class InkConfig(JobConfig):
    """Appearance of planted ink.

    Attributes:
        amplitude: Grey values of 255 added where the mask is 1, at `depth_layer`; negative ink is darker than papyrus.
        depth_layer: Centre of the ink along depth, as a stored layer number; may lie between two layers.
        width_layers: Standard deviation of the Gaussian depth profile, in layers.
        crackle: Strength of the modulation by noise, 0 (even ink) to 1 (ink breaks off down to nothing).
        crackle_px: Size of that noise: most of its power lies between once and twice this wavelength.
        edge_px: Standard deviation of the Gaussian that softens the letters' edges; 0 keeps them as they are.
        seed: Seed of the noise.
    """

    amplitude: Amplitude
    depth_layer: float
    width_layers: float = Field(default=1.5, gt=0)
    crackle: float = Field(default=0.4, ge=0, le=1)
    crackle_px: float = Field(default=8.0, ge=2)
    edge_px: float = Field(default=1.5, ge=0)
    seed: int = Field(default=0, ge=0)


class PhantomConfig(InkConfig):
    """One phantom segment: papyrus, letters, ink, and where to write it.

    Attributes:
        source: Layers of real papyrus: whatever a layer source opens.
        labels: Picture of letters: grey values above `label_threshold` are ink.
        output: Folder that gets ``layers/00.tif`` …, ``truth.png`` (0 or 255) and, last, ``phantom.json``.
        source_box: (y0, x0, y1, x1) of the papyrus that becomes the phantom; None: all of it.
        segment_mask: Picture of `source`'s size, non-zero where there is papyrus; None: where any layer is non-zero.
        label_box: (y0, x0, y1, x1) of the picture that is used; None: all of it.
        label_scale: Phantom pixels per label pixel. The scaled letters are laid with their upper left corner on the
            phantom's; what reaches beyond its lower and right border is left out.
        label_threshold: Highest grey value that is not ink.
        label_invert: Take grey values up to `label_threshold` as ink instead (dark letters on white).
        source_note: Free text on origin and licence, kept in ``phantom.json``.
    """

    source: str
    labels: str
    output: str
    source_box: tuple[int, int, int, int] | None = None
    segment_mask: str | None = None
    label_box: tuple[int, int, int, int] | None = None
    label_scale: float = Field(default=1.0, gt=0, le=16)
    label_threshold: int = Field(default=LAST_BARE, ge=0, le=254)
    label_invert: bool = False
    source_note: str = ""


def label_mask(
    picture: NDArray[np.uint8],
    shape_yx: tuple[int, int],
    *,
    scale: float = 1.0,
    threshold: int = LAST_BARE,
    invert: bool = False,
    edge_px: float = 0.0,
) -> NDArray[np.float32]:
    """Turn a picture of letters into a mask of a phantom's size.

    Args:
        picture: Grey values (y, x).
        shape_yx: Size of the phantom.
        scale: Phantom pixels per picture pixel; areas are averaged when shrinking, interpolated when enlarging.
        threshold: Grey values above it are ink.
        invert: Grey values up to the threshold are ink instead.
        edge_px: Standard deviation of the softening, in phantom pixels.

    Returns:
        Plane in [0, 1] of `shape_yx`, float32.

    Raises:
        ConfigError: The scaled picture is smaller than the phantom.
    """
    height, width = shape_yx
    scaled_yx = (round(picture.shape[0] * scale), round(picture.shape[1] * scale))
    if scaled_yx[0] < height or scaled_yx[1] < width:
        raise ConfigError(
            f"phantom labels: the phantom is {height} x {width} px, the labels cover only "
            f"{scaled_yx[0]} x {scaled_yx[1]} px ({picture.shape[0]} x {picture.shape[1]} at scale {scale:g}); "
            "enlarge label_box or label_scale, or make source_box smaller"
        )
    ink = (picture <= threshold) if invert else (picture > threshold)
    mask = ink.astype(np.float32)
    if scaled_yx != picture.shape:
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        mask = cv2.resize(mask, (scaled_yx[1], scaled_yx[0]), interpolation=how).astype(np.float32, copy=False)
    mask = np.ascontiguousarray(mask[:height, :width])
    if edge_px > 0:
        mask = cv2.GaussianBlur(mask, (0, 0), edge_px).astype(np.float32, copy=False)
    return np.clip(mask, 0.0, 1.0)


def crackle_noise(box: Box, wavelength_px: float, seed: int) -> NDArray[np.float32]:
    """Make band-limited noise in [-1, 1] over one box of an endless plane.

    Gradient noise: each node of a square lattice has a pseudo-random direction; a pixel blends the ramps of its four
    nodes with a quintic fade. Only elementwise arithmetic is used, so a pixel's value does not depend on the box.

    Args:
        box: Pixels to make.
        wavelength_px: Lattice pitch; most of the power lies between once and twice this wavelength.
        seed: Same seed, same plane.

    Returns:
        Plane of the box's shape, float32.
    """
    noise = np.empty(box.shape, np.float32)
    for band in cut(box.shape, BAND_ROWS, max(1, box.width)):
        y = np.arange(box.y0 + band.y0, box.y0 + band.y1)
        x = np.arange(box.x0, box.x1)
        noise[band.slices] = _gradient_noise(y, x, wavelength_px, seed)
    return noise


def ink_plane(
    mask: NDArray[np.float32], papyrus: NDArray[np.bool_] | None, ink: InkConfig, box: Box | None = None
) -> NDArray[np.float32]:
    """Make the signal at the centre of the depth profile, in grey values of 255.

    Args:
        mask: Letters in [0, 1] over `box`.
        papyrus: True where there is papyrus, over `box`; None: everywhere.
        ink: Amplitude, crackle and seed.
        box: Place of these planes in the phantom; None: its upper left corner.

    Returns:
        Plane of the mask's shape, float32, signed.
    """
    box = box or Box(0, 0, *mask.shape)
    plane = mask * np.float32(ink.amplitude)
    if ink.crackle > 0:
        factor = crackle_noise(box, ink.crackle_px, ink.seed)
        factor *= np.float32(ink.crackle)
        factor += np.float32(1)
        plane *= factor
    if papyrus is not None:
        plane *= papyrus
    return plane


def depth_weight(layer: int, ink: InkConfig) -> float:
    """Return the height of the Gaussian depth profile at a stored layer number, in (0, 1]."""
    return math.exp(-0.5 * ((layer - ink.depth_layer) / ink.width_layers) ** 2)


def plant_layer(stored: NDArray[Any], plane: NDArray[np.float32], weight: float) -> NDArray[Any]:
    """Add ink to one stored layer.

    Args:
        stored: Grey values (y, x), uint8 or uint16.
        plane: Signal of `ink_plane`, same shape; a grey value of 255 counts 257 steps of uint16.
        weight: Height of the depth profile at this layer.

    Returns:
        New plane of the same dtype: rounded to nearest even, saturated at 0 and at the dtype's maximum.

    Raises:
        DataError: Another dtype.
    """
    unit = _grey_unit(stored.dtype, "phantom")
    total = plane * np.float32(weight * unit)
    np.rint(total, out=total)
    total += stored
    np.clip(total, 0, np.iinfo(stored.dtype).max, out=total)
    return total.astype(stored.dtype)


def require_fitting(source: LayerSource, ink: InkConfig) -> None:
    """Refuse ink that this stack cannot hold.

    Raises:
        DataError: Neither uint8 nor uint16.
        LayerRangeError: The ink's centre lies outside the stored layers.
    """
    _grey_unit(source.dtype, source.uri)
    last = source.first_layer + source.shape_zyx[0] - 1
    if not source.first_layer <= ink.depth_layer <= last:
        raise LayerRangeError(
            f"{source.uri}: expected depth_layer among the stored layers {source.first_layer} to {last}, got "
            f"{ink.depth_layer:g}; choose one of them"
        )


def papyrus_of(source: LayerSource, box: Box) -> NDArray[np.bool_]:
    """Find papyrus: pixels that are non-zero in any layer; outside the segment all layers hold zero.

    Returns:
        Plane of the box's shape, bool.
    """
    papyrus = np.zeros(box.shape, np.bool_)
    for layer in _layers(source):
        papyrus |= source.read(range(layer, layer + 1), box)[0] != 0
        if papyrus.all():
            break
    return papyrus


def plant(
    source: LayerSource,
    box: Box,
    mask: NDArray[np.float32],
    ink: InkConfig,
    papyrus: NDArray[np.bool_] | None = None,
    origin_yx: tuple[int, int] | None = None,
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Plant ink layer by layer; one layer and one float32 plane are held at a time.

    Args:
        source: Papyrus, uint8 or uint16.
        box: Part of the papyrus that gets the ink.
        mask: Letters in [0, 1] of the box's shape.
        ink: Appearance of the ink.
        papyrus: True where there is papyrus, the box's shape; None: everywhere.
        origin_yx: Corner of the whole phantom in the source, where the noise is anchored; None: the box's corner.
            A phantom cut into boxes gives every box the same origin.

    Yields:
        (stored layer number, planted plane), ascending.

    Raises:
        DataError: Unsupported dtype, or a mask of another shape.
        LayerRangeError: The ink's centre lies outside the stack.
    """
    require_fitting(source, ink)
    if mask.shape != box.shape:
        raise DataError(
            f"{source.uri}: expected a mask of {box.shape} like the box, got {mask.shape}; cut the mask to the box"
        )
    y, x = origin_yx or (box.y0, box.x0)
    plane = ink_plane(mask, papyrus, ink, Box(box.y0 - y, box.x0 - x, box.y1 - y, box.x1 - x))
    for layer in _layers(source):
        yield layer, plant_layer(source.read(range(layer, layer + 1), box)[0], plane, depth_weight(layer, ink))


def truth_of(mask: NDArray[np.float32], papyrus: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Return the truth: pixels on papyrus where the mask reaches one half."""
    truth = mask >= TRUTH_LEVEL
    return truth if papyrus is None else truth & papyrus


def _layers(source: LayerSource) -> range:
    return range(source.first_layer, source.first_layer + source.shape_zyx[0])


def _grey_unit(dtype: np.dtype, place: str) -> int:
    if dtype.name not in GREY_UNIT:
        raise DataError(
            f"{place}: expected uint8 or uint16 layers to plant ink into, got {dtype.name}; convert them first"
        )
    return GREY_UNIT[dtype.name]


def _gradient_noise(y: NDArray[np.int64], x: NDArray[np.int64], wavelength_px: float, seed: int) -> NDArray[np.float32]:
    row, down = _lattice(y, wavelength_px)
    column, right = _lattice(x, wavelength_px)
    first_row, first_column = int(row[0]), int(column[0])
    angle = _node_hash(np.arange(first_row, row[-1] + 2), np.arange(first_column, column[-1] + 2), seed)
    ramp_y, ramp_x = _DIRECTION_TABLE[:, angle]
    row, column = row - first_row, column - first_column
    fade_y, fade_x = _fade(down)[:, None], _fade(right)[None, :]

    def ramp(dy: int, dx: int) -> NDArray[np.float32]:
        node = np.ix_(row + dy, column + dx)
        found: NDArray[np.float32] = ramp_y[node] * (down[:, None] - np.float32(dy))
        found += ramp_x[node] * (right[None, :] - np.float32(dx))
        return found

    upper, lower = ramp(0, 0), ramp(1, 0)
    upper += (ramp(0, 1) - upper) * fade_x
    lower += (ramp(1, 1) - lower) * fade_x
    upper += (lower - upper) * fade_y
    upper *= np.float32(math.sqrt(2))
    return np.clip(upper, -1, 1)


def _lattice(pixels: NDArray[np.int64], pitch: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the lattice cell of each pixel's centre, and the place inside the cell in [0, 1)."""
    place = (pixels + 0.5) / pitch
    cell = np.floor(place)
    return cell.astype(np.int64), (place - cell).astype(np.float32)


def _fade(place: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fade by 6t^5 - 15t^4 + 10t^3, flat to second order at both nodes."""
    return np.polyval(_FADE, place).astype(np.float32)


def _node_hash(rows: NDArray[np.int64], columns: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Hash each lattice node to a direction number: seed, row and column are mixed in turn (splitmix64's finisher)."""
    mixed = _mix(np.full(1, seed % 2**64, np.uint64))
    mixed = _mix(mixed ^ rows.astype(np.uint64))[:, None]
    mixed = _mix(mixed ^ columns.astype(np.uint64)[None, :])
    return (mixed >> np.uint64(60)).astype(np.int64)


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


_FADE = np.array([6, -15, 10, 0, 0, 0], np.float32)

_DIRECTION_TABLE = np.array(
    [
        [math.sin(2 * math.pi * step / _DIRECTIONS) for step in range(_DIRECTIONS)],
        [math.cos(2 * math.pi * step / _DIRECTIONS) for step in range(_DIRECTIONS)],
    ],
    np.float32,
)
