"""The physical scale of a source: what it says of itself, what lies beside it, and what is stated, brought to one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from inkbatch.data.segments.catalog import SegmentEntry
from inkbatch.errors import ConfigError, MismatchError
from inkbatch.io.layers.base import LayerSource
from inkbatch.io.layers.spacing import SIZE_TOLERANCE, NamedSize, sizes_beside
from inkbatch.io.ome import LARGEST_UM, SMALLEST_UM, Spacing, is_plausible
from inkbatch.io.store.location import Location
from inkbatch.steps.prepare.settings import PrepareConfig

OME = "its OME metadata"
SAME = 1e-6  # spacings of layers and pixels closer than this, relatively, are one


@dataclass(frozen=True)
class SurfaceSpacing:
    """Spacing of the layers that are read.

    Attributes:
        z: Between layers in micrometres.
        y: Between rows.
        x: Between columns.
        reading: How it was found, where that is more than one plain statement; None otherwise.
    """

    z: float
    y: float
    x: float
    reading: str | None = None

    @property
    def zyx(self) -> tuple[float, float, float]:
        """(z, y, x)."""
        return self.z, self.y, self.x

    @property
    def z_apart(self) -> float | None:
        """Spacing of layers where it is not that of pixels, else None."""
        return None if math.isclose(self.z, self.y, rel_tol=SAME) else self.z


def source_spacing(config: PrepareConfig, entry: SegmentEntry, source: LayerSource) -> SurfaceSpacing:
    """Decide the spacing of a source's layers; nothing is guessed, and nothing is passed over in silence.

    What is stated must agree with what the source and the files beside it say, or with one of them; it wins over sizes
    that no scan has and over those of Volume Cartographer's renderer.

    Args:
        config: The job's settings.
        entry: The segment's entry; its source is stated.
        source: The opened layers, all that are stored.

    Raises:
        ConfigError: No size is known; a stated one is implausible.
        MismatchError: Sizes contradict each other; rows and columns differ and are not resampled.
    """
    place = f"segment {config.segment}"
    said, stated = source.spacing, config.voxel_size_um or entry.voxel_size_um
    stated_z = config.z_spacing_um or entry.z_spacing_um
    for key, size in (("voxel_size_um", stated), ("z_spacing_um", stated_z)):
        _require_plausible(place, key, size)
    if config.volume or entry.volume:
        plane, reading = _rendered_plane(place, said, stated), None
        return SurfaceSpacing(said.z or plane, plane, plane, reading)
    assert entry.source is not None
    if said.y is not None and said.x is not None and said.plane is None:
        return _unequal(place, source.uri, said, resampled=bool(config.resample or entry.resample))
    plane, reading = _plane(place, source.uri, said, sizes_beside(Location.parse(entry.source)), stated)
    z, z_reading = _depth(place, source.uri, said, plane, stated_z, trusted=said.plane is not None and not reading)
    notes = [note for note in (said.reading, reading, z_reading) if note]
    return SurfaceSpacing(z, plane, plane, "; ".join(notes) or None)


def _require_plausible(place: str, key: str, size: float | None) -> None:
    if size is None or is_plausible(size):
        return
    near = next((size * factor for factor in (1e-3, 1e3, 1e-6, 1e6) if is_plausible(size * factor)), None)
    cure = f"give it in micrometres, perhaps {near:.6g}" if near else "give it in micrometres"
    raise ConfigError(f"{place}: {key}: expected {SMALLEST_UM:g} to {LARGEST_UM:g} µm, got {size:g}; {cure}")


def _rendered_plane(place: str, said: Spacing, stated: float | None) -> float:
    """Return the edge of a pixel of layers that are rendered here."""
    size = said.plane or stated
    if size is None:
        raise ConfigError(
            f"{place}: voxel size is unknown: the volume's OME metadata, meta.json and name do not state it; give "
            "--volume-um 7.91, or write volume_um into the catalog"
        )
    return size


def _unequal(place: str, uri: str, said: Spacing, *, resampled: bool) -> SurfaceSpacing:
    assert said.y is not None
    assert said.x is not None
    if resampled:
        return SurfaceSpacing(said.z or said.y, said.y, said.x, said.reading)
    raise MismatchError(
        f"{place}: {uri}: expected pixels as high as they are wide, got {said.y:g} µm along y and {said.x:g} µm along "
        f"x (factor {max(said.y, said.x) / min(said.y, said.x):.4g}); correct the scale in its metadata, or bring "
        f"all axes to one spacing with --resample {max(said.y, said.x):g}"
    )


def _plane(
    place: str, uri: str, said: Spacing, beside: list[NamedSize], stated: float | None
) -> tuple[float, str | None]:
    """Choose the edge of a pixel at the level that is read.

    Returns:
        The size, and how it was found where that is not plain.
    """
    sizes = {named.place: (named.um * said.plane_factor, named.within) for named in beside}
    if said.plane is not None:
        sizes = {OME: (said.plane, SIZE_TOLERANCE), **sizes}
    usable = {name: size for name, size in sizes.items() if is_plausible(size[0])}
    if stated is not None:
        if said.renderer and said.plane is not None and not math.isclose(stated, said.plane, rel_tol=SIZE_TOLERANCE):
            return stated, f"stated {stated:g} µm wins over {said.plane:g}: that writer does not record the scale"
        _require_some_agreement(place, uri, usable, stated)
        against = {name: size for name, size in sizes.items() if not _agree((stated, SIZE_TOLERANCE), size)}
        return stated, f"stated {stated:g} µm, against {_listed(against)}" if against else None
    if not usable:
        found = f"{uri} states {_listed(sizes)}, which no scan has" if sizes else "nothing states it"
        raise ConfigError(
            f"{place}: voxel size is unknown: {found}{_why(said)}; give --voxel-size-um 7.91, or write it into the "
            "catalog"
        )
    first, *others = usable
    for name in others:
        if not _agree(usable[first], usable[name]):
            raise MismatchError(
                f"{place}: {uri}: expected one voxel size, got {_listed(usable)} "
                f"(factor {_factor(usable[first][0], usable[name][0])}); say which one holds with "
                f"--voxel-size-um {usable[first][0]:.6g} or {usable[name][0]:.6g}, or correct the other"
            )
    return usable[first][0], None if first == OME else f"{usable[first][0]:g} µm from {first}"


def _require_some_agreement(place: str, uri: str, usable: dict[str, tuple[float, float]], stated: float) -> None:
    if not usable or any(_agree((stated, SIZE_TOLERANCE), size) for size in usable.values()):
        return
    first = next(iter(usable.values()))[0]
    raise MismatchError(
        f"{place}: got voxel_size_um {stated:g}, but {uri} states {_listed(usable)} (factor "
        f"{_factor(stated, first)}); choose the level that has this size, leave the size out, or bring the layers to "
        f"it with --resample {stated:g}"
    )


def _depth(
    place: str, uri: str, said: Spacing, plane: float, stated: float | None, *, trusted: bool
) -> tuple[float, str | None]:
    """Choose the spacing of layers.

    Args:
        place: For messages.
        uri: The layers.
        said: What the source says.
        plane: The edge of a pixel.
        stated: What the user or the catalog states.
        trusted: Whether the plane's size is the source's own, so that its z is one as well.
    """
    own = said.z if trusted and said.z is not None else plane * said.depth_ratio
    is_own = (trusted and said.z is not None) or said.depth_ratio != 1
    if stated is None:
        if not is_plausible(own):
            raise ConfigError(
                f"{place}: {uri}: expected {SMALLEST_UM:g} to {LARGEST_UM:g} µm between layers, got {own:g}; give "
                "--z-spacing-um"
            )
        derived = own if not math.isclose(own, plane, rel_tol=SAME) and not trusted else None
        return own, None if derived is None else f"{derived:g} µm between layers follows from its level"
    if is_own and is_plausible(own) and not math.isclose(stated, own, rel_tol=SIZE_TOLERANCE):
        if said.placeholder_z or said.renderer:
            return stated, f"stated {stated:g} µm between layers wins over {own:g}, a writer's default"
        raise MismatchError(
            f"{place}: got z_spacing_um {stated:g}, but {uri} states {own:g} between layers (factor "
            f"{_factor(stated, own)}); leave z_spacing_um out, or correct the scale in its metadata"
        )
    return stated, None


def _agree(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return abs(one[0] - other[0]) <= max(one[1], other[1]) * max(one[0], other[0])


def _factor(one: float, other: float) -> str:
    return f"{max(one, other) / min(one, other):.4g}"


def _listed(sizes: dict[str, tuple[float, float]]) -> str:
    return ", ".join(f"{size[0]:g} µm in {name}" for name, size in sizes.items())


def _why(said: Spacing) -> str:
    return f" ({said.reading})" if said.reading else ""
