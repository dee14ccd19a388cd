"""Job configuration: frozen pydantic models loaded from YAML, ``--set key=value`` and explicit options, and digests.

Precedence, lowest first: the model's defaults, a preset, the YAML file, ``--set``, options of the command. A key that
the file states replaces the preset's whole; ``--set key.sub=value`` changes one value inside.

A YAML file with a key ``recipe`` is a preset: it holds one section per job, by the job's name; each job takes its own.
"""

from __future__ import annotations

import contextlib
import copy
import fnmatch
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from inkbatch.documents import parse_yaml, read_yaml_file
from inkbatch.errors import ConfigError
from inkbatch.redaction import HIDDEN, holds_secret, shown
from inkbatch.validation import in_words

PRESET_KEY = "recipe"
LAUNCH_KEY = "launch"  # of a job file: how the job is launched; read by inkbatch.launch.jobfile
ROOT_KEY = "root"
DESTINATION_KEYS = (ROOT_KEY, "output_root")
ROOT_MARK = "ROOT/"  # begins a path that counts from ROOT

WindowName = Literal["hann", "gaussian", "uniform", "hann-symmetric", "gaussian-cdf"]  # blending weights of a tile

_RANGE_TEXT = re.compile(r"(\d{1,9}):(\d{1,9})")


def _range_of_text(value: Any) -> Any:
    found = _RANGE_TEXT.fullmatch(value.strip()) if isinstance(value, str) else None
    return (int(found[1]), int(found[2])) if found else value


LayerPair = Annotated[tuple[int, int], BeforeValidator(_range_of_text, json_schema_input_type=tuple[int, int] | str)]
"""Half-open range of layer numbers: ``[17, 43]``, or ``17:43`` as the command line writes it."""

_CHECK: ContextVar[SettingsCheck | None] = ContextVar("inkbatch_settings_check", default=None)
_NAMED_PLACE = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]{0,127})=(.+)$")
_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([KMGT]?i?B?)\s*$", re.IGNORECASE)
_SIZE_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _SIZE_UNITS[_letter] = _SIZE_UNITS[f"{_letter}i"] = _SIZE_UNITS[f"{_letter}ib"] = 1024**_power
    _SIZE_UNITS[f"{_letter}b"] = 1000**_power
PATH_KEYS = frozenset(
    {"source", "volume", "catalog", "root", "output_root", "output", "to", "folder", "image", "images", "coco"}
)
PATH_OR_NAME_KEYS = frozenset(
    {"mask", "labels", "ignore", "bundle", "dataset", "start_from", "encoder_weights", "versus", "predictions", "maps"}
    | {"annotations", "supervision_mask", "validation_mask", "bundles"}
)
DATA_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy", ".zarr", ".pth", ".safetensors")


class Assumed(str):
    """The value of an option that nobody gave, from the environment or the workspace: a file or ``--set`` wins."""


@dataclass
class SettingsCheck:
    """Check of a command's settings in this process.

    Attributes:
        settings: Validated settings that the command handed over; None if it did not come that far.
    """

    settings: JobConfig | None = None


@contextlib.contextmanager
def settings_check() -> Iterator[SettingsCheck]:
    """Let a command inside the block validate its settings, hand them over, and end instead of working.

    A launcher runs the very words that its tasks will get, so that a wrong one is refused before anything is submitted.
    """
    check = SettingsCheck()
    token = _CHECK.set(check)
    try:
        yield check
    finally:
        _CHECK.reset(token)


def is_checking() -> bool:
    """Tell if a `settings_check` is in progress."""
    return _CHECK.get() is not None


def ends_with_check(settings: JobConfig) -> bool:
    """Hand a command's settings to the `settings_check` in progress, if there is one; True tells the command to end."""
    check = _CHECK.get()
    if check is None:
        return False
    check.settings = settings
    return True


class JobConfig(BaseModel):
    """Base of every job's configuration. Frozen; unknown keys are errors.

    Attributes:
        job: Name of the command, and of its section in a preset; empty for settings that are no job of their own.
        spelled: Options and arguments of the command whose names are not those of their settings, by setting.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    job: ClassVar[str] = ""
    spelled: ClassVar[Mapping[str, str]] = {"segment": "SEGMENT"}

    @classmethod
    def load(
        cls,
        file: str | None = None,
        sets: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
        preset: Mapping[str, Any] | None = None,
    ) -> Self:
        """Build and validate the configuration; nothing else is read.

        Args:
            file: YAML file with a mapping, or None; of a preset the job's section is taken. Its ``launch`` block is no
                setting and is left to the engines. Paths in it count from the file, see `located`; ``ROOT/…``
                counts from `root`, here and in a preset.
            sets: ``key=value`` or ``key.sub=value``; the value is read as YAML.
            options: Values of the command's own options; None means "not given", see `Assumed`, too.
            preset: Settings of lower precedence than all of these, see `inkbatch.presets`.

        Raises:
            ConfigError: Unreadable YAML, a preset without a section for this job, an unknown key (near matches are
                named), or a value that does not validate.
        """
        values: dict[str, Any] = copy.deepcopy(dict(preset or {}))
        if file:
            values |= located(section_of(read_yaml(file), cls.job, file), Path(file).parent)
            values.pop(LAUNCH_KEY, None)
        for item in sets:
            _apply_set(values, item)
        given = {key: value for key, value in (options or {}).items() if value is not None}
        assumed = {key: str(value) for key, value in given.items() if isinstance(value, Assumed)}
        values = {**assumed, **values, **{key: value for key, value in given.items() if key not in assumed}}
        if ROOT_KEY in cls.model_fields:
            root = values.get(ROOT_KEY) or cls.model_fields[ROOT_KEY].default
            values = {key: _below_root(value, str(root)) for key, value in values.items()}
        return cls._validated(values, file or "configuration", cls.option_words(options or {}))

    def request(self, **replaced: Any) -> dict[str, Any]:
        """Dump the settings without their destination, as a manifest keeps them for `inkbatch rerun`.

        Args:
            replaced: Values in place of those that were asked for: catalogs looked up, paths made absolute. None takes
                the key out.
        """
        asked = {**self.model_dump(mode="json"), **replaced}
        return {key: value for key, value in asked.items() if value is not None and key not in DESTINATION_KEYS}

    @classmethod
    def checked(cls, values: Mapping[str, Any], place: str) -> Self:
        """Validate `values`; `place` opens the message of a failure."""
        return cls._validated(values, place, {})

    @classmethod
    def _validated(cls, values: Mapping[str, Any], place: str, spelled: Mapping[str, str]) -> Self:
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(f"{place}: {in_words(error, values, model=cls, spelled=spelled)}") from error

    @classmethod
    def option_words(cls, options: Mapping[str, Any]) -> dict[str, str]:
        """Say how the command line gives each setting: by an option of that name, by another word, or by --set."""
        named = {key: f"--{key.replace('_', '-')}" for key in options}
        words = named | dict(JobConfig.spelled) | dict(cls.spelled)
        return {key: words.get(key, f"--set {key}=…") for key in cls.model_fields}


def digest(value: Any) -> str:
    """Compute the SHA-256 of the canonical JSON of `value`, in hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def is_digest(value: Any) -> bool:
    """Tell whether a value looks like one that `digest` returned."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def parse_bytes(text: str | int) -> int:
    """Read a size such as ``2GiB``, ``500MB``, ``1024``.

    Raises:
        ConfigError: Not a size.
    """
    if isinstance(text, int):
        return text
    match = _SIZE.match(text)
    unit = match.group(2).lower() if match else ""
    if not match or unit not in _SIZE_UNITS:
        raise ConfigError(f"size {text!r} is not understood; write for example 2GiB, 500MB or a number of bytes")
    return int(float(match.group(1)) * _SIZE_UNITS[unit])


def is_pattern(name: str) -> bool:
    """Tell if a name stands for several: it holds ``*``, ``?`` or ``[``."""
    return any(mark in name for mark in "*?[")


def matching(name: str, known: Sequence[str], what: str) -> list[str]:
    """List the known names that a pattern matches, sorted; a name that is none stands for itself.

    Raises:
        ConfigError: The pattern matches none; `what` says what was looked through.
    """
    if not is_pattern(name):
        return [name]
    found = sorted(fnmatch.filter(known, name))
    if not found:
        raise ConfigError(f"{what}: none matches {name!r}; known are {', '.join(sorted(known)) or 'none'}")
    return found


def named_place(text: str) -> tuple[str | None, str]:
    """Read ``NAME=PLACE`` or ``PLACE``: the name, None where there is none, and the place.

    Raises:
        ConfigError: The name is a secret's: a variable that landed behind the wrong option.
    """
    found = _NAMED_PLACE.match(text)
    if found and holds_secret(found[1]):
        raise ConfigError(
            f"expected NAME=PLACE of a bundle, got {found[1]}={HIDDEN}, which looks like a secret; export it where "
            "the job runs, and choose another name if it is a bundle's"
        )
    return (found[1], found[2]) if found else (None, text)


def section_of(values: dict[str, Any], job: str, place: str) -> dict[str, Any]:
    """Take a file's settings for one job: all of it, or of a preset the job's section.

    Args:
        values: Content of the file.
        job: Name of the job.
        place: Opens the message of a failure.

    Raises:
        ConfigError: A preset that has no such section.
    """
    if PRESET_KEY not in values:
        return values
    section = values.get(job) if job else None
    if not isinstance(section, dict):
        known = sorted(key for key, value in values.items() if isinstance(value, dict))
        raise ConfigError(
            f"{place}: is a preset without a section for the job {job or 'that was asked for'!r}; it has sections for "
            f"{', '.join(known) or 'none'}"
        )
    return section


def located(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Let the paths in a file's settings count from that file.

    Settings that may be a name or a path (bundle, dataset, labels, …) are paths where they hold a ``/`` or end as
    pictures and arrays do. Addresses, absolute paths and ``ROOT/…`` stay; a layout's inner folders hang on the layout's
    own.
    """
    return {key: _located(key, value, folder) for key, value in values.items()}


def _located(key: str, value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        inner = {name: part for name, part in value.items() if key != "images" or name == "folder"}
        return {**value, **located(inner, folder)}
    if isinstance(value, list):
        return [_located(key, part, folder) for part in value]
    if not isinstance(value, str) or "://" in value or value.startswith(("/", "~", ROOT_MARK)) or not value:
        return value
    is_path = key in PATH_KEYS or (key in PATH_OR_NAME_KEYS and ("/" in value or value.lower().endswith(DATA_ENDINGS)))
    return os.path.normpath(folder / value) if is_path else value


def _below_root(value: Any, root: str) -> Any:
    if isinstance(value, dict):
        return {key: _below_root(part, root) for key, part in value.items()}
    if isinstance(value, list):
        return [_below_root(part, root) for part in value]
    if isinstance(value, str) and value.startswith(ROOT_MARK):
        return f"{root.rstrip('/')}/{value.removeprefix(ROOT_MARK)}"
    return value


def read_yaml(file: str) -> dict[str, Any]:
    """Read the mapping in a YAML file; empty for an empty file.

    Raises:
        ConfigError: It cannot be read, is not YAML, or holds something else than a mapping.
    """
    values = read_yaml_file(file)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: expected keys with values, got {shown(values)}")
    return _with_text_keys(values, file)


def _with_text_keys(values: dict[Any, Any], file: str) -> dict[str, Any]:
    for key in values:
        if not isinstance(key, str):
            raise ConfigError(f"{file}: expected keys of text, got {shown(key)}; put quotes around it")
    return values


def _apply_set(values: dict[str, Any], item: str) -> None:
    key, equals, text = item.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {shown(item)}: expected key=value, for example --set stride_px=32")
    target = values
    *parents, last = key.split(".")
    for parent in parents:
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {key}: {parent!r} is not a mapping")
    value = parse_yaml(text, f"--set {key}=…")
    if isinstance(value, str) and text != text.rstrip() and value == text.strip():
        raise ConfigError(
            f"--set {key}: expected text without blanks at its end, got {shown(text, key)}; leave them out, or put "
            "quotes inside if they belong to it"
        )
    target[last] = value
