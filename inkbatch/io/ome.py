"""Spacing in OME-Zarr metadata: read from those of any writer, written into ours.

Facts about Volume Cartographer's renderer: it writes one size v as scale [v, v * 2^L, v * 2^L] of level L. v is 1 where
it knows nothing and micrometres under the unit nanometer where it does; the level of the volume that was sampled, the
scale of the picture and the step of layers never enter it, though all but the picture's scale stand beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SMALLEST_UM, LARGEST_UM = 0.1, 200.0  # sizes that scans of scrolls have
PREFIXES = {"": 1e6, "centi": 1e4, "milli": 1e3, "micro": 1.0, "nano": 1e-3, "pico": 1e-6, "deci": 1e5}
SYMBOLS = {"": 1e6, "c": 1e4, "m": 1e3, "u": 1.0, "µ": 1.0, "n": 1e-3, "p": 1e-6, "d": 1e5}
OTHER_UNITS = {"angstrom": 1e-4, "ångström": 1e-4, "å": 1e-4, "micron": 1.0, "inch": 25400.0, "mil": 25.4}
RENDERER_KEYS = frozenset({"source_zarr", "source_group", "slice_step", "canvas_size"})


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
    group, step = number_or(attributes["source_group"], 0.0), number_or(attributes["slice_step"], 1.0)
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


def number_or(value: Any, usual: float) -> float:
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


def ome_axes(names: Sequence[str]) -> list[dict[str, str]]:
    """Describe axes in space, in micrometres."""
    return [{"name": axis, "type": "space", "unit": "micrometer"} for axis in names]


def ome_levels(count: int, spacing_um: Mapping[str, float], *, shift_first: bool = False) -> list[dict[str, Any]]:
    """Describe the levels of a pyramid that is halved along y and x.

    Args:
        count: Levels; each one's path is its number.
        spacing_um: Of level 0, by axis, in the order of the axes.
        shift_first: State the shift of level 0 too, which is 0.
    """
    datasets = []
    for level in range(count):
        factor = {axis: 1 if axis == "z" else 2**level for axis in spacing_um}
        transforms: list[dict[str, Any]] = [
            {"type": "scale", "scale": [um * factor[axis] for axis, um in spacing_um.items()]}
        ]
        if level or shift_first:
            shift = [um * (factor[axis] - 1) / 2 for axis, um in spacing_um.items()]
            transforms.append({"type": "translation", "translation": shift})
        datasets.append({"path": str(level), "coordinateTransformations": transforms})
    return datasets
