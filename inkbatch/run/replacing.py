"""``--replace``: remove what another run left at a place, and say so first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from inkbatch.errors import ConfigError, DataError
from inkbatch.io.store.listing import objects_below
from inkbatch.io.store.location import Location
from inkbatch.run.identity import ShardSpec
from inkbatch.run.record import BESIDE, REPORT_NAME, SCORE_NAME, RunFolder, report_place
from inkbatch.text import bytes_text, count_text

CHOSEN_FOLDERS = frozenset({"evaluate", "infer-pictures"})  # jobs whose folder may be a user's own, with other files


def remove_other(run: RunFolder, shard: ShardSpec, note: Callable[[str], None]) -> None:
    """Remove what lies at a run's place, unless it is this very run from these very inputs.

    The manifest goes last: a process that is killed in between leaves what the next ``--replace`` can finish.

    Args:
        run: The run that is to take the place.
        shard: This process's share; several would remove what another one has just written.
        note: Says what is removed.

    Raises:
        ConfigError: One of several shards.
    """
    manifest = _manifest(run)
    if manifest is not None and manifest.get("digest") == run.manifest.digest and _same_state(manifest, run):
        return
    places = outputs_of(run, manifest)
    found = [(place, objects_below(place)) for place in places]
    count = sum(len(rows) or int(place.exists()) for place, rows in found)
    if not count:
        return
    if shard.count > 1:
        raise ConfigError(
            f"{run.location}: --replace with {shard.count} shards would remove what another one has just written; run "
            "the job once without shards, or remove the old result by such a run first"
        )
    size = sum(row.bytes for _, rows in found for row in rows)
    named = ", ".join(str(place) for place, rows in found if rows or place.exists())
    note(f"--replace: removing {count_text(count, 'object')} ({bytes_text(size)}) at {named}")
    (run.location / "complete.json").delete()
    for place, rows in found:
        if rows:
            place.delete_folder()
        else:
            place.delete()
    (run.location / "manifest.json").delete()


def outputs_of(run: RunFolder, manifest: dict[str, Any] | None) -> list[Location]:
    """List the places of all that a run stored, its own folder last."""
    job, folder = run.manifest.job, run.location
    beside = [folder.parent / name for name in BESIDE.get(job, ())]
    if job == "prepare":
        beside.append(report_place(folder, job))
    if job not in CHOSEN_FOLDERS:
        return [*beside, folder]
    if manifest is None:
        return []
    names = [name for name in folder.names() if _is_ours(name)]
    return [*(folder / path for path in sorted(_recorded(folder))), *(folder / name for name in names)]


def _is_ours(name: str) -> bool:
    return name in ("done", "counts", REPORT_NAME, SCORE_NAME) or (name.startswith("run") and name.endswith(".json"))


def _recorded(folder: Location) -> set[str]:
    """Return the paths that markers and ``complete.json`` name."""
    paths: set[str] = set()
    documents = [folder / "done" / name for name in (folder / "done").names()] + [folder / "complete.json"]
    for place in documents:
        try:
            found = place.read_json()
        except (FileNotFoundError, DataError):
            continue
        if isinstance(found, dict):
            paths |= {*found.get("objects", ()), *found.get("files", ())}
    return paths


def _manifest(run: RunFolder) -> dict[str, Any] | None:
    try:
        found = (run.location / "manifest.json").read_json()
    except (FileNotFoundError, DataError):
        return None
    return found if isinstance(found, dict) else None


def _same_state(manifest: dict[str, Any], run: RunFolder) -> bool:
    return dict(manifest.get("state") or {}) == dict(run.manifest.state)
