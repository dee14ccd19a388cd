"""A published checkpoint becomes a network: its config from its keys and a preset, every weight in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from inkbatch.errors import ConfigError, MismatchError, NonFiniteError
from inkbatch.models.base import InkModel, known_architectures, model_class
from inkbatch.models.bundle import Contract, load_strictly
from inkbatch.models.importing import ReadCheckpoint
from inkbatch.models.inputs import require_tile
from inkbatch.models.matching import fits, infer_config, matched
from inkbatch.models.presets import Preset, load_preset, merged, preset_names
from inkbatch.validation import reason

LISTED = 5


@dataclass(frozen=True)
class Fitted:
    """A network with a checkpoint's weights, and lines for the user on what was not taken from the file."""

    model: InkModel
    notes: tuple[str, ...]


def fitted_model(
    preset: Preset, read: ReadCheckpoint, changes: Mapping[str, Any], leave_out: Sequence[str] = ()
) -> Fitted:
    """Build the preset's network with the weights of a checkpoint, on the CPU, in evaluation mode.

    Args:
        preset: What the weights do not tell.
        read: The checkpoint.
        changes: Values of the architecture's config that replace the preset's.
        leave_out: Patterns of keys of the file that are no part of the network.

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
            f"preset {preset.name}: the config of {preset.architecture} does not validate: {reason(error)}"
        ) from error
    differing = [
        f"{key}: preset {preset.name} says {getattr(config, key)}, the weights say {fact}"
        for key, fact in facts.items()
        if getattr(config, key) != fact
    ]
    if differing:
        raise MismatchError(f"{read.source}: {'; '.join(differing)}; {_others(preset)}")
    model = network(config)
    found = matched(model, read.state_dict, read.source, leave_out)
    _require_finite(found.tensors, read.source)
    load_strictly(model, found.tensors, read.source)
    taken = [f"note: these are the averaged weights, {read.section}"] if read.averaged else []
    return Fitted(model.eval(), (*taken, *found.notes))


def fitting_preset(read: ReadCheckpoint) -> Preset:
    """Choose the shipped preset that a checkpoint's digest, or its names and shapes, call for.

    Raises:
        MismatchError: No network that is known here has these names and shapes.
        ConfigError: Several presets fit; they are listed. Weights do not tell how they must be fed.
    """
    presets = [load_preset(name) for name in preset_names()]
    published = [preset for preset in presets if any(place.sha256 == read.sha256 for place in preset.published)]
    names = [name for name in known_architectures() if fits(model_class(name), read.state_dict)]
    found = published or _agreeing([preset for preset in presets if preset.architecture in names], read)
    if len(found) == 1:
        return found[0]
    if found:
        listed = "; ".join(f"{preset.name} ({preset.title})" for preset in found)
        raise ConfigError(
            f"{read.source}: {len(found)} presets fit these weights, and they expect different input: {listed}; "
            "choose one with --as PRESET"
        )
    if names:
        raise ConfigError(
            f"{read.source}: the weights are those of {' or '.join(names)}, and no shipped preset fits them; "
            "write a preset of your own, and give it with --as FILE"
        )
    raise MismatchError(
        f"{read.source}: no network known here has these names and shapes, whole; name the preset that they were "
        "published for with --as PRESET, which lists what differs"
    )


def _agreeing(presets: Sequence[Preset], read: ReadCheckpoint) -> list[Preset]:
    """Keep the presets that what the weights tell does not contradict, and of them those that it agrees with whole.

    A preset may leave out what weights tell (the number of blocks), and then means the published network.
    """
    told = {preset.name: infer_config(model_class(preset.architecture), read.state_dict) for preset in presets}
    whole, stated = [], []
    for preset in presets:
        found = told[preset.name]
        meant = type(found).model_validate(preset.model)
        if all(getattr(found, key) == getattr(meant, key) for key in found.model_fields_set):
            whole.append(preset)
        if all(getattr(found, key) == getattr(meant, key) for key in found.model_fields_set & meant.model_fields_set):
            stated.append(preset)
    return whole or stated


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
    """Say in words how a checkpoint's own notes differ from the contract.

    They are notes of a training script and not reliable (the Grand Prize network was built for 30 layers and fed 26),
    so that they are worth a look and no refusal.

    Args:
        said: Hyper-parameters, or the config of a repository.
        model: The network.
        contract: What it is fed.
    """
    tile, layers = ("tile", contract.tile_px), ("number of layers", contract.layers.count)
    known = {
        "size": tile,
        "patch_size": tile,
        "window_size": tile,
        "tile_size": tile,
        "patch_size[-1]": tile,
        "patch_size[0]": layers,
        "in_chans": layers,
        "num_frames": layers,
        "num_layers": layers,
        "in_depth": layers,
        "epsilon": ("layer norm's epsilon", getattr(model.config, "layer_norm_eps", None)),
        "image_normalization.divisor": ("divisor", contract.divisor),
        "clip_max": ("largest intensity", contract.clip[1] if contract.clip else None),
        "reverse_layers": ("reversal of layers", contract.depth_order == "reversed"),
        "sampling_um": ("voxel edge", contract.voxel_size_um),
    }
    found = _flat(said)
    return [
        f"note: the checkpoint's own {key} is {found[key]}, the bundle's {meaning} is {value}; check which one is right"
        for key, (meaning, value) in known.items()
        if value is not None and key in found and not _same(found[key], value)
    ]


def _flat(said: Mapping[str, Any]) -> dict[str, Any]:
    """Put notes with a size per axis, and the normaliser's settings, under names of their own."""
    found = dict(said)
    sizes, normaliser = found.get("patch_size"), found.get("image_normalization")
    if isinstance(sizes, list | tuple) and sizes:
        del found["patch_size"]
        found |= {"patch_size[-1]": sizes[-1]} | ({"patch_size[0]": sizes[0]} if len(sizes) == 3 else {})
    if isinstance(normaliser, Mapping) and "divisor" in normaliser:
        found["image_normalization.divisor"] = normaliser["divisor"]
    return found


def _same(said: Any, value: Any) -> bool:
    numbers = isinstance(said, int | float) and isinstance(value, int | float)
    return bool(said == value) if numbers else str(said) == str(value)


def _facts(preset: Preset, read: ReadCheckpoint) -> dict[str, Any]:
    """Derive facts about the config from the weights' names and shapes; none for networks that do not show them."""
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
    """Name the architectures, with their presets, whose keys these are."""
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
