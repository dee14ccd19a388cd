"""Inert stand-ins for the names that training checkpoints carry beside their weights.

A Lightning checkpoint is a pickle that also holds schedulers, optimisers and configs. Those objects are of no use
here, and torch's safe loader refuses files that name them. So the loader is told to put a stand-in of ours wherever
such a name stands: nothing of the named module is imported, let alone run. Names outside the tables below stay
refused, since no training code needs them in a checkpoint.
"""

from __future__ import annotations

import _compat_pickle
import contextlib
import io
import pickletools
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

LEGACY_PICKLES = 4
"""A checkpoint of before torch 1.6 is a row of pickles: magic number, protocol, system facts, then the data."""

TRAINING_MODULES = (
    "__main__",
    "albumentations",
    "lightning",
    "lightning_fabric",
    "lightning_utilities",
    "ml_collections",
    "omegaconf",
    "pytorch_lightning",
    "segmentation_models_pytorch",
    "torch.nn",
    "torch.optim",
    "torchmetrics",
    "transformers",
    "typing",
    "warmup_scheduler",
)
"""Modules, with all below them, whose objects are training machinery or configs."""


class StandIn:
    """Takes the place of one object: accepts any construction and any state, and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> StandIn:
        """Accept any arguments."""
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class Bag(dict[str, Any]):
    """Takes the place of a namespace of settings."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.update(state)


class DtypeName:
    """Takes the place of a numpy dtype: its text, such as ``f8``, and its byte order."""

    def __init__(self, text: Any, *_: Any) -> None:
        self.text = text.decode() if isinstance(text, bytes) else str(text)
        self.order = "<"

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else "<"
        self.order = ">" if order in (b">", ">") else "<"


def _scalar(dtype: Any, data: Any = None) -> Any:
    """Turn a numpy scalar into a Python number; anything but one plain number becomes a stand-in."""
    if not isinstance(dtype, DtypeName) or dtype.text[:1] not in "biufc":
        return StandIn()
    raw = data.encode("latin-1") if isinstance(data, str) else data
    return np.frombuffer(raw, np.dtype(dtype.order + dtype.text))[0].item()


def _path(*parts: Any) -> str:
    """Turn a path into text."""
    return str(Path(*map(str, parts)))


def _dict(*_: Any) -> dict[Any, Any]:
    """Turn a dict with a default into a plain dict."""
    return {}


def _attribute(*_: Any) -> StandIn:
    """Stand in for an attribute of a class, such as a scheduler's function; it is never looked up."""
    return StandIn()


NAMED: dict[str, Callable[..., Any]] = {
    "argparse.Namespace": Bag,
    "builtins.bool": bool,
    "builtins.dict": dict,
    "builtins.float": float,
    "builtins.frozenset": frozenset,
    "builtins.getattr": _attribute,
    "builtins.int": int,
    "builtins.list": list,
    "builtins.object": StandIn,
    "builtins.str": str,
    "builtins.tuple": tuple,
    "collections.defaultdict": _dict,
    "functools.partial": StandIn,
    "numpy._core.multiarray._reconstruct": _attribute,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy.core.multiarray._reconstruct": _attribute,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.dtype": DtypeName,
    "numpy.ndarray": StandIn,
    "pathlib.Path": _path,
    "pathlib.PosixPath": _path,
    "pathlib.PurePosixPath": _path,
    "pathlib.WindowsPath": _path,
    "types.SimpleNamespace": Bag,
}


def stand_in_for(name: str) -> Callable[..., Any] | None:
    """Return the replacement for a dotted name; None if the name does not belong in a checkpoint."""
    if name in NAMED:
        return NAMED[name]
    if any(name.startswith(f"{module}.") for module in TRAINING_MODULES):
        module, _, own_name = name.rpartition(".")
        return type(own_name, (StandIn,), {"__module__": module})
    return None


def _names(stream: IO[bytes], pickles: int) -> Iterator[str]:
    for _ in range(pickles):
        for opcode, argument, _position in pickletools.genops(stream):
            if opcode.name == "GLOBAL":
                module, name = str(argument).split(" ", 1)
                module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
                yield f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}"


def names_in(path: Path) -> set[str]:
    """List the dotted names that a torch checkpoint refers to, as far as it can be read. Runs nothing of it."""
    found: set[str] = set()
    unreadable = (ValueError, zipfile.BadZipFile, EOFError, MemoryError, OverflowError)  # lengths may be anything
    with contextlib.suppress(*unreadable):
        if not zipfile.is_zipfile(path):
            with path.open("rb") as stream:
                found.update(_names(stream, LEGACY_PICKLES))
        else:
            with zipfile.ZipFile(path) as archive:
                for inner in archive.namelist():
                    if inner.endswith("data.pkl"):
                        found.update(_names(io.BytesIO(archive.read(inner)), 1))
    return found


def inert_globals(path: Path) -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Return stand-ins for the names in a file, in the form that `torch.serialization.safe_globals` takes."""
    pairs = ((stand_in_for(name), name) for name in sorted(names_in(path)))
    return [(stand_in, name) for stand_in, name in pairs if stand_in is not None]
