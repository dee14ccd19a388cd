"""Proposals of a round: the regions to label next, each with a first label, as places to open in the editor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from inkbatch.data.datasets.round_blocks import kept_out_boxes
from inkbatch.data.labels.ink import LABEL_MAX
from inkbatch.data.labels.round_labels import StoredLabels
from inkbatch.data.labels.round_versions import FirstLabel, origin_of, propose_version
from inkbatch.data.maps.proposals import Candidate, distances, first_label, look_at, ranked
from inkbatch.data.segments.prepared import surface_content
from inkbatch.geometry import Box, cut
from inkbatch.io.pictures.png import png_bytes
from inkbatch.reports.viewer_links import viewer_link
from inkbatch.steps.round.maps import FoldMaps
from inkbatch.steps.round.names import PROPOSALS
from inkbatch.steps.round.plan import RoundPlan

IGNORED_GREY = 127  # of a first label's picture; ink is 255, bare papyrus 0


def propose(plan: RoundPlan, folds: Mapping[str, FoldMaps]) -> tuple[list[dict[str, Any]], dict[str, list[FirstLabel]]]:
    """Rank the regions of all segments, and store the best ones with their first labels.

    Returns:
        Rows of ``proposals.json``, the best first; and the first labels by segment.
    """
    rules = plan.config.proposals
    found = [one for segment in plan.config.trained_ids for one in _candidates(plan, segment, folds[segment])]
    rows = []
    first: dict[str, list[FirstLabel]] = {}
    for number, one in enumerate(ranked(found, rules), start=1):
        papyrus = plan.surfaces[one.segment].read_mask(one.box)
        ink, ignored = first_label(folds[one.segment].read(one.box), papyrus, rules)
        picture = f"proposals/{number:03d}-{one.segment}-y{one.box.y0:05d}-x{one.box.x0:05d}.png"
        first.setdefault(one.segment, []).append(FirstLabel(one.box, ink, ignored))
        grey = np.where(ignored, IGNORED_GREY, np.where(ink, LABEL_MAX, 0)).astype(np.uint8)
        (plan.folder / picture).write_bytes(png_bytes(grey, 9))
        shares = {"ink_share": round(float(ink.mean()), 4), "ignored_share": round(float(ignored.mean()), 4)}
        place = {"view": viewer_link(one.segment, one.box, plan.name), "first_label": picture}
        rows.append({"rank": number, **one.document(rules.region_px), **shares, **place})
    (plan.folder / PROPOSALS).write_json({"region_px": rules.region_px, "regions": rows})
    return rows, first


def store_versions(plan: RoundPlan, first: Mapping[str, Sequence[FirstLabel]], note: Callable[[str], None]) -> None:
    """Store the round's labels with the first labels of its regions as a new label version of each segment."""
    for segment, regions in first.items():
        surface = plan.surfaces[segment]
        um = surface.provenance.voxel_size_um
        origin = origin_of(plan.name)
        made, shape = surface_content(plan.config.root, segment), surface.shape_yx
        name = propose_version(plan.out, segment, plan.labels[segment], regions, shape, um, origin, made)
        note(
            f"round: first labels are version {name} of segment {segment}; correct them: inkbatch view {segment} --edit"
        )


def _candidates(plan: RoundPlan, segment: str, found: FoldMaps) -> list[Candidate]:
    """Measure the regions of a segment that hold papyrus, little that is labelled, and nothing of the yardstick."""
    rules, surface = plan.config.proposals, plan.surfaces[segment]
    labels = StoredLabels.open(plan.labels_folder(segment), surface.shape_yx, f"segment {segment}")
    kept_out = kept_out_boxes(plan.homes.get(segment, ()), plan.config.block_px, surface.shape_yx)
    looked: list[Candidate] = []
    labelled: list[Box] = []
    for box in cut(surface.shape_yx, rules.region_px, rules.region_px):
        papyrus = surface.read_mask(box)
        counted = labels.read(box)[1] & papyrus
        share = counted.sum() / max(int(papyrus.sum()), 1)
        if share > rules.most_labelled:
            labelled.append(box)
        elif papyrus.mean() >= rules.min_papyrus and not _touches(box, kept_out):
            looked.append(look_at(segment, box, found.read(box), papyrus, rules))
    far = distances([one.box for one in looked], labelled)
    return [replace(one, distance_px=away) for one, away in zip(looked, far, strict=True)]


def _touches(box: Box, others: Sequence[Box]) -> bool:
    return any(box.intersect(other).area for other in others)
