"""The end of a command: its exit code, and one clear message where it failed."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any

import typer
from pydantic import ValidationError

from inkbatch.errors import EXIT_ABORTED, EXIT_BUG, EXIT_CONFIG, DataError, InkbatchError
from inkbatch.redaction import redact
from inkbatch.validation import in_words

# The class of all usage errors; typer carries its own click from 0.26 on, and names only its subclasses publicly.
USAGE_ERROR: Any = typer.BadParameter.__mro__[1]
MEMORY_CURE = (
    "reduce the job's memory use (prepare: a smaller --memory; infer: a smaller unit_px; train: a smaller batch or "
    "tile_px), end other programs on this machine, or take a larger one"
)

ARGPARSE_FAILED = 2  # the code with which argparse ends a script
SCRIPT_CURE = "check the arguments; the head of the script, and --help, say what has to be there first"


def is_out_of_memory(error: BaseException) -> bool:
    """Recognise that the machine or its GPU ran out of memory, without importing the libraries that raise it."""
    words = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in words
        or "Insufficient memory" in words
    )


def run_command(command: Callable[[], Any], name: str = "inkbatch") -> int:
    """Run `command`; print errors as one clear message and return the exit code.

    Args:
        command: What to run.
        name: Its words, whose help is named where the command or configuration was wrong.
    """
    try:
        code = command()
    except InkbatchError as error:
        cure = f"\nTry: {name} --help" if error.exit_code == EXIT_CONFIG else ""
        _say(f"{error}{cure}")
        return error.exit_code
    except typer.Exit as stop:
        return int(stop.exit_code)
    except USAGE_ERROR as error:
        _say(f"{_usage(error)}\nTry: {_help_of(error)}")
        return EXIT_CONFIG
    except KeyboardInterrupt:
        _say("aborted; what is stored is kept, run the same command again to continue")
        return EXIT_ABORTED
    except Exception as error:
        if is_out_of_memory(error):
            _say(f"out of memory: {(str(error).splitlines() or [type(error).__name__])[0]}; {MEMORY_CURE}")
            return EXIT_CONFIG
        sys.stderr.write(redact(traceback.format_exc()))
        _say("this is a bug in inkbatch; please report it with the lines above")
        return EXIT_BUG
    return code if isinstance(code, int) else 0


def _say(text: str) -> None:
    """Write a message for people, without secrets."""
    sys.stderr.write(f"inkbatch: {redact(text)}\n")


def _usage(error: Any) -> str:
    """Say what is wrong with an argument; typer hands on what pydantic says."""
    if not isinstance(error.__cause__, ValidationError):
        return str(error.format_message())
    parameter = getattr(error, "param", None)
    return in_words(error.__cause__, (), whole=max(parameter.opts, key=len) if parameter else "the arguments")


def _help_of(error: Any) -> str:
    """Name the help of the command that a usage error came from."""
    context = getattr(error, "ctx", None)
    words: list[str] = []
    while context is not None and context.parent is not None:
        words.insert(0, context.info_name)
        context = context.parent
    return " ".join(["inkbatch", *words, "--help"])


def run_script(main: Callable[[], Any], name: str) -> int:
    """Run the main function of a script of the repository, which ends as commands do; returns the exit code.

    Args:
        main: The function; it parses the arguments with argparse.
        name: The script's words, whose help is named: ``python scripts/fuzz.py``.
    """

    def command() -> Any:
        try:
            return main()
        except OSError as error:
            if error.filename is None:
                raise
            raise DataError(f"{error.filename}: {error.strerror}; {SCRIPT_CURE}") from error
        except SystemExit as stop:  # argparse has said what is wrong
            if stop.code != ARGPARSE_FAILED:
                raise
            return EXIT_CONFIG

    return run_command(command, name)
