"""No pixel that a training sample sees lies in a validation sample's tile: found, dropped or refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.datasets.index import Sample
from inkbatch.errors import DataError

Boxes = NDArray[np.int64]
TABLE_CELLS = 8_000_000  # above that, boxes are compared pair by pair
PAIRS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Leaks:
    """Training samples that show pixels of held-out ones.

    Attributes:
        training: Their ids.
        example: Ids of one of them and of a held-out sample that it shows; empty where there are none.
        copies: Ids of two segments that show the same pixels, where that made the example; else empty.
    """

    training: frozenset[str] = frozenset()
    example: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()


def find_leaks(
    training: Iterable[Sample], held_out: Iterable[Sample], surface_of: Mapping[str, str], context_px: int
) -> Leaks:
    """Find every training sample that shows a pixel of a held-out sample.

    Args:
        training: Samples that train; of stitched pairs both parts count.
        held_out: Samples that validate or test.
        surface_of: By segment id: what names its surface; segments with one surface share pixels.
        context_px: Pixels around a training sample that augmentation may show.
    """
    training, held_out = list(training), list(held_out)
    seen, kept = shown_boxes(training, surface_of), shown_boxes(held_out, surface_of)
    names: set[str] = set()
    example: tuple[str, ...] = ()
    for surface in sorted(set(kept) & set(seen)):
        (ids, boxes), (others, tiles) = seen[surface], kept[surface]
        leaking = np.flatnonzero(touching(boxes, tiles, context_px))
        names |= {ids[place] for place in leaking.tolist()}
        if len(leaking) and not example:
            first = int(leaking[0])
            shown = int(np.flatnonzero(pairwise(tiles, boxes[first : first + 1], context_px))[0])
            example = ids[first], others[shown]
    return Leaks(frozenset(names), example, _copies(example, training, held_out, surface_of))


def _copies(
    example: tuple[str, ...], training: Sequence[Sample], held_out: Sequence[Sample], surface_of: Mapping[str, str]
) -> tuple[str, ...]:
    """Name the two segments of one surface behind an example; empty if both samples lie in one segment."""
    if not example:
        return ()
    shown, hidden = (
        {segment for sample in samples if sample.id == name for segment, _ in sample.sources}
        for name, samples in zip(example, (training, held_out), strict=True)
    )
    if shown & hidden:
        return ()
    return next(
        (own, other) for own in sorted(shown) for other in sorted(hidden) if surface_of[own] == surface_of[other]
    )


SPLIT_OTHERWISE = (
    "split by segment or by blocks, sample a grid with stride_px = sample_px and border: left-out, or set overlap: drop"
)


def require_no_leaks(leaks: Leaks, what: str, context_px: int, cure: str = SPLIT_OTHERWISE) -> None:
    """Refuse a dataset whose training samples see held-out pixels; `cure` says what to do about it.

    Raises:
        DataError: There are leaks; one is named.
    """
    if not leaks.training:
        return
    context = f" (with {context_px} px of context)" if context_px else ""
    if leaks.copies:
        both = " and ".join(leaks.copies)
        cure = f"{both} are copies of one surface or picture: leave one out, or keep both in one split"
    raise DataError(
        f"{what}: {len(leaks.training)} samples see pixels{context} of held-out ones, for example "
        f"{leaks.example[0]} of {leaks.example[1]}; {cure}"
    )


def touching(boxes: Boxes, others: Boxes, gap_px: int = 0) -> NDArray[np.bool_]:
    """Find the boxes that overlap any of `others`, or come nearer to one than `gap_px`.

    Args:
        boxes: (n, 4): y0, x0, y1, x1, none empty.
        others: (m, 4), none empty.
        gap_px: Smallest allowed gap along both axes; 0 allows neighbours that share an edge.
    """
    if not len(boxes) or not len(others):
        return np.zeros(len(boxes), bool)
    edges_y, edges_x = np.unique(others[:, 0::2]), np.unique(others[:, 1::2])
    if len(edges_y) * len(edges_x) > TABLE_CELLS:
        return pairwise(boxes, others, gap_px)
    return _by_table(boxes, others, gap_px, edges_y, edges_x)


def _by_table(boxes: Boxes, others: Boxes, gap_px: int, edges_y: Boxes, edges_x: Boxes) -> NDArray[np.bool_]:
    """Look the boxes up in a summed-area table of the covered cells between the edges of `others`."""
    cover = np.zeros((len(edges_y), len(edges_x)), np.int32)
    y0, y1 = (np.searchsorted(edges_y, others[:, column]) for column in (0, 2))
    x0, x1 = (np.searchsorted(edges_x, others[:, column]) for column in (1, 3))
    for rows, columns, sign in ((y0, x0, 1), (y1, x0, -1), (y0, x1, -1), (y1, x1, 1)):
        np.add.at(cover, (rows, columns), sign)
    covered = cover.cumsum(axis=0).cumsum(axis=1) > 0
    table = np.zeros((len(edges_y) + 1, len(edges_x) + 1), np.int64)
    table[1:, 1:] = covered.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    top = _first_cell(edges_y, boxes[:, 0] - gap_px)
    left = _first_cell(edges_x, boxes[:, 1] - gap_px)
    bottom = np.maximum(np.searchsorted(edges_y, boxes[:, 2] + gap_px), top)
    right = np.maximum(np.searchsorted(edges_x, boxes[:, 3] + gap_px), left)
    found: NDArray[np.bool_] = (table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left]) > 0
    return found


def _first_cell(edges: Boxes, starts: Boxes) -> NDArray[np.int64]:
    """Return the cell that holds each start; the first one for starts before all cells."""
    found: NDArray[np.int64] = np.maximum(np.searchsorted(edges, starts, side="right") - 1, 0)
    return found


def pairwise(boxes: Boxes, others: Boxes, gap_px: int) -> NDArray[np.bool_]:
    """Find the boxes that touch any other one, widened by a gap, by comparing all with all; bool (boxes,)."""
    found = np.zeros(len(boxes), bool)
    step = max(1, PAIRS_AT_ONCE // len(others))
    for start in range(0, len(boxes), step):
        part = boxes[start : start + step, None]
        hits = (part[..., 0] - gap_px < others[:, 2]) & (part[..., 2] + gap_px > others[:, 0])
        hits &= (part[..., 1] - gap_px < others[:, 3]) & (part[..., 3] + gap_px > others[:, 1])
        found[start : start + step] = hits.any(axis=1)
    return found


def shown_boxes(samples: Iterable[Sample], surface_of: Mapping[str, str]) -> dict[str, tuple[list[str], Boxes]]:
    """Return ids and boxes (n, 4) of all that samples show, by surface; both halves of pairs."""
    rows: dict[str, tuple[list[str], list[Sequence[int]]]] = {}
    for sample in samples:
        shown = [(sample.segment, sample.box)] if sample.parts is None else [(p.segment, p.box) for p in sample.parts]
        for segment, box in shown:
            ids, boxes = rows.setdefault(surface_of[segment], ([], []))
            ids.append(sample.id)
            boxes.append(box)
    return {surface: (ids, np.array(boxes, np.int64)) for surface, (ids, boxes) in rows.items()}
