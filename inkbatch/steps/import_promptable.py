"""`inkbatch import-promptable`: weights of SAM 2 or SAM in the hub's layout become a bundle for refinement."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import Field

from inkbatch.config import JobConfig
from inkbatch.documents import parse_json, parse_yaml
from inkbatch.errors import ConfigError, DataError, MismatchError
from inkbatch.io.store.location import Location
from inkbatch.models import hub
from inkbatch.models.importing import read_state_dict
from inkbatch.models.prompting import (
    DOCUMENT,
    WEIGHTS,
    Kind,
    PromptableBundle,
    PromptableDocument,
    build_promptable,
    load_promptable,
)
from inkbatch.steps.stored_bundle import make_way

KINDS: dict[str, Kind] = {"sam2": "sam2", "sam2_video": "sam2", "sam": "sam"}
PARTS = ("vision_config", "prompt_encoder_config", "mask_decoder_config")


class ImportPromptableConfig(JobConfig):
    """Settings of `inkbatch import-promptable`.

    Attributes:
        source: ``hf://owner/repo[@revision]``, or a folder with ``config.json`` and ``model.safetensors``.
        dest: Folder or URI of the new bundle.
        name: Name of the bundle; None makes one of the source's.
        licence: Licence of the weights; None takes the one that the source's README states.
    """

    spelled: ClassVar[Mapping[str, str]] = {"source": "SRC", "dest": "DEST"}

    source: str
    dest: str
    name: str | None = Field(None, pattern=r"^[a-z0-9][a-z0-9._-]*$")
    licence: str | None = Field(None, min_length=1)


@dataclass(frozen=True)
class Published:
    """A network as its publisher stores it.

    Attributes:
        weights: The file of weights.
        config: ``config.json``.
        beside: The files beside them, by name; None where there are none to look at.
        facts: ``uri``, and ``revision`` where there is one.
    """

    weights: Location
    config: Mapping[str, Any]
    beside: Location | None
    facts: dict[str, str]


def run(config: ImportPromptableConfig, *, replace: bool = False) -> list[str]:
    """Turn published weights into a bundle; an equal one that is there already is left alone.

    Args:
        config: The settings.
        replace: Remove another bundle at the destination.

    Returns:
        Lines for the user.

    Raises:
        ConfigError: Another bundle stands at the destination; no licence is stated; no way to the source.
        DataError: The source is not there or damaged.
        MismatchError: It is another kind of network, or its weights do not fit its config.
    """
    dest, found = Location.parse(config.dest), _fetch(config.source)
    stated = str(found.config.get("model_type", "none"))
    if stated not in KINDS:
        raise MismatchError(
            f"{config.source}: expected config.json of a promptable network ({', '.join(KINDS)}), got model_type "
            f"{stated!r}; name the repository of SAM 2 or SAM"
        )
    licence = config.licence or _licence(found)
    if licence is None:
        raise ConfigError(
            f"{config.source}: expected the licence of the weights in its README.md, got none; state it with --licence"
        )
    shape = {part: found.config[part] for part in PARTS if isinstance(found.config.get(part), Mapping)}
    net = build_promptable(KINDS[stated], shape)
    sha256 = _load(net, found.weights, config.source)
    document = PromptableDocument(
        name=config.name or _name(config.source),
        kind=KINDS[stated],
        config=shape,
        source={**found.facts, "sha256": sha256},
        licence=licence,
        **_input(found, net),
    )
    count = sum(tensor.numel() for tensor in net.state_dict().values())
    lines = [f"{document.name}: {type(net).__name__}, {count:,} numbers, tiles of {document.image_px} px, {licence}"]
    way = make_way(
        dest,
        (DOCUMENT, WEIGHTS),
        lambda: PromptableBundle.open(dest).document,
        lambda there: _differences(there, document),
        lambda there: {WEIGHTS: there.weights_sha256},
        replace=replace,
    )
    if way is None:
        return [*lines, f"bundle: already at {dest}, nothing to do"]
    lines += way
    PromptableBundle.save(dest, document, net.state_dict())
    return [*lines, f"source: {found.facts['uri']}, sha256 {sha256}", f"bundle: {dest}"]


def _load(net: torch.nn.Module, weights: Location, source: str) -> str:
    """Load a file of weights, and let go of it: the largest take gigabytes; returns its digest."""
    read = read_state_dict(weights, trust_pickle=None)
    load_promptable(net, read.state_dict, source)
    return read.sha256


def _fetch(source: str) -> Published:
    if source.startswith(hub.SCHEME):
        file = hub.fetch(hub.HubReference.parse(source))
        facts = {"uri": str(file.reference), "revision": file.reference.revision or ""}
        for name in ("README.md", "preprocessor_config.json"):  # they come to lie beside the weights
            with contextlib.suppress(DataError):
                hub.fetch(hub.HubReference(file.reference.repo, name, file.reference.revision))
        beside = Location.parse(str(file.path.parent))
        return Published(Location.parse(str(file.path)), _require_config(file.config, source), beside, facts)
    folder = Location.parse(source)
    names = folder.names()
    weights = folder / hub.only_checkpoint(str(folder), names)
    values = parse_json((folder / hub.CONFIG_FILE).read_bytes(), source, DataError) if hub.CONFIG_FILE in names else {}
    return Published(weights, _require_config(values, source), folder, {"uri": folder.uri})


def _require_config(values: Any, source: str) -> Mapping[str, Any]:
    if not isinstance(values, Mapping) or not values:
        raise DataError(f"{source}: expected config.json beside the weights, got none; fetch the whole repository")
    return values


def _licence(found: Published) -> str | None:
    """Read the licence in the head of a README as the hub has them: YAML between two lines of dashes."""
    text = _beside(found, "README.md")
    head = re.match(rb"---\s*\n(.*?)\n---", text or b"", re.DOTALL)
    values = parse_yaml(head[1], "README.md") if head else None
    stated = values.get("license") if isinstance(values, Mapping) else None
    return str(stated) if stated else None


def _input(found: Published, net: Any) -> dict[str, Any]:
    """Take the edge of the network's input, and its means and deviations where the publisher states them."""
    values: dict[str, Any] = {"image_px": int(net.config.prompt_encoder_config.image_size)}
    text = _beside(found, "preprocessor_config.json")
    stated = parse_json(text, "preprocessor_config.json", DataError) if text else {}
    for key, name in (("mean", "image_mean"), ("std", "image_std")):
        if isinstance(stated, Mapping) and name in stated:
            values[key] = tuple(stated[name])
    return values


def _beside(found: Published, name: str) -> bytes | None:
    try:
        return None if found.beside is None else (found.beside / name).read_bytes()
    except FileNotFoundError:
        return None


def _name(source: str) -> str:
    last = source.partition("@")[0].rstrip("/").rpartition("/")[2]
    return re.sub(r"[^a-z0-9._-]+", "-", last.lower()).lstrip("._-") or "promptable"


def _differences(there: PromptableDocument, document: PromptableDocument) -> list[str]:
    """Name how a stored bundle differs from the one of this source."""
    stored, wished = (
        {key: value for key, value in one.model_dump(mode="json").items() if key not in ("weights_sha256", "source")}
        | {"sha256": one.source.get("sha256")}
        for one in (there, document)
    )
    return sorted(key for key in wished if stored.get(key) != wished[key])
