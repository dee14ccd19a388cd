"""Published checkpoint files -> state dicts under our keys. Nothing is ever unpickled blindly, nothing loads by half.

`read_state_dict` reads Lightning ``.ckpt``, torch ``.pt``/``.pth``/``.bin`` and ``.safetensors`` files, told apart by
their content; `match_keys` finds the spelling of the keys that fits a network, and refuses what does not fit.
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
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from inkbatch.errors import CorruptDataError, DataError, MismatchError
from inkbatch.io.store.location import Location, retried
from inkbatch.models.base import InkModel, ModelConfig
from inkbatch.models.stub_modules import inert_globals
from inkbatch.models.unpickling import NoPlainWeightsError, settings_in, weights_in
from inkbatch.models.untrusted import unpickle_untrusted

HASH_BLOCK_BYTES = 1 << 20
LISTED_KEYS = 20

WRAPPERS = ("model", "module", "backbone", "_orig_mod")
"""First words of a key that wrappers put there: Lightning modules, data-parallel and compiled networks."""

COMPILED = "_orig_mod."

WEB = ("http", "https")
"""Protocols without folders: asking whether an address is one would fetch all of it."""


@dataclass(frozen=True)
class ReadCheckpoint:
    """What a checkpoint file holds.

    Attributes:
        state_dict: Tensors on the CPU, under the file's own keys.
        hyper_parameters: What the training script noted, as JSON values; a safetensors file's metadata.
        sha256: Digest of the file, 64 hex digits.
        source: Where it was read from.
    """

    state_dict: dict[str, Tensor]
    hyper_parameters: dict[str, Any]
    sha256: str
    source: str


def read_state_dict(path: str | os.PathLike[str] | Location, *, trust_pickle: bool = False) -> ReadCheckpoint:
    """Read a published checkpoint.

    Args:
        path: File or URI.
        trust_pickle: Let a file that cannot be read as plain weights run its own program, in an isolated process.

    Raises:
        DataError: The file is missing, holds no weights, or wants to be unpickled and `trust_pickle` is not set.
        CorruptDataError: It is damaged or no checkpoint.
        ConfigError: It must be unpickled, and this system cannot isolate the process.
    """
    location = path if isinstance(path, Location) else Location.parse(path)
    with _on_disk(location) as file:
        digest, kind = _sha256(file), _kind(file, location.uri)
        if kind == "safetensors":
            weights, settings = _read_safetensors(file, location.uri)
        else:
            weights, settings = _read_torch(file, location, trust_pickle=trust_pickle)
    return ReadCheckpoint(weights, settings, digest, location.uri)


@contextmanager
def _on_disk(location: Location) -> Iterator[Path]:
    """The file on a local disk; fetched into a temporary folder where it is not."""
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
        raise DataError(f"{location}: the checkpoint cannot be opened: {error}; check its name and rights") from error


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _kind(file: Path, source: str) -> str:
    """``safetensors``, ``zip`` (torch from 1.6 on) or ``pickle`` (before), by the first bytes."""
    with file.open("rb") as stream:
        head = stream.read(9)
    if head[:2] == b"\x80\x02":
        return "pickle"
    if head[8:] == b"{":
        return "safetensors"
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise DataError(f"{source}: a TorchScript program, not weights; save the network's state dict instead")
        return "zip"
    if head[:1] == b"\x80":
        return "pickle"
    raise CorruptDataError(
        f"{source}: neither a torch checkpoint nor a safetensors file, or its end is missing; fetch it again"
    )


def _read_safetensors(file: Path, source: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(file, framework="pt", device="cpu") as opened:
            weights = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118  # no mapping
            settings = dict(opened.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise CorruptDataError(f"{source}: no valid safetensors file: {error}; fetch it again") from error
    if not weights:
        raise DataError(f"{source}: the safetensors file holds no tensors; name another file")
    return weights, settings


def _read_torch(file: Path, location: Location, *, trust_pickle: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    loaded: Any = None
    try:
        loaded = _load_weights_only(file)
        return weights_in(loaded), settings_in(loaded)
    except (pickle.UnpicklingError, NoPlainWeightsError) as error:
        if isinstance(loaded, Mapping):  # it was read; unpickling would give no more
            raise DataError(f"{location}: no plain weights: {error}; ask for a plain state dict") from error
        if trust_pickle:
            return unpickle_untrusted(file, location.uri)
        raise DataError(_refusal(location.uri, error)) from error
    except MemoryError:
        raise
    except Exception as error:  # damaged files fail anywhere inside torch
        raise CorruptDataError(
            f"{location}: torch cannot read it: {type(error).__name__}: {str(error)[:200]}; fetch it again"
        ) from error


def _load_weights_only(file: Path) -> Any:
    with torch.serialization.safe_globals(inert_globals(file)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected pickle protocol")
        return torch.load(file, map_location="cpu", weights_only=True)


def _refusal(source: str, error: Exception) -> str:
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    finding = f"it calls for {named[1]}" if named else str(error).splitlines()[-1][:300]
    return (
        f"{source}: cannot be read as plain weights: {finding}. Unpickling it would run whatever program its author "
        "put into it, with your rights, on your files. Ask for a .safetensors file or a plain state dict; or, if you "
        "trust the author, pass --trust-pickle: the program then runs once, without network and without credentials"
    )


def match_keys(model: InkModel, state_dict: Mapping[str, Any], source: str = "checkpoint") -> dict[str, Tensor]:
    """Bring a state dict under the keys of `model`, whole or not at all. Nothing is loaded here.

    Wrappers' prefixes are stripped in the way that fits the network best, by names and shapes. A network whose files
    were published under other names has a classmethod ``published_key(key) -> key`` that gives the present name.

    Args:
        model: The network.
        state_dict: Tensors by key, or a whole checkpoint that holds them under ``state_dict``, ``model_state_dict``.
        source: Name in messages.

    Returns:
        Tensors for `model.load_state_dict(…, strict=True)`.

    Raises:
        MismatchError: Keys are missing, unexpected, or of another shape or kind of number; they are listed.
        DataError: There are no plain weights in it.
    """
    try:
        weights = weights_in(state_dict)
    except NoPlainWeightsError as error:
        raise DataError(f"{source}: no plain weights: {error}") from error
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    best: dict[str, str] = {}
    most = -1
    for spelling in _spellings(weights, model):
        fitting = sum(wanted.get(new) == tuple(weights[old].shape) for new, old in spelling.items())
        if fitting > most:
            best, most = spelling, fitting
    found = {new: tuple(weights[old].shape) for new, old in best.items()}
    problems = _problems(wanted, found) + _other_kinds(model, {new: weights[old] for new, old in best.items()})
    if problems:
        raise MismatchError(
            f"{source}: does not fit model {model.architecture}: {'; '.join(problems)}. Nothing was loaded; name the "
            "architecture and config that these weights were trained with"
        )
    return {key: weights[best[key]] for key in wanted}


def infer_config(
    model_class: type[InkModel], state_dict: Mapping[str, Tensor], source: str = "checkpoint"
) -> ModelConfig:
    """Config of a network from the names and shapes of its weights, wrappers' prefixes or not.

    Raises:
        MismatchError: `model_class` cannot tell its config from keys, or these are not its keys.
    """
    infer = getattr(model_class, "infer_config", None)
    if infer is None:
        raise MismatchError(f"{source}: model {model_class.architecture} needs its config written out; give it one")
    first: MismatchError | None = None
    for spelling in _spellings(state_dict, model_class):
        try:
            config: ModelConfig = infer({new: tuple(state_dict[old].shape) for new, old in spelling.items()})
        except MismatchError as error:
            first = first or error
        else:
            return config
    raise MismatchError(f"{source}: {first}") from first


def _spellings(weights: Mapping[str, Tensor], model: InkModel | type[InkModel]) -> Iterator[dict[str, str]]:
    """Ways to spell the keys without wrappers, as {new key: key in the file}; the file's own spelling first."""
    rename = getattr(model, "published_key", str)
    for stripped in chain(_without_common_prefix(weights), [{_without_wrappers(key): key for key in weights}]):
        renamed = {rename(new): old for new, old in stripped.items()}
        if len(renamed) == len(weights):  # no two keys fell together
            yield renamed


def _without_common_prefix(weights: Mapping[str, Tensor]) -> Iterator[dict[str, str]]:
    """The keys as they are, then without the first word that all have in common, then without the next, and so on."""
    current = {key: key for key in weights}
    while True:
        yield current
        current = {key.replace(COMPILED, ""): old for key, old in current.items()}
        yield current
        words = {key.partition(".")[0] for key in current}
        if len(words) != 1 or any("." not in key for key in current):
            return
        current = {key.partition(".")[2]: old for key, old in current.items()}


def _without_wrappers(key: str) -> str:
    """A key without its leading wrappers' words, whichever it has."""
    words = key.split(".")
    while len(words) > 1 and words[0] in WRAPPERS:
        words = words[1:]
    return ".".join(words)


def _problems(wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> list[str]:
    missing = [key for key in wanted if key not in found]
    unexpected = [key for key in found if key not in wanted]
    misshapen = [
        f"{key} (model {shape}, file {found[key]})"
        for key, shape in wanted.items()
        if key in found and found[key] != shape
    ]
    named = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    return [f"{len(keys)} {problem}: {_listed(keys)}" for problem, keys in named.items() if keys]


def _other_kinds(model: InkModel, found: Mapping[str, Tensor]) -> list[str]:
    """Numbers of another kind: integers (quantised weights), booleans or complex numbers where floats belong."""
    other = [
        f"{key} (model {value.dtype}, file {found[key].dtype})"
        for key, value in model.state_dict().items()
        if key in found and found[key].is_floating_point() != value.is_floating_point()
    ]
    return [f"{len(other)} of another kind of number: {_listed(other)}"] if other else []


def _listed(keys: list[str]) -> str:
    more = f", and {len(keys) - LISTED_KEYS} more" if len(keys) > LISTED_KEYS else ""
    return ", ".join(keys[:LISTED_KEYS]) + more
