"""The exceptions of inkbatch and the exit code that each one carries.

A message names four things: the *place* (segment, file, key), the *wish* (what was asked for), the *finding* (what
is there instead) and the *cure* (what to do about it).

| exit | meaning | can a retry help? |
|---|---|---|
| 0 | done | - |
| 64 | bad command or configuration | no |
| 65 | bad data, or data and bundle do not match | no |
| 75 | try again: preempted, storage gave up after retries | yes |
| 130 | Ctrl-C twice | yes |
| 1 | a bug of ours | no |
"""

from __future__ import annotations

EXIT_DONE = 0
EXIT_BUG = 1
EXIT_CONFIG = 64
EXIT_DATA = 65
EXIT_TRY_AGAIN = 75
EXIT_ABORTED = 130  # as shells report a process that SIGINT ended


class InkbatchError(Exception):
    """Root of all errors that inkbatch raises on purpose; `exit_code` says what the process returns."""

    exit_code: int = EXIT_BUG


class ConfigError(InkbatchError):
    """The command or configuration cannot be carried out as written; nothing was read or written."""

    exit_code = EXIT_CONFIG


class NoLabelsError(ConfigError):
    """No ink labels are known for a segment: none were stated, stored or listed in the catalog."""


class DataError(InkbatchError):
    """The data are not what was promised (missing layer, corrupt file, empty mask, …)."""

    exit_code = EXIT_DATA


class CorruptDataError(DataError):
    """A stored object fails its checksum, is truncated, or cannot be decoded."""


class LayerRangeError(DataError):
    """A layer range leaves the volume. We never clamp: the model would see another depth."""


class MismatchError(DataError):
    """Two sides that must agree (bundle and volume, manifest and output) do not; both are named."""


class IncompleteError(DataError):
    """A result of another job is not there, or not whole."""


class NonFiniteError(DataError):
    """NaN or infinity where a number is required (a float source, a model's output)."""


class TryAgainError(InkbatchError):
    """The job stopped for a reason that a retry can cure; what was finished is kept."""

    exit_code = EXIT_TRY_AGAIN


class Preempted(TryAgainError):  # noqa: N818  # named as the schedulers name it
    """SIGTERM, SIGINT, SIGUSR1 or a deadline stopped the job at a safe point."""


class StorageError(TryAgainError):
    """Storage failed again after all retries."""
