"""Presets: what is known of each published system, as data: its contract, where its weights are, what is assumed.

A preset is a YAML file in ``jobs/presets/models/`` (of an installed package: ``inkbatch/jobs/presets/models/``), named
by its file name; a user's own may lie anywhere. A preset that says ``extends: NAME`` states only what differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inkbatch import presets
from inkbatch.documents import read_yaml_file
from inkbatch.errors import ConfigError
from inkbatch.models.bundle import Contract
from inkbatch.redaction import shown
from inkbatch.text import near_matches
from inkbatch.validation import in_words

FOLDERS = tuple(folder / "models" for folder in presets.FOLDERS)
"""Folders of the shipped presets: in an installed package, and in a checkout."""

Model = TypeVar("Model", bound=BaseModel)

MERGED = ("model", "contract")
"""Mappings of which an extending preset states only the keys that differ; all other keys are replaced."""


class Publication(BaseModel):
    """One place where the weights are, or were, published.

    Attributes:
        where: ``hf://owner/repo``, or in words where no program can fetch it.
        file: Name of the file there.
        sha256: Digest of the file, where somebody has written it down.
        note: For people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    where: str
    file: str | None = None
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    note: str | None = None


class Preset(BaseModel):
    """One published system. All texts are for people; they end up in the bundle and in the docs.

    Attributes:
        name: Name of its file.
        title: What it is, in a line.
        by: Who published it.
        architecture: Registered name.
        model: Values of the architecture's config that the weights do not tell; those that they do tell must agree.
        output_scale: Input pixels per output pixel.
        contract: What the network must be fed.
        layers: How the layers were chosen.
        depth_order: Which segments must be reversed, and who says so.
        intensity: How 16 bits became 8, and what was done to the 8.
        training: What it was trained on and, above all, what intensities were divided by.
        seen: Data that it was trained on; scores there say nothing.
        blending: How the original put tiles together, and how inkbatch differs.
        published: Where the weights are.
        licence: Of the weights, as far as stated.
        assumptions: Values that are not published and are assumed here.
        text: Anything else.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    title: str
    by: str
    architecture: str
    model: dict[str, Any] = Field(default_factory=dict)
    output_scale: int = Field(ge=1)
    contract: Contract
    layers: str
    depth_order: str
    intensity: str
    training: str
    seen: str = "Not written down here; read the model card before you score it on anything."
    blending: str
    published: tuple[Publication, ...]
    licence: str
    assumptions: tuple[str, ...]
    text: str = ""


def preset_names() -> list[str]:
    """List the names of the shipped presets, sorted."""
    return presets.preset_names(FOLDERS)


def presets_by_scale() -> list[Preset]:
    """List the shipped presets, from the finest voxel edge to the coarsest."""
    return sorted(
        map(load_preset, preset_names()), key=lambda preset: (preset.contract.voxel_size_um or 0, preset.name)
    )


def load_preset(name: str) -> Preset:
    """Read a preset.

    Args:
        name: Name of a shipped preset, or path of a YAML file.

    Raises:
        ConfigError: There is no such preset (near matches are named), or it does not validate.
    """
    path = presets.preset_path(name, folders=FOLDERS)
    return _checked(Preset, {**preset_values(path, ()), "name": path.stem}, str(path))


def changed_contract(contract: Contract, changes: Mapping[str, Any], place: str) -> Contract:
    """Replace some values of a contract; ``{layers: {count: 30}}`` replaces that one value only.

    Raises:
        ConfigError: A key that a contract does not have, or a value that does not validate.
    """
    values = contract.model_dump()
    _require_known(changes, place)
    return _checked(Contract, merged(values, changes), place)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `changes` over `base`, mapping by mapping; neither is changed."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = merged(old, value) if both else value  # type: ignore[arg-type]  # both are mappings
    return result


def preset_values(path: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    """Read the values of a preset file, over those of the preset that it extends."""
    if path in below:
        raise ConfigError(f"preset {path}: extends itself, by way of {' and '.join(file.stem for file in below)}")
    try:
        values = read_yaml_file(path)
    except ConfigError as error:
        raise ConfigError(f"preset {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"preset {path}: expected a mapping of keys to values, got a {type(values).__name__}")
    if "name" in values:
        raise ConfigError(f"preset {path}: a preset is named by its file; leave 'name' out")
    for key in MERGED:
        if not isinstance(values.get(key) or {}, dict):
            raise ConfigError(f"preset {path}: {key}: expected a mapping of keys to values, got {shown(values[key])}")
    base_name = values.pop("extends", None)
    if base_name is None:
        return values
    base = preset_values(presets.preset_path(str(base_name), path.parent, FOLDERS), (*below, path))
    both = {key: merged(base[key], values[key]) for key in MERGED if base.get(key) and values.get(key)}
    return base | values | both


def _require_known(changes: Mapping[str, Any], place: str) -> None:
    known = sorted(Contract.model_fields)
    for key in changes:
        if key not in known:
            raise ConfigError(f"{place}: the contract has no key {key!r}{near_matches(key, known)}")


def _checked(model: type[Model], values: Mapping[str, Any], place: str) -> Model:
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(f"{place}: {in_words(error, values, model=model)}") from error
