"""The plan of `inkbatch prepare` in lines of text: units, bytes and memory."""

from __future__ import annotations

import math

from inkbatch.render.opening import Demand
from inkbatch.run.record import RunFolder
from inkbatch.steps.prepare.job import make_plan
from inkbatch.steps.prepare.settings import PrepareConfig, PreparePlan
from inkbatch.steps.prepare.source import demand
from inkbatch.text import bytes_text, done_text

NOTED_STRETCH = math.log(1.5)  # of a mesh over its scale


def describe(config: PrepareConfig) -> str:
    """Describe the plan of a prepare job in lines of text; nothing is written."""
    plan = make_plan(config)
    with plan.source as source:
        layers = len(plan.layers)
        pixels = source.shape_zyx[1] * source.shape_zyx[2]
        stored = plan.provenance.resampled
        cost = demand(plan)
        read = plan.opened.values_read(layers) * source.dtype.itemsize if cost is None else cost.bytes
        written = layers * pixels * plan.mapping.dtype.itemsize * 4 // 3 + pixels
        record = RunFolder(plan.folder / "prepare", plan.manifest)
        done = done_text(len(record.done()), complete=record.is_complete())
        rows = [
            f"prepare {config.segment}: {plan.provenance.source}",
            f"  layers        {plan.layers.start}:{plan.layers.stop} of {source.shape_zyx[0]}, "
            f"{source.shape_zyx[1]} x {source.shape_zyx[2]} px, {source.dtype}, {plan.provenance.depth_order}",
            f"  grey values   {plan.provenance.intensity} -> {plan.mapping.dtype}",
            f"  units         {len(plan.units.units)}, {done}",
            f"  reads         {bytes_text(read)} of grey values (before compression)",
            f"  writes        about {bytes_text(written)} (before compression) to {plan.folder}",
            f"  peak memory   about {bytes_text(plan.units.peak_bytes)} of {config.memory}",
        ]
        rows += [f"  missing       {holes}" for holes in plan.holes]
        if stored is not None:
            z, y, _ = stored.spacing_zyx_um
            now = f"{plan.provenance.layer_um:g} µm between layers, {plan.provenance.voxel_size_um:g} in the plane"
            rows.append(f"  resamples     {stored.uri} ({z:g} and {y:g} µm): {stored.rule}; gives {now}")
        if cost is not None:
            rows += _rendering_rows(plan, cost)
        if plan.units.decodes > 1:
            rows.append(f"  note          strips are decoded {plan.units.decodes} times; more --memory avoids it")
        return "\n".join(rows)


def _rendering_rows(plan: PreparePlan, cost: Demand) -> list[str]:
    """Say what rendering costs, from the mesh alone."""
    rendered, surface = plan.provenance.rendered, plan.opened.rendered
    assert rendered is not None
    assert surface is not None
    stretch = surface.raster.mesh.stretch_yx
    warned = [
        f"  note          vertices lie {stretch[0]:.3g} (rows) and {stretch[1]:.3g} (columns) times as far apart as "
        "the mesh's scale says; pixels follow the scale"
    ]
    return [
        *(warned if any(abs(math.log(one or 1)) > NOTED_STRETCH for one in stretch) else []),
        f"  renders       from {rendered.volume}, level {rendered.level}",
        f"  chunks        at most {cost.chunks:,}, each once per unit",
        f"  seconds       about {cost.wall_s:,.0f} of rendering on these cores ({cost.cpu_s:,.0f} CPU seconds)",
        f"  outside       {cost.outside:.1%} of the surface leaves the volume, and so the mask",
    ]
