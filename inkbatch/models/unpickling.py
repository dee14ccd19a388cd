"""Runs as a script, in a process of its own: unpickles one checkpoint and writes what is plain in it.

Started by `inkbatch.models.untrusted` as ``python -I unpickling.py SOURCE OUTPUT LIMIT_S SYS_PATH SECTION``. First it
leaves the network, the other processes and all privileges behind; where the system does not allow that, nothing is
unpickled. `OUTPUT` receives ``weights.safetensors`` and ``hyper_parameters.json``. Imports only the standard library
until the walls stand: a process that has threads cannot change its user namespace.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

EXIT_NO_ISOLATION = 3
EXIT_UNREADABLE = 4
EXIT_TOO_LONG = 5

SECTIONS = ("state_dict", "model_state_dict", "model")
"""Keys under which a checkpoint may keep its weights; else they are at top level."""

AVERAGED = ("ema_model", "model_ema", "ema_state_dict", "state_dict_ema", "ema")
"""Keys of a running average of the weights over training: another network with other answers."""

AVERAGE_WORDS = re.compile(r"(?i)(^|[_-])(ema|swa|shadow|averag\w*|current_model)([_-]|$)")
"""Parts of such a key; Lightning keeps raw weights as ``current_model_state`` beside averaged ones."""

MOST_SETTINGS = 1_000_000

CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38


class NoPlainWeightsError(ValueError):
    """Absence of weights where a checkpoint has them, or other things than tensors there."""


class UnclearWeightsError(ValueError):
    """A checkpoint holds several copies of its weights, or not the one that was asked for."""


def weights_in(loaded: Any, section: str | None = None) -> dict[str, Any]:
    """Take the tensors of a checkpoint by key, from a known section or from the top level.

    Args:
        loaded: What the file holds.
        section: Name of the copy to take where there are several: a section, or the first word of keys.

    Raises:
        NoPlainWeightsError: There are none, or other things stand among them.
        UnclearWeightsError: There are raw and averaged weights and no section is stated, or it is not there.
    """
    import torch

    if isinstance(loaded, torch.nn.Module):
        loaded = loaded.state_dict()
    if not isinstance(loaded, Mapping):
        raise NoPlainWeightsError(f"it holds a {type(loaded).__name__}, no state dict")
    name = section_of(loaded, section)
    found = _below(loaded, name) if name else loaded
    others = [str(key) for key, value in found.items() if not torch.is_tensor(value)]
    if others or not found:
        held = [] if name else [key for key in others if _holds_tensors(loaded.get(key))]
        if held:
            raise UnclearWeightsError(f"it holds weights under {', '.join(held[:10])}")
        finding = f"things that are no tensors ({', '.join(others[:5])})" if others else "nothing"
        raise NoPlainWeightsError(f"expected weights under {', '.join(SECTIONS)} or at top level, got {finding}")
    return _one_copy({str(key): value.detach() for key, value in found.items()}, section, loaded)


def section_of(loaded: Mapping[Any, Any], section: str | None = None) -> str:
    """Name the section that weights are taken from; empty for the top level.

    Raises:
        UnclearWeightsError: There are raw and averaged weights, or several averages, and no section is stated.
    """
    there = [name for name in (*SECTIONS, *AVERAGED) if isinstance(loaded.get(name), Mapping)]
    if section is not None and isinstance(_below(loaded, section), Mapping):
        return section
    raw = [name for name in there if name in SECTIONS]
    averaged = [name for name in there if name in AVERAGED]
    averaged += [name for name in _averages(loaded, raw[0] if raw else "") if name.partition(".")[0] not in averaged]
    if section is None and averaged and len(raw[:1] + averaged) > 1:
        first, *rest = raw[:1] + averaged
        raise UnclearWeightsError(
            f"it holds weights under {first} and also holds {' and '.join(rest)}; their predictions differ"
        )
    return next(iter(raw + averaged), "")


def _below(loaded: Any, path: str) -> Any:
    """Return what lies under a name, or under names with dots between (``callbacks.EMA.weights``); None if nothing."""
    if isinstance(loaded, Mapping) and path in loaded:
        return loaded[path]
    for word in path.split("."):
        loaded = loaded.get(word) if isinstance(loaded, Mapping) else None
    return loaded


def _averages(loaded: Mapping[Any, Any], raw: str, path: str = "", depth: int = 4) -> Iterator[str]:
    """Find further averages by name, as callbacks of training keep them beside the weights: a mapping or list."""
    for key, value in loaded.items():
        place = f"{path}{key}"
        if place == raw or str(key).startswith("optimizer"):
            continue
        if raw and AVERAGE_WORDS.search(str(key)) and _holds_tensors(value):
            yield place
        elif isinstance(value, Mapping) and depth:
            yield from _averages(value, raw, f"{place}.", depth - 1)


def _holds_tensors(value: Any) -> bool:
    """Tell whether a mapping or list holds mostly tensors, itself or one level below."""
    import torch

    values = list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else []
    count = sum(torch.is_tensor(one) for one in values)
    return len(values) > 1 and 2 * count > len(values)


def _one_copy(weights: dict[str, Any], section: str | None, loaded: Mapping[Any, Any]) -> dict[str, Any]:
    """Take the weights without a second copy of them that stands among them, under keys with another first word."""
    words = {key.partition(".")[0] for key in weights}
    if section is not None and not isinstance(_below(loaded, section), Mapping):
        chosen = {key.partition(".")[2]: value for key, value in weights.items() if key.startswith(f"{section}.")}
        if not chosen:
            names = sorted(words | {str(key) for key, value in loaded.items() if isinstance(value, Mapping)})
            raise UnclearWeightsError(f"it holds nothing under {section}; it holds {', '.join(names[:10])}")
        return chosen
    for word in AVERAGED if section is None else ():
        copy = {key.partition(".")[2] for key in weights if key.startswith(f"{word}.")}
        others = {key for key in weights if not key.startswith(f"{word}.")}
        if copy and copy <= others | {key.partition(".")[2] for key in others}:
            first = ", ".join(sorted(words - {word})[:3])
            raise UnclearWeightsError(f"it holds weights under {first} and also holds {word}; their predictions differ")
    return weights


def settings_in(loaded: Any) -> dict[str, Any]:
    """Read the settings of a checkpoint as JSON values, empty where it has none.

    Those are its hyper-parameters; else its ``config``, with the numbers and texts that stand beside it.
    """
    if not isinstance(loaded, Mapping):
        return {}
    if "hyper_parameters" not in loaded and isinstance(loaded.get("config"), Mapping):
        beside = {str(key): value for key, value in loaded.items() if isinstance(value, str | bool | int | float)}
        return {**beside, **plain(loaded["config"])}
    settings = plain(loaded.get("hyper_parameters", {}))
    return settings if isinstance(settings, dict) else {}


def plain(value: Any) -> Any:
    """Turn a value into what JSON can hold; anything but text, number, list or dict becomes its description.

    Raises:
        NoPlainWeightsError: It holds more than `MOST_SETTINGS` values once shared lists are written out.
    """
    return _plain(value, iter(range(MOST_SETTINGS)))


def _plain(value: Any, budget: Iterator[int]) -> Any:
    if next(budget, None) is None:
        raise NoPlainWeightsError(f"its settings unpack to more than {MOST_SETTINGS:,} values")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Namespace | SimpleNamespace):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, budget) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner, budget) for inner in value]
    if isinstance(value, os.PathLike):
        return str(value)
    if hasattr(value, "item") and getattr(value, "size", None) == 1:
        return _plain(value.item(), budget)
    return f"<{type(value).__module__}.{type(value).__qualname__}>"


def isolate() -> None:
    """Leave network, processes and privileges behind.

    Raises:
        OSError: The system does not allow it (no Linux, or a container that forbids user namespaces).
    """
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        unshare, prctl = libc.unshare, libc.prctl
    except (AttributeError, TypeError) as error:
        raise OSError("this system has no namespaces") from error
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def unpickle(source: Path, output: Path, section: str | None) -> None:
    """Unpickle `source`, running whatever it holds, and write its tensors and settings.

    Raises:
        NoPlainWeightsError: There are no weights in it where a checkpoint has them.
        UnclearWeightsError: There are several copies of them.
    """
    import torch
    from safetensors.torch import save_file

    loaded = torch.load(source, map_location="cpu", weights_only=False)
    tensors = {key: value.clone().contiguous() for key, value in weights_in(loaded, section).items()}
    save_file(tensors, output / "weights.safetensors")
    (output / "hyper_parameters.json").write_text(json.dumps(settings_in(loaded)), encoding="utf-8")


def _watch(child: int, limit_s: int) -> int:
    """Wait for a process, and kill it when its time is over; returns its exit code."""
    over: list[int] = []

    def stop(number: int, _frame: Any) -> None:
        over.append(number)
        os.kill(child, signal.SIGKILL)

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(limit_s)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return EXIT_TOO_LONG if over else code


def main(source: str, output: str, limit_s: str, sys_path: str, section: str) -> int:
    """Isolate, unpickle in a child that is the first process of its own process space, and hand on its exit code.

    When that child ends or its time is over, everything that the checkpoint may have started ends with it.
    """
    try:
        isolate()
    except OSError as error:
        print(error, file=sys.stderr)
        return EXIT_NO_ISOLATION
    child = os.fork()
    if child:
        return _watch(child, int(limit_s))
    code = EXIT_UNREADABLE
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        sys.path[:] = json.loads(sys_path)
        unpickle(Path(source), Path(output), section or None)
        code = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:6]))
