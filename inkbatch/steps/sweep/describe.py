"""The plan of `inkbatch sweep` in lines of text: readings, passes, bytes, memory, seconds and money."""

from __future__ import annotations

from collections.abc import Sequence

from inkbatch.geometry import Box, Unit
from inkbatch.run.prices import price_lines
from inkbatch.steps.sweep.control import control_record, control_units
from inkbatch.steps.sweep.job import trained_share
from inkbatch.steps.sweep.maps import tiles_of_member
from inkbatch.steps.sweep.plan import SweepPlan, make_plan
from inkbatch.steps.sweep.settings import SweepConfig
from inkbatch.steps.sweep.surfaces import SweepMember, SweepSurface
from inkbatch.text import bytes_text, count_text, share_text

BASE_BYTES = 600 << 20  # the interpreter with torch
STORED_BYTES = 7  # of a pixel of one series: mean, deviation, best, best depth
RUNNING_BYTES = 26  # of a pixel and bundle while a series is computed


def describe(config: SweepConfig) -> str:
    """Describe the plan of a sweep in lines of text; only masks are read, nothing is written."""
    plan = make_plan(config)
    per_unit = {unit.name: _tiles(plan, unit.write_box) for unit in plan.units}
    done = plan.maps_record.done()
    height, width = plan.volume.shape_yx
    read = sum(_read_bytes(plan, unit.write_box) for unit in plan.units if any(per_unit[unit.name]))
    state = f"{len(done)} already computed, {len(plan.record.done())} already put together"
    if plan.record.is_complete():
        state = "already complete"
    depths = plan.depths
    rows = [
        f"sweep {config.segment} with {count_text(len(plan.members), 'bundle')}",
        f"  surface       {plan.volume.layer_count} layers, {height} x {width} px",
        *(f"  layers        {_layer_words(plan, surface)}" for surface in plan.surfaces),
        f"  depths        {count_text(len(depths), 'depth')}, {depths[0]} to {depths[-1]}",
        f"  series        {', '.join(series.name for series in plan.series)}",
        f"  units         {len(plan.units)}, {state}",
        f"  reads         {bytes_text(read)} of grey values (before compression)",
        f"  writes        {bytes_text(_written(plan))} (before compression) to {plan.folder}",
        f"  peak memory   about {bytes_text(_memory(plan))} beside the models",
    ]
    left = [tiles for name, tiles in per_unit.items() if name not in done]
    flops: float | None = 0.0
    readings = passes = 0
    for b, member in enumerate(plan.members):
        tiles = sum(row[b] for row in left)
        member_passes = tiles * plan.maps_per_bundle * len(member.views)
        readings += plan.maps_per_bundle * len(member.phases) * len(member.views)
        passes += member_passes
        rows.append(f"  {member.name:<13} {_member_words(member)}, {member_passes:,} passes to do")
        per_tile = member.bundle.document.flops_per_tile
        flops = None if flops is None or per_tile is None else flops + per_tile * member_passes
    rows.append(f"  together      {count_text(readings, 'reading')}, {passes:,} passes of a tile to do")
    if windows := control_units(plan):
        more = _control_passes(plan, windows)
        for member, count in zip(plan.members, more, strict=True):
            per_tile = member.bundle.document.flops_per_tile
            flops = None if flops is None or per_tile is None else flops + per_tile * count
        contrasts = count_text(len(config.control), "contrast")
        rows.append(
            f"  control       strokes of {contrasts} in {count_text(len(windows), 'window')}, {sum(more):,} passes more"
        )
    if plan.judged is not None:
        rows.append(f"  preflight     {plan.judged.sentence}")
    if share := trained_share(plan):
        rows.append(f"  careful       {share_text(share)} of the surface trained a network of this sweep")
    rows += price_lines(flops) if passes else ["  time, cost    nothing left to do"]
    return "\n".join(rows)


def _control_passes(plan: SweepPlan, windows: Sequence[Unit]) -> list[int]:
    """Count the passes of the control that are left to do, by bundle."""
    done = control_record(plan, windows).done()
    each = len(plan.depths) * len(plan.config.control) * sum(one.null is None for one in plan.series)
    tiles = [_tiles(plan, unit.write_box) for unit in windows if unit.name not in done]
    return [sum(row[b] for row in tiles) * each * len(member.views) for b, member in enumerate(plan.members)]


def _tiles(plan: SweepPlan, write_box: Box) -> list[int]:
    """Count the tiles of every bundle in a unit, all phases together; only masks are read."""
    return [sum(part.tiles.count for part in tiles_of_member(plan, member, write_box)) for member in plan.members]


def _read_bytes(plan: SweepPlan, write_box: Box) -> int:
    """Count the bytes of grey values that are read for a unit, all surfaces together."""
    return sum(
        surface.read_box(write_box).area * len(surface.layers) * surface.volume.dtype.itemsize
        for surface in plan.surfaces
    )


def _member_words(member: SweepMember) -> str:
    grid = member.contract
    views = f", {len(member.views)} views" if len(member.views) > 1 else ""
    return (
        f"layers {member.layers.start}:{member.layers.stop} at depth 0, tile {grid.tile_px}, stride {grid.stride_px}, "
        f"{count_text(len(member.phases), 'phase')}{views}"
    )


def _layer_words(plan: SweepPlan, surface: SweepSurface) -> str:
    other = "" if surface.segment == plan.config.segment else f" of segment {surface.segment}"
    return f"{surface.layers.start}:{surface.layers.stop} in depth order{other}, read once for all of it"


def _written(plan: SweepPlan) -> float:
    height, width = plan.volume.shape_yx
    own = STORED_BYTES + (len(plan.depths) if plan.config.keep_depths else 0)
    per_pixel = len(plan.members) * (1 + own * len(plan.series)) + STORED_BYTES * len(plan.series)
    return height * width * per_pixel * 4 / 3


def _memory(plan: SweepPlan) -> float:
    """Estimate the most memory that units in flight take; the number of depths is no part of it unless kept."""
    read = max(_read_bytes(plan, unit.write_box) for unit in plan.units)
    pixels = max(unit.write_box.area for unit in plan.units)
    own = STORED_BYTES + (len(plan.depths) if plan.config.keep_depths else 0)
    computed = pixels * len(plan.members) * len(plan.series) * own
    return BASE_BYTES + 3 * read + 2 * computed + pixels * len(plan.members) * RUNNING_BYTES
