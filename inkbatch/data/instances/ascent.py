"""First pass of a unit: where objects are, how far inside, and to which middle every pixel belongs.

A pixel's height is the squared distance to the nearest pixel that is no object, up to a stated reach, summed over 5 x 5
pixels. From each pixel the way leads to its highest neighbour, of equal ones to the first in row-major order, until
none is higher. Pixels with one end are one basin. All of this is local (a height needs `reach_px` and `SMOOTH_PX`
around it, a step one pixel), so that a unit finds the same basins as the whole picture: where a way leaves the unit,
the pixel that it enters is noted, and `joining` continues there. Neighbours are the 4 of an object that is joined over
edges; a diagonal step needs one of the two pixels beside it.

A network that was taught a boundary ends its objects where that begins. They get it back: from pixels of the boundary
class at most `grow_px` steps over edges of such pixels away from an object, the way leads to it, by the fewest steps.
Such ways leave units like all others; heights, and with them what is parted, are those of the object alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.data.labels.components import label

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Heights = NDArray[np.int32]

SMOOTH_PX = 2  # on each side, over which squared distances are summed
BEFORE = ((-1, -1), (-1, 0), (-1, 1), (0, -1))  # row-major: these win where heights are equal
AFTER = ((0, 1), (1, -1), (1, 0), (1, 1))
EDGES = ((-1, 0), (0, -1), (0, 1), (1, 0))  # row-major: the first wins where two are equally near
FAR = np.iinfo(np.int32).max  # steps from pixels that no object grows into


@dataclass(frozen=True)
class Evidence:
    """A map, or a part of it; float32 (height, width) in [0, 1].

    Attributes:
        object: Probability of object.
        boundary: Probability of boundary between objects; None for maps of two classes.
        background: Probability of background; of maps of two classes one minus that of object.
    """

    object: Floats
    boundary: Floats | None
    background: Floats

    @staticmethod
    def of(values: Floats) -> Evidence:
        """Take a map (height, width), or (3, height, width): background, object, boundary."""
        if values.ndim == 2:
            return Evidence(values, None, np.float32(1) - values)
        return Evidence(values[1], values[2], values[0])


@dataclass(frozen=True)
class Limits:
    """The rules of `ProposalRules` in pixels.

    Attributes:
        object_from: See `ProposalRules`.
        boundary_from: See `ProposalRules`.
        boundary_px: Largest area of boundary that parts nothing.
        min_px: Smallest area that is proposed.
        cluster_px: Largest distance between centroids of one proposal.
        reach_px: Largest distance that is measured.
        neck: See `ProposalRules`.
        grow_px: Most steps by which objects grow into pixels of boundary.
    """

    object_from: float
    boundary_from: float
    boundary_px: int
    min_px: int
    cluster_px: float
    reach_px: int
    neck: float
    grow_px: int = 0

    @property
    def halo_px(self) -> int:
        """Pixels around a unit on which its basins depend."""
        return self.reach_px + SMOOTH_PX + self.boundary_px + self.grow_px + 3


def object_domain(evidence: Evidence, limits: Limits) -> Bools:
    """Mark the pixels of objects: probable ones, and specks of boundary too small to part anything."""
    domain = evidence.object >= np.float32(limits.object_from)
    if evidence.boundary is not None:
        parts = label(evidence.boundary >= np.float32(limits.boundary_from), 8)
        specks = parts.areas <= limits.boundary_px
        specks[0] = False
        domain |= specks[parts.labels]
    return domain


def heights(domain: Bools, reach_px: int) -> Heights:
    """Measure how far inside an object each pixel lies; 0 outside. Right from `reach_px` + `SMOOTH_PX` + 1 inwards."""
    if domain.all():
        squared = np.full(domain.shape, reach_px**2, np.float32)
    else:
        far = cv2.distanceTransform(domain.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        squared = np.minimum(np.rint(np.square(far, dtype=np.float64)), reach_px**2).astype(np.float32)
    size = 2 * SMOOTH_PX + 1
    summed = cv2.boxFilter(squared, cv2.CV_64F, (size, size), normalize=False, borderType=cv2.BORDER_CONSTANT)
    found: Heights = np.where(domain, np.rint(summed), 0).astype(np.int32)
    return found


def growth(domain: Bools, evidence: Evidence, limits: Limits) -> NDArray[np.int32]:
    """Count the steps from each pixel of boundary back to the nearest object: 0 in objects, `FAR` where none grows."""
    distance = np.where(domain, 0, FAR).astype(np.int32)
    if evidence.boundary is None:
        return distance
    free = ~domain & (evidence.boundary >= np.float32(limits.boundary_from))
    grown, cross = domain.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    for step in range(1, limits.grow_px + 1):
        new = (cv2.dilate(grown, cross) > 0) & free
        if not new.any():
            break
        distance[new], grown[new] = step, 1
        free &= ~new
    return distance


def steps(height: Heights, distance: NDArray[np.int32]) -> NDArray[np.int64]:
    """Point from each pixel inside a frame of one pixel uphill or back to its object; elsewhere to itself.

    Args:
        height: (h, w), 0 outside of objects.
        distance: (h, w), as `growth` counts.

    Returns:
        (h * w): flat index of the pixel that a way goes on to.
    """
    rows, columns = height.shape
    core = np.s_[1:-1, 1:-1]
    best = height[core].copy()
    to = np.zeros(best.shape, np.int64)

    def shifted(y: int, x: int) -> Heights:
        return height[1 + y : rows - 1 + y, 1 + x : columns - 1 + x]

    for after, group in ((False, BEFORE), (True, AFTER)):
        for y, x in group:
            there = shifted(y, x)
            better = there > best
            if not after:
                better |= (there == best) & (to == 0)
            better &= (there > 0) & (height[core] > 0)
            if y and x:
                better &= (shifted(y, 0) > 0) | (shifted(0, x) > 0)
            best[better] = there[better]
            to[better] = y * columns + x
    for y, x in EDGES:
        near = distance[1 + y : rows - 1 + y, 1 + x : columns - 1 + x] == distance[core] - 1
        near &= (distance[core] < FAR) & (to == 0)
        to[near] = y * columns + x
    index = np.arange(rows * columns, dtype=np.int64).reshape(rows, columns)
    index[core] += to
    return index.ravel()


def ends(to: NDArray[np.int64], inside: NDArray[np.int64]) -> NDArray[np.int64]:
    """Follow every way from the flat indices `inside` to its end."""
    to = to.copy()
    while True:
        further = to[to[inside]]
        if np.array_equal(further, to[inside]):
            return further
        to[inside] = further


@dataclass(frozen=True)
class UnitFirstPass:
    """Basins of one unit.

    Attributes:
        labels: (height, width) int32; 0 outside, basins from 1 in row-major order of their ends.
        height: (height, width), of the unit alone; 0 outside and where objects grew.
        ends: (n, 2): y, x of the end of each basin, in pixels of the picture; outside the unit where ways leave it.
        top: (n,): height of the end; 0 where it lies outside.
        dropped: Areas of the components that lie inside the unit and are too small to be proposed.
    """

    labels: NDArray[np.int32]
    height: Heights
    ends: Ints
    top: Ints
    dropped: Ints


def first_pass(
    evidence: Evidence, at: tuple[int, int], inner: tuple[slice, slice], sides: tuple[bool, ...], limits: Limits
) -> UnitFirstPass:
    """Find the basins of a unit.

    Args:
        evidence: The map of the unit's read box.
        at: (y0, x0) of the unit's write box in the picture.
        inner: Index of the write box in the read box.
        sides: If the unit's top, bottom, left and right side is a seam to another unit.
        limits: The rules.
    """
    domain = object_domain(evidence, limits)
    height = heights(domain, limits.reach_px)
    rows, columns = (part.stop - part.start for part in inner)
    around = np.s_[inner[0].start : inner[0].stop + 2, inner[1].start : inner[1].stop + 2]
    frame = np.pad(height, 1)[around].copy()
    distance = np.pad(growth(domain, evidence, limits), 1, constant_values=FAR)[around]
    own = domain[inner]
    parts = label(own, 4)
    seam = np.zeros(own.shape, bool)
    top, bottom, left, right = sides
    wide = max(limits.grow_px, 1)  # what lies further in grows into no other unit
    seam[:wide] |= top
    seam[-wide:] |= bottom
    seam[:, :wide] |= left
    seam[:, -wide:] |= right
    small = (parts.areas < limits.min_px) & ~parts.touched(seam)
    small[0] = False
    frame[1:-1, 1:-1][small[parts.labels]] = 0
    width = columns + 2
    index = np.arange((rows + 2) * width, dtype=np.int64).reshape(rows + 2, width)[1:-1, 1:-1]
    inside = index[distance[1:-1, 1:-1] < FAR]
    last = ends(steps(frame, distance), inside)
    y, x = last // width, last % width
    is_own = (y > 0) & (y <= rows) & (x > 0) & (x <= columns)
    kept = ~is_own | (frame.ravel()[last] > 0)  # the others lead to what is too small
    places, numbers = np.unique(last[kept], return_inverse=True)
    labels = np.zeros((rows + 2) * width, np.int32)
    labels[inside[kept]] = numbers + 1
    y, x = places // width, places % width
    is_own = (y > 0) & (y <= rows) & (x > 0) & (x <= columns)
    peak = np.where(is_own, frame.ravel()[places], 0).astype(np.int64)
    return UnitFirstPass(
        np.ascontiguousarray(labels.reshape(rows + 2, width)[1:-1, 1:-1]),
        frame[1:-1, 1:-1].copy(),
        np.stack([y - 1 + at[0], x - 1 + at[1]], axis=1),
        peak,
        parts.areas[small],
    )


def whole_numbers(values: Floats) -> NDArray[np.float64]:
    """Round probabilities to multiples of 1 / 65,535, so that sums of them do not depend on their order."""
    return np.rint(values.astype(np.float64) * 65_535)
