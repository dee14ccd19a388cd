"""Chunks of a foreign zarr array that are not stored: legal, they read as the fill value, and easily a mistake."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from inkbatch.errors import DataError
from inkbatch.io.store.listing import objects_below
from inkbatch.io.store.location import Location
from inkbatch.io.store.versions import MOST_LISTED

MOST_ASKED = 2_000  # chunks that are asked for one by one, where a store lists nothing or too many
GOLDEN = (5**0.5 - 1) / 2  # multiples of it spread evenly, whatever the grid
ASKED_AT_ONCE = 16


@dataclass(frozen=True)
class Holes:
    """Stored objects of an array, counted.

    Attributes:
        expected: Objects (chunks, or zarr shards) that the array has if all are stored.
        missing: Of these, not stored; estimated where only some were asked for.
        uri: The array.
        asked: Objects that were asked for; 0 stands for all.
    """

    expected: int
    missing: int
    uri: str
    asked: int = 0

    @property
    def share(self) -> float:
        """Share that is missing."""
        return self.missing / self.expected

    def __str__(self) -> str:
        if self.asked and not self.missing:
            return f"{self.asked:,} of {self.expected:,} chunks of {self.uri} were asked for, all of them are stored"
        count = f"about {self.missing:,}" if self.asked else f"{self.missing:,}"
        sample = f" ({self.asked:,} were asked for)" if self.asked else ""
        return f"{count} of {self.expected:,} chunks of {self.uri} are not stored and read as its fill value{sample}"


@dataclass(frozen=True)
class _Keys:
    """Names of an array's objects: their grid, and how a place is spelled."""

    grid: tuple[int, ...]
    prefix: str
    separator: str

    @property
    def count(self) -> int:
        return math.prod(self.grid)

    def __iter__(self) -> Any:
        for place in itertools.product(*(range(size) for size in self.grid)):
            yield self.prefix + self.separator.join(map(str, place))

    def some(self, most: int) -> Iterator[str]:
        """Yield `most` of the names, spread over the grid; the same ones every time."""
        places = dict.fromkeys(int(number * GOLDEN % 1 * self.count) for number in range(2 * most))
        for place in itertools.islice(places, most):
            yield self.prefix + self.separator.join(map(str, _unravelled(place, self.grid)))

    def matches(self, separator: str) -> re.Pattern[str]:
        numbers = re.escape(separator).join([r"(\d+)"] * len(self.grid))
        return re.compile(f"{re.escape(self.prefix)}{numbers}")

    def count_in(self, paths: list[str], separator: str) -> int:
        """Count the paths that name a place inside the grid."""
        found = (self.matches(separator).fullmatch(path) for path in paths)
        return sum(
            all(int(number) < size for number, size in zip(match.groups(), self.grid, strict=True))
            for match in found
            if match
        )


def count_holes(place: Location) -> Holes | None:
    """Count the chunks of a zarr array that are not stored.

    Args:
        place: The array.

    Returns:
        The count, an estimate where there are too many to look for; None where `place` is no zarr array.

    Raises:
        DataError: Chunks are stored under other names than the metadata say: every one would read as empty.
    """
    keys = _keys(place)
    if keys is None or not keys.count:
        return None
    if place.protocol in ("http", "https") or keys.count > MOST_LISTED:
        return _asked_for(place, keys)
    paths = [row.path for row in objects_below(place)]
    present = keys.count_in(paths, keys.separator)
    other = "/" if keys.separator == "." else "."
    if not present and keys.count_in(paths, other):
        lie, wanted = ("nested", ".") if other == "/" else ("flat", "/")
        raise DataError(
            f"{place}: expected chunk names with {wanted!r} as its metadata state, got names with {other!r} ({lie}), "
            f'so that every chunk would read as empty; add "dimension_separator": "{other}" to its metadata, or copy '
            "the array again"
        )
    return Holes(keys.count, keys.count - present, place.uri)


def counted_holes(
    who: str, places: Iterable[str], most: float, *, may_be_empty: bool | None = None
) -> tuple[Holes, ...]:
    """Count the chunks of zarr arrays that are not stored; other files have none.

    Args:
        who: Opens a message.
        places: Addresses of arrays and files.
        most: Share of an array that may be missing.
        may_be_empty: Nothing stored means nothing marked (``allow_empty``); None: the job has no such setting.

    Returns:
        The arrays that lack chunks, and those of which only some were asked for.

    Raises:
        DataError: Their share is larger than `most`, or all are missing and may not be.
    """
    counted = (count_holes(Location.parse(place)) for place in places)
    found = tuple(holes for holes in counted if holes is not None and (holes.missing or holes.asked))
    for holes in found:
        if holes.missing == holes.expected and not may_be_empty:
            raise DataError(
                f"{who}: none of the {holes.expected:,} chunks of {holes.uri} is stored; copy the array again, and "
                f"check its metadata{'' if may_be_empty is None else ', or set allow_empty if it marks nothing'}"
            )
        if holes.share > most:
            raise DataError(
                f"{who}: {holes} ({holes.share:.0%}, at most {most:.0%} may be); copy "
                "the array again, or, if it leaves out empty chunks on purpose, give --set max_missing=1"
            )
    return found


def _asked_for(place: Location, keys: _Keys) -> Holes:
    """Ask for the chunks by name: all of them, or some of many."""
    chosen = list(keys if keys.count <= MOST_ASKED else keys.some(MOST_ASKED))
    with ThreadPoolExecutor(ASKED_AT_ONCE, thread_name_prefix="inkbatch-holes") as pool:
        absent = len(chosen) - sum(pool.map(lambda key: (place / key).exists(), chosen))
    if len(chosen) == keys.count:
        return Holes(keys.count, absent, place.uri)
    return Holes(keys.count, -(-absent * keys.count // len(chosen)), place.uri, len(chosen))


def _unravelled(number: int, grid: tuple[int, ...]) -> tuple[int, ...]:
    place = []
    for size in reversed(grid):
        number, last = divmod(number, size)
        place.append(last)
    return tuple(reversed(place))


def _keys(place: Location) -> _Keys | None:
    for name, parse in (("zarr.json", _keys_of_v3), (".zarray", _keys_of_v2)):
        try:
            document = (place / name).read_json()
        except (FileNotFoundError, DataError):
            continue
        try:
            return parse(document)
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return None
    return None


def _keys_of_v2(document: Mapping[str, Any]) -> _Keys:
    separator = str(document.get("dimension_separator") or ".")
    return _Keys(_grid(document["shape"], document["chunks"]), "", separator)


def _keys_of_v3(document: Mapping[str, Any]) -> _Keys | None:
    if document.get("node_type") != "array" or document["chunk_grid"]["name"] != "regular":
        return None
    encoding = document["chunk_key_encoding"]
    plain = encoding["name"] == "default"
    separator = str(encoding.get("configuration", {}).get("separator") or ("/" if plain else "."))
    grid = _grid(document["shape"], document["chunk_grid"]["configuration"]["chunk_shape"])
    return _Keys(grid, f"c{separator}" if plain else "", separator)


def _grid(shape: Any, chunks: Any) -> tuple[int, ...]:
    return tuple(-(-int(size) // int(chunk)) for size, chunk in zip(shape, chunks, strict=True))
