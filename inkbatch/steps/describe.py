"""What ``--dry-run`` prints: units, tiles, bytes, memory, seconds and money, and what is done already."""

from __future__ import annotations

import math

from inkbatch.run.estimate import estimate
from inkbatch.run.record import RunFolder
from inkbatch.steps import prepare as prepare_step


def describe_prepare(config: prepare_step.PrepareConfig) -> str:
    """The plan of a prepare job, as lines of text. Nothing is written."""
    settled = prepare_step.plan(config)
    with settled.source as source:
        layers = len(settled.layers)
        pixels = source.shape_zyx[1] * source.shape_zyx[2]
        read = layers * pixels * source.dtype.itemsize
        written = layers * pixels * settled.mapping.dtype.itemsize * 4 // 3 + pixels
        done = _done(RunFolder(settled.folder / "prepare", settled.manifest))
        rows = [
            f"prepare {config.segment}: {settled.provenance.source}",
            f"  layers        {settled.layers.start}:{settled.layers.stop} of {source.shape_zyx[0]}, "
            f"{source.shape_zyx[1]} x {source.shape_zyx[2]} px, {source.dtype}, {settled.provenance.depth_order}",
            f"  grey values   {settled.provenance.intensity} -> {settled.mapping.dtype}",
            f"  units         {len(settled.units.units)}, {done}",
            f"  reads         {_size(read)} of grey values (before compression)",
            f"  writes        about {_size(written)} (before compression) to {settled.folder}",
            f"  peak memory   about {_size(settled.units.peak_bytes)} of {config.memory}",
        ]
        if settled.units.decodes > 1:
            rows.append(f"  note          strips are decoded {settled.units.decodes} times; more --memory avoids it")
        return "\n".join(rows)


def describe_infer(config: object) -> str:
    """The plan of an infer job, as lines of text. Only masks are read; nothing is written."""
    from inkbatch.steps import infer as infer_step
    from inkbatch.steps.workload import read_bytes, tiles_per_unit

    assert isinstance(config, infer_step.InferConfig)
    settled = infer_step.plan(config)
    done = RunFolder(settled.folder, settled.manifest).done()
    per_unit = tiles_per_unit(settled)
    tiles = sum(per_unit.values())
    left = sum(number for name, number in per_unit.items() if name not in done)
    read = read_bytes(settled, per_unit)
    largest = max(unit.read_box.area for unit in settled.units)
    memory = 3 * largest * len(settled.layers) * settled.volume.dtype.itemsize + 12 * largest + (600 << 20)
    height, width = settled.volume.shape_yx
    rows = [
        f"infer {config.segment} with {settled.bundle.document.name}",
        f"  surface       {settled.volume.layer_count} layers, {height} x {width} px",
        f"  layers        {settled.layers.start}:{settled.layers.stop} in depth order",
        f"  units         {len(settled.units)}, {_done(RunFolder(settled.folder, settled.manifest))}",
        f"  tiles         {tiles:,}, {left:,} to do (tile {settled.grid.tile_px}, stride {settled.grid.stride_px})",
        f"  reads         {_size(read)} of grey values (before compression)",
        f"  writes        {_size(math.ceil(height * width * 2 * 4 / 3))} (before compression) to {settled.folder}",
        f"  peak memory   about {_size(memory)} beside the model",
    ]
    flops = settled.bundle.document.flops_per_tile
    if left == 0:
        rows.append("  time, cost    nothing is left to do")
    elif flops is None:
        rows.append("  time, cost    unknown: the bundle does not state its FLOPs per tile")
    else:
        guesses = estimate(flops * left)
        rows.append(f"  work          {flops * left / 1e12:,.2f} TFLOP; estimates, never a bill, without start-up:")
        rows += [f"    {guess} (prices of {guess.as_of})" for guess in guesses]
    return "\n".join(rows)


def _done(record: RunFolder) -> str:
    return "complete already" if record.is_complete() else f"{len(record.done())} done already"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError
