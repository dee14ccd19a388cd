"""Keys of published files -> a network's own keys, whole or not at all.

Wrappers' prefixes come off, a network's own prefix goes on, older names are translated, tensors that a file holds
twice are proved equal, and what training left beside the weights is left out and said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from inkbatch.errors import DataError, MismatchError
from inkbatch.models.base import InkModel, ModelConfig
from inkbatch.models.unpickling import NoPlainWeightsError, UnclearWeightsError, weights_in
from inkbatch.text import count_text
from inkbatch.validation import reason

LISTED_KEYS = 20

WRAPPERS = ("model", "module", "backbone", "_orig_mod")
"""First words of a key that wrappers put there: Lightning modules, data-parallel and compiled networks."""

OWN = ("net", "backbone", "canonical")
"""First words of our networks' keys, which a file may lack that was saved from the part inside."""

COMPILED = "_orig_mod."

LEFTOVER = re.compile(
    r"n_averaged|num_updates|ema_decay|criterion|criteria|loss(es)?|loss_\w+|\w+_loss|metrics?|\w+_metrics?"
    r"|(train|val|valid|validation|test)_\w+"
)
"""First word of keys, behind wrappers, that belong to training: losses, metrics, the counter of averaged weights."""


@dataclass(frozen=True)
class Matched:
    """Weights under a network's keys.

    Attributes:
        tensors: All of the network's keys, and no other.
        left_out: Keys of the file that belong to training and to no network.
        twice: Number of tensors that the file holds under two names, proved equal.
    """

    tensors: dict[str, Tensor]
    left_out: tuple[str, ...] = ()
    twice: int = 0

    @property
    def notes(self) -> list[str]:
        """Lines for the user: what of the file was not taken."""
        lines = []
        if self.left_out:
            lines.append(f"note: left out, since no network has them: {_listed(self.left_out)}")
        if self.twice:
            tensors = count_text(self.twice, "tensor")
            lines.append(f"note: {tensors} stored under two names in the file, with equal values; one was taken")
        return lines


@dataclass(frozen=True)
class _Spelling:
    """One way to read a file's keys: `names` {new: old}, and pairs of old keys that share a new one."""

    names: dict[str, str]
    twins: tuple[tuple[str, str], ...] = ()


def match_keys(model: InkModel, state_dict: Mapping[str, Any], source: str = "checkpoint") -> dict[str, Tensor]:
    """Bring a state dict under the keys of `model`; see `matched`."""
    return matched(model, state_dict, source).tensors


def matched(
    model: InkModel, state_dict: Mapping[str, Any], source: str = "checkpoint", leave_out: Sequence[str] = ()
) -> Matched:
    """Bring a state dict under the keys of `model`, whole or not at all. Nothing is loaded here.

    Prefixes are taken off or put on in the way that fits the network best, by names and shapes. A network whose files
    were published under other names has a classmethod ``published_key(key) -> key`` that gives the present name; two
    names that fall together there are one tensor stored twice.

    Args:
        model: The network.
        state_dict: Tensors by key, or a whole checkpoint that holds them under ``state_dict``, ``model_state_dict``.
        source: Name in messages.
        leave_out: Patterns (``stats.*``) of further keys of the file that are no part of the network.

    Returns:
        Tensors for `model.load_state_dict(…, strict=True)`, and what was left out.

    Raises:
        MismatchError: Keys are missing, unexpected, or of another shape or kind of number; they are listed.
        DataError: There are no plain weights in it, or a tensor stored twice has two values.
    """
    try:
        weights = weights_in(state_dict)
    except NoPlainWeightsError as error:
        raise DataError(f"{source}: no plain weights: {error}") from error
    except UnclearWeightsError as error:
        raise DataError(f"{source}: {error}; choose one of them") from error
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    left_out = tuple(key for key in weights if _is_left_out(key, wanted, leave_out))
    kept = {key: value for key, value in weights.items() if key not in set(left_out)}
    best, most = _Spelling({}), -1
    for spelling in _spellings(kept, model):
        fitting = sum(wanted.get(new) == tuple(kept[old].shape) for new, old in spelling.names.items())
        if fitting > most:
            best, most = spelling, fitting
    found = {new: tuple(kept[old].shape) for new, old in best.names.items()}
    problems = _problems(wanted, found) + _other_kinds(model, {new: kept[old] for new, old in best.names.items()})
    if problems:
        raise MismatchError(
            f"{source}: does not fit model {model.architecture}: {'; '.join(problems)}. Nothing was loaded; name the "
            "architecture and config that these weights were trained with"
        )
    _require_equal(kept, best.twins, source)
    return Matched({key: kept[best.names[key]] for key in wanted}, left_out, len(best.twins))


def infer_config(
    model_class: type[InkModel], state_dict: Mapping[str, Tensor], source: str = "checkpoint"
) -> ModelConfig:
    """Read the config of a network from the names and shapes of its weights, wrappers' prefixes or not.

    Raises:
        MismatchError: `model_class` cannot tell its config from keys, or these are not its keys.
    """
    infer = getattr(model_class, "infer_config", None)
    if infer is None:
        raise MismatchError(f"{source}: model {model_class.architecture} needs its config written out; give it one")
    first: MismatchError | None = None
    kept = {key: value for key, value in state_dict.items() if not _is_left_out(key, {}, ())}
    for spelling in _spellings(kept, model_class):
        try:
            config: ModelConfig = infer({new: tuple(kept[old].shape) for new, old in spelling.names.items()})
        except MismatchError as error:
            first = first or error
        except ValidationError as error:
            impossible = f"{model_class.architecture}: no network has weights of these shapes: {reason(error)}; "
            first = first or MismatchError(f"{impossible}name the architecture that they were trained with")
        else:
            return config
    raise MismatchError(f"{source}: {first}") from first


def fits(model_class: type[InkModel], state_dict: Mapping[str, Tensor]) -> bool:
    """Tell whether names and shapes are all of a network's, without building its weights."""
    try:
        with torch.device("meta"):
            model = model_class(infer_config(model_class, state_dict))
        matched(model, {key: value.to("meta") for key, value in state_dict.items()})
    except DataError:
        return False
    return True


def _is_left_out(key: str, wanted: Mapping[str, Any], patterns: Sequence[str]) -> bool:
    """Tell whether a key is training's or named by the user; never one that the network has."""
    if key in wanted:
        return False
    bare = _without_wrappers(key)
    leftover = LEFTOVER.fullmatch(bare.partition(".")[0]) and bare not in wanted
    return bool(leftover) or any(fnmatchcase(key, pattern) for pattern in patterns)


def _require_equal(weights: Mapping[str, Tensor], twins: Sequence[tuple[str, str]], source: str) -> None:
    """Check that tensors under two names are one.

    Raises:
        DataError: They are not.
    """
    differing = [
        f"{first} and {second}"
        for first, second in twins
        if not weights[first].is_meta and not torch.equal(weights[first], weights[second])
    ]
    if differing:
        raise DataError(
            f"{source}: {count_text(len(differing), 'tensor')} stored under two names in the file, with values that "
            f"differ: {_listed(differing)}; the file is damaged or was put together from two, fetch it again"
        )


def _spellings(weights: Mapping[str, Tensor], model: InkModel | type[InkModel]) -> Iterator[_Spelling]:
    """List ways to spell the keys, the file's own first: without wrappers, and with the network's own first word."""
    rename = getattr(model, "published_key", str)
    own = OWN if isinstance(model, type) else tuple({key.partition(".")[0] for key in model.state_dict()})
    if not isinstance(model, type) and len(own) > 1:
        own = ()  # no word goes in front of all
    stripped = [*_without_common_prefix(weights), {_without_wrappers(key): key for key in weights}]
    inside = ({f"{word}.{key}": old for key, old in names.items()} for names in stripped for word in own)
    for names in chain(stripped, inside):
        if len(names) == len(weights):  # no two keys fell together
            yield _renamed(names, rename)


def _renamed(names: Mapping[str, str], rename: Any) -> _Spelling:
    found: dict[str, str] = {}
    twins = []
    for key, old in names.items():
        new = rename(key)
        if new in found:
            twins.append((found[new], old))
        else:
            found[new] = old
    return _Spelling(found, tuple(twins))


def _without_common_prefix(weights: Mapping[str, Tensor]) -> Iterator[dict[str, str]]:
    """Yield the keys as they are, then without the first word common to all, then without the next, and so on."""
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
    """Remove the leading wrappers' words from a key, whichever it has."""
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
    """Find numbers of another kind: integers (quantised weights), booleans or complex numbers instead of floats."""
    other = [
        f"{key} (model {value.dtype}, file {found[key].dtype})"
        for key, value in model.state_dict().items()
        if key in found and found[key].is_floating_point() != value.is_floating_point()
    ]
    return [f"{len(other)} of another kind of number: {_listed(other)}"] if other else []


def _listed(keys: Sequence[str]) -> str:
    more = f", and {len(keys) - LISTED_KEYS} more" if len(keys) > LISTED_KEYS else ""
    return ", ".join(keys[:LISTED_KEYS]) + more
