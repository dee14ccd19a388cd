"""Spacing of stored values: read from OME metadata, from files beside the layers, and from names.

Facts about Volume Cartographer's renderer: it writes one size v as scale [v, v * 2^L, v * 2^L] of level L. v is 1 where
it knows nothing and micrometres under the unit nanometer where it does; the level of the volume that was sampled, the
scale of the picture and the step of layers never enter it, though all but the picture's scale stand beside it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inkbatch.io.store.faults import ForbiddenError
from inkbatch.io.store.location import Location
from inkbatch.io.threads import opening_pool

SMALLEST_UM, LARGEST_UM = 0.1, 200.0  # sizes that scans of scrolls have
SIZE_TOLERANCE = 0.01  # sizes closer than this, relatively, are one size
VOXEL_TOLERANCE = 0.05  # networks take voxels whose size differs by less, relatively, unless a bundle says otherwise
PREFIXES = {"": 1e6, "centi": 1e4, "milli": 1e3, "micro": 1.0, "nano": 1e-3, "pico": 1e-6, "deci": 1e5}
SYMBOLS = {"": 1e6, "c": 1e4, "m": 1e3, "u": 1.0, "µ": 1.0, "n": 1e-3, "p": 1e-6, "d": 1e5}
OTHER_UNITS = {"angstrom": 1e-4, "ångström": 1e-4, "å": 1e-4, "micron": 1.0, "inch": 25400.0, "mil": 25.4}
RENDERER_KEYS = frozenset({"source_zarr", "source_group", "slice_step", "canvas_size"})
METADATA_FILES = ("meta.json", "metadata.json")
VOLUME_NOTE = "volume_source.txt"
NAMED_UM = re.compile(r"(?<![0-9.])(\d+(?:\.\d+)?)\s?[uµμ]m(?![a-zA-Z])")


def unit_um(unit: Any) -> float | None:
    """Micrometres of a length unit in any spelling (micrometer, micrometres, um, µm with either letter, …)."""
    text = str(unit).strip().replace("\u03bc", "\u00b5")  # the Greek letter, and the micro sign
    lower = text.lower()
    for ending in ("meters", "metres", "meter", "metre"):
        if lower.endswith(ending):
            return PREFIXES.get(lower.removesuffix(ending))
    if text.endswith("m") and text[:-1] in SYMBOLS:
        return SYMBOLS[text[:-1]]
    return OTHER_UNITS.get(lower.removesuffix("s"))


def is_plausible(size_um: float) -> bool:
    """Tell whether a scan of a scroll may have this size."""
    return SMALLEST_UM <= size_um <= LARGEST_UM


@dataclass(frozen=True)
class Spacing:
    """Micrometres between neighbours as a source states them, and how its level hangs together with level 0.

    Attributes:
        z: Between layers; None: not stated, or not apart from the plane.
        y: Between rows; None: not stated.
        x: Between columns; None: not stated.
        plane_factor: Voxels of level 0 (of the scan, where a renderer names it) that a pixel spans.
        depth_factor: Voxels that a layer spans.
        placeholder_z: Whether z is a bare 1 beside another size, which a statement may correct.
        renderer: Whether Volume Cartographer's renderer wrote the sizes: a statement wins over them.
        reading: How numbers that do not mean what they say were read; None: as they are.
    """

    z: float | None = None
    y: float | None = None
    x: float | None = None
    plane_factor: float = 1.0
    depth_factor: float = 1.0
    placeholder_z: bool = False
    renderer: bool = False
    reading: str | None = None

    @property
    def plane(self) -> float | None:
        """Edge of a pixel; None where it is not stated, or rows and columns differ."""
        if self.y is None or self.x is None or abs(self.y - self.x) > 1e-3 * self.y:
            return None
        return self.y

    @property
    def depth_ratio(self) -> float:
        """Spacing of layers over that of pixels, where neither is stated."""
        return self.depth_factor / self.plane_factor


@dataclass(frozen=True)
class NamedSize:
    """A voxel size of level 0 that something beside the values states.

    Attributes:
        place: The file, or the name.
        um: The size.
        within: Largest relative difference that still says the same: names are rounded.
    """

    place: str
    um: float
    within: float = SIZE_TOLERANCE


def ome_spacing(
    image: Mapping[str, Any], level: int, names: Sequence[str] | None, attributes: Mapping[str, Any]
) -> Spacing:
    """Read the spacing of one level from OME metadata.

    Args:
        image: The entry of ``multiscales``; it has this level.
        level: Number of the level.
        names: Its axes.
        attributes: What stands beside it: marks of a renderer.
    """
    datasets = image["datasets"]
    scales = _scales(image, datasets[level], names)
    base = _scales(image, datasets[0], names)
    factors = {axis: scales[axis] / base[axis] for axis in scales if base.get(axis)}
    plane, depth = factors.get("y", 2.0**level), factors.get("z", 1.0 if "y" in factors else 2.0**level)
    units = _units(image, names)
    if attributes.keys() >= RENDERER_KEYS:
        return _rendered(scales, units, plane, attributes)
    if units.get("y") == units.get("x") == PREFIXES["nano"] and base.get("y") == base.get("x") == 1:
        said = f"scale {base['y']:g} with unit nanometer is a placeholder: unstated"
        return Spacing(plane_factor=plane, depth_factor=depth, reading=said)
    found = {axis: scales[axis] * um for axis, um in units.items() if um is not None and scales.get(axis)}
    if "y" not in found or "x" not in found:
        return Spacing(plane_factor=plane, depth_factor=depth)
    bare = scales.get("z") == 1 and scales["y"] != 1
    return Spacing(found.get("z"), found["y"], found["x"], plane, depth, placeholder_z=bare)


def _rendered(
    scales: Mapping[str, float], units: Mapping[str, float | None], plane: float, attributes: Mapping[str, Any]
) -> Spacing:
    """Read the sizes of Volume Cartographer's renderer; see the module's first lines."""
    group, step = _number(attributes["source_group"], 0.0), _number(attributes["slice_step"], 1.0)
    plane, depth = plane * 2**group, step
    size, unit = scales.get("z", 1.0), units.get("z")
    marks = "Volume Cartographer's renderer"
    if size == 1 or unit is None:
        return Spacing(plane_factor=plane, depth_factor=depth, renderer=True, reading=f"{marks}: unstated (scale 1)")
    mislabelled = unit == PREFIXES["nano"] and is_plausible(size)
    um = size if mislabelled else size * unit
    said = f"{marks}: {um:g} µm{', labelled nanometer' if mislabelled else ''}"
    said += f", of the volume; sampled at level {group:g}, layers {step:g} voxels apart; picture at scale 1 assumed"
    return Spacing(um * depth, um * plane, um * plane, plane, depth, renderer=True, reading=said)


def _number(value: Any, usual: float) -> float:
    """Return a number that is finite and not negative, or the usual one."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    return float(value) if is_number else usual


def _units(image: Mapping[str, Any], names: Sequence[str] | None) -> dict[str, float | None]:
    """Micrometres of each axis' unit, by lower-case name."""
    axes = image.get("axes")
    if names is None or not isinstance(axes, list):
        return {}
    pairs = zip(names, axes, strict=True)
    return {name.lower(): unit_um(axis.get("unit")) if isinstance(axis, dict) else None for name, axis in pairs}


def _scales(image: Mapping[str, Any], dataset: Mapping[str, Any], names: Sequence[str] | None) -> dict[str, float]:
    """Return the level's scale times the image's, by lower-case axis name; axes without a positive one are left out."""
    found = {}
    for position, name in enumerate(names or ()):
        own = _scale(dataset, position)
        whole = _scale(image, position) or 1.0
        if own is not None and own * whole > 0:
            found[name.lower()] = own * whole
    return found


def _scale(holder: Mapping[str, Any], position: int) -> float | None:
    for transform in holder.get("coordinateTransformations") or ():
        values = transform.get("scale") if isinstance(transform, dict) and transform.get("type") == "scale" else None
        if isinstance(values, list) and len(values) > position and isinstance(values[position], (int, float)):
            return float(values[position])
    return None


def size_in_name(text: str) -> tuple[float, float] | None:
    """Find the one size in micrometres in a name such as ``9.362um-1.2m-113keV-volume-20250101.zarr``.

    Returns:
        The size and its relative rounding error; None where the text names none, or several.
    """
    found = set(NAMED_UM.findall(text))
    if len(found) != 1:
        return None
    digits = found.pop()
    size = float(digits)
    if size <= 0:
        return None
    last = 10.0 ** -len(digits.partition(".")[2])
    return size, max(SIZE_TOLERANCE, last / 2 / size)


def sizes_beside(source: Location) -> list[NamedSize]:
    """Voxel sizes that ``meta.json``, ``volume_source.txt`` and the source's name state, as far as they are there.

    Raises:
        StorageError: Reading failed after retries.
    """
    places = [source / name for name in METADATA_FILES] + [source / VOLUME_NOTE, source.parent / VOLUME_NOTE]
    texts = map(_text, places) if source.is_local else opening_pool.map(_text, places)
    found = []
    for place, text in zip(places, texts, strict=True):
        if text is None:
            continue
        if place.name == VOLUME_NOTE:
            named = size_in_name(text)
            found += [NamedSize(VOLUME_NOTE, *named)] if named else []
        elif (size := _voxelsize(text)) is not None:
            found.append(NamedSize(place.name, size))
    named = size_in_name(source.name)
    return [*found, NamedSize(f"its name {source.name}", *named)] if named else found


def _text(place: Location) -> str | None:
    try:
        return place.read_bytes().decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError, ForbiddenError):
        return None


def _voxelsize(text: str) -> float | None:
    try:
        document = json.loads(text)
    except ValueError:  # somebody else's file
        return None
    size = document.get("voxelsize") if isinstance(document, dict) else None
    return _number(size, 0.0) or None
