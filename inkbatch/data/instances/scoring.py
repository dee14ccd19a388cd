"""Scores of instances against labels: average precision, aggregated Jaccard, panoptic quality, sizes.

Labels are (height, width) whole numbers, 0 is no object. AP of one picture or of several is that of masks without
confidence: at each IoU of 0.50, 0.55 … 0.95 true positives over all that are found, missed or false
(TP / (TP + FP + FN)), which the field of cells and grains uses, and their mean. AJI: Kumar et al. 2017; PQ: Kirillov et
al. 2019, with IoU above 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import MismatchError

IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
QUANTILES = (16, 50, 84)

Labels = NDArray[np.integer]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Common pixels of what was found and what is true in one picture.

    Attributes:
        found: (n,): pixels of each object that was found.
        true: (m,): pixels of each true object.
        pairs: (k, 2): indices of found and true objects that share pixels.
        common: (k,): pixels that they share.
    """

    found: Ints
    true: Ints
    pairs: Ints
    common: Ints

    @staticmethod
    def of(found: Labels, true: Labels, place: str = "instances") -> Overlaps:
        """Compare two pictures of labels.

        Raises:
            MismatchError: Their sizes differ.
        """
        if found.shape != true.shape:
            raise MismatchError(
                f"{place}: expected true labels of {found.shape} (height, width) like the instances, got {true.shape}; "
                "give the labels of this picture"
            )
        found_ids, first = np.unique(found, return_inverse=True)
        true_ids, second = np.unique(true, return_inverse=True)
        table = np.unique(first.ravel() * len(true_ids) + second.ravel(), return_counts=True)
        rows, columns = np.divmod(table[0], len(true_ids))
        both = (found_ids[rows] != 0) & (true_ids[columns] != 0)
        kept_rows, kept_columns = _without_zero(found_ids), _without_zero(true_ids)
        return Overlaps(
            np.bincount(rows, table[1], len(found_ids)).astype(np.int64)[found_ids != 0],
            np.bincount(columns, table[1], len(true_ids)).astype(np.int64)[true_ids != 0],
            np.stack([kept_rows[rows[both]], kept_columns[columns[both]]], axis=1),
            table[1][both].astype(np.int64),
        )

    @property
    def iou(self) -> Floats:
        """(k,): intersection over union of each pair."""
        union = self.found[self.pairs[:, 0]] + self.true[self.pairs[:, 1]] - self.common
        result: Floats = self.common / union
        return result

    def matched(self, least: float) -> int:
        """Count true positives: pairs of an IoU of at least `least`, each object in one pair at most, best first."""
        used: tuple[set[int], set[int]] = (set(), set())
        iou, matches = self.iou, 0
        chosen = np.flatnonzero(iou >= least)
        for number in chosen[np.lexsort((self.pairs[chosen, 1], self.pairs[chosen, 0], -iou[chosen]))]:
            one, other = self.pairs[number].tolist()
            if one not in used[0] and other not in used[1]:
                used[0].add(one)
                used[1].add(other)
                matches += 1
        return matches


def _without_zero(ids: NDArray[np.integer]) -> Ints:
    """Number all ids but 0 in their order."""
    numbers: Ints = np.cumsum(ids != 0, dtype=np.int64) - 1
    return numbers


@dataclass(frozen=True)
class InstanceScores:
    """Scores of one picture, or of several together; shares in [0, 1], NaN where nothing defines one.

    Attributes:
        found: Objects found.
        true: True objects.
        ap: Mean over IoU 0.50 … 0.95 of TP / (TP + FP + FN).
        ap50: The same at IoU 0.50 alone.
        ap75: The same at IoU 0.75 alone.
        precision: TP over found, at IoU 0.50.
        recall: TP over true, at IoU 0.50.
        f1: Harmonic mean of both.
        aji: Aggregated Jaccard index.
        pq: Panoptic quality, IoU above 0.5.
        sizes: Per quantile (``d16``, ``d50``, ``d84``) the equivalent diameter of found and true objects in px, and the
            relative error, by number.
    """

    found: int
    true: int
    ap: float
    ap50: float
    ap75: float
    precision: float
    recall: float
    f1: float
    aji: float
    pq: float
    sizes: dict[str, tuple[float, float, float]]


def score(pictures: Sequence[Overlaps]) -> InstanceScores:
    """Score pictures together: counts and pixels are summed over all of them."""
    found, true = sum(len(one.found) for one in pictures), sum(len(one.true) for one in pictures)

    def average_precision(least: float) -> float:
        hits = sum(one.matched(least) for one in pictures)
        return _share(hits, found + true - hits)

    precisions = {least: average_precision(least) for least in IOUS}
    hits = sum(one.matched(IOUS[0]) for one in pictures)
    return InstanceScores(
        found=found,
        true=true,
        ap=float(np.mean(list(precisions.values()))),
        ap50=precisions[0.5],
        ap75=precisions[0.75],
        precision=_share(hits, found),
        recall=_share(hits, true),
        f1=_share(2 * hits, found + true),
        aji=_aggregated_jaccard(pictures),
        pq=_panoptic_quality(pictures, found, true),
        sizes=_size_errors(pictures),
    )


def equivalent_diameter(area: NDArray[np.integer] | Floats) -> Floats:
    """Return the diameter of discs of these areas."""
    result: Floats = np.sqrt(4 * area.astype(np.float64) / np.pi)
    return result


def quantiles(diameters: Floats, *, by_area: bool = False) -> dict[str, float]:
    """Return D16, D50 and D84: the diameter below which so many percent of objects, or of their area, lie."""
    if not len(diameters):
        return {f"d{part}": float("nan") for part in QUANTILES}
    if not by_area:
        return {f"d{part}": float(np.quantile(diameters, part / 100)) for part in QUANTILES}
    order = np.sort(diameters)
    share = np.cumsum(order**2) / np.sum(order**2)
    return {f"d{part}": float(order[np.searchsorted(share, part / 100)]) for part in QUANTILES}


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def _aggregated_jaccard(pictures: Sequence[Overlaps]) -> float:
    """Sum over true objects the best-fitting found one; found ones that fit none count to the union."""
    common, union = 0, 0
    for one in pictures:
        best: dict[int, int] = {}
        for number in np.lexsort((one.pairs[:, 0], -one.iou)):
            best.setdefault(int(one.pairs[number, 1]), int(number))
        used = {int(one.pairs[number, 0]) for number in best.values()}
        for number in best.values():
            row, column = one.pairs[number]
            common += int(one.common[number])
            union += int(one.found[row] + one.true[column] - one.common[number])
        union += sum(int(area) for index, area in enumerate(one.true) if index not in best)
        union += sum(int(area) for index, area in enumerate(one.found) if index not in used)
    return _share(common, union)


def _panoptic_quality(pictures: Sequence[Overlaps], found: int, true: int) -> float:
    """Sum the IoU of pairs above 0.5, which are unique, over (found + true) / 2."""
    fits = [one.iou[one.iou > 0.5] for one in pictures]
    return _share(2 * float(sum(part.sum() for part in fits)), found + true)


def _size_errors(pictures: Sequence[Overlaps]) -> dict[str, tuple[float, float, float]]:
    if not pictures:
        return {}
    found, true = (
        quantiles(equivalent_diameter(np.concatenate(areas)))
        for areas in ([one.found for one in pictures], [one.true for one in pictures])
    )
    return {name: (found[name], true[name], (found[name] - true[name]) / true[name]) for name in found}
