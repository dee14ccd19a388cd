"""Stored verdict of a depth probe: written by the probe job, read by `infer --layers auto` and by pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inkbatch.io.store.location import Location
from inkbatch.run.record import require_complete

VERDICT_NAME, PICTURE_NAME = "verdict.json", "probe.png"


def probe_folder(root: str, segment: str, name: str) -> Location:
    """Return ``ROOT/probes/{segment}/{name}``."""
    return Location.parse(root) / "probes" / segment / name


def read_verdict(folder: Location) -> dict[str, Any]:
    """Read the stored verdict of a complete probe.

    Raises:
        DataError: There is none, or the probe is not complete.
    """
    require_complete(folder, "probe", "run inkbatch probe (again)")
    found: dict[str, Any] = (folder / VERDICT_NAME).read_mapping()
    return found


def has_reading(verdict: Mapping[str, Any]) -> bool:
    """Tell if a verdict names a reading: without one, order and layers are the usual ones and mean nothing."""
    return bool(verdict["usable"] or verdict["confidence"] > 0)
