"""`inkbatch rerun`: a finished job once more, from its manifest, into another ROOT; then the bytes are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from inkbatch.config import JobConfig
from inkbatch.errors import ConfigError, DataError, MismatchError
from inkbatch.io.store.listing import objects_below
from inkbatch.io.store.location import Location
from inkbatch.run.finished import StoredRun, open_run
from inkbatch.run.job import JobReport, RunContext
from inkbatch.run.record import RECORDED
from inkbatch.run.states import differences
from inkbatch.steps.provenance.repeatable import Repeatable, holds_no_clock, is_record, repeatable

COMPARED_BYTES = 8 << 20  # of each object at a time
SHOWN = 8  # differences that a message lists


@dataclass(frozen=True)
class RerunReport:
    """Result of a repeated run.

    Attributes:
        report: What the job did.
        objects: Stored objects that were compared: all that the repeated run made, except what holds a clock (run
            files, logs of training) and manifests, whose values were compared.
        bytes: Their size.
        unequal: Those that the first run stored with other bytes, or not at all.
        devices: What the first run and this one computed on.
    """

    report: JobReport
    objects: int
    bytes: int
    unequal: tuple[str, ...]
    devices: tuple[str, str]

    def require_equal(self) -> None:
        """Refuse bytes that differ.

        Raises:
            MismatchError: Some do; says what a reader can do next.
        """
        if self.unequal:
            first, again = self.devices
            why = "another device rounds otherwise" if first != again or first != "cpu" else "it should not be so"
            raise MismatchError(
                f"rerun: {len(self.unequal)} of {self.objects} stored objects differ ({_some(self.unequal)}); the "
                f"first run computed on {first}, this one on {again}: {why}; see inkbatch diff for how much"
            )


def rerun(
    manifest: str,
    root: str,
    context: RunContext,
    *,
    inputs_root: str | None = None,
    sets: Sequence[str] = (),
    anyway: bool = False,
) -> RerunReport:
    """Repeat a finished job, and compare what is stored.

    Args:
        manifest: The run's ``manifest.json`` or folder.
        root: ROOT of the repeated run; another one than the first run's.
        context: How this process runs.
        inputs_root: ROOT that holds what the job reads; None is the one that holds the manifest.
        sets: ``key=value`` in place of what was asked for then, for inputs that moved: ``bundle=…``, ``source=…``.
        anyway: Repeat it although code or inputs are not what the manifest states.

    Raises:
        ConfigError: A job that cannot be repeated, or the same ROOT.
        DataError: No finished run, or one that does not say what was asked for.
        MismatchError: Code, data or bundle are not what the manifest states; each difference is named.
    """
    first = open_run(manifest)
    first.require_complete()
    job = repeatable(first.job)
    config = _config(first, job, root, inputs_root, sets)
    runs = {found.location.name: found for found in job.plan(config)}
    planned = runs.get(first.folder.name, next(iter(runs.values())))
    folder = planned.location
    if folder == first.folder:
        raise ConfigError(f"rerun: {folder} is the run itself; give another --root for the repeated one")
    changed = differences(first.manifest, planned.manifest.document)
    if changed and not anyway:
        rows = "; ".join(f"{key}: then {then!r}, now {now!r}" for key, then, now in changed[:SHOWN])
        raise MismatchError(
            f"rerun: this would be another run than {first.folder}: {rows}; restore what changed (--set key=value "
            "names an input's new place), or pass --anyway and compare the two with inkbatch diff"
        )
    report = job.run(config, context)
    again = open_run(str(folder))
    objects, size, unequal = compare_outputs(first, again)
    return RerunReport(report, objects, size, unequal, (_device(first), _device(again)))


def request_yaml(manifest: str) -> str:
    """Dump the request as a YAML file for ``--config``; works for every job.

    Raises:
        DataError: See `open_run`; or the manifest does not say it.
    """
    run = open_run(manifest)
    text = yaml.safe_dump(_request(run), sort_keys=False, allow_unicode=True)
    return f"# inkbatch {run.job} --config THIS_FILE --root ROOT, of the run at {run.folder}\n{text}"


def compare_outputs(first: StoredRun, again: StoredRun) -> tuple[int, int, tuple[str, ...]]:
    """Compare, byte by byte and in bounded memory, everything that `again` stored with what `first` stored.

    Returns:
        Number of objects, their bytes, and the paths of those that differ.
    """
    count = size = 0
    unequal: list[str] = []
    for one, other in zip(first.outputs, again.outputs, strict=True):
        there = {row.path: row.bytes for row in objects_below(one)}
        for row in objects_below(other):
            if not holds_no_clock(row.path):
                continue
            count, size = count + 1, size + row.bytes
            if is_record(row.path):
                equal = row.path in there and _same_facts(one / row.path, other / row.path)
            else:
                same_size = there.get(row.path) == row.bytes
                equal = same_size and _same_bytes(one / row.path, other / row.path, row.bytes)
            if not equal:
                unequal.append(f"{other.name}/{row.path}")
    return count, size, tuple(unequal)


def _same_bytes(one: Location, other: Location, size: int) -> bool:
    for start in range(0, size, COMPARED_BYTES):
        stop = min(size, start + COMPARED_BYTES)
        if one.read_range(start, stop) != other.read_range(start, stop):
            return False
    return True


def _same_facts(one: Location, other: Location) -> bool:
    """Compare two markers, or two ``complete.json``; what older versions did not write into them is left out."""
    first, again = one.read_json(), other.read_json()
    older = {key for key in RECORDED if key not in first}
    return bool(first == {key: value for key, value in again.items() if key not in older})


def _request(run: StoredRun) -> dict[str, Any]:
    request = run.manifest.get("request")
    if not isinstance(request, dict):
        raise DataError(
            f"{run.folder}: its manifest does not say what was asked for (an inkbatch before 0.1.0 wrote it, or "
            "another tool); run the job again"
        )
    return request


def _config(first: StoredRun, job: Repeatable, root: str, inputs_root: str | None, sets: Sequence[str]) -> JobConfig:
    request = _request(first)
    return job.config.load(None, sets, job.roots(first.folder, root, inputs_root, request.get("fold")), request)


def _device(run: StoredRun) -> str:
    found = sorted({str(row.get("device_name") or row["device"]) for row in run.rows if row.get("device")})
    return ", ".join(found) or "an unknown device"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
