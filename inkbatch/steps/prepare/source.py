"""The layers that `prepare` reads: stored ones, or rendered from a mesh and a volume; all of them, or a box."""

from __future__ import annotations

from typing import Any

from inkbatch.data.segments.catalog import SegmentEntry
from inkbatch.errors import ConfigError, InkbatchError
from inkbatch.geometry import Box
from inkbatch.io.layers import open_layer_source
from inkbatch.io.store.location import Location
from inkbatch.io.surface import RenderedFrom
from inkbatch.render.mesh import is_mesh
from inkbatch.render.opening import Demand, RenderSettings, demand_of, open_rendered, require_inside
from inkbatch.steps.prepare.opened import OpenedLayers
from inkbatch.steps.prepare.settings import PrepareConfig, PreparePlan

CACHE_SHARE, MOST_CACHE_BYTES = 8, 256 << 20  # of the memory that chunks of the volume may take
RENDER_KEYS = ("layers_count", "step_um", "volume_um", "flip_normals", "max_outside")


def open_source(config: PrepareConfig, entry: SegmentEntry, memory: int) -> OpenedLayers:
    """Open the layers of a segment.

    Args:
        config: The job's settings.
        entry: The segment's entry; its source is stated.
        memory: Budget of the process.

    Raises:
        ConfigError: A mesh without a volume, or settings of a rendering without one.
        DataError: See `open_layer_source` and `open_rendered`; a box that leaves the layers.
    """
    assert entry.source is not None
    if config.volume or entry.volume:
        return _open_rendered(config, entry, memory)
    given = [key for key in RENDER_KEYS if getattr(config, key) is not None or getattr(entry, key) is not None]
    if given:
        raise ConfigError(
            f"segment {config.segment}: {given[0]} is for layers that are rendered from a mesh; give --volume as well"
        )
    try:
        source = open_layer_source(
            entry.source,
            axes=config.axes or entry.axes,
            level=config.level if config.level is not None else entry.level,
            memory_bytes=memory,
            scratch=config.scratch,
        )
    except InkbatchError as error:
        if is_mesh(Location.parse(entry.source)):
            raise ConfigError(
                f"segment {config.segment}: {entry.source} is a surface mesh (tifxyz), not layers; give the volume "
                "that it was drawn in: --volume URI --layers-count 65"
            ) from error
        raise
    return OpenedLayers.of(source, box_of(config))


def _open_rendered(config: PrepareConfig, entry: SegmentEntry, memory: int) -> OpenedLayers:
    volume = config.volume or entry.volume
    count = config.layers_count or entry.layers_count
    assert volume is not None
    assert entry.source is not None
    if count is None:
        raise ConfigError(
            f"segment {config.segment}: expected the number of layers to render, got none; give --layers-count 65, or "
            "layers_count in the catalog"
        )
    wished: dict[str, Any] = {key: _first(getattr(config, key), getattr(entry, key)) for key in RENDER_KEYS}
    wished |= {"layers_count": count, "level": _first(config.level, entry.level)}
    wished["axes"] = _first(config.axes, entry.axes)
    wished["spacing_um"] = _first(config.voxel_size_um, entry.voxel_size_um)
    settings = RenderSettings(**{key: value for key, value in wished.items() if value is not None})
    surface = open_rendered(entry.source, volume, settings, min(MOST_CACHE_BYTES, memory // CACHE_SHARE))
    opened = OpenedLayers.of(surface, box_of(config), surface)
    require_inside(surface, settings.max_outside, opened.box)
    return opened


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def box_of(config: PrepareConfig) -> Box | None:
    """Return the region that is taken."""
    return None if config.box is None else Box(*config.box)


def rendered_from(opened: OpenedLayers) -> RenderedFrom | None:
    """Describe a rendering for the provenance; None if layers are stored."""
    surface = opened.rendered
    if surface is None:
        return None
    outside, count = surface.vertices_outside(opened.taken)
    return RenderedFrom(
        volume=surface.volume.uri,
        level=surface.volume.level,
        volume_um=surface.volume.base_um,
        layers_count=surface.layers.count,
        flip_normals=surface.layers.flip,
        outside=round(outside / max(1, count), 6),
    )


def rendering_request(config: PrepareConfig, entry: SegmentEntry) -> dict[str, Any]:
    """Return the settings of a rendering for `inkbatch rerun`, the catalog's filled in."""
    volume = config.volume or entry.volume
    asked = {key: _first(getattr(config, key), getattr(entry, key)) for key in RENDER_KEYS}
    return {**asked, "volume": Location.parse(volume).uri if volume else None}


def demand(plan: PreparePlan) -> Demand | None:
    """Compute the demand of a rendering, from the mesh alone; None if layers are stored."""
    surface, box = plan.opened.rendered, plan.opened.taken
    if surface is None:
        return None
    return demand_of(surface, (unit.read_box.shift(box.y0, box.x0) for unit in plan.units.units), box)
