"""Live preview of any job: a picture of the units that this process has stored so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from inkbatch.geometry import Unit
from inkbatch.io.pictures.preview import LivePicture
from inkbatch.io.store.location import Location
from inkbatch.run.job import RunContext
from inkbatch.run.pipeline import UnitWork


def live_preview(context: RunContext, shape_yx: tuple[int, int], folder: Location) -> LivePicture:
    """Open the picture of this process's shard, in the run's folder; the end of the job removes its `place`."""
    shard = context.shard
    name = "so-far.png" if shard.count == 1 else f"so-far-{shard.index}-of-{shard.count}.png"
    return LivePicture(shape_yx, folder / name)


def drawn(
    work: UnitWork[Any, Any], live: LivePicture, context: RunContext, values: Callable[[Any], NDArray[Any]]
) -> UnitWork[Any, Any]:
    """Extend a job's work: draw each stored unit into `live`, and note where the picture is.

    Args:
        work: The job's functions.
        live: See `live_preview`.
        context: Where its place is said.
        values: What was computed -> (height, width) from 0 to 1 of the unit's write box, or a whole multiple coarser;
            asked before the unit is stored.
    """
    context.reporter.note(f"picture so far: {live.place}")

    def store(unit: Unit, computed: Any) -> Mapping[str, Any]:
        seen = values(computed)
        facts = work.store(unit, computed)
        live.add(unit.write_box, seen)
        return facts

    return replace(work, store=store)
