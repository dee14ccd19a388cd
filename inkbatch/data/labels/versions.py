"""Versions of label files: ``{name}_v{number}`` beside ``{name}``, which is version 1. None is picked silently."""

from __future__ import annotations

import re
from dataclasses import dataclass

from inkbatch.errors import DataError
from inkbatch.io.store.location import Location

VERSIONED = re.compile(r"(?P<stem>.+?)(?:_v(?P<number>[0-9]{1,6}))?(?P<ending>\.[A-Za-z0-9]+)?")
FIRST = 1


@dataclass(frozen=True)
class Versions:
    """The versions of one file that lie beside each other, and the one that was chosen.

    Attributes:
        uri: The chosen one.
        number: Its version.
        there: Names by version.
    """

    uri: str
    number: int
    there: dict[int, str]

    @property
    def identity(self) -> dict[str, int]:
        """Entry of a manifest; empty where there is one version alone, without a number."""
        return {"version": self.number} if len(self.there) > 1 or self.number != FIRST else {}

    def __str__(self) -> str:
        """Say which there are and which was chosen; empty where there is nothing to choose."""
        if len(self.there) < 2:
            return ""
        return f"{', '.join(map(str, sorted(self.there)))}; {self.number} is taken ({self.there[self.number]})"


def chosen_version(
    uri: str, wanted: int | None, what: str, cure: str = "state which with version", *, follows: bool = False
) -> Versions:
    """Choose the version of a file: what was asked for, else what its name states, else the only one.

    Args:
        uri: The file or folder; its name may state a version.
        wanted: Version to take, or None.
        what: Opens the messages.
        cure: How to state one, where several are there.
        follows: The version was asked for another file; where this one has a single version, that is taken.

    Raises:
        DataError: That version is not there, or several are and none is stated.
    """
    place = Location.parse(uri)
    own, stem, ending = _parts(place.name)
    there = {own or FIRST: place.name}
    if not place.protocol.startswith("http"):  # web servers rarely list folders
        there |= _beside(place.parent, stem, ending)
    listed = ", ".join(f"{number} ({there[number]})" for number in sorted(there))
    if wanted is None and own is None and len(there) > 1:
        raise DataError(f"{what}: expected one version beside {place}, got {listed}; {cure}")
    number = own or FIRST if wanted is None else wanted
    if number not in there:
        if not follows or len(there) > 1:
            raise DataError(f"{what}: expected version {number} beside {place}, got {listed}; state one of them")
        (number,) = there
    return Versions((place.parent / there[number]).uri, number, there)


def _parts(name: str) -> tuple[int | None, str, str]:
    """Take a name apart: (version or None, stem, ending)."""
    match = VERSIONED.fullmatch(name)
    if match is None:
        return None, name, ""
    return int(match["number"]) if match["number"] else None, match["stem"], match["ending"] or ""


def _beside(folder: Location, stem: str, ending: str) -> dict[int, str]:
    found: dict[int, str] = {}
    for name in folder.names():
        number, other, kind = _parts(name)
        if (other, kind) == (stem, ending):
            found[number or FIRST] = name
    return found
