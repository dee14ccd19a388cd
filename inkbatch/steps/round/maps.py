"""Maps out of fold of a round: each fold's network reads every segment, and where it may speak its word counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.datasets.trained_pixels import TrainedPixels, pixels_on
from inkbatch.data.maps.out_of_fold import OutOfFold, may_speak, read_out_of_fold, require_unseen
from inkbatch.data.maps.stored import StoredMap, maps_state, open_map
from inkbatch.geometry import Box, Unit, cut
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location
from inkbatch.models.bundle import Bundle, bundle_location
from inkbatch.run.job import RunContext, run_job
from inkbatch.run.pipeline import UnitWork
from inkbatch.run.record import RunFolder, RunManifest
from inkbatch.steps.infer.job import InferConfig
from inkbatch.steps.infer.job import run as run_infer
from inkbatch.steps.round.plan import RoundPlan

UNIT_PX = 1024
DEVICES = ("auto", "cuda", "cpu")


@dataclass(frozen=True)
class FoldMaps:
    """Maps of one segment by the networks of all folds.

    Attributes:
        maps: One per fold.
        trained: Of each, the pixels of this segment that trained its network, or the one that it started from.
        reach_px: A tile and its context.
    """

    maps: tuple[StoredMap, ...]
    trained: tuple[TrainedPixels, ...]
    reach_px: int

    def read(self, box: Box) -> OutOfFold:
        """Read what networks that never saw the box's pixels say."""
        return read_out_of_fold(self.maps, self.trained, box, self.reach_px)

    def networks(self, box: Box) -> NDArray[np.uint8]:
        """Count the networks that may speak at each pixel of a box; no map is read."""
        speaking = np.stack([may_speak(one, box, self.reach_px) for one in self.trained])
        found: NDArray[np.uint8] = speaking.sum(axis=0, dtype=np.uint8)
        return found


def infer_folds(plan: RoundPlan, context: RunContext) -> dict[str, FoldMaps]:
    """Read every segment with the network of every fold; by segment id."""
    folds = range(plan.config.folds.count)
    seen = _seen_before(plan)
    found = {}
    for segment in plan.surfaces:
        maps = []
        for fold in folds:
            name = f"{plan.name}-fold-{fold}"
            run_infer(
                InferConfig(
                    segment=segment,
                    bundle=(plan.out / "runs" / plan.name / f"fold-{fold}" / "bundle").uri,
                    root=plan.config.root,
                    output_root=plan.config.output_root,
                    name=name,
                    device=plan.train.device,
                ),
                context,
            )
            maps.append(open_map(plan.out.uri, segment, name))
        trained = tuple(TrainedPixels.together([one.trained_on, seen[segment]]) for one in maps)
        found[segment] = FoldMaps(tuple(maps), trained, plan.reach_px)
    return found


def require_fresh_start(plan: RoundPlan) -> None:
    """Refuse a bundle to start from that was trained on labels or yardstick of this series, before anything is done.

    Raises:
        DataError: It was; the segment is named.
        InkbatchError: See `RoundPlan.homes`.
    """
    seen = _seen_before(plan)
    for segment in plan.homes:
        surface = plan.surfaces[segment]
        for box in cut(surface.shape_yx, UNIT_PX, UNIT_PX) if len(seen[segment].train) else ():
            labelled = plan.labels[segment].read(box)[1] & surface.read_mask(box)
            speaks = may_speak(seen[segment], box, plan.reach_px).astype(np.uint8)
            require_unseen(segment, box, labelled, speaks, 1, "scored", plan.reach_px)


def _seen_before(plan: RoundPlan) -> dict[str, TrainedPixels]:
    """Find the pixels that trained the bundle that training started from; none without one."""
    start = plan.train.model.start_from
    if start is None:
        return {segment: TrainedPixels.together(()) for segment in plan.surfaces}
    bundle = Bundle.open(bundle_location(start))
    return {
        segment: pixels_on(bundle.document.training, surface, str(bundle.location))
        for segment, surface in plan.surfaces.items()
    }


def store_maps(plan: RoundPlan, folds: Mapping[str, FoldMaps], context: RunContext) -> dict[str, StoredMap]:
    """Store the mean of the networks that may speak, one prediction per segment; 0 where none may."""
    for segment, found in folds.items():
        surface = plan.surfaces[segment]
        units = [Unit(index, box, box) for index, box in enumerate(cut(surface.shape_yx, UNIT_PX, UNIT_PX))]
        inputs = {"maps": [one.identity for one in found.maps]}
        config = {"segment": segment, "name": plan.name, "reach_px": found.reach_px}
        state = maps_state(found.maps)
        folder = plan.out / "predictions" / segment / plan.name
        record = RunFolder(folder, RunManifest("round-maps", config, inputs, len(units), state=state))
        work = partial(_work, plan, segment, found, record)
        run_job(record, units, work, context)
    return {segment: open_map(plan.out.uri, segment, plan.name) for segment in folds}


def _work(plan: RoundPlan, segment: str, found: FoldMaps, record: RunFolder) -> UnitWork[Any, Any]:
    surface = plan.surfaces[segment]
    digest = {"digest": record.manifest.digest}
    um = surface.provenance.voxel_size_um
    stored = Prediction.create(record.location, surface.shape_yx, UNIT_PX, um, digest)

    def load(unit: Unit) -> NDArray[np.float32]:
        mean = found.read(unit.write_box).mean
        return np.where(surface.read_mask(unit.write_box), mean, np.float32(0))

    def store(unit: Unit, mean: NDArray[np.float32]) -> Mapping[str, Any]:
        return {"bytes_written": stored.write(unit.write_box, mean)}

    return UnitWork(load=load, compute=None, store=store, mark=record.mark)


def bundles_of(plan: RoundPlan) -> Sequence[Location]:
    """Return the bundles of all folds."""
    runs = plan.out / "runs" / plan.name
    return [runs / f"fold-{fold}" / "bundle" for fold in range(plan.config.folds.count)]
