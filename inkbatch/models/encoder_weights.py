"""Pretrained encoders for training smp networks: fetched by smp, or read from a file.

Only training starts from them. What a bundle holds is complete: inference never fetches weights.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from inkbatch.errors import ConfigError, MismatchError
from inkbatch.models.base import InkModel
from inkbatch.models.importing import read_state_dict
from inkbatch.models.smp_nets import SmpNet, build_net

NONE = "none"
FILE_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
RGB = 3


class EncoderConfig(BaseModel):
    """Training's treatment of a network's encoder; part of the configuration of a run, not of the network.

    Attributes:
        encoder_weights: ``imagenet`` or another published name, a file or URI, or ``none`` for fresh weights; see
            `load_encoder_weights`.
        freeze_encoder: Keep the encoder as it is: no gradients, and its batch statistics stand still.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder_weights: str = NONE
    freeze_encoder: bool = False


def prepare_encoder(model: InkModel, config: EncoderConfig) -> None:
    """Fill and freeze a network's encoder as configured, before training; a resumed run loads its own weights after.

    Args:
        model: The network, on the CPU.
        config: What to do.

    Raises:
        ConfigError: The network has no encoder to fill or freeze by itself, or its weights are not available.
        MismatchError: The file holds another network.
        DataError: The file is not there, or holds no plain weights.
    """
    if config.encoder_weights == NONE and not config.freeze_encoder:
        return
    if not isinstance(model, SmpNet):
        wish = "freeze_encoder" if config.freeze_encoder else f"encoder_weights {config.encoder_weights!r}"
        raise ConfigError(
            f"model {model.architecture}: {wish} is for networks of architecture smp; leave it out, or start from a "
            "bundle of this network"
        )
    load_encoder_weights(model, config.encoder_weights)
    if config.freeze_encoder:
        model.freeze_encoder()


def load_encoder_weights(model: SmpNet, source: str | None) -> None:
    """Fill the encoder of an smp network with pretrained weights; decoder and head are left alone.

    The first convolution is adapted where the network takes another number of channels than RGB (see `spread_rgb`).

    Args:
        model: The network, on the CPU.
        source: ``imagenet`` or another name under which smp publishes weights of this encoder (for timm encoders
            any name: the tag in the encoder's name decides); or a safetensors or torch file, local or at a URI; or None
            or ``none`` to keep the fresh weights.

    Raises:
        ConfigError: Unknown name, or it cannot be fetched from here.
        MismatchError: The file holds another network; missing and unexpected keys are named.
        DataError: The file is not there, or holds no plain weights.
    """
    if source is None or source == NONE:
        return
    state = read_state_dict(source).state_dict if source.endswith(FILE_SUFFIXES) else _fetch(model, source)
    _load(model, source, state)


def spread_rgb(weight: Tensor, channels: int) -> Tensor:
    """Spread the kernels of an RGB convolution over another number of channels, as smp does.

    Kernels are repeated in turn and scaled by 3 / channels; one channel gets their sum. A grey picture, repeated on all
    channels, then gives the same answer (for channel counts that are multiples of 3, and for 1).

    Args:
        weight: (out, 3, height, width).
        channels: Wished input channels.

    Returns:
        (out, channels, height, width).
    """
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeated = weight.repeat(1, math.ceil(channels / RGB), 1, 1)[:, :channels]
    return repeated * (RGB / channels)


def _fetch(model: SmpNet, name: str) -> dict[str, Tensor]:
    """Return the encoder's state with weights that smp fetches (or finds in its cache)."""
    config = model.config
    known = _published_names(config.encoder)
    if known is not None and name not in known:
        raise ConfigError(
            f"model smp: encoder {config.encoder!r} has no published weights {name!r}; it has {sorted(known)}; "
            "name one of them, give a file, or start without pretrained weights"
        )
    try:
        fresh = build_net(config, encoder_weights=True if known is None else name)
    except Exception as error:  # the client libraries raise many unrelated classes when there is no network
        if isinstance(error, ConfigError) and not isinstance(error.__cause__, RuntimeError | OSError):
            raise
        raise ConfigError(
            f"model smp: weights {name!r} of encoder {config.encoder!r} cannot be fetched from here: {error}; "
            "fetch them once where there is a network and give the file (a .safetensors or .pth), mount the "
            "Hugging Face cache (HF_HOME), or start without pretrained weights"
        ) from error
    encoder: Any = fresh.encoder
    return dict(encoder.state_dict())


def _published_names(encoder: str) -> set[str] | None:
    """Return the names of published weights; None for timm encoders, whose name carries that of their weights."""
    import segmentation_models_pytorch as smp

    entry = smp.encoders.encoders.get(encoder)
    return None if entry is None else set(entry["pretrained_settings"])


def _load(model: SmpNet, source: str, state: dict[str, Tensor]) -> None:
    wanted = model.encoder.state_dict()
    if any(key.startswith("encoder.") for key in state):
        state = {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")}
    state = _timm_renamed(state, wanted)
    state = {key: _adapted(value, wanted[key]) if key in wanted else value for key, value in state.items()}
    extra = sorted(set(state) - set(wanted))
    try:
        model.encoder.load_state_dict(state)  # smp drops the classifier's own keys
    except RuntimeError as error:
        missing = sorted(set(wanted) - set(state))
        raise MismatchError(
            f"{source}: does not hold the encoder {model.config.encoder!r}: {len(missing)} keys missing "
            f"{missing[:3]}, {len(extra)} unexpected {extra[:3]}; name the encoder that the file was made for ({error})"
        ) from error


def _timm_renamed(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a file of timm's own to the keys of an encoder that smp makes of a timm model; leave others as they are.

    smp puts ``model.`` in front, timm's feature extractors have an underscore for some dots, and the classifier is no
    part of an encoder. What is left over inside a part that the encoder has stays, and is refused: another network's.
    """
    if not all(key.startswith("model.") for key in wanted) or any(key.startswith("model.") for key in state):
        return state
    names = {key.removeprefix("model.").replace("_", "."): key for key in wanted}
    found = {key: names[key.replace("_", ".")] for key in state if key.replace("_", ".") in names}
    if len(names) != len(wanted) or not found:
        return state
    parts = {key.partition(".")[0] for key in found}
    return {found.get(key, key): value for key, value in state.items() if key.partition(".")[0] in parts}


def _adapted(stored: Tensor, wanted: Tensor) -> Tensor:
    """Adapt an RGB convolution where only its input channels differ; leave everything else to strict loading."""
    same_but_channels = stored.ndim == 4 and stored.shape[0] == wanted.shape[0] and stored.shape[2:] == wanted.shape[2:]
    if same_but_channels and stored.shape[1] == RGB != wanted.shape[1]:
        return spread_rgb(stored, wanted.shape[1])
    return stored
