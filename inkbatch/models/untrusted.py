"""Unpickling a checkpoint that cannot be read as plain weights: only on request, and behind walls.

The file's program runs in a process without network, without sight of other processes, without privileges, with
an empty home and a scrubbed environment. What it cannot be kept from is the disk: it reads and writes files with the
rights of whoever started it. Hence the flag, and hence the advice to convert such files on a throw-away machine.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from inkbatch.documents import parse_json
from inkbatch.errors import ConfigError, DataError
from inkbatch.models import unpickling

LIMIT_S = 900
PASSED_ON = ("LD_LIBRARY_PATH",)
"""Variables that the process keeps: where shared libraries are. Everything else may hold a secret."""


def unpickle_untrusted(path: Path, source: str, section: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Unpickle a checkpoint in an isolated process and read back its plain parts.

    Args:
        path: The file, on a local disk.
        source: Its name in messages.
        section: Name of the copy of the weights to take where there are several.

    Returns:
        Tensors by key, and the settings as JSON values.

    Raises:
        ConfigError: This system cannot isolate the process; nothing was unpickled.
        DataError: The file cannot be unpickled, or holds no weights.
    """
    with tempfile.TemporaryDirectory(prefix="inkbatch-unpickle-") as folder:
        home, output = Path(folder, "home"), Path(folder, "output")
        home.mkdir()
        output.mkdir()
        _run(path.resolve(), home, output, source, section)
        return _read_output(output, source)


def bare_environment(home: Path) -> dict[str, str]:
    """Return the variables that the reader's process gets: a home of its own, and no credentials."""
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return kept | {
        "HOME": str(home),
        "TMPDIR": str(home),
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def _run(path: Path, home: Path, output: Path, source: str, section: str | None) -> None:
    search_path = json.dumps([os.path.abspath(entry) for entry in sys.path if entry])
    command = [sys.executable, "-I", unpickling.__file__, str(path), str(output), str(LIMIT_S), search_path]
    command.append(section or "")
    ended = subprocess.run(
        command, env=bare_environment(home), cwd=home, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    words = _last_words(ended.stderr)
    if ended.returncode == unpickling.EXIT_NO_ISOLATION:
        raise ConfigError(
            f"{source}: --trust-pickle needs a process without network, this system cannot make one ({words}); "
            "nothing was unpickled; convert the file on a Linux machine that allows user namespaces"
        )
    if ended.returncode == unpickling.EXIT_TOO_LONG:
        raise DataError(f"{source}: unpickling did not end within {LIMIT_S} s; ask for a .safetensors file")
    if ended.returncode != 0:
        raise DataError(
            f"{source}: unpickling failed (exit {ended.returncode}): {words}; a missing module must be installed "
            "first, or ask for a .safetensors file"
        )


def _last_words(stderr: bytes) -> str:
    """Return the end of what the process wrote, without control characters: the file's program may have written it."""
    lines = [re.sub(r"[^\x20-\x7e]", "?", line) for line in stderr.decode("utf-8", "replace").splitlines() if line]
    return lines[-1][-300:] if lines else "no message"


def _read_output(output: Path, source: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    weights, facts = output / "weights.safetensors", output / "hyper_parameters.json"
    if any(written.is_symlink() or not written.is_file() for written in (weights, facts)):
        raise DataError(f"{source}: the unpickled file left no weights; ask for a .safetensors file")
    try:
        settings = parse_json(facts.read_bytes(), source, DataError)
        tensors = load_file(weights)
    except (ValueError, SafetensorError) as error:
        raise DataError(f"{source}: what was unpickled cannot be read: {error}; ask for a .safetensors file") from error
    return {key: value.clone() for key, value in tensors.items()}, settings if isinstance(settings, dict) else {}
