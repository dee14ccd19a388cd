"""Manifests and states compared: what differs between two runs, and which inputs changed since a run began."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inkbatch.config import is_digest
from inkbatch.io.store.location import Location
from inkbatch.io.store.versions import changes

OUTSIDE_DIGEST = frozenset({"digest", "request", "state"})  # keys of a manifest
NAMED = 6  # differences of two manifests that a refusal names


def differences(one: Any, other: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """List what differs between two manifests (or parts of them), except digests, requests and states.

    Returns:
        ``(dotted key, value in one, value in the other)``; None stands for what is missing.
    """
    if isinstance(one, dict) and isinstance(other, dict):
        rows: list[tuple[str, Any, Any]] = []
        for key in sorted({*one, *other} - (OUTSIDE_DIGEST if not path else set())):
            rows += differences(one.get(key), other.get(key), f"{path}.{key}" if path else str(key))
        return rows
    if _tables(one) and _tables(other) and len(one) == len(other):
        return [
            row for at, (a, b) in enumerate(zip(one, other, strict=True)) for row in differences(a, b, f"{path}.{at}")
        ]
    return [] if one == other else [(path, one, other)]


def listed(rows: Sequence[tuple[str, Any, Any]]) -> str:
    """Say what differs between two manifests: a digest tells people nothing but that the content is another."""
    said = [
        f"{key}: other content" if is_digest(there) and is_digest(here) else f"{key}: there {there!r}, here {here!r}"
        for key, there, here in rows[:NAMED]
    ]
    more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    return ", ".join(said) + more


def state_changes(then: Any, now: Mapping[str, Any]) -> list[str]:
    """Name the inputs whose state differs between a stored manifest and now, of those that both know."""
    rows = []
    for key, state in sorted(now.items()):
        before = then.get(key) if isinstance(then, dict) else None
        if before is None or before == state:
            continue
        if isinstance(before, dict) and isinstance(state, dict):
            said = changes(before, state)
            rows += [f"{key}: {said}"] if said else []
        else:
            rows.append(f"{key}: was made again, with other content")
    return rows


def content_of(folder: Location) -> str | None:
    """Return the content digest of a complete run; None where an older version made it, or it is not complete."""
    content = ((folder / "complete.json").find_mapping() or {}).get("content")
    return content if isinstance(content, str) else None


def contents_now(folders: Mapping[str, Location]) -> dict[str, str | None]:
    """Return the content digests of runs as they are now, for `RunManifest.now`; None where one is not whole."""
    return {key: content_of(folder) for key, folder in folders.items()}


def states_of(folders: Mapping[str, Location]) -> dict[str, Any]:
    """Collect the content digests of the runs that a job reads, for the state of its manifest; without older ones."""
    found = {key: content_of(folder) for key, folder in folders.items()}
    return {key: content for key, content in found.items() if content is not None}


def _tables(value: Any) -> bool:
    """Tell if it is a list of mappings, such as the members of an ensemble."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)
