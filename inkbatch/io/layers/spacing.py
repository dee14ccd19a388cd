"""Voxel sizes that files beside the layers and names state, and how far sizes may differ."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from inkbatch.io.ome import number_or
from inkbatch.io.store.faults import ForbiddenError
from inkbatch.io.store.location import Location
from inkbatch.io.threads import opening_pool

SIZE_TOLERANCE = 0.01  # sizes closer than this, relatively, are one size
VOXEL_TOLERANCE = 0.05  # networks take voxels whose size differs by less, relatively, unless a bundle says otherwise
METADATA_FILES = ("meta.json", "metadata.json")
VOLUME_NOTE = "volume_source.txt"
NAMED_UM = re.compile(r"(?<![0-9.])(\d+(?:\.\d+)?)\s?[uµμ]m(?![a-zA-Z])")


@dataclass(frozen=True)
class NamedSize:
    """A voxel size of level 0 that something beside the values states.

    Attributes:
        place: The file, or the name.
        um: The size.
        within: Largest relative difference that still says the same: names are rounded.
    """

    place: str
    um: float
    within: float = SIZE_TOLERANCE


def size_in_name(text: str) -> tuple[float, float] | None:
    """Find the one size in micrometres in a name such as ``9.362um-1.2m-113keV-volume-20250101.zarr``.

    Returns:
        The size and its relative rounding error; None where the text names none, or several.
    """
    found = set(NAMED_UM.findall(text))
    if len(found) != 1:
        return None
    digits = found.pop()
    size = float(digits)
    if size <= 0:
        return None
    last = 10.0 ** -len(digits.partition(".")[2])
    return size, max(SIZE_TOLERANCE, last / 2 / size)


def sizes_beside(source: Location) -> list[NamedSize]:
    """Voxel sizes that ``meta.json``, ``volume_source.txt`` and the source's name state, as far as they are there.

    Raises:
        StorageError: Reading failed after retries.
    """
    places = [source / name for name in METADATA_FILES] + [source / VOLUME_NOTE, source.parent / VOLUME_NOTE]
    texts = map(_text, places) if source.is_local else opening_pool.map(_text, places)
    found = []
    for place, text in zip(places, texts, strict=True):
        if text is None:
            continue
        if place.name == VOLUME_NOTE:
            named = size_in_name(text)
            found += [NamedSize(VOLUME_NOTE, *named)] if named else []
        elif (size := _voxelsize(text)) is not None:
            found.append(NamedSize(place.name, size))
    named = size_in_name(source.name)
    return [*found, NamedSize(f"its name {source.name}", *named)] if named else found


def _text(place: Location) -> str | None:
    try:
        return place.read_bytes().decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError, ForbiddenError):
        return None


def _voxelsize(text: str) -> float | None:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):  # somebody else's file
        return None
    size = document.get("voxelsize") if isinstance(document, dict) else None
    return number_or(size, 0.0) or None
