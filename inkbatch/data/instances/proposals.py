"""Proposals: a point and a box for every object that a map shows, by the two published rules.

``component``: the centroid of each component of object pixels, if it lies in the component. ``region``: the centroids
of the watershed's regions; those closer to each other than `cluster` are one, at their mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from inkbatch.data.instances.ascent import Evidence, Ints, Limits, first_pass
from inkbatch.data.instances.joining import Joined, groups, join
from inkbatch.data.instances.settings import ProposalRules, area_px, length_px
from inkbatch.data.instances.unit_facts import Sums, facts_of
from inkbatch.data.labels.objects import BOUNDARY_PX
from inkbatch.errors import ConfigError
from inkbatch.geometry import Box

MOST_REACH_PX = 2000  # OpenCV gives distances in float32: from 2,048 on their squares are off by one half and more
Rule = Literal["component", "region"]


@dataclass(frozen=True)
class Proposal:
    """A place where an object is expected.

    Attributes:
        point_yx: y, x of the prompt in pixels of the picture, pixel centres at whole numbers.
        box: Box of the component or regions.
        area_px: Their pixels, with those of boundary that they grew into.
        rule: The rule that made it.
        parts: Regions that are one in it; those beyond the first count as merged.
        number: Its component or first region, in row-major order of first pixels.
    """

    point_yx: tuple[float, float]
    box: Box
    area_px: int
    rule: Rule
    parts: int = 1
    number: int = 0

    @property
    def pixel(self) -> tuple[int, int]:
        """The pixel that holds the point."""
        return round(self.point_yx[0]), round(self.point_yx[1])


def limits_of(rules: ProposalRules, pixel_um: float | None, boundary_px: int = BOUNDARY_PX) -> Limits:
    """Express the rules in pixels.

    Args:
        rules: The rules.
        pixel_um: Edge of a pixel in micrometres; None: not known.
        boundary_px: Width of the boundary that the network was taught, by which objects grow unless `rules` say.

    Raises:
        ConfigError: One is in micrometres, and the edge of a pixel is not known; a reach beyond `MOST_REACH_PX`.
    """
    reach_px = max(1, round(length_px(rules.reach, pixel_um)))
    if reach_px > MOST_REACH_PX:
        raise ConfigError(
            f"proposals.reach: expected at most {MOST_REACH_PX:,} px, up to which squared distances are exact, got "
            f"{reach_px:,} px; lower it: half the width of the widest object is enough"
        )
    return Limits(
        object_from=rules.object_from,
        boundary_from=rules.boundary_from,
        boundary_px=int(area_px(rules.boundary_min, pixel_um)),
        min_px=int(np.ceil(area_px(rules.min_area, pixel_um))),
        cluster_px=length_px(rules.cluster, pixel_um),
        reach_px=reach_px,
        neck=rules.neck,
        grow_px=boundary_px if rules.grow is None else round(length_px(rules.grow, pixel_um)),
    )


def proposed(joined: Joined, limits: Limits) -> list[Proposal]:
    """List the proposals of a picture, top to bottom, left to right; where those of components lie is not looked up."""
    parts = joined.components
    found = [
        Proposal(_point(parts.centroid[i]), Box(*parts.extent[i].tolist()), int(parts.area[i]), "component", 1, int(i))
        for i in np.flatnonzero(parts.core >= limits.min_px)
    ]
    regions = joined.regions
    large = np.flatnonzero(regions.core >= limits.min_px)
    for members in _clusters(regions.centroid[large], limits.cluster_px):
        chosen = large[members]
        extent = regions.extent[chosen]
        box = Box(*extent[:, :2].min(axis=0).tolist(), *extent[:, 2:].max(axis=0).tolist())
        point = _point(regions.centroid[chosen].mean(axis=0))
        found.append(Proposal(point, box, int(regions.area[chosen].sum()), "region", len(chosen), int(chosen[0])))
    return sorted(found, key=lambda one: (*one.pixel, one.rule, one.point_yx, one.box))


def inside_own_component(
    proposals: Iterable[Proposal], joined: Joined, region_at: dict[tuple[int, int], int]
) -> list[Proposal]:
    """Keep the proposals whose point lies in their component; those of regions all.

    Args:
        proposals: As `proposed` lists them.
        joined: The first pass.
        region_at: The region at the pixel of each proposal, -1 outside.
    """

    def keeps(one: Proposal) -> bool:
        region = region_at.get(one.pixel, -1)
        return one.rule == "region" or (region >= 0 and int(joined.component_of[region]) == one.number)

    return [one for one in proposals if keeps(one)]


def propose(values: NDArray[np.float32], rules: ProposalRules, pixel_um: float | None = None) -> list[Proposal]:
    """Propose the objects of a map in memory, as `inkbatch instances` does it in parts.

    Args:
        values: Probability of object (height, width), or (3, height, width): background, object, boundary.
        rules: The rules.
        pixel_um: Edge of a pixel in micrometres, for rules in micrometres.
    """
    joined, labels = first_pass_of(values, limits_of(rules, pixel_um))
    found = proposed(joined, limits_of(rules, pixel_um))
    region_at = {one.pixel: int(labels[one.pixel]) for one in found}
    return inside_own_component(found, joined, region_at)


def first_pass_of(values: NDArray[np.float32], limits: Limits) -> tuple[Joined, NDArray[np.int64]]:
    """Part a map in memory into regions.

    Args:
        values: See `propose`.
        limits: The rules in pixels.

    Returns:
        The regions, and the region at each pixel (height, width): its number, -1 outside.
    """
    evidence = Evidence.of(values)
    height, width = evidence.object.shape
    inner = (slice(0, height), slice(0, width))
    found = first_pass(evidence, (0, 0), inner, (False,) * 4, limits)
    joined = join([facts_of(found, Box(0, 0, height, width), evidence)], limits.neck)
    return joined, joined.region_of[0, 0][found.labels]


def _point(centroid: Sums) -> tuple[float, float]:
    return float(centroid[0]), float(centroid[1])


def _clusters(points: Sums, within_px: float) -> list[Ints]:
    """Group points that are at most `within_px` apart, or linked by others (DBSCAN with two points to a cluster)."""
    if not len(points):
        return []
    pairs = np.zeros((0, 2), np.int64)
    if within_px > 0:
        pairs = cKDTree(points).query_pairs(within_px, output_type="ndarray").astype(np.int64).reshape(-1, 2)
    group = groups(len(points), pairs)
    order = np.argsort(group, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
