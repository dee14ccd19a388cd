"""Checks before submission, so that no task fails after hours of waiting for a machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inkbatch.config import named_place, settings_check
from inkbatch.errors import ConfigError, InkbatchError
from inkbatch.io.store.location import Location
from inkbatch.launch.plan import Chain

BUNDLE_DOCUMENT = "bundle.json"
SHIPPED_BUNDLE = "demo"


def check_settings(chain: Chain, run: Callable[[Sequence[str]], object]) -> None:
    """Let every command of a chain read its settings, as its tasks will.

    Args:
        chain: The chain.
        run: Runs a command of inkbatch in this process; it raises what is wrong.

    Raises:
        ConfigError: An unknown option or setting, a wrong type, a value that does not validate; names the job.
    """
    for spec in chain.jobs:
        check_command(spec.job, spec.command, run)


def check_command(job: str, words: Sequence[str], run: Callable[[Sequence[str]], object]) -> None:
    """Let one command read its settings.

    Args:
        job: Name of the job in its chain.
        words: Arguments of inkbatch.
        run: As of `check_settings`.

    Raises:
        ConfigError: As `check_settings`.
    """
    try:
        with settings_check() as check:
            run(words)
    except InkbatchError as error:
        raise ConfigError(f"{job}: {error}; nothing was started") from error
    if check.settings is None:
        raise ConfigError(f"{job}: {' '.join(words)}: ends without doing its job; nothing was started")


def check_bundles(chain: Chain, ask_stores: bool = True) -> list[str]:
    """Check that the bundles are at their places.

    Args:
        chain: The chain.
        ask_stores: Ask object stores and web servers, too, not only folders of this machine.

    Returns:
        Bundles that this machine cannot reach, and why: the jobs may well reach them.

    Raises:
        ConfigError: There is no bundle.
    """
    unseen = []
    for place in dict.fromkeys(place for spec in chain.jobs for place in _bundles(spec.command)):
        location = Location.parse(place)
        if place == SHIPPED_BUNDLE or not (ask_stores or location.is_local):
            continue
        try:
            found = (location / BUNDLE_DOCUMENT).exists()
        except InkbatchError as error:
            unseen.append(f"bundle {place}: not reachable from here ({error})")
            continue
        if not found:
            raise ConfigError(
                f"bundle {place}: there is no {BUNDLE_DOCUMENT}, so it is no bundle; inkbatch train makes one, and "
                "inkbatch import-checkpoint makes one of a published checkpoint; nothing was started"
            )
    return unseen


def _bundles(command: Sequence[str]) -> list[str]:
    """List the places of a command's bundles, without their names."""
    return [named_place(command[place + 1])[1] for place, word in enumerate(command[:-1]) if word == "--bundle"]
