"""Answers of a promptable network to the proposals of one unit, stored as one ``.npz``."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.instances.ascent import Bools
from inkbatch.data.instances.proposals import Proposal
from inkbatch.data.instances.selection import REASONS, Answer, Instance, Kept, Larger, Reason, Rejection
from inkbatch.errors import CorruptDataError
from inkbatch.geometry import Box
from inkbatch.io.npz import read_npz
from inkbatch.io.store.location import Location

REFINED = "refined"
FIRST_PASS: dict[str, type[Larger | Kept]] = {"larger": Larger, "kept": Kept}
STORED = ("numbers", "ends", "boxes", "scores", "masks", "shown")


def store_answers(place: Location, numbers: Sequence[int], answers: Sequence[Answer], shown: Sequence[Bools]) -> int:
    """Write answers; equal ones give equal bytes.

    Args:
        place: The file.
        numbers: Per answer: the place of its proposal in the picture's list.
        answers: The answers.
        shown: Per instance among them: (box.height, box.width), True where the map shows object.

    Returns:
        Bytes.
    """
    found = [one for one in answers if isinstance(one, Instance)]
    arrays: dict[str, Any] = {
        "numbers": np.array(numbers, np.int64),
        "ends": np.array([_end(one) for one in answers], f"<U{max(map(len, (*REASONS, *FIRST_PASS, REFINED)))}"),
        "boxes": np.array([(b.y0, b.x0, b.y1, b.x1) for b in (one.box for one in found)], np.int64).reshape(-1, 4),
        "scores": np.array([one.score for one in found], np.float64),
        "masks": _packed(one.mask for one in found),
        "shown": _packed(shown),
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    place.write_bytes(buffer.getvalue())
    return buffer.tell()


def read_answers(place: Location, proposals: Sequence[Proposal]) -> Iterator[tuple[int, Answer, Bools | None]]:
    """Read stored answers: the place of each one's proposal, the answer, and where the map shows object in its box.

    Args:
        place: The file.
        proposals: All of the picture.

    Raises:
        CorruptDataError: They are damaged, or belong to other proposals.
    """
    arrays = read_npz(place, "answers of a network", "delete it and run the same command again", STORED)
    try:
        boxes = [Box(*row) for row in arrays["boxes"].tolist()]
        masks, shown = (_unpacked(arrays[name], boxes) for name in ("masks", "shown"))
        found = iter(zip(boxes, masks, arrays["scores"].tolist(), shown, strict=True))
        for number, end in zip(arrays["numbers"].tolist(), arrays["ends"].tolist(), strict=True):
            proposal = proposals[number]
            if end == REFINED:
                box, mask, score, object_pixels = next(found)
                yield number, Instance(box, mask, score, proposal), object_pixels
            else:
                of_first_pass = FIRST_PASS.get(end)
                yield number, of_first_pass(proposal) if of_first_pass else Rejection(proposal, cast(Reason, end)), None
    except (ValueError, KeyError, IndexError, TypeError, StopIteration) as error:
        raise CorruptDataError(
            f"{place}: these answers are damaged, or belong to other proposals; run inkbatch instances with --replace"
        ) from error


def _end(one: Answer) -> str:
    if isinstance(one, Rejection):
        return one.reason
    return next((end for end, kind in FIRST_PASS.items() if isinstance(one, kind)), REFINED)


def _packed(masks: Iterable[Bools]) -> NDArray[np.uint8]:
    return np.concatenate([np.zeros(0, np.uint8), *(np.packbits(mask) for mask in masks)])


def _unpacked(data: NDArray[np.uint8], boxes: Sequence[Box]) -> list[Bools]:
    sizes = [-(-box.area // 8) for box in boxes]
    if sum(sizes) != len(data):
        raise ValueError(f"expected {sum(sizes)} bytes of masks, got {len(data)}")
    parts = np.split(data, np.cumsum(sizes)[:-1]) if boxes else []
    return [
        np.unpackbits(part, count=box.area).reshape(box.shape).astype(bool)
        for part, box in zip(parts, boxes, strict=True)
    ]
