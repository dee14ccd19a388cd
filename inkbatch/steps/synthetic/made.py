"""Results that are generated in one piece: one process takes their place, and a whole one with its settings stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from inkbatch.errors import ConfigError, InkbatchError, MismatchError
from inkbatch.run.objects import reopened
from inkbatch.run.record import RunFolder


@dataclass(frozen=True)
class Made:
    """A result in one piece.

    Attributes:
        record: Its folder and manifest.
        document: Name of the file that is written last; results of older versions have it, and no manifest.
        is_same: Tells whether such a document is of these very settings.
    """

    record: RunFolder
    document: str
    is_same: Callable[[dict[str, Any]], bool]

    @property
    def _has_manifest(self) -> bool:
        return (self.record.location / "manifest.json").exists()

    def other(self) -> InkbatchError | None:
        """Return the refusal of another result that has the place; None where there is none."""
        place, job = self.record.location, self.record.manifest.job
        if self._has_manifest:
            try:
                self.record.begin()
            except MismatchError as error:
                return error
            return None
        found = (place / self.document).find_mapping()
        if found is None or self.is_same(found):
            return None
        return ConfigError(
            f"{job} {place}: another one is there already (its {self.document} differs); choose another output, or "
            "give --replace, which removes what is there"
        )

    def is_whole(self, notes: list[str]) -> bool:
        """Tell whether this very result is there; files that are lost are said in `notes`."""
        if self._has_manifest:
            return self.record.is_complete() and not reopened(self.record, self.record.manifest.job, notes.append)
        return (self.record.location / self.document).exists()
