"""The plan of `inkbatch infer` in lines of text: units, tiles, bytes, memory, seconds and money."""

from __future__ import annotations

import math

from inkbatch.data.segments.prepared import segment_folder
from inkbatch.models.bundle import Bundle, bundle_location
from inkbatch.run.prices import machines, price_lines, price_text
from inkbatch.steps.infer.plan import InferPlan, make_plan, trained_share
from inkbatch.steps.infer.settings import InferConfig
from inkbatch.steps.infer.workload import read_bytes, tiles_per_unit, workload
from inkbatch.text import bytes_text, done_text, share_text


def describe(config: InferConfig) -> str:
    """Describe the plan of an infer job in lines of text; only masks are read, nothing is written."""
    if not (segment_folder(config.root, config.segment) / "prepare" / "complete.json").exists():
        return _describe_unprepared(config)
    plan = make_plan(config)
    done = plan.record.done()
    already = done_text(len(done), complete=plan.record.is_complete())
    per_unit = tiles_per_unit(plan)
    tiles = sum(per_unit.values())
    left = sum(number for name, number in per_unit.items() if name not in done)
    read = read_bytes(plan, per_unit)
    largest = max(unit.read_box.area for unit in plan.units)
    memory = 3 * largest * len(plan.layers) * plan.volume.dtype.itemsize + 12 * largest + (600 << 20)
    maps = len(plan.outputs) if len(plan.outputs) > 1 else 2 * (len(plan.windows) > 1)
    memory += 3 * 4 * max(unit.write_box.area for unit in plan.units) * maps
    height, width = plan.volume.shape_yx
    flops = plan.bundle.document.flops_per_tile
    written = math.ceil(height * width * 2 * 4 / 3) * len(plan.outputs)
    folders = ", ".join(str(output.location) for output in plan.outputs)
    rows = [
        f"infer {config.segment} with {plan.bundle.document.name}",
        f"  surface       {plan.volume.layer_count} layers, {height} x {width} px",
        f"  layers        {plan.layers.start}:{plan.layers.stop} in depth order",
        f"  units         {len(plan.units)}, {already}",
        f"  tiles         {tiles:,}, {left:,} to do (tile {plan.grid.tile_px}, stride {plan.grid.stride_px})",
        f"  reads         {bytes_text(read)} of grey values (before compression)",
        f"  writes        {bytes_text(written)} (before compression) to {folders}",
        f"  peak memory   about {bytes_text(memory)} beside the model",
        *_variants(config, plan, left, flops),
    ]
    if plan.judged is not None:
        rows.append(f"  preflight     {plan.judged.sentence}")
    share = trained_share(plan)
    if share:
        rows.append(f"  careful       {share_text(share)} of the surface trained this network: scores leave that out")
    if left == 0:
        rows.append("  time, cost    nothing left to do")
    else:
        rows += price_lines(None if flops is None else flops * left * plan.passes_per_tile)
    return "\n".join(rows)


def _describe_unprepared(config: InferConfig) -> str:
    """Describe an infer job before its segment is prepared: from the size of its layers."""
    work = workload(config, config.catalog)
    document = Bundle.open(bundle_location(config.bundle)).document
    per_tile = document.flops_per_tile
    rows = [
        f"infer {config.segment} with {document.name}",
        "  surface       not prepared yet; its mask will leave out tiles without papyrus",
        f"  units         {work.units}",
        f"  tiles         at most {work.tiles:,}{work.passes_text}",
        f"  reads         at most {bytes_text(work.read_bytes)} of grey values (before compression)",
        *price_lines(None if per_tile is None else per_tile * work.passes),
    ]
    return "\n".join(rows)


def _variants(config: InferConfig, plan: InferPlan, tiles: int, flops: float | None) -> list[str]:
    """List what each window and each view costs; nothing where there is one of both."""
    windows, views = plan.windows, plan.views
    if plan.passes_per_tile == 1:
        return []
    orders = len(plan.orders)
    how = f"{config.combine} of the views, a map per window" if config.store_windows else f"{config.combine} of all"
    counts = f"windows of layers: {len(windows)}, views of a tile: {len(views)}, {how}"
    counts += f", for each of {', '.join(series.name for series in config.series)}" if orders > 1 else ""
    rows = [f"  variants      {plan.passes_per_tile} forward passes per tile, layers are read once ({counts})"]
    listed = windows if len(windows) > 1 else ()
    shares = [(f"layers {w.source[0]}:{w.source[1]}", len(views) * orders) for w in listed if w.source]
    shares += [(f"view {view.name}", len(windows) * orders) for view in views if len(views) > 1]
    for name, passes in shares:
        row = f"    {name:<18} {tiles * passes:,} passes of a tile"
        if flops is not None and tiles:
            first = price_text(*next(iter(machines().items())), flops * tiles * passes)
            row += f", {flops * tiles * passes / 1e12:,.2f} TFLOP; {first}"
        rows.append(row)
    return rows
