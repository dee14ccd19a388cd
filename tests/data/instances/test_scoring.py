"""Scores of instances, compared with slow ones that count pixel by pixel, and with known answers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from inkbatch.data.instances.proposals import first_pass_of, limits_of
from inkbatch.data.instances.scoring import IOUS, Overlaps, quantiles, score
from inkbatch.data.instances.settings import ProposalRules
from inkbatch.errors import MismatchError
from inkbatch.testing.instances import grain_map


def labels_of(seed: int) -> np.ndarray:
    return first_pass_of(grain_map((80, 90), 14, seed), limits_of(ProposalRules(reach=16), None))[1] + 1


def slow_scores(pictures) -> dict[str, float]:
    """The definitions, word by word, with masks as sets of pixels."""
    hits, found_count, true_count = dict.fromkeys(IOUS, 0), 0, 0
    common_px, union_px, quality = 0, 0, 0.0
    for found, true in pictures:
        one = [set(map(tuple, np.argwhere(found == i))) for i in np.unique(found) if i]
        other = [set(map(tuple, np.argwhere(true == i))) for i in np.unique(true) if i]
        found_count, true_count = found_count + len(one), true_count + len(other)
        iou = {
            (a, b): len(one[a] & other[b]) / len(one[a] | other[b])
            for a, b in itertools.product(range(len(one)), range(len(other)))
        }
        for least in IOUS:  # IoU above 0.5 makes pairs unique
            hits[least] += sum(value >= least for value in iou.values())
        quality += sum(value for value in iou.values() if value > 0.5)
        used = set()
        for b, pixels in enumerate(other):
            best = max(range(len(one)), key=lambda a: (iou[a, b], -a), default=None)
            if best is None or not iou[best, b]:
                union_px += len(pixels)
                continue
            used.add(best)
            common_px += len(one[best] & pixels)
            union_px += len(one[best] | pixels)
        union_px += sum(len(pixels) for a, pixels in enumerate(one) if a not in used)
    return {
        "ap": np.mean([hits[least] / (found_count + true_count - hits[least]) for least in IOUS]),
        "precision": hits[0.5] / found_count,
        "recall": hits[0.5] / true_count,
        "f1": 2 * hits[0.5] / (found_count + true_count),
        "aji": common_px / union_px,
        "pq": quality / ((found_count + true_count) / 2),
    }


def moved(labels: np.ndarray, by: int, without: int) -> np.ndarray:
    rolled = np.roll(labels, by, axis=1)
    return np.where(rolled == without, 0, rolled)


def test_scores_equal_those_counted_pixel_by_pixel():
    pictures = [(labels_of(0), moved(labels_of(0), 2, 3)), (labels_of(1), moved(labels_of(2), 1, 1))]
    found = score([Overlaps.of(*pair) for pair in pictures])
    for name, expected in slow_scores(pictures).items():
        assert getattr(found, name) == pytest.approx(expected, abs=1e-12), name
    assert 0.05 < found.ap < 0.95


def test_intersections_over_unions_are_those_of_pycocotools():
    found, true = labels_of(0), moved(labels_of(0), 2, 3)
    overlaps = Overlaps.of(found, true)

    def encoded(labels):
        masks = [labels == number for number in np.unique(labels) if number]
        return coco_mask.encode(np.asfortranarray(np.stack(masks, axis=2).astype(np.uint8)))

    table = coco_mask.iou(encoded(found), encoded(true), [0] * len(overlaps.true))
    expected = np.zeros_like(table)
    expected[tuple(overlaps.pairs.T)] = overlaps.iou
    np.testing.assert_allclose(table, expected, atol=1e-12)


def test_what_is_right_scores_one_and_what_is_empty_has_no_score():
    labels = labels_of(0)
    right = score([Overlaps.of(labels, labels)])
    assert (right.ap, right.ap75, right.f1, right.aji, right.pq) == (1, 1, 1, 1, 1)
    assert right.sizes["d50"][2] == 0
    nothing = score([Overlaps.of(np.zeros_like(labels), labels)])
    assert (nothing.ap, nothing.recall, nothing.pq, nothing.aji) == (0, 0, 0, 0)
    assert np.isnan(nothing.precision)


def test_two_halves_of_an_object_count_once():
    true = np.zeros((10, 10), int)
    true[2:8] = 1
    found = true.copy()
    found[5:8] = 2
    assert Overlaps.of(found, true).matched(0.5) == 1


def test_quantiles_by_area_weigh_large_objects():
    diameters = np.array([1.0] * 99 + [100.0])
    assert quantiles(diameters)["d84"] == 1
    assert quantiles(diameters, by_area=True)["d16"] == 100


def test_labels_of_another_size_are_refused():
    with pytest.raises(MismatchError, match=r"b: expected true labels of \(4, 5\)"):
        Overlaps.of(np.zeros((4, 5), int), np.zeros((5, 4), int), "b")
