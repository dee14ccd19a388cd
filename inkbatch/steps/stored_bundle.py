"""Bundles that stand where an import is to store one: an equal one stays, another one is replaced only if asked."""

from __future__ import annotations

from collections.abc import Sequence

from inkbatch.errors import ConfigError
from inkbatch.io.store.location import Location


def remove_other(dest: Location, differing: Sequence[str], files: Sequence[str], *, replace: bool) -> str:
    """Remove another bundle, its document first: what is left of a stopped removal is no bundle.

    Args:
        dest: The bundle's folder.
        differing: Names of what differs.
        files: Names of the files that a bundle may hold, its document first.
        replace: Let the other bundle be replaced.

    Returns:
        A line for people.

    Raises:
        ConfigError: The other bundle must not be replaced.
    """
    if not replace:
        raise ConfigError(
            f"import {dest}: another bundle already exists there, it differs in {', '.join(differing)}; "
            "choose another destination, or give --replace, which removes what is there"
        )
    for name in files:
        (dest / name).delete()
    return f"--replace: removed the bundle at {dest}"
