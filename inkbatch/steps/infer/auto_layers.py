"""Layers and depth order from a probe's stored verdict: `infer --layers auto`, refused where the verdict is unclear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inkbatch.data.segments.prepared import segment_folder, surface_state
from inkbatch.errors import ConfigError, DataError, MismatchError
from inkbatch.io.store.location import Location
from inkbatch.io.surface import DepthOrder
from inkbatch.models.bundle import Bundle, bundle_location
from inkbatch.run.record import require_complete
from inkbatch.run.states import state_changes
from inkbatch.steps.stored_probe import PICTURE_NAME, has_reading, probe_folder, read_verdict


@dataclass(frozen=True)
class AutoLayers:
    """Result of a probe, as `infer` uses it.

    Attributes:
        layers: Half-open range of source layer numbers.
        depth_order: The order in which the network gets them.
        record: What goes into the manifest.
    """

    layers: tuple[int, int]
    depth_order: DepthOrder
    record: dict[str, Any]


def stored_layers(segment: str, bundle_uri: str, root: str, override: dict[str, Any]) -> AutoLayers:
    """Read the stored verdict on this very surface and bundle.

    Raises:
        ConfigError: An override says what the probe is to find.
        DataError: No verdict is stored, or it is unclear.
        MismatchError: The stored probe was made from another surface, bundle or contract.
    """
    if "depth_order" in override or "layers" in override:
        raise ConfigError(
            "--layers auto: depth order and layers come from the probe; leave out --override depth_order and layers, "
            "or give --layers START:STOP"
        )
    bundle = Bundle.open(bundle_location(bundle_uri), override)
    folder = probe_folder(root, segment, bundle.document.name)
    again = f"inkbatch probe {segment} --bundle {bundle_uri}"
    manifest = require_complete(folder, f"--layers auto, segment {segment}: probe", f"run {again} first")
    found = {
        "surface": manifest["inputs"]["surface"],
        "weights": manifest["inputs"]["weights_sha256"],
        "contract": manifest["config"]["contract"],
    }
    surface = (segment_folder(root, segment) / "prepare" / "manifest.json").read_mapping()
    wanted = {
        "surface": surface["digest"],
        "weights": bundle.document.weights_sha256,
        "contract": bundle.contract.model_dump(mode="json"),
    }
    differing = [key for key in wanted if wanted[key] != found[key]]
    if not differing and state_changes(manifest.get("state"), surface_state(root, segment)):
        differing = ["surface"]
    if differing:
        raise MismatchError(
            f"--layers auto, segment {segment}: the probe at {folder} was made with another {' and '.join(differing)}; "
            f"run {again} --replace"
        )
    return _usable(read_verdict(folder), folder, segment)


def _usable(verdict: dict[str, Any], folder: Location, segment: str) -> AutoLayers:
    start, stop = verdict["layers"]
    sure = f" (confidence {verdict['confidence']:.2f})" if has_reading(verdict) else ""
    if not verdict["usable"]:
        raise DataError(
            f"--layers auto, segment {segment}: the probe's verdict is {verdict['verdict']}{sure}: "
            f"{verdict['reason']}. It is not used; look at "
            f"{folder / PICTURE_NAME}, then state --layers START:STOP yourself (docs/trust.md)"
        )
    keys = ("verdict", "depth_order", "layers", "displaced_by", "confidence", "digest")
    return AutoLayers((start, stop), verdict["depth_order"], {key: verdict[key] for key in keys})
