"""Maps out of fold of a round: each fold's network reads every segment, and where it may speak its word counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.datasets.listed_blocks import BlockHome
from inkbatch.data.datasets.round_blocks import TEST
from inkbatch.data.datasets.trained_pixels import TrainedPixels, pixels_on
from inkbatch.data.maps.out_of_fold import OutOfFold, may_speak, read_out_of_fold, require_unseen
from inkbatch.data.maps.stored import StoredMap, maps_state, open_map
from inkbatch.errors import ConfigError, MismatchError
from inkbatch.geometry import Box, Unit, cells, cut
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location
from inkbatch.models.bundle import Bundle
from inkbatch.run.job import RunContext, run_job
from inkbatch.run.pipeline import UnitWork
from inkbatch.run.record import RunFolder, RunManifest
from inkbatch.steps.infer.job import InferConfig
from inkbatch.steps.infer.job import run as run_infer
from inkbatch.steps.round.names import fold_bundle
from inkbatch.steps.round.plan import RoundPlan
from inkbatch.steps.train.plan import start_of, started_network

UNIT_PX = 1024
DEVICES = ("auto", "cuda", "cpu")


@dataclass(frozen=True)
class FoldMaps:
    """Maps of one segment by the networks of all folds.

    Attributes:
        maps: One per fold.
        trained: Of each, the pixels of this segment that trained its network, and those before that it started from.
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
    found = {}
    for segment in plan.surfaces:
        maps = []
        for fold in folds:
            name = f"{plan.name}-fold-{fold}"
            run_infer(
                InferConfig(
                    segment=segment,
                    bundle=fold_bundle(plan.out, plan.config.name, plan.number, fold).uri,
                    root=plan.config.root,
                    output_root=plan.config.output_root,
                    name=name,
                    device=plan.train.device,
                ),
                context,
            )
            maps.append(open_map(plan.out.uri, segment, name))
        found[segment] = FoldMaps(tuple(maps), tuple(one.trained_on for one in maps), plan.reach_px)
    return found


def require_unseen_start(plan: RoundPlan) -> None:
    """Refuse networks to start from that were trained on what their fold holds out, or near it.

    Raises:
        DataError: One was; segment and fold are named.
        MismatchError: One is not the network that the round before left, or not the one that this round trains.
        CorruptDataError: The weights of one are damaged.
        InkbatchError: See `RoundPlan.homes`.
    """
    homes = plan.homes  # blocks that cannot be dealt are refused here, too
    for fold in range(plan.config.folds.count):
        start = start_of(plan.train.model_copy(update={"folds": None, "fold": fold}))
        if start is None:
            return
        _require_as_left(plan, start, fold)
        _require_fitting(plan, start, fold)
        for segment, surface in plan.surfaces.items():
            seen = pixels_on(start.document.training, surface, str(start.location))
            if len(seen.train):
                held_out = [row for row in homes.get(segment, ()) if row[2] in (fold, TEST)]
                _require_unseen(plan, segment, seen, fold, held_out)


def _require_as_left(plan: RoundPlan, start: Bundle, fold: int) -> None:
    found = start.document.weights_sha256
    left = plan.starts.get(f"fold-{fold}", found)
    if left != found:
        raise MismatchError(
            f"{start.location}: expected weights {left[:16]}, as round {plan.number - 1} left them, got {found[:16]}; "
            "restore them, or set start: fresh"
        )


def _require_fitting(plan: RoundPlan, start: Bundle, fold: int) -> None:
    config = plan.train.model_copy(update={"folds": None, "fold": fold})
    try:
        started_network(config, {"depth_layers": start.document.contract.layers.count, **config.model.config})
    except (ConfigError, MismatchError) as error:
        if not plan.starts:
            raise
        cure = "to train another network than the rounds before, set start: fresh"
        raise type(error)(f"round {plan.name}, fold {fold}: {error}; {cure}") from error


def _require_unseen(
    plan: RoundPlan, segment: str, seen: TrainedPixels, fold: int, held_out: Sequence[tuple[int, int, BlockHome]]
) -> None:
    """Refuse a network that saw labels in blocks which a fold holds out, or papyrus of the yardstick."""
    surface, edge = plan.surfaces[segment], plan.config.block_px
    for row, column, home in held_out:
        block = Box(row * edge, column * edge, (row + 1) * edge, (column + 1) * edge)
        for box in cells(block.intersect(Box(0, 0, *surface.shape_yx)), UNIT_PX, UNIT_PX):
            wanted = surface.read_mask(box)
            if home != TEST:
                wanted &= plan.labels[segment].read(box)[1]
            speaks = may_speak(seen, box, plan.reach_px).astype(np.uint8)
            what = "scored on the yardstick" if home == TEST else f"scored in fold {fold}"
            require_unseen(segment, box, wanted, speaks, 1, what, plan.reach_px)


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
    return [fold_bundle(plan.out, plan.config.name, plan.number, fold) for fold in range(plan.config.folds.count)]
