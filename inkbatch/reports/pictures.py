"""Pictures of stored pyramids: a map in colours, papyrus in grey, and one over the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import CorruptDataError, DataError
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.pictures.palettes import ColourMap, palette
from inkbatch.io.pictures.preview import preview_level
from inkbatch.io.pictures.tones import ToneMap
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume
from inkbatch.reports.page import Legend, Pixels

LONGEST_PX = 1600  # of a picture in a page
READ_PX = 2400  # the finest level that fits this is read, then made smaller
DARKEST_PX = 0.5  # percentiles of papyrus that become black and white
OPACITY = 0.8  # of full ink over papyrus
AMBER = (255, 158, 28)
PAPYRUS_GREY = 100  # of papyrus in the legend
LEGEND_STEPS = 9


def legend_of(name: ColourMap, low: str, high: str) -> Legend:
    """Return the legend of a colour map."""
    picked = palette(name)[np.linspace(0, 255, LEGEND_STEPS).astype(int)]
    return Legend(tuple(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in picked.tolist()), low, high)


def fitted(pixels: NDArray[Any], longest_px: int = LONGEST_PX) -> NDArray[Any]:
    """Shrink a picture until its longest side fits; small ones stay as they are."""
    longest = max(pixels.shape[:2])
    if longest <= longest_px:
        return pixels
    size = [max(1, round(side * longest_px / longest)) for side in pixels.shape[1::-1]]
    return cv2.resize(pixels, (size[0], size[1]), interpolation=cv2.INTER_AREA)


def decoded(place: Location, longest_px: int = LONGEST_PX) -> Pixels:
    """Decode a stored picture (PNG, JPG, WebP) to grey, or to red, green and blue.

    Raises:
        FileNotFoundError: It is not there.
        CorruptDataError: It cannot be decoded.
    """
    found = cv2.imdecode(np.frombuffer(place.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None:
        raise CorruptDataError(f"{place}: cannot be decoded as a picture; run the job that made it again")
    colours = found if found.ndim == 2 else np.ascontiguousarray(found[..., 2::-1])
    return fitted(colours, longest_px)


def map_tones(prediction: Prediction) -> Pixels:
    """Read a map as grey values, 0 is no ink and 255 certain ink.

    Raises:
        CorruptDataError: A stored object is damaged, or holds something else than probabilities.
    """
    array = prediction.pyramid.levels[preview_level(prediction.pyramid, READ_PX)]
    stored = array.read([slice(0, size) for size in array.layout.shape])
    return fitted(ToneMap(np.dtype(np.uint8)).apply(stored, str(array.location)))


def coloured(tones: Pixels, name: ColourMap = "inferno") -> Pixels:
    """Colour grey values with a colour map."""
    return palette(name)[tones]


def over_papyrus(tones: Pixels, papyrus: Pixels) -> Pixels:
    """Lay ink as glowing amber over grey papyrus, by its probability.

    Args:
        tones: See `map_tones`.
        papyrus: Grey values of any size; is brought to that of `tones`.
    """
    below = papyrus
    if below.shape != tones.shape:
        below = cv2.resize(papyrus, tones.shape[::-1], interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    share = (tones.astype(np.float32) / 255 * OPACITY)[..., None]
    ink = np.array(AMBER, np.float32)
    return np.rint(below[..., None].astype(np.float32) * (1 - share) + ink * share).astype(np.uint8)


def amber_legend() -> Legend:
    """Return the legend of `over_papyrus`."""
    shares = np.linspace(0, OPACITY, LEGEND_STEPS)
    steps = [[round(PAPYRUS_GREY * (1 - share) + part * share) for part in AMBER] for share in shares]
    return Legend(tuple(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in steps), "no ink", "ink")


def surface_read(root: Location, segment: str, digest: str) -> SurfaceVolume | None:
    """Open the very surface that a run read; None if ROOT does not have it any more.

    Args:
        root: ROOT.
        segment: Segment id.
        digest: Of the surface, among the inputs of the run's manifest.
    """
    folder = root / "segments" / segment
    try:
        manifest = (folder / "prepare" / "manifest.json").read_mapping()
        return SurfaceVolume.open(folder) if manifest["digest"] == digest else None
    except (FileNotFoundError, DataError, KeyError):
        return None


def middle_layer(volume: SurfaceVolume) -> NDArray[Any]:
    """Read the middle layer at a small level, stored values."""
    middle = volume.layer_count // 2
    return _level(volume.volume, lambda read: read(slice(middle, middle + 1))[0])


def mean_layer(volume: SurfaceVolume) -> NDArray[Any]:
    """Average all layers at a small level, float32; read chunk by chunk of layers."""
    step = volume.volume.levels[0].layout.chunks[0]

    def mean(read: Callable[[slice], NDArray[Any]]) -> NDArray[Any]:
        total: NDArray[Any] = np.float32(0)  # type: ignore[assignment]
        for start in range(0, volume.layer_count, step):
            block = read(slice(start, min(start + step, volume.layer_count)))
            total = total + block.sum(axis=0, dtype=np.float32)
        return np.asarray(total / np.float32(volume.layer_count), np.float32)

    return _level(volume.volume, mean)


def small_mask(volume: SurfaceVolume) -> NDArray[np.bool_]:
    """Read the segment mask, at the size of `middle_layer`."""
    array = volume.mask.levels[preview_level(volume.mask, READ_PX)]
    return array.read([slice(0, size) for size in array.layout.shape]).astype(bool)


def as_grey(values: NDArray[Any], mask: NDArray[np.bool_]) -> Pixels:
    """Stretch values so that papyrus fills the greys; black outside the mask.

    Args:
        values: (Y, X).
        mask: True where there is papyrus; the same shape.
    """
    inside = values[mask]
    low, high = np.percentile(inside, (DARKEST_PX, 100 - DARKEST_PX)) if inside.size else (0.0, 1.0)
    scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / max(high - low, 1e-6))
    return fitted(np.where(mask, np.rint(np.clip(scaled, 0, 255)), 0).astype(np.uint8))


def _level(pyramid: Multiscale, use: Callable[[Callable[[slice], NDArray[Any]]], NDArray[Any]]) -> NDArray[Any]:
    """Hand `use` a function that reads a range of layers of the level that a page shows."""
    array = pyramid.levels[preview_level(pyramid, READ_PX)]
    plane = [slice(0, size) for size in array.layout.shape[1:]]
    return use(lambda layers: array.read([layers, *plane]))
