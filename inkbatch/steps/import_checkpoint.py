"""`inkbatch import-checkpoint`: a published checkpoint becomes a bundle; what it must be fed comes from a preset."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field

from inkbatch.config import JobConfig
from inkbatch.documents import parse_yaml
from inkbatch.errors import ConfigError
from inkbatch.io.store.location import Location
from inkbatch.models import hub
from inkbatch.models.base import InkModel
from inkbatch.models.bundle import WEIGHTS_FILE, Bundle, BundleDocument, Contract, weights_of
from inkbatch.models.fitting import fitted_model, fitting_preset, hints, require_contract
from inkbatch.models.flops import flops_per_tile
from inkbatch.models.importing import WEB, ReadCheckpoint, read_state_dict
from inkbatch.models.presets import Preset, changed_contract, load_preset
from inkbatch.predict.import_checks import import_warnings
from inkbatch.predict.reference import REFERENCE_FILE, keep_reference
from inkbatch.steps.stored_bundle import make_way
from inkbatch.text import count_text

BUNDLE_FILES = ("bundle.json", WEIGHTS_FILE, REFERENCE_FILE)


class ImportConfig(JobConfig):
    """Settings of `inkbatch import-checkpoint`.

    Attributes:
        source: The checkpoint: a path, ``s3://…``, ``https://…``, or ``hf://owner/repo[/file][@revision]``.
        dest: The bundle's folder: a path or a URI.
        preset: Name of a shipped preset, or path of a YAML file; None takes the one that the weights call for.
        name: Name of the bundle, part of the names of predictions; None is the preset's.
        model: Values of the architecture's config that replace the preset's.
        contract: Values of the contract that replace the preset's.
        trust_pickle: Let a file that cannot be read as plain weights run its own program, in an isolated process.
        weights: Name of the copy of the weights to take where the file holds several (``model``, ``ema_model``).
        leave_out: Patterns of the file's keys that are no part of the network (``stats.*``).
        settings: A JSON or YAML file with the settings that the weights were trained with, where it lies apart.
        check: Ask the network a few tiles, to tell one whose answers do not move, and keep one of them in the bundle.
    """

    spelled: ClassVar[Mapping[str, str]] = {"source": "SRC", "dest": "DEST", "preset": "--as"}

    source: str
    dest: str
    preset: str | None = None
    name: str | None = Field(None, pattern=r"^[a-z0-9][a-z0-9._-]*$")
    model: dict[str, Any] = Field(default_factory=dict)
    contract: dict[str, Any] = Field(default_factory=dict)
    trust_pickle: bool = False
    weights: str | None = None
    leave_out: tuple[str, ...] = ()
    settings: str | None = None
    check: bool = True


@dataclass(frozen=True)
class Fetched:
    """Fetched checkpoint: its local path, and its recorded source.

    Attributes:
        location: The file.
        facts: ``uri``; from the hub ``revision``; ``config``, the settings that lie beside it, where there are some.
    """

    location: Location
    facts: dict[str, Any]


def run(config: ImportConfig, *, replace: bool = False) -> list[str]:
    """Turn a checkpoint into a bundle; an equal bundle that is there already is left alone.

    Args:
        config: The settings.
        replace: Remove another bundle at the destination.

    Returns:
        Lines for the user.

    Raises:
        ConfigError: Settings that do not go together; another bundle stands at the destination; no way to the source.
        DataError: The source is not there, damaged, holds no plain weights, or another network than the preset's.
        StorageError: Reading or writing failed again after retries.
    """
    stated = None if config.preset is None else load_preset(config.preset)
    if stated is not None:
        changed_contract(stated.contract, config.contract, f"preset {stated.name}")  # before anything is fetched
    dest = Location.parse(config.dest)
    fetched = fetch(config.source, config.settings)
    read = read_state_dict(fetched.location, section=config.weights, trust_pickle=config.trust_pickle)
    preset = fitting_preset(read) if stated is None else stated
    contract = changed_contract(preset.contract, config.contract, f"preset {preset.name}")
    fitted = fitted_model(preset, read, config.model, config.leave_out)
    model = fitted.model
    require_contract(model, contract, preset)
    document = _document(config, preset, contract, model, read, fetched)
    notes = hints(read.hyper_parameters | fetched.facts.get("config", {}), model, contract)
    lines = [_summary(preset, contract, model), *fitted.notes, *notes]
    way = make_way(
        dest,
        BUNDLE_FILES,
        lambda: Bundle.open(dest).document,
        lambda there: _differences(there, document, model),
        _digests,
        replace=replace,
    )
    if way is None:
        return [*lines, f"bundle: already at {dest}, nothing to do"]
    lines += way
    if config.check:
        warnings = import_warnings(model, contract)
        lines += [f"warning: {text}" for text in warnings]
        asked = {"warnings": warnings, "reference": keep_reference(dest, model, contract)}
        document = document.model_copy(update=asked)
    Bundle.save(dest, model, document)
    known = next((place.where for place in preset.published if place.sha256 == read.sha256), None)
    origin = f"source: {fetched.facts['uri']}, sha256 {read.sha256}" + (f", as published at {known}" if known else "")
    return [*lines, origin, f"bundle: {dest}"]


def fetch(source: str, settings: str | None = None) -> Fetched:
    """Find a checkpoint; those of the hub are brought into its cache, others are read where they are.

    Args:
        source: File, folder that holds one checkpoint (as ``save_pretrained`` writes it), or ``hf://…``.
        settings: File with the training's settings; None takes the ``config.json`` of a folder or repository.

    Raises:
        ConfigError: Not a location, the hub cannot be reached, or `settings` is no JSON or YAML mapping.
        DataError: The hub has no such file; a folder holds none or several.
    """
    facts: dict[str, Any]
    if source.startswith(hub.SCHEME):
        found = hub.fetch(hub.HubReference.parse(source))
        location, beside = Location.parse(found.path), dict(found.config)
        facts = {"uri": str(found.reference), "revision": found.reference.revision}
    else:
        location, beside = _in_folder(Location.parse(source))
        facts = {"uri": location.uri}
    if settings is not None:
        beside = _mapping(Location.parse(settings))
    return Fetched(location, facts | ({"config": beside} if beside else {}))


def _in_folder(location: Location) -> tuple[Location, dict[str, Any]]:
    """Find the one checkpoint of a folder with the ``config.json`` beside it; a file is taken as it is."""
    if location.protocol in WEB or not location.is_folder():
        return location, {}
    names = location.names()
    file = location / hub.only_checkpoint(str(location), names)
    return file, _mapping(location / hub.CONFIG_FILE) if hub.CONFIG_FILE in names else {}


def _mapping(location: Location) -> dict[str, Any]:
    try:
        data = location.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(f"settings {location}: not there; check the spelling of the location") from error
    values = parse_yaml(data, f"settings {location}")
    if not isinstance(values, dict):
        raise ConfigError(f"settings {location}: expected a mapping of names to values, got {type(values).__name__}")
    return values


def _document(
    config: ImportConfig, preset: Preset, contract: Contract, model: InkModel, read: ReadCheckpoint, fetched: Fetched
) -> BundleDocument:
    """Describe all of the bundle but its weights; nothing in it depends on the time or the machine."""
    changed = {"model": config.model, "contract": config.contract}
    source = {
        **_json_values(fetched.facts),
        "sha256": read.sha256,
        "preset": preset.name,
        "title": preset.title,
        "by": preset.by,
        "licence": preset.licence,
        "assumptions": list(preset.assumptions),
        "changed": {key: value for key, value in changed.items() if value},
        "hyper_parameters": _json_values(read.hyper_parameters),
    }
    texts = {key: getattr(preset, key) for key in ("training", "layers", "depth_order", "intensity", "blending")}
    return BundleDocument(
        name=config.name or preset.name,
        architecture=preset.architecture,
        model=model.config.model_dump(mode="json"),
        contract=contract,
        flops_per_tile=flops_per_tile(model, contract.tile_px),
        training=texts,
        source=source,
    )


def _differences(stored: BundleDocument, document: BundleDocument, model: InkModel) -> list[str]:
    """Name how a stored bundle differs from the one of this file."""
    found, wished = _comparable(stored), _comparable(document)
    differing = sorted(key for key in found.keys() | wished.keys() if found.get(key) != wished.get(key))
    if not differing and stored.weights_sha256 != hashlib.sha256(weights_of(model)).hexdigest():
        return ["weights (of several copies in one file)"]
    return differing


def _digests(stored: BundleDocument) -> dict[str, str]:
    reference = {REFERENCE_FILE: stored.reference.get("sha256", "")} if stored.reference else {}
    return {WEIGHTS_FILE: stored.weights_sha256, **reference}


def _comparable(document: BundleDocument) -> dict[str, Any]:
    """Return what two bundles are compared by beside their weights: not their texts, nor how the file was fetched."""
    values = document.model_dump(mode="json", include={"name", "architecture", "model"})
    contract = {f"contract.{key}": value for key, value in document.contract.model_dump(mode="json").items()}
    return values | contract | {"source.sha256": document.source.get("sha256")}


def _json_values(value: Any) -> Any:
    """Convert a value to strict JSON: NaN and infinity become words."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _json_values(inner) for key, inner in value.items()}
    return [_json_values(inner) for inner in value] if isinstance(value, list) else value


def _summary(preset: Preset, contract: Contract, model: InkModel) -> str:
    chosen, rule = contract.layers.source_range, contract.normaliser
    layers = f"{chosen[0]}:{chosen[1]}" if chosen else "the centre ones"
    weights = sum(tensor.numel() for tensor in model.state_dict().values())
    return (
        f"{preset.name}: {preset.title} · {weights:,} numbers in {count_text(len(model.state_dict()), 'tensor')} · "
        f"{contract.layers.count} layers ({layers}), tile {contract.tile_px}, stride {contract.stride_px}, "
        + (f"{rule.kind} per {rule.statistics}" if rule.by_statistics else f"divided by {contract.divisor:g}")
    )
