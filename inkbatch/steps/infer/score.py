"""``score.json``: scores of a finished ink map whose labels are known, stored beside it for its page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from inkbatch.data.maps.comparison import Comparison, open_comparison
from inkbatch.data.maps.scoring import DEFAULT_THRESHOLD, threshold_of
from inkbatch.data.maps.truth import TruthChoice
from inkbatch.errors import CorruptDataError, NoLabelsError
from inkbatch.io.store.location import Location
from inkbatch.run.record import SCORE_NAME
from inkbatch.text import share_text


def leave_score(folder: Location, root: str, segment: str, choice: TruthChoice, note: Callable[[str], None]) -> bool:
    """Compare a finished map with its labels, and store the scores; a failure is noted and ends nothing.

    Args:
        folder: The map's folder.
        root: ROOT.
        segment: Segment of the map.
        choice: Its labels.
        note: Shows a line to the user.

    Returns:
        True if there is a new score, of the pixels that did not train the network; False if no labels are known, or
        the stored score is of these very ones.
    """
    try:
        comparison = open_comparison(root, segment, [folder.uri], choice)
    except NoLabelsError:
        return False
    except Exception as error:
        return _failed(folder, error, note)
    with comparison:
        before = stored_score(folder)
        if before is not None and before["of"] == _identity(comparison):
            return False
        if before is None and (folder / SCORE_NAME).exists():
            note(f"score: {folder / SCORE_NAME} is damaged and made again")
        try:
            score = score_of(comparison)
        except Exception as error:  # the map is complete, whatever its labels are
            return _failed(folder, error, note)
    if score is None:
        return False
    (folder / SCORE_NAME).write_json(score)
    return True


def stored_score(folder: Location) -> dict[str, Any] | None:
    """Read what `leave_score` stored; None if there is nothing, or a damaged file, which is made again."""
    try:
        found: dict[str, Any] = (folder / SCORE_NAME).read_mapping()
    except (FileNotFoundError, CorruptDataError):
        return None
    return found


def score_of(comparison: Comparison) -> dict[str, Any] | None:
    """Score the first map over the pixels that count; None if these hold no ink, or nothing else.

    Pixels that trained its network do not count; where no others are labelled, the scores are None.

    Raises:
        DataError: Map or labels are damaged.
    """
    (total, trained), own = comparison.total(), comparison.maps[0].threshold
    is_scored = bool(total.ink.sum() and total.bare.sum())
    if not is_scored and not trained:
        return None
    best, at = total.best_f_beta() if is_scored else (None, None)
    return {
        "labels": comparison.truth.place,
        "labels_made_from": comparison.truth.made_from,
        "of": _identity(comparison),
        "counted_px": int(total.counted),
        "trained_share": trained,
        "threshold": own,
        "f05": total.f_beta(threshold_of(own)) if is_scored else None,
        "best_threshold": at,
        "best_f05": best,
        "auc": total.auc() if is_scored else None,
    }


def score_line(score: Mapping[str, Any]) -> str:
    """Write a stored score as one line."""
    own = score["threshold"]
    share = score.get("trained_share", 0)
    trained = f"{share_text(share)} of the labelled pixels trained this network" if share else ""
    if score["best_f05"] is None:
        return f"against {score['labels']}: no score, {trained}, and the others are not of both kinds"
    at = f"{DEFAULT_THRESHOLD:.2f}" if own is None else f"the bundle's threshold {own:.2f}"
    return (
        f"against {score['labels']}: F0.5 {score['f05']:.3f} at {at} "
        f"(best {score['best_f05']:.3f} at {score['best_threshold']:.2f}), AUC {score['auc']:.3f}"
        + (f"; {trained} and are left out" if trained else "")
    )


def _identity(comparison: Comparison) -> Any:
    """Map and labels by their digests, as JSON gives them back."""
    return json.loads(json.dumps(comparison.identity))


def _failed(folder: Location, error: Exception, note: Callable[[str], None]) -> bool:
    note(
        f"score: the map at {folder} is complete, but could not be compared with its labels "
        f"({type(error).__name__}: {error}); fix this, then run inkbatch evaluate"
    )
    return False
