"""Blocks of a series of rounds: the yardstick and the folds, dealt once and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inkbatch.data.datasets.listed_blocks import BlockHome
from inkbatch.data.segments import stable_random as chance
from inkbatch.errors import ConfigError, DataError
from inkbatch.geometry import Box

Place = tuple[str, int, int]
Homes = dict[str, tuple[tuple[int, int, BlockHome], ...]]
TEST: BlockHome = "test"


@dataclass(frozen=True)
class BlockLabels:
    """Labels of one block.

    Attributes:
        counted: Pixels that count.
        ink: Those of them that are ink.
    """

    counted: int
    ink: int


def deal_blocks(
    blocks: Mapping[Place, BlockLabels],
    *,
    folds: int,
    by_segment: bool,
    kept_out: Sequence[str],
    share: float,
    seed: int,
    known: Mapping[str, Sequence[tuple[int, int, BlockHome]]] | None = None,
) -> Homes:
    """Deal blocks to the yardstick and to folds; the same blocks and settings give the same homes.

    Args:
        blocks: By (segment, row, column): the labels of every block.
        folds: Number of folds.
        by_segment: All blocks of a segment are in one fold.
        kept_out: Segments that are the yardstick as a whole.
        share: Share of the labelled blocks of the others that are the yardstick, spread over all shares of ink; above
            0 it takes at least one where no segment is kept out.
        seed: Of chance.
        known: Homes of an earlier round: they stay, and segments that came later give nothing to the yardstick.

    Raises:
        ConfigError: Fewer segments than folds, or nothing is kept out.
        DataError: No labels with ink on the yardstick or in a fold.
    """
    homes: dict[Place, BlockHome] = {
        (segment, row, column): home for segment, rows in (known or {}).items() for row, column, home in rows
    }
    free = [place for place in blocks if place not in homes]
    homes |= {place: TEST for place in free if place[0] in kept_out}
    ranked = sorted(
        (place for place in free if place not in homes and blocks[place].counted),
        key=lambda place: (-blocks[place].ink / blocks[place].counted, chance.number(seed, "block", *place)),
    )
    if known is None:
        homes |= dict.fromkeys(_kept_out(ranked, blocks, share, 0 if kept_out else 1), TEST)
    rest = [place for place in free if place not in homes]
    homes |= _by_segment(rest, folds, seed, homes) if by_segment else _by_block(rest, ranked, folds, seed)
    if TEST not in homes.values():
        raise ConfigError(
            "yardstick: expected labelled papyrus that is kept out, got none; raise yardstick.share, or name "
            "yardstick.segments"
        )
    # Labels of the yardstick are those of the first round, whatever became of them since.
    _require_ink(blocks, homes, [*([TEST] if known is None else []), *range(folds)])
    return _listed(homes)


def _kept_out(ranked: Sequence[Place], blocks: Mapping[Place, BlockLabels], share: float, least: int) -> list[Place]:
    """Take a share of the labelled blocks, one from the middle of each stretch of them, and one with ink.

    Args:
        ranked: The labelled blocks, those with the most ink first.
        blocks: Labels of every block.
        share: The share; 0 takes none.
        least: Blocks to take where the share is less.
    """
    if not share or not ranked:
        return []
    count = max(least, round(len(ranked) * share))
    picked = [ranked[(2 * number + 1) * len(ranked) // (2 * count)] for number in range(count)]
    inked = [place for place in ranked if blocks[place].ink]
    if picked and inked and not blocks[picked[0]].ink:
        picked[0] = inked[len(inked) // 2]
    return picked


def _by_segment(
    rest: Sequence[Place], folds: int, seed: int, taken: Mapping[Place, BlockHome]
) -> dict[Place, BlockHome]:
    begun = {place[0]: home for place, home in taken.items() if home != TEST}
    segments = chance.shuffled(sorted({segment for segment, _, _ in rest if segment not in begun}), seed, "folds")
    if len(segments) + len(begun) < folds:
        raise ConfigError(
            f"folds: expected a segment for each of {folds} folds beside the yardstick, got "
            f"{len(segments) + len(begun)}; set folds.by: blocks, or lower folds.count"
        )
    first = len(begun)
    of = {**begun, **{segment: (first + number) % folds for number, segment in enumerate(segments)}}
    return {place: of[place[0]] for place in rest}


def _by_block(rest: Sequence[Place], ranked: Sequence[Place], folds: int, seed: int) -> dict[Place, BlockHome]:
    """Deal those with labels first, by their share of ink, so that every fold gets its part of each."""
    free = set(rest)
    first = [place for place in ranked if place in free]
    order = [*first, *chance.shuffled(sorted(free - set(first)), seed, "bare")]
    found: dict[Place, BlockHome] = {}
    for start in range(0, len(order), folds):
        numbers = chance.shuffled(range(folds), seed, "folds", start)
        found |= dict(zip(order[start : start + folds], numbers, strict=False))
    return found


def _require_ink(
    blocks: Mapping[Place, BlockLabels], homes: Mapping[Place, BlockHome], wanted: Sequence[BlockHome]
) -> None:
    for home in wanted:
        if not any(blocks[place].ink for place, found in homes.items() if found == home and place in blocks):
            what = "the yardstick" if home == TEST else f"fold {home}"
            raise DataError(
                f"{what}: expected labels with ink, got none; label some letters there, or lower folds.count or "
                "block_px"
            )


def _listed(homes: Mapping[Place, BlockHome]) -> Homes:
    segments = sorted({segment for segment, _, _ in homes})
    return {
        segment: tuple((row, column, home) for (name, row, column), home in sorted(homes.items()) if name == segment)
        for segment in segments
    }


def kept_out_boxes(homes: Sequence[tuple[int, int, BlockHome]], block_px: int, shape_yx: tuple[int, int]) -> list[Box]:
    """Return the yardstick's blocks of one segment, row-major."""
    whole = Box(0, 0, *shape_yx)
    found = [
        Box(row * block_px, column * block_px, (row + 1) * block_px, (column + 1) * block_px).intersect(whole)
        for row, column, home in homes
        if home == TEST
    ]
    return sorted(box for box in found if box.area)
