"""The frozen yardstick of a series of rounds: scores of a round's map, and the verdict against the round before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from inkbatch.data.maps.bootstrap import BlockCounts, Difference, compare, group_starts, shown_sign
from inkbatch.data.maps.scoring import ALARMS, ScoreHistogram
from inkbatch.errors import DataError

VerdictName = Literal["first", "better", "no difference that can be shown", "worse"]
ScoreName = Literal["f05", "average_precision", "auc"]
BETA = 0.5


@dataclass(frozen=True)
class Measured:
    """Counts of one map on the yardstick.

    Attributes:
        threshold: Fitted on labels outside of the yardstick.
        blocks: Counts of each block, in the yardstick's order.
    """

    threshold: float
    blocks: Sequence[ScoreHistogram]

    @property
    def total(self) -> ScoreHistogram:
        """All blocks together."""
        total = ScoreHistogram()
        for block in self.blocks:
            total.merge(block)
        return total

    @property
    def scores(self) -> dict[str, float]:
        """F0.5 at the threshold, average precision, AUC, and alarms on blank ground."""
        return scores_of(self.total, self.threshold)


def scores_of(total: ScoreHistogram, threshold: float) -> dict[str, float]:
    """Score counts at a threshold; see `Measured.scores`."""
    return {
        "f05": total.f_beta(threshold, BETA),
        "average_precision": total.average_precision(),
        "auc": total.auc(),
        ALARMS: total.alarms_at_recall()[1],
    }


def require_judge(filled: int, *, has_ink: bool) -> None:
    """Refuse a yardstick that cannot judge.

    Args:
        filled: Blocks of the bootstrap with pixels that count.
        has_ink: Some of these pixels are ink.

    Raises:
        DataError: They are fewer than two, or without ink.
    """
    if filled < 2 or not has_ink:
        raise DataError(
            f"yardstick: expected ink, and at least two blocks of the bootstrap with labels, got {filled}; label more "
            "of it before the first round, or make yardstick.region_px smaller"
        )


def difference(now: Measured, before: Measured, draws: int, level: float, seed: int) -> Mapping[ScoreName, Difference]:
    """Compare two maps on the same blocks by a paired bootstrap.

    Raises:
        DataError: See `require_judge`.
    """
    filled = [place for place, block in enumerate(now.blocks) if block.counted]
    require_judge(len(filled), has_ink=bool(now.total.ink.any()))
    counted = []
    for one in (now, before):
        counts = BlockCounts({"f05": one.threshold}, BETA, group_starts(one.total))
        for place in filled:
            counts.add(one.blocks[place])
        counted.append(counts)
    found = compare(counted, [now.scores, before.scores], draws, level, seed)
    names: tuple[ScoreName, ...] = ("f05", "average_precision", "auc")
    return {name: found[name] for name in names}


def verdict_of(difference: Difference | None) -> VerdictName:
    """Say what the interval of now minus before says; None is the first round."""
    if difference is None:
        return "first"
    verdicts: dict[int, VerdictName] = {1: "better", 0: "no difference that can be shown", -1: "worse"}
    return verdicts[shown_sign(difference.low, difference.high)]


def stopped_because(verdicts: Sequence[VerdictName], patience: int) -> str | None:
    """Say why no further round should follow; None if one may.

    Args:
        verdicts: Of all rounds so far, in order.
        patience: Rounds in a row that may pass without being better.
    """
    last = list(verdicts)[-patience:]
    if len(last) < patience or any(one in ("first", "better") for one in last):
        return None
    return "the last round was not better" if patience == 1 else f"none of the last {patience} rounds was better"


def as_document(found: Mapping[ScoreName, Difference]) -> dict[str, Any]:
    """Return the stored form of differences."""
    return {name: one.document for name, one in found.items()}
