"""Evaluations of pictures and of objects that are stored already: one with other settings is not replaced unasked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inkbatch.errors import MismatchError
from inkbatch.io.store.location import Location

DOCUMENT = "evaluation.json"


def require_same_settings(place: Location, settings: Mapping[str, Any], *, replace: bool) -> list[str]:
    """Compare settings with those that a stored evaluation states.

    A folder that holds the evaluation itself is no difference: it may have been moved or copied with it.

    Args:
        place: Folder of the evaluation.
        settings: As its document states them, by name.
        replace: Let another one be replaced.

    Returns:
        A line for people where one with other settings is to be replaced, else none.

    Raises:
        MismatchError: An evaluation with other settings is there.
    """
    found = (place / DOCUMENT).find_mapping() or {}
    differing = [
        f"{key}: there {found[key]!r}, here {value!r}"
        for key, value in settings.items()
        if key in found and found[key] != value and not place.uri.startswith(f"{value}/")
    ]
    if not differing:
        return []
    if not replace:
        raise MismatchError(
            f"{place}: holds an evaluation with other settings ({', '.join(differing)}); choose another folder (--to), "
            "or give --replace, which removes what is there"
        )
    return [f"--replace: removed the evaluation at {place}"]
