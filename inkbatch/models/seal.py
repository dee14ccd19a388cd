"""The seal of a bundle: one short digest per value of its contract and network, made when the weights were stored.

A divisor that somebody corrects in ``bundle.json`` by hand changes every map and leaves no trace. The seal names the
value that is no longer what was saved; an override does the same change openly, and is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inkbatch.config import digest

_CHARS = 12


def seal_of(contract: Mapping[str, Any], architecture: str, model: Mapping[str, Any]) -> dict[str, str]:
    """Compute digests by name: every key of the contract, ``architecture`` and ``model``.

    Args:
        contract: The contract as JSON values.
        architecture: Registered name.
        model: The architecture's config.
    """
    values = {**contract, "architecture": architecture, "model": dict(model)}
    return {key: digest(value)[:_CHARS] for key, value in values.items()}


def broken_seals(stored: Mapping[str, str], found: Mapping[str, str], defaults: Mapping[str, Any]) -> list[str]:
    """Name the values that differ from what was saved.

    Args:
        stored: The bundle's seal; empty in bundles that were never sealed.
        found: `seal_of` what the document says now.
        defaults: Contract values that a bundle may leave out; a key that is younger than the bundle must hold its
            default.
    """
    if not stored:
        return []
    young = {key: digest(value)[:_CHARS] for key, value in defaults.items() if key not in stored}
    return sorted(key for key in {*found, *stored} if stored.get(key, young.get(key)) != found.get(key))
