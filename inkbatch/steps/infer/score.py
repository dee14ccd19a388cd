"""``score.json``: how good a finished ink map is where somebody knows its labels; lies beside it, for its page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from inkbatch.data.maps.scoring import ScoreHistogram
from inkbatch.errors import NoLabelsError
from inkbatch.io.store.location import Location
from inkbatch.run.record import SCORE_NAME
from inkbatch.steps.evaluate.job import DEFAULT_THRESHOLD, UNITS_AHEAD, EvaluateConfig, EvaluatePlan, count, make_plan


def leave_score(folder: Location, config: EvaluateConfig, note: Callable[[str], None]) -> bool:
    """Compare a finished map with its labels, and store what was found; a failure is said aloud and ends nothing.

    Args:
        folder: The map's folder.
        config: Names the map, and who knows its labels.
        note: Says something to whoever watches the job.

    Returns:
        Whether there is a new score: False where no labels are known, or the stored score is of these very ones.
    """
    try:
        plan = make_plan(config)
    except NoLabelsError:
        return False
    except Exception as error:
        return _failed(folder, error, note)
    with plan.truth:
        before = stored_score(folder)
        if before is not None and before["of"] == _compared(plan):
            return False
        try:
            score = score_of(plan)
        except Exception as error:  # the map is whole, whatever its labels are
            return _failed(folder, error, note)
    if score is None:
        return False
    (folder / SCORE_NAME).write_json(score)
    return True


def stored_score(folder: Location) -> dict[str, Any] | None:
    """What `leave_score` stored; None where there is nothing."""
    try:
        found: dict[str, Any] = (folder / SCORE_NAME).read_json()
    except FileNotFoundError:
        return None
    return found


def score_of(plan: EvaluatePlan) -> dict[str, Any] | None:
    """The scores of the first map over all pixels that count; None where these hold no ink, or nothing else.

    Raises:
        DataError: Map or labels are damaged.
    """
    total, own = whole(plan), plan.maps[0].threshold
    if not total.ink.sum() or not total.bare.sum():
        return None
    best, at = total.best_f_beta()
    return {
        "labels": plan.truth.place,
        "labels_made_from": plan.truth.made_from,
        "of": _compared(plan),
        "counted_px": int(total.counted),
        "threshold": own,
        "f05": total.f_beta(DEFAULT_THRESHOLD if own is None else own),
        "best_threshold": at,
        "best_f05": best,
        "auc": total.auc(),
    }


def whole(plan: EvaluatePlan) -> ScoreHistogram:
    """Counts of all pixels that count, for the first map; nothing is written."""
    total = ScoreHistogram()
    with ThreadPoolExecutor(UNITS_AHEAD, thread_name_prefix="inkbatch-count") as threads:
        for counts in threads.map(lambda unit: count(plan, unit)[0].sum(axis=0, dtype=np.int64), plan.units):
            bare, ink = counts
            total.merge(ScoreHistogram(ink, bare))
    return total


def score_line(score: Mapping[str, Any]) -> str:
    """A stored score as one line."""
    own = score["threshold"]
    at = f"{DEFAULT_THRESHOLD:.2f}" if own is None else f"the bundle's threshold {own:.2f}"
    return (
        f"against {score['labels']}: F0.5 {score['f05']:.3f} at {at} "
        f"(best {score['best_f05']:.3f} at {score['best_threshold']:.2f}), AUC {score['auc']:.3f}"
    )


def _compared(plan: EvaluatePlan) -> Any:
    """Map and labels by their digests, as JSON gives them back."""
    return json.loads(json.dumps(plan.manifest.inputs))


def _failed(folder: Location, error: Exception, note: Callable[[str], None]) -> bool:
    note(
        f"score: the map at {folder} is whole, but could not be compared with its labels "
        f"({type(error).__name__}: {error}); put that right and run inkbatch evaluate"
    )
    return False
