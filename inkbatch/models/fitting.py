"""A published checkpoint becomes a network: its config from its keys and a preset, every weight in its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from inkbatch.errors import ConfigError, MismatchError, NonFiniteError
from inkbatch.models.base import InkModel, known_architectures, model_class
from inkbatch.models.bundle import Contract, load_strictly
from inkbatch.models.importing import ReadCheckpoint, infer_config, match_keys
from inkbatch.models.inputs import require_tile
from inkbatch.models.presets import Preset, load_preset, merged, preset_names

LISTED = 5


def fitted_model(preset: Preset, read: ReadCheckpoint, changes: Mapping[str, Any]) -> InkModel:
    """Build the preset's network with the weights of a checkpoint, on the CPU, in evaluation mode.

    Args:
        preset: What the weights do not tell.
        read: The checkpoint.
        changes: Values of the architecture's config that replace the preset's.

    Raises:
        ConfigError: A value that the architecture does not have or accept.
        MismatchError: The checkpoint holds another network; what differs is listed, nothing is loaded.
        NonFiniteError: Weights are NaN or infinite.
    """
    wished = merged(preset.model, changes)
    facts = _facts(preset, read)
    network = model_class(preset.architecture)
    try:
        config = network.config_class.model_validate(facts | wished)
    except ValueError as error:
        raise ConfigError(
            f"preset {preset.name}: the config of {preset.architecture} does not validate: {error}"
        ) from error
    differing = [
        f"{key}: preset {preset.name} says {getattr(config, key)}, the weights say {fact}"
        for key, fact in facts.items()
        if getattr(config, key) != fact
    ]
    if differing:
        raise MismatchError(f"{read.source}: {'; '.join(differing)}; {_others(preset)}")
    model = network(config)
    tensors = match_keys(model, read.state_dict, read.source)
    _require_finite(tensors, read.source)
    load_strictly(model, tensors, read.source)
    return model.eval()


def require_contract(model: InkModel, contract: Contract, preset: Preset) -> None:
    """Check that a network can be fed what the contract says.

    Raises:
        ConfigError: It takes another number of layers or another tile, or answers at another scale.
    """
    layers = model.config.depth_layers
    if layers != contract.layers.count:
        raise ConfigError(
            f"preset {preset.name}: the contract gives {contract.layers.count} layers, model.depth_layers is {layers}; "
            "set both to the same number"
        )
    require_tile(model, contract.tile_px, contract.tile_px)
    if model.output_scale != preset.output_scale:
        raise ConfigError(
            f"preset {preset.name}: output_scale is {preset.output_scale}, the network has {model.output_scale}; "
            "correct the preset"
        )


def hints(said: Mapping[str, Any], model: InkModel, contract: Contract) -> list[str]:
    """What a checkpoint's own notes say otherwise than the contract, in words.

    They are notes of a training script and not reliable (the Grand Prize network was built for 30 layers and fed 26),
    so that they are worth a look and no refusal.

    Args:
        said: Hyper-parameters, or the config of a repository.
        model: The network.
        contract: What it is fed.
    """
    wanted = {
        "size": ("tile", contract.tile_px),
        "patch_size": ("tile", contract.tile_px),
        "window_size": ("tile", contract.tile_px),
        "in_chans": ("number of layers", contract.layers.count),
        "num_frames": ("number of layers", contract.layers.count),
        "num_layers": ("number of layers", contract.layers.count),
        "epsilon": ("layer norm's epsilon", getattr(model.config, "layer_norm_eps", None)),
    }
    return [
        f"note: the checkpoint's own {key} is {said[key]}, the bundle's {meaning} is {value}; see which is meant"
        for key, (meaning, value) in wanted.items()
        if value is not None and key in said and str(said[key]) != str(value)
    ]


def _facts(preset: Preset, read: ReadCheckpoint) -> dict[str, Any]:
    """What the names and shapes of the weights say about the config; nothing for networks that cannot be told so."""
    network = model_class(preset.architecture)
    if not hasattr(network, "infer_config"):
        return {}
    try:
        found = infer_config(network, read.state_dict, read.source)
    except MismatchError as error:
        looks_like = _recognised(read.state_dict)
        hint = f"; it looks like {' or '.join(looks_like)}" if looks_like else ""
        raise MismatchError(f"{error}{hint}") from error
    return {key: getattr(found, key) for key in sorted(found.model_fields_set)}


def _recognised(state_dict: Mapping[str, Tensor]) -> list[str]:
    """Architectures, with their presets, whose keys these are."""
    found = []
    for name in known_architectures():
        try:
            infer_config(model_class(name), state_dict)
        except MismatchError:
            continue
        found.append(f"{name} (preset {' or '.join(_presets_of(name)) or 'of your own'})")
    return found


def _presets_of(architecture: str) -> list[str]:
    return [name for name in preset_names() if load_preset(name).architecture == architecture]


def _others(preset: Preset) -> str:
    others = [name for name in _presets_of(preset.architecture) if name != preset.name]
    if others:
        return f"import it as {' or '.join(others)}, or as a preset of your own"
    return "write a preset of your own"


def _require_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    bad = [key for key, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        more = f" and {len(bad) - LISTED} more" if len(bad) > LISTED else ""
        raise NonFiniteError(
            f"{source}: NaN or infinity in the weights {', '.join(bad[:LISTED])}{more}; the training that wrote it had "
            "failed, take another checkpoint"
        )
