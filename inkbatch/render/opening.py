"""Open a mesh and a volume as layers: level and scale from the wished spacing, and nothing that lies elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from inkbatch.errors import ConfigError, DataError, MismatchError
from inkbatch.geometry import Box
from inkbatch.io.layers.spacing import SIZE_TOLERANCE
from inkbatch.render.geometry import Raster
from inkbatch.render.mesh import open_mesh
from inkbatch.render.surface import DEFAULT_CACHE_BYTES, Layers, RenderedSurface
from inkbatch.render.volume import Volume, open_volume

MOST_OUTSIDE = 0.05  # of the surface, unless more is allowed
VOXELS_PER_CPU_SECOND = 25e6  # one core on a busy machine; see benchmarks/bench_render.py


@dataclass(frozen=True)
class RenderSettings:
    """Settings of a rendering, as a user gives them.

    Attributes:
        layers_count: Layers.
        spacing_um: Spacing of pixels in micrometres; None: one pixel per voxel of the level.
        step_um: Spacing of layers; None: as pixels.
        level: Level of the volume; None: the coarsest that is not coarser than the pixels.
        flip_normals: Run against the normals.
        volume_um: Voxel edge of the volume's level 0, where the volume does not state it.
        mesh_factor: What turns the mesh's coordinates into voxels of level 0.
        max_outside: Share of the surface that may leave the volume.
        axes: Axis order of a volume that is a plain array and names none.
    """

    layers_count: int
    spacing_um: float | None = None
    step_um: float | None = None
    level: int | None = None
    flip_normals: bool = False
    volume_um: float | None = None
    mesh_factor: float = 1.0
    max_outside: float = MOST_OUTSIDE
    axes: str | None = None


@dataclass(frozen=True)
class Demand:
    """Demand of a rendering on time and memory, from the mesh alone.

    Attributes:
        chunks: Chunks to read, each once per unit that touches it.
        bytes: Their decoded bytes; compressed ones are fewer on their way.
        cpu_s: CPU seconds of sampling.
        outside: Share of the surface whose layers leave the volume.
    """

    chunks: int
    bytes: int
    cpu_s: float
    outside: float

    @property
    def wall_s(self) -> float:
        """Seconds on this machine's cores, reading aside."""
        return self.cpu_s / len(os.sched_getaffinity(0))


def open_rendered(
    mesh_uri: str, volume_uri: str, settings: RenderSettings, cache_bytes: int = DEFAULT_CACHE_BYTES
) -> RenderedSurface:
    """Open layers that are rendered as they are read; only metadata and the mesh are read here.

    Raises:
        ConfigError: Sizes in micrometres where the voxel size is unknown; spacings finer than the volume.
        DataError: See `open_mesh` and `open_volume`.
    """
    mesh = open_mesh(mesh_uri)
    volume = open_volume(
        volume_uri,
        level=settings.level,
        spacing_um=settings.spacing_um,
        base_um=settings.volume_um,
        axes=settings.axes,
    )
    per_voxel = _pixels_per_voxel(settings, volume)
    step = 1 / per_voxel
    if settings.step_um is not None:
        step = settings.step_um / _required_um(settings, volume)
    raster = Raster(mesh, per_voxel, 2.0**-volume.level, settings.mesh_factor)
    return RenderedSurface(raster, volume, Layers(settings.layers_count, step, settings.flip_normals), cache_bytes)


def _required_um(settings: RenderSettings, volume: Volume) -> float:
    if volume.base_um is None:
        raise ConfigError(
            f"volume {volume.uri}: expected a voxel size, since spacings are given in micrometres, got none from its "
            "OME metadata, meta.json or name; give --volume-um, for example 7.91"
        )
    return volume.base_um


def _pixels_per_voxel(settings: RenderSettings, volume: Volume) -> float:
    """Compute the pixels per voxel of level 0."""
    if settings.spacing_um is None:
        return 2.0**-volume.level
    base = _required_um(settings, volume)
    finest = base * 2**volume.level
    if settings.spacing_um < finest * (1 - SIZE_TOLERANCE):
        raise ConfigError(
            f"volume {volume.uri}: expected a spacing of at least {finest:g} µm at level {volume.level}, got "
            f"{settings.spacing_um:g}; no rendering shows more than the scan; choose a coarser spacing or a finer level"
        )
    return base / settings.spacing_um


def require_inside(surface: RenderedSurface, most: float, box: Box | None = None) -> None:
    """Refuse a mesh that lies outside the volume, or too much of it.

    Args:
        surface: The mesh and the volume.
        most: Share of it that may lie outside.
        box: The pixels that are taken; None: all.

    Raises:
        MismatchError: The share is larger than `most`.
        DataError: No vertex has a normal.
    """
    outside, count = surface.vertices_outside(box)
    if not count:
        raise DataError(
            f"{surface.uri}: expected vertices with a normal, got none: each has a missing neighbour; check the mesh"
        )
    if outside <= most * count and outside < count:
        return
    mesh, volume, factor = surface.raster.mesh, surface.volume, surface.raster.mesh_factor
    ends = [mesh.points[:, mesh.valid].min(axis=1) * factor, mesh.points[:, mesh.valid].max(axis=1) * factor]
    spans = ", ".join(f"{axis} {a:.0f} to {b:.0f}" for axis, a, b in zip("zyx", *ends, strict=True))
    size = " x ".join(str(n * 2**volume.level) for n in volume.shape_zyx)
    found = "all of it lies" if outside == count else f"{outside / count:.1%} of it lies"
    raise MismatchError(
        f"{mesh.uri}: expected the surface with its layers inside the volume ({most:.0%} may lie outside), got "
        f"{found} outside (vertices {spans}; {volume.uri} has about {size} voxels at level 0){_hint(surface)}; "
        "give the volume that the mesh was drawn in, as a group with all levels, or allow more with --max-outside"
    )


def _hint(surface: RenderedSurface) -> str:
    """Guess a cause for the message: the mesh may fit a volume that is larger by a power of two."""
    mesh, volume = surface.raster.mesh, surface.volume
    reach = mesh.points[:, mesh.valid].max(axis=1) * surface.raster.mesh_factor * surface.raster.level_scale
    ratio = float(np.max(reach / np.array(volume.shape_zyx)))
    if volume.level_count > 1 or ratio <= 1:
        return ""
    return f"; this may be level {int(np.ceil(np.log2(ratio)))} or coarser of the volume alone"


def demand_of(surface: RenderedSurface, boxes: Iterable[Box], region: Box | None = None) -> Demand:
    """Estimate the cost of rendering some boxes, one unit each, of a region; nothing is read."""
    chunks, pixels = 0, 0
    for box in boxes:
        chunks += len(surface.planned_chunks(box))
        pixels += box.area
    outside, count = surface.vertices_outside(region)
    cpu_s = pixels * surface.shape_zyx[0] / VOXELS_PER_CPU_SECOND
    return Demand(chunks, chunks * surface.volume.chunk_bytes, cpu_s, outside / max(1, count))
