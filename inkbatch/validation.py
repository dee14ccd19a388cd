"""Errors of pydantic in the words of this package: which key, what was expected, what was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from inkbatch.redaction import redact, shown
from inkbatch.text import near_matches

_NOTHING: Mapping[str, str] = MappingProxyType({})
_WISHES = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "keys with values",
    "model_type": "keys with values",
    "model_attributes_type": "keys with values",
    "none_required": "nothing",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "a number below {lt}",
    "less_than_equal": "{le} or less",
    "multiple_of": "a multiple of {multiple_of}",
    "literal_error": "{expected}",
    "union_tag_invalid": "{expected_tags}",
    "too_short": "{min_length} or more",
    "too_long": "{max_length} at most",
    "string_too_short": "{min_length} characters or more",
    "string_too_long": "{max_length} characters at most",
    "string_pattern_mismatch": "text like the pattern {pattern}",
}
_NAME = "a name of letters, digits, '.', '_' or '-' that begins with a letter or digit"
_PATTERNS = {
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$": _NAME,
    r"^[a-z0-9][a-z0-9._-]{0,127}$": f"{_NAME}, in small letters",
    r"^[a-z0-9][a-z0-9._-]{0,99}$": f"{_NAME}, in small letters",
    r"^[a-z0-9][a-z0-9._-]*$": f"{_NAME}, in small letters",
    r"^\d+:\d+$": "START:STOP",
    r"^\d+(:\d+)?$": "a number, or START:STOP",
}
_COUNTED = ("too_short", "too_long")
_RAISED = ("value_error", "assertion_error")


def in_words(
    error: ValidationError,
    values: Any = None,
    *,
    model: type[BaseModel] | None = None,
    spelled: Mapping[str, str] = _NOTHING,
    most: int = 20,
    whole: str = "all of it",
) -> str:
    """Say what a validation found wrong: a sentence for each key, one for all that are missing; ``; `` between.

    Args:
        error: The error.
        values: Values that were validated: they tell keys from the names that pydantic gives to the sides of a union;
            None if there is no union.
        model: The model; with it an unknown key is answered with near matches.
        spelled: Words that follow a key of the first level, by key: how else a user may give it.
        most: Sentences at most.
        whole: Name of the values themselves.
    """
    found: dict[tuple[str | int, ...], list[Any]] = {}
    missing: list[str] = []
    for entry in error.errors():
        path = _path(entry, values)
        if entry["type"] == "missing":
            place = ".".join(map(str, path))
            missing.append(f"{place!r} ({spelled[place]})" if place in spelled else repr(place))
        else:
            found.setdefault(path, []).append(entry)
    sentences = [_sentence(path, entries, model, spelled, whole) for path, entries in found.items()]
    if missing:
        listed = ", ".join(missing[:-1]) + " and " * (len(missing) > 1) + missing[-1]
        sentences.insert(0, f"{listed} {'is' if len(missing) == 1 else 'are'} required and not given")
    more = [f"and {len(sentences) - most} more"] if len(sentences) > most else []
    return "; ".join(sentences[:most] + more)


def reason(error: Exception) -> str:
    """Say why values were refused: in our words where a model refused them, else by the error's name and text."""
    return in_words(error) if isinstance(error, ValidationError) else f"{type(error).__name__}: {error}"


def _path(entry: Any, values: Any) -> tuple[str | int, ...]:
    """List the keys that lead to an entry, without the names of kinds between them."""
    if values is None:
        return tuple(entry["loc"])
    path: list[str | int] = []
    missing, last = entry["type"] == "missing", len(entry["loc"]) - 1
    for number, part in enumerate(entry["loc"]):
        holds = part in values if isinstance(values, Mapping) else _has_item(values, part)
        if holds:
            values = values[part]
        if holds or (missing and number == last):
            path.append(part)
    return tuple(path)


def _has_item(values: Any, part: Any) -> bool:
    return isinstance(values, (list, tuple)) and isinstance(part, int) and part < len(values)


def _sentence(
    path: tuple[str | int, ...],
    entries: Sequence[Any],
    model: type[BaseModel] | None,
    spelled: Mapping[str, str],
    whole: str,
) -> str:
    place, first = ".".join(map(str, path)), entries[0]
    if first["type"] == "union_tag_not_found":
        key = ".".join([place, first["ctx"]["discriminator"].strip("'")])
        return f"{key.removeprefix('.')!r} is required and not given"
    if first["type"] == "extra_forbidden":
        return f"unknown key {place!r}{near_matches(str(path[-1]), _keys_at(model, path[:-1]))}"
    word = _other_word(place, spelled.get(str(path[0]), "") if path else "")
    raised = next((entry for entry in entries if entry["type"] in _RAISED), None)
    if raised:
        return _raised(raised, path, word)
    wishes = dict.fromkeys(_wish(entry) for entry in entries)
    return f"{place or whole}{word}: expected {' or '.join(wishes)}, got {_finding(first, place)}"


def _other_word(place: str, word: str) -> str:
    """Return a word that follows a key, in brackets, unless it says the key again."""
    key = place.split(".")[0]
    return "" if not word or key in word.lower().replace("-", "_") else f" ({word})"


def _raised(entry: Any, path: tuple[str | int, ...], word: str) -> str:
    """Hand on what a validator of ours said, with the place and the value where it does not name them itself."""
    text = redact(str(entry["ctx"]["error"]))
    if path and text.startswith(str(path[-1])):
        path, word = path[:-1], ""
    place = ".".join(map(str, path))
    value = "" if "got" in text or isinstance(entry["input"], (Mapping, BaseModel)) else _finding(entry, place)
    return f"{place}{word}{': ' if place else ''}{text}{f' (got {value})' if value else ''}"


def _wish(entry: Any) -> str:
    kind, given = entry["type"], {key: _number(value) for key, value in entry.get("ctx", {}).items()}
    if kind == "string_pattern_mismatch" and (words := _PATTERNS.get(given["pattern"])):
        return words
    if kind in _WISHES:
        return _WISHES[kind].format(**given)
    return str(redact(entry["msg"]).removeprefix("Input should be "))


def _finding(entry: Any, place: str) -> str:
    value = entry["input"]
    if entry["type"] in _COUNTED:
        return str(entry["ctx"]["actual_length"])
    if entry["type"] == "union_tag_invalid":
        return shown(entry["ctx"]["tag"], place)
    if value is None:
        return "nothing"
    return shown(value, place)


def _number(value: Any) -> Any:
    return f"{value:g}" if isinstance(value, float) else value


def _keys_at(model: type[BaseModel] | None, path: Sequence[Any]) -> list[str]:
    """List the known keys of the model that `path` leads to; none if it leads to something else."""
    kind: Any = model
    for part in path:
        kind = _below(kind, part)
    found = _model_of(kind)
    return sorted(found.model_fields) if found else []


def _below(kind: Any, part: Any) -> Any:
    """Return the annotation of what a key or a number leads to; None if it leads to nothing known."""
    for one in (kind, *get_args(kind)):
        origin = get_origin(one)
        if isinstance(origin, type) and issubclass(origin, (Mapping, Sequence)):
            return get_args(one)[1 if issubclass(origin, Mapping) else 0]
    model = _model_of(kind)
    field = model.model_fields.get(str(part)) if model else None
    return field.annotation if field else None


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """Return a field's model, also where the field may be left out; None if it holds none, or several."""
    kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
    models = [kind for kind in kinds if issubclass(kind, BaseModel)]
    return models[0] if len(models) == 1 else None
