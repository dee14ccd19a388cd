"""Scores of a round: out of fold on what is labelled, and on the yardstick against the round before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from inkbatch.data.datasets.round_blocks import kept_out_boxes
from inkbatch.data.labels.round_labels import StoredLabels
from inkbatch.data.maps.bootstrap import Difference
from inkbatch.data.maps.out_of_fold import Bools, require_unseen
from inkbatch.data.maps.scoring import DEFAULT_THRESHOLD, ScoreHistogram
from inkbatch.data.maps.stored import StoredMap, open_map
from inkbatch.data.maps.yardstick import BETA, Measured, ScoreName, difference, scores_of
from inkbatch.geometry import Box, cells, cut
from inkbatch.steps.round.maps import FoldMaps
from inkbatch.steps.round.names import DOCUMENT, round_name
from inkbatch.steps.round.plan import RoundPlan

READ_PX = 1024
UM2_PER_CM2 = 1e8


@dataclass(frozen=True)
class Areas:
    """Labelled papyrus of one segment, in square centimetres.

    Attributes:
        labelled: All that counts.
        ink: What is ink of it.
    """

    labelled: float
    ink: float


@dataclass(frozen=True)
class RoundScores:
    """Scores of a round.

    Attributes:
        threshold: Best of F0.5 out of fold, on labels outside of the yardstick.
        out_of_fold: Scores there.
        yardstick: Scores on the yardstick.
        against: Differences to the round before, by score; empty in the first round.
        labelled: By segment: labelled papyrus outside of the yardstick, and ink of it, in square centimetres.
        blocks: Blocks of the bootstrap with pixels that count.
    """

    threshold: float
    out_of_fold: Mapping[str, float]
    yardstick: Mapping[str, float]
    against: Mapping[ScoreName, Difference]
    labelled: Mapping[str, Areas]
    blocks: int


def score_round(plan: RoundPlan, folds: Mapping[str, FoldMaps], maps: Mapping[str, StoredMap]) -> RoundScores:
    """Score a round's maps.

    Raises:
        DataError: A pixel would be scored by a network that was trained on it or near it; or a yardstick without ink.
    """
    total, labelled = ScoreHistogram(), {}
    for segment, found in folds.items():
        counts = _out_of_fold(plan, segment, found)
        total.merge(counts)
        cm2 = plan.surfaces[segment].provenance.voxel_size_um ** 2 / UM2_PER_CM2
        labelled[segment] = Areas(counts.counted * cm2, int(counts.ink.sum()) * cm2)
    threshold = total.best_f_beta(BETA)[1] if total.ink.any() else DEFAULT_THRESHOLD
    for segment, found in folds.items():
        _require_untouched(plan, segment, found)
    now = Measured(threshold, list(_blocks(plan, maps)))
    against: Mapping[ScoreName, Difference] = {}
    rules = plan.config.yardstick
    if plan.before is not None:
        name = round_name(plan.config.name, plan.number - 1)
        earlier = {segment: open_map(plan.config.root, segment, name) for segment in _on_yardstick(plan)}
        fitted = float((plan.before / DOCUMENT).read_mapping()["threshold"])
        before = Measured(fitted, list(_blocks(plan, earlier)))
        against = difference(now, before, rules.draws, rules.level, plan.config.seed)
    filled = sum(block.counted > 0 for block in now.blocks)
    return RoundScores(threshold, scores_of(total, threshold), now.scores, against, labelled, filled)


def _out_of_fold(plan: RoundPlan, segment: str, found: FoldMaps) -> ScoreHistogram:
    """Count the labelled pixels outside of the yardstick."""
    surface = plan.surfaces[segment]
    labels = StoredLabels.open(plan.labels_folder(segment), surface.shape_yx, f"segment {segment}")
    kept_out = _kept_out(plan, segment)
    counts = ScoreHistogram()
    for box in cut(surface.shape_yx, READ_PX, READ_PX):
        ink, counted = labels.read(box)
        counted &= surface.read_mask(box) & ~_cover(kept_out, box)
        if counted.any():
            said = found.read(box)
            require_unseen(segment, box, counted, said.networks, 1, "scored", found.reach_px)
            counts.add(said.mean, ink, counted, segment)
    return counts


def _require_untouched(plan: RoundPlan, segment: str, found: FoldMaps) -> None:
    """Refuse a yardstick that any network of the round has seen."""
    surface = plan.surfaces[segment]
    for block in _kept_out(plan, segment):
        for box in cells(block, READ_PX, READ_PX):
            papyrus = surface.read_mask(box)
            networks = found.networks(box)
            require_unseen(segment, box, papyrus, networks, len(found.maps), "scored on the yardstick", found.reach_px)


def _blocks(plan: RoundPlan, maps: Mapping[str, StoredMap]) -> Iterator[ScoreHistogram]:
    """Count the yardstick block by block, against the labels of the first round."""
    edge = plan.config.yardstick.region_px
    for segment in _on_yardstick(plan):
        surface = plan.surfaces[segment]
        labels = StoredLabels.open(plan.first_labels(segment), surface.shape_yx, f"segment {segment}")
        for block in _kept_out(plan, segment):
            for box in cells(block, edge, edge):
                ink, counted = labels.read(box)
                found = ScoreHistogram()
                found.add(maps[segment].prediction.read(box), ink, counted & surface.read_mask(box), segment)
                yield found


def _on_yardstick(plan: RoundPlan) -> list[str]:
    return [segment for segment in plan.surfaces if _kept_out(plan, segment)]


def _kept_out(plan: RoundPlan, segment: str) -> list[Box]:
    return kept_out_boxes(plan.homes.get(segment, ()), plan.config.block_px, plan.surfaces[segment].shape_yx)


def _cover(boxes: list[Box], box: Box) -> Bools:
    found = np.zeros(box.shape, bool)
    for one in boxes:
        part = one.intersect(box)
        if part.area:
            found[part.within(box)] = True
    return found


def as_document(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return scores as they are stored: what is not a number is null."""
    return {key: None if value != value else round(float(value), 6) for key, value in found.items()}
