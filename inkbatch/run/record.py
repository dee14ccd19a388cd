"""Record of a run and of its finished units: manifest first, markers as units finish, `complete` last.

Files in a run's folder:

- ``manifest.json``: job, configuration, inputs and their digests. Written once, never edited, holds no clock.
- ``done/{digest}-{unit}.json``: proof that a unit is stored; holds size and checksum of each of its objects, and the
  digests of the inputs that it read.
- ``complete.json``: written when every unit of the plan has its marker and its objects; holds the content's digest.
- ``run.json``: seconds, bytes, counts and money of the process, see `run_file`; the only file with a clock.
- ``score.json``: beside a map, its scores if labels were known when it was made; no part of the run itself.
- ``report.html``: a page for people, made of all these (`inkbatch.reports`); shows the clock of ``run.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from inkbatch import __version__
from inkbatch.config import digest
from inkbatch.errors import DataError, IncompleteError, MismatchError
from inkbatch.geometry import Unit
from inkbatch.io.store.ledger import below, make_durable, recording
from inkbatch.io.store.location import Location
from inkbatch.run.states import differences, listed, state_changes

REPORT_NAME = "report.html"
SCORE_NAME = "score.json"
OTHER_PLACE = {
    "evaluate": "choose another folder (--to)",
    "infer-pictures": "choose another folder (--to)",
    "train": "give it another name (--run)",
    "build-dataset": "give the dataset another name",
    "phantom": "choose another output",
    "vessels": "choose another output",
    "prepare": "choose another ROOT (--root)",
    "labels": "",  # they lie beside their surface, and nowhere else
}  # by job: the cure of a place that is taken; of all others "give it another name (--name)"

BESIDE = {
    "prepare": ("surface.zarr", "mask.zarr"),
    "labels": ("ink_labels.zarr", "ignore_mask.zarr", "validation_mask.zarr"),
}
"""Arrays that a job stores beside its run's folder; all others store inside it."""
LEDGER = "_ledger"  # key among a unit's facts: what it stored, see `inkbatch.io.store.ledger`
RECORDED = ("objects", "read", "content", "files")  # keys of markers and ``complete.json`` that older versions lack
READ_AT_ONCE = 16

DIGEST_CHARS = 12


@dataclass(frozen=True)
class RunManifest:
    """Record of a run's settings and inputs; its digest names the run.

    Attributes:
        job: ``prepare``, ``infer``, …
        config: Settings that change the result (not device, memory, shard or thread counts).
        inputs: What was read: URIs and digests.
        units: Number of units in the plan.
        request: What was asked for (see `JobConfig.request`): bundle, source, device, memory. `inkbatch rerun` repeats
            it. It does not belong to the digest: the same run may be asked for in several ways.
        state: Versions of what was read, by input: those of files (see `inkbatch.io.store.versions`), or the content
            digest of a run. Not part of the digest, so that inputs may move; compared wherever a run is joined.
        now: Takes the states again, as far as that is cheap: it is called after each unit. Not stored.
    """

    job: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Any]
    units: int
    request: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    now: Callable[[], Mapping[str, Any]] = field(default=dict, compare=False)

    @property
    def read(self) -> dict[str, Any]:
        """Digests of what is read, by input: what a unit's marker says of it."""
        return {key: state.get("digest") if isinstance(state, Mapping) else state for key, state in self.state.items()}

    @property
    def document(self) -> dict[str, Any]:
        """The stored form."""
        body = {
            "inkbatch": __version__,
            "job": self.job,
            "config": dict(self.config),
            "inputs": dict(self.inputs),
            "units": self.units,
        }
        beside = {key: dict(value) for key, value in (("request", self.request), ("state", self.state)) if value}
        return {**body, "digest": digest(body), **beside}

    @property
    def digest(self) -> str:
        """SHA-256 of all that the manifest states."""
        return str(self.document["digest"])

    def of_pass(self, job: str) -> RunManifest:
        """Make the manifest of an earlier pass over the same units, which nobody asked for by itself."""
        return replace(self, job=job, request={})


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run."""

    location: Location
    manifest: RunManifest

    @property
    def _prefix(self) -> str:
        return self.manifest.digest[:DIGEST_CHARS]

    @property
    def runs(self) -> tuple[RunFolder, ...]:
        """The folder itself, the only one of its kind; `RunFolders` has several."""
        return (self,)

    @property
    def base(self) -> Location:
        """The folder that paths of stored objects count from."""
        return self.location.parent if self.manifest.job in BESIDE else self.location

    def begin(self) -> bool:
        """Write the manifest, or join the run that wrote an equal one. A refusal writes nothing.

        Returns:
            True if this process wrote it: of several that begin at once, one.

        Raises:
            MismatchError: The folder holds another run's manifest, or inputs have changed since; what differs is named.
        """
        place = self.location / "manifest.json"
        try:
            found = place.read_mapping()
        except FileNotFoundError:
            if place.create_json(self.manifest.document):
                return True
            found = place.read_json()
        self._require_same(found)
        return False

    def require_own(self) -> None:
        """Read the manifest again: on stores without exclusive writes another job may have taken the place meanwhile.

        Raises:
            MismatchError: It is another run's.
        """
        try:
            found = (self.location / "manifest.json").read_json()
        except FileNotFoundError as error:
            raise MismatchError(
                f"{self.location}: its manifest was removed while this job ran, by hand or by another job with "
                "--replace; run the same command again"
            ) from error
        self._require_same(found)

    def require_inputs(self) -> None:
        """Look whether the inputs are still those that the run began with.

        Raises:
            MismatchError: They changed while they were read.
        """
        changed = state_changes(self.manifest.state, self.manifest.now())
        if changed:
            raise MismatchError(
                f"{self.location}: its inputs changed while they were read ({'; '.join(changed)}), so the result may "
                "hold some of both; give --replace once they are whole"
            )

    def _require_same(self, found: Any) -> None:
        if not isinstance(found, dict):
            raise MismatchError(f"{self.location}: its manifest.json was edited; give --replace to make the run again")
        differing = listed(differences(found, self.manifest.document))
        if differing or found.get("digest") != self.manifest.digest:
            elsewhere = OTHER_PLACE.get(self.manifest.job, "give it another name (--name)")
            ways = ", ".join(way for way in ("use the same ones", elsewhere) if way)
            raise MismatchError(
                f"{self.location}: holds a run with other settings or inputs "
                f"({differing or 'the file was edited'}); "
                f"{ways}, or give --replace, which removes what is there"
            )
        changed = state_changes(found.get("state"), self.manifest.state)
        if changed:
            raise MismatchError(
                f"{self.location}: was made from inputs that have changed since ({'; '.join(changed)}); restore them, "
                "or give --replace, which removes the old result and makes it from these"
            )

    def is_begun(self) -> bool:
        """Tell if the stored manifest is this very one."""
        try:
            return bool((self.location / "manifest.json").read_mapping().get("digest") == self.manifest.digest)
        except (FileNotFoundError, DataError):
            return False

    def is_complete(self) -> bool:
        """Tell if `complete.json` belongs to this very manifest."""
        try:
            return bool((self.location / "complete.json").read_mapping().get("digest") == self.manifest.digest)
        except FileNotFoundError:
            return False

    def done(self) -> set[str]:
        """List the names of the units that have a marker."""
        prefix = f"{self._prefix}-"
        names = (self.location / "done").names()
        return {name.removeprefix(prefix).removesuffix(".json") for name in names if name.startswith(prefix)}

    @property
    def state(self) -> str:
        """State for people: ``already complete``, or for example ``3 already done``."""
        return "already complete" if self.is_complete() else f"{len(self.done())} already done"

    def mark(self, unit: Unit, facts: Mapping[str, Any]) -> None:
        """Write the unit's marker; call it only after the unit's data are stored."""
        facts = dict(facts)
        ledger = facts.pop(LEDGER, None)
        if ledger is not None:
            facts["objects"] = below(ledger, self.base.uri)
        marker = {"digest": self.manifest.digest, "unit": unit.name, **facts}
        self._marker_place(unit.name).write_json(marker)

    def _marker_place(self, unit: str) -> Location:
        return self.location / "done" / f"{self._prefix}-{unit}.json"

    def forget(self, unit: Unit) -> None:
        """Remove the unit's marker: its objects are not what it says."""
        self._marker_place(unit.name).delete()

    def markers(self, units: Sequence[Unit]) -> dict[str, dict[str, Any] | None]:
        """Read the markers of some units, many at once: by the unit's name; None where there is none, or a damaged one.

        A power cut may leave a marker without its content.
        """

        def read(unit: Unit) -> dict[str, Any] | None:
            try:
                found = self._marker_place(unit.name).read_json()
            except (FileNotFoundError, DataError):
                return None
            return found if isinstance(found, dict) and found.get("digest") == self.manifest.digest else None

        names = [unit.name for unit in units]
        if self.location.is_local:
            return dict(zip(names, map(read, units), strict=True))
        with ThreadPoolExecutor(READ_AT_ONCE, thread_name_prefix="inkbatch-markers") as pool:
            return dict(zip(names, pool.map(read, units), strict=True))

    def marker(self, unit: Unit) -> dict[str, Any]:
        """Read the unit's marker.

        Raises:
            DataError: It has none.
        """
        try:
            found: dict[str, Any] = self._marker_place(unit.name).read_mapping()
        except FileNotFoundError as error:
            raise DataError(f"{self.location}: unit {unit.name} is not done; run the job again") from error
        return found

    def missing(self, units: Sequence[Unit]) -> list[Unit]:
        """List the units without a marker."""
        done = self.done()
        return [unit for unit in units if unit.name not in done]

    def complete(self, facts: Mapping[str, Any] | None = None) -> None:
        """Write ``complete.json``: every unit is stored. Equal runs write equal bytes, so two processes do no harm."""
        body = {"digest": self.manifest.digest, "units": self.manifest.units, **(facts or {})}
        with recording() as ledger:
            (self.location / "complete.json").write_json(body)
        make_durable(ledger)


@dataclass(frozen=True)
class PerRun:
    """A count of a unit that differs between the runs of a `RunFolders`.

    Attributes:
        values: One number per run, in their order.
    """

    values: tuple[int, ...]

    @property
    def total(self) -> int:
        """The sum over all runs."""
        return sum(self.values)


def totals_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Replace every `PerRun` of a unit's facts by its total."""
    return {key: value.total if isinstance(value, PerRun) else value for key, value in facts.items()}


@dataclass(frozen=True)
class RunFolders:
    """Several runs over one plan of units that one loop makes together: each a whole run of its own.

    Attributes:
        runs: At least one; a unit is done if it is done in all of them.
    """

    runs: tuple[RunFolder, ...]

    @property
    def location(self) -> Location:
        """The first folder."""
        return self.runs[0].location

    @property
    def manifest(self) -> RunManifest:
        """The first run's manifest."""
        return self.runs[0].manifest

    def begin(self) -> bool:
        """Begin every run; see `RunFolder.begin`."""
        created = [run.begin() for run in self.runs]
        return all(created)

    def is_complete(self) -> bool:
        """Tell if every run is complete."""
        return all(run.is_complete() for run in self.runs)

    def done(self) -> set[str]:
        """List the names of the units that have a marker in every run."""
        return set.intersection(*(run.done() for run in self.runs))

    def mark(self, unit: Unit, facts: Mapping[str, Any]) -> None:
        """Write the unit's marker in every run; call it only after all their data are stored.

        Args:
            unit: The unit.
            facts: Facts of the unit; each run gets its own number of a `PerRun`, and everything else as it is.
        """
        for place, run in enumerate(self.runs):
            own = {key: value.values[place] if isinstance(value, PerRun) else value for key, value in facts.items()}
            run.mark(unit, own)

    def forget(self, unit: Unit) -> None:
        """Remove the unit's marker in every run."""
        for run in self.runs:
            run.forget(unit)

    def missing(self, units: Sequence[Unit]) -> list[Unit]:
        """List the units that lack a marker in any run."""
        done = self.done()
        return [unit for unit in units if unit.name not in done]


def report_place(folder: Location, job: str) -> Location:
    """Return the place of a run's page: its folder; for prepare the folder of the surface."""
    return (folder.parent if job == "prepare" else folder) / REPORT_NAME


def require_complete(location: Location, what: str, cure: str) -> dict[str, Any]:
    """Read the manifest of a complete run.

    Raises:
        IncompleteError: There is no run, or it is not complete; says how far it came.
    """
    try:
        manifest: dict[str, Any] = (location / "manifest.json").read_mapping()
    except FileNotFoundError as error:
        raise IncompleteError(f"{what}: nothing at {location}; {cure}") from error
    try:
        complete = (location / "complete.json").read_mapping()
    except FileNotFoundError as error:
        done = len((location / "done").names())
        raise IncompleteError(
            f"{what}: incomplete, {done} of {manifest.get('units')} units are stored; {cure}"
        ) from error
    if complete.get("digest") != manifest.get("digest"):
        raise DataError(f"{what}: its complete.json belongs to another run; remove {location} and {cure}")
    return manifest
