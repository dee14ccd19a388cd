"""Published checkpoint files -> state dicts. Nothing is ever unpickled blindly, nothing loads by half.

`read_state_dict` reads Lightning ``.ckpt``, torch ``.pt``/``.pth``/``.bin`` and ``.safetensors`` files, told apart by
their content; `inkbatch.models.matching` brings them under a network's keys.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from inkbatch.errors import CorruptDataError, DataError, InkbatchError
from inkbatch.io.store.location import Location
from inkbatch.io.store.retrying import retried
from inkbatch.models.stub_modules import inert_globals
from inkbatch.models.unpickling import (
    AVERAGED,
    NoPlainWeightsError,
    UnclearWeightsError,
    section_of,
    settings_in,
    weights_in,
)
from inkbatch.models.untrusted import unpickle_untrusted
from inkbatch.redaction import shown

HASH_BLOCK_BYTES = 1 << 20
PLAIN = (Mapping, list, tuple, str, int, float, Tensor)
"""Content of a file that stands for no program."""
MISTAKEN = {
    b"<!doctype": "but a web page (of the download?)",
    b"<html": "but a web page (of the download?)",
    b"version h": "but a Git LFS pointer to one (git lfs pull)",
}
"""First bytes of what people get in a checkpoint's place, and its name."""
WEB = ("http", "https")
"""Protocols without folders: asking whether an address is one would fetch all of it."""


@dataclass(frozen=True)
class ReadCheckpoint:
    """Content of a checkpoint file.

    Attributes:
        state_dict: Tensors on the CPU, under the file's own keys.
        hyper_parameters: What the training script noted, as JSON values; a safetensors file's metadata.
        sha256: Digest of the file, 64 hex digits.
        source: Where it was read from.
        section: Under which name the file holds these weights, where it is known; empty for the top level.
    """

    state_dict: dict[str, Tensor]
    hyper_parameters: dict[str, Any]
    sha256: str
    source: str
    section: str = ""

    @property
    def averaged(self) -> bool:
        """True for a running average of the weights over training."""
        return self.section in AVERAGED


def read_state_dict(
    path: str | os.PathLike[str] | Location, *, section: str | None = None, trust_pickle: bool | None = False
) -> ReadCheckpoint:
    """Read a published checkpoint.

    Args:
        path: File or URI.
        section: Name of the copy of the weights to take where a file holds several (``model``, ``ema_model``).
        trust_pickle: Let a file that cannot be read as plain weights run its own program, in an isolated process; None
            where nobody can ask for that.

    Raises:
        DataError: The file is missing, holds no weights, holds several copies of them and `section` names none, or
            wants to be unpickled and `trust_pickle` is not set.
        CorruptDataError: It is damaged or no checkpoint.
        ConfigError: It must be unpickled, and this system cannot isolate the process.
    """
    location = path if isinstance(path, Location) else Location.parse(path)
    with _on_disk(location) as file:
        digest, kind = _sha256(file), _kind(file, location.uri)
        try:
            if kind == "safetensors":
                weights, settings = _read_safetensors(file, location.uri)
                require_plain_tensors(weights, location.uri)
                return ReadCheckpoint(weights_in(weights, section), settings, digest, location.uri, section or "")
            return _read_torch(file, location, digest, section, trust_pickle=trust_pickle)
        except UnclearWeightsError as error:
            raise DataError(f"{location}: {error}; name the ones to take with --weights NAME") from error


@contextmanager
def _on_disk(location: Location) -> Iterator[Path]:
    """Yield the file on a local disk; fetched into a temporary folder if it is remote."""
    try:
        if location.protocol not in WEB and location.is_folder():
            raise DataError(f"{location}: a folder; name the checkpoint file in it")
        if location.is_local:
            Path(location.path).open("rb").close()
            yield Path(location.path)
            return
        with tempfile.TemporaryDirectory(prefix="inkbatch-import-") as folder:
            fetched = Path(folder, "checkpoint")
            retried(location.uri, lambda: location.fs.get_file(location.path, str(fetched)))
            yield fetched
    except (FileNotFoundError, PermissionError) as error:
        why = error.strerror or error
        raise DataError(f"{location}: the checkpoint cannot be opened: {why}; check its name and rights") from error


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _kind(file: Path, source: str) -> str:
    """Tell the format by the first bytes: ``safetensors``, ``zip`` (torch from 1.6 on) or ``pickle`` (before)."""
    with file.open("rb") as stream:
        head = stream.read(9)
    if head[:2] == b"\x80\x02":
        return "pickle"
    if head[8:] == b"{":
        return "safetensors"
    if _is_zip(file):
        if any(entry.filename.endswith("/constants.pkl") for entry in _members(file, source)):
            raise DataError(f"{source}: a TorchScript program, not weights; save the network's state dict instead")
        return "zip"
    if head[:1] == b"\x80":
        return "pickle"
    found = next(
        (words for start, words in MISTAKEN.items() if head.lower().startswith(start)), "or its end is missing"
    )
    raise CorruptDataError(
        f"{source}: neither a torch checkpoint nor a safetensors file, {found if head else 'but empty'}; fetch it again"
    )


def _read_safetensors(file: Path, source: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(file, framework="pt", device="cpu") as opened:
            weights = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118  # no mapping
            settings = dict(opened.metadata() or {})
    except MemoryError:
        raise
    except Exception as error:  # malformed headers and unknown kinds of numbers fail in many ways
        raise CorruptDataError(f"{source}: no valid safetensors file: {shown(str(error))}; fetch it again") from error
    if not weights:
        raise DataError(f"{source}: the safetensors file holds no tensors; name another file")
    return weights, settings


def _read_torch(
    file: Path, location: Location, digest: str, section: str | None, *, trust_pickle: bool | None
) -> ReadCheckpoint:
    loaded: Any = None
    try:
        _require_modest_zip(file)
        loaded = _load_weights_only(file)
        weights = weights_in(loaded, section)
        require_plain_tensors(weights, location.uri)
        taken = section or (section_of(loaded) if isinstance(loaded, Mapping) else "")
        return ReadCheckpoint(weights, settings_in(loaded), digest, location.uri, taken)
    except UnclearWeightsError:
        raise
    except InkbatchError:
        raise
    except (pickle.UnpicklingError, NoPlainWeightsError) as error:
        if isinstance(loaded, PLAIN):  # it was read; unpickling would give no more
            raise DataError(f"{location}: no plain weights: {error}; ask for a plain state dict") from error
        if trust_pickle:
            weights, settings = unpickle_untrusted(file, location.uri, section)
            return ReadCheckpoint(weights, settings, digest, location.uri, section or "")
        raise DataError(_refusal(location.uri, error, trust_pickle)) from error
    except MemoryError:
        raise
    except Exception as error:  # damaged files fail anywhere inside torch
        raise CorruptDataError(
            f"{location}: torch cannot read it: {type(error).__name__}: {str(error)[:200]}; fetch it again"
        ) from error


def _is_zip(file: Path) -> bool:
    try:
        return zipfile.is_zipfile(file)
    except zipfile.BadZipFile:  # its end is that of an archive, and damaged: `_members` says so
        return True


def _members(file: Path, source: str) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.infolist()
    except MemoryError:
        raise
    except Exception as error:  # zipfile raises whatever a damaged directory leads it to
        raise CorruptDataError(
            f"{source}: its directory cannot be read ({type(error).__name__}); fetch it again"
        ) from error


def _require_modest_zip(file: Path) -> None:
    """Refuse an archive that unpacks to many times its size; torch stores weights as they are."""
    if not _is_zip(file):
        return
    unpacked = sum(entry.file_size for entry in _members(file, file.name))
    size = file.stat().st_size
    if unpacked > 4 * size + (64 << 20):
        raise CorruptDataError(
            f"{file.name}: expected about {size:,} bytes, it unpacks to {unpacked:,}; fetch it again"
        )


def require_plain_tensors(weights: Mapping[str, Any], source: str) -> None:
    """Refuse tensors that are no plain arrays: sparse, quantised, complex, without values, or larger than their data.

    Raises:
        DataError: There is one; it is named.
    """
    for name, tensor in weights.items():
        kind = ""
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
            kind = f"{tensor.layout}, {tensor.dtype}".replace("torch.", "")
        elif tensor.device.type == "meta":
            kind = "one without values"
        elif tensor.numel() * tensor.element_size() > max(tensor.untyped_storage().nbytes(), 1 << 30):
            kind = f"{list(tensor.shape)} that repeats {tensor.untyped_storage().nbytes()} bytes"
        if kind:
            raise DataError(f"{source}: weight {shown(name)}: expected a plain tensor, got {kind}; save it as one")


def _load_weights_only(file: Path) -> Any:
    with torch.serialization.safe_globals(inert_globals(file)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected pickle protocol")
        return torch.load(file, map_location="cpu", weights_only=True)


def _refusal(source: str, error: Exception, trust_pickle: bool | None) -> str:
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    finding = f"it calls for {named[1]}" if named else _reason(error)
    trusting = (
        ""
        if trust_pickle is None
        else "; or, if you trust the author, pass --trust-pickle: the program then runs once, without network and "
        "without credentials"
    )
    return (
        f"{source}: cannot be read as plain weights: {finding}. Unpickling it would run whatever program its author "
        "put into it, with your rights, on your files. Ask for a .safetensors file or a plain state dict"
        f"{trusting}"
    )


def _reason(error: Exception) -> str:
    """Take what torch found wrong from its message, without the advice around it."""
    words = str(error).partition("WeightsUnpickler error:")[2].split("Check the documentation")[0]
    return " ".join(words.split())[:300] or str(error).splitlines()[-1][:300]
