"""Bundles that stand where an import is to store one: an equal one stays, another one is replaced only if asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from inkbatch.errors import ConfigError, DataError
from inkbatch.io.store.location import Location
from inkbatch.models.bundle import holds_files

Document = TypeVar("Document")
DAMAGED = ["its document, which is damaged"]


def make_way(
    dest: Location,
    files: Sequence[str],
    read: Callable[[], Document],
    differences: Callable[[Document], list[str]],
    digests: Callable[[Document], Mapping[str, str]],
    *,
    replace: bool,
) -> list[str] | None:
    """Make way for a bundle, unless an equal one is there.

    Of another one the document goes first: what is left of a stopped removal is no bundle.

    Args:
        dest: The bundle's folder.
        files: Names of the files that a bundle may hold, its document first.
        read: Reads the document of the bundle that is there.
        differences: Names what differs in it from the one that is to be stored.
        digests: Names its files with the SHA-256 digests that it states.
        replace: Let another bundle be replaced.

    Returns:
        Lines for people; None where an equal, whole bundle is there.

    Raises:
        ConfigError: Another bundle is there, and must not be replaced.
        DataError: A damaged one is.
    """
    if not (dest / files[0]).exists():
        return []
    try:
        there = read()
    except DataError:
        if not replace:
            raise
        differing = DAMAGED
    else:
        differing = differences(there)
        if not differing:
            return None if holds_files(dest, digests(there)) else []
    if not replace:
        raise ConfigError(
            f"import {dest}: another bundle already exists there, it differs in {', '.join(differing)}; "
            "choose another destination, or give --replace, which removes what is there"
        )
    for name in files:
        (dest / name).delete()
    return [f"--replace: removed the bundle at {dest}"]
