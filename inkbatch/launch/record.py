"""Records of launches under ROOT, so that every machine can ask for them and cancel them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inkbatch.errors import ConfigError, CorruptDataError, DataError
from inkbatch.io.store.location import Location
from inkbatch.launch.base import Submitted
from inkbatch.launch.plan import Chain


@dataclass(frozen=True)
class LaunchRecord:
    """``ROOT/launches/{launch}.json``: the request and the engine's answer. Holds no credentials.

    Attributes:
        submitted: The engine's answer.
        subject: Segment, dataset or run.
        commands: Argv by job.
    """

    submitted: Submitted
    subject: str
    commands: dict[str, Sequence[str]]

    @staticmethod
    def write(chain: Chain, submitted: Submitted) -> LaunchRecord:
        """Store the record of a launch."""
        record = LaunchRecord(submitted, chain.jobs[-1].subject, {spec.job: list(spec.command) for spec in chain.jobs})
        order = [spec.job for spec in chain.jobs]
        body = {"subject": record.subject, "order": order, "commands": record.commands, **submitted.document()}
        (_folder(chain.root) / f"{chain.launch}.json").write_json(body)
        return record

    @staticmethod
    def read(root: str, launch: str) -> LaunchRecord:
        """Read one record.

        Raises:
            DataError: There is none of that name.
            CorruptDataError: It is no record of a launch.
        """
        place = _folder(root) / f"{launch}.json"
        try:
            body: dict[str, Any] = place.read_mapping()
        except FileNotFoundError as error:
            raise DataError(f"launch {launch!r}: {place} does not exist; inkbatch status lists the launches") from error
        try:
            subject, order = body.pop("subject"), body.pop("order")  # stored mappings are sorted by name
            commands, body["shards"], body["jobs"] = (
                {job: rows[job] for job in order if job in rows}
                for rows in (body.pop("commands"), body["shards"], body["jobs"])
            )
            return LaunchRecord(Submitted(**body), subject, commands)
        except (KeyError, TypeError) as error:
            raise CorruptDataError(f"{place}: is no record of a launch: {error}; remove it") from error


def launches_of(root: str, subject: str | None = None) -> list[LaunchRecord]:
    """Read the records under ROOT, newest last; only those of `subject` if it is given."""
    names = [name.removesuffix(".json") for name in _folder(root).names() if name.endswith(".json")]
    records = [LaunchRecord.read(root, name) for name in sorted(names, key=_moment)]
    return [record for record in records if subject is None or record.subject == subject]


def find_launch(root: str, name: str) -> LaunchRecord:
    """Find the launch of that name, or the newest of that segment, dataset or run.

    Raises:
        ConfigError: There is none.
    """
    if f"{name}.json" in _folder(root).names():
        return LaunchRecord.read(root, name)
    found = launches_of(root, name)
    if not found:
        raise ConfigError(f"{name}: no launch of that name or of such a segment under {root}; see inkbatch status")
    return found[-1]


def _folder(root: str) -> Location:
    return Location.parse(root) / "launches"


def _moment(name: str) -> str:
    """Take the time out of a launch's name, by which names sort."""
    return "-".join(name.split("-")[-3:])
