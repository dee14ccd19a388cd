"""Verdict on two compared maps, from the intervals of their differences: said in the terminal and on the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inkbatch.data.maps.bootstrap import shown_sign

FEW_BLOCKS = 20  # of the bootstrap: below it the intervals are rough


def better_map(names: Sequence[str], score: Mapping[str, Any]) -> str | None:
    """Name the map that one score finds better; None if its interval holds 0 or is unknown.

    Args:
        names: Of the first and the second map.
        score: ``low`` and ``high`` of the interval of first minus second, None where they are unknown.
    """
    sign = shown_sign(score["low"], score["high"])
    return {1: names[0], 0: None, -1: names[1]}[sign]


def verdict(names: Sequence[str], scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Sum up all scores in one sentence.

    Args:
        names: Of the first and the second map.
        scores: See `better_map`, by name.
    """
    better = [found for found in (better_map(names, score) for score in scores.values()) if found is not None]
    if not better:
        return "No score tells the two maps apart: it may be chance."
    if len(set(better)) > 1:
        return "The scores contradict each other."
    if len(better) == len(scores):
        return f"{better[0]} is better by every score."
    return f"{better[0]} is better by {len(better)} of {len(scores)} scores; the others leave it open."


def is_rough(comparison: Mapping[str, Any]) -> bool:
    """Tell if the intervals are rough because few blocks have pixels that count."""
    return bool(comparison["blocks"] < FEW_BLOCKS)
