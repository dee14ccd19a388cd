"""2-D and 2.5-D networks of segmentation-models-pytorch: any of its families with any of its encoders.

The layers of a subvolume enter as the channels of a picture. With `layer_groups` the same network looks at several
depths, and its probabilities are averaged.
"""

from __future__ import annotations

import difflib
import inspect
import math
import warnings
from functools import cache, cached_property
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.nn import functional

from inkbatch.errors import ConfigError
from inkbatch.models.base import InkModel, ModelConfig, register_model
from inkbatch.models.inputs import require_subvolume
from inkbatch.models.rules import Grown

SET_BY_US = frozenset(
    {"encoder_name", "encoder_weights", "in_channels", "classes", "activation", "aux_params", "upsampling"}
)
"""Arguments of a family that follow from the config or from the contract of `InkModel`."""

PROBE_PX = 256
"""Tile on which unused parameters are looked for; large enough for every family."""


@cache
def _families() -> dict[str, Any]:
    """Return the families that the installed smp has, by lower-case name.

    smp is imported late: the other networks need not wait for it.
    """
    import segmentation_models_pytorch as smp

    return dict(smp.MODEL_ARCHITECTURES_MAPPING)


def _family_options(family: str) -> set[str]:
    """List the arguments that a family's constructor names itself."""
    parameters = inspect.signature(_families()[family.lower()].__init__).parameters.values()
    return {p.name for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD} - {"self"}


class SmpConfig(Grown, ModelConfig):
    """Shape of a network of segmentation-models-pytorch. Weights are not part of it: they come from the bundle.

    Attributes:
        family: Unet, UnetPlusPlus, MAnet, Linknet, FPN, PSPNet, DeepLabV3, DeepLabV3Plus, PAN, UPerNet, Segformer,
            DPT: what the installed smp knows, in any case.
        encoder: Any encoder of smp (``resnet50``, ``mit_b3``, ``vgg19``, ``efficientnet-b5``), or ``tu-`` and the name
            of a timm model.
        layer_groups: Layers, counted from 0 inside the subvolume in depth order, that are fed together as channels;
            all groups are equally long. None: one group of all layers.
        decoder: Further arguments of the family (``decoder_channels``, ``encoder_depth``, ``encoder_output_stride``).
        encoder_options: Further arguments of a timm encoder (``img_size``, ``drop_path_rate``).
        classes: 1 for ink, or 3 for background, object and boundary.
    """

    younger: ClassVar[frozenset[str]] = frozenset({"classes"})

    family: str = "Unet"
    encoder: str = "resnet34"
    layer_groups: tuple[tuple[int, ...], ...] | None = None
    decoder: dict[str, Any] = Field(default_factory=dict)
    encoder_options: dict[str, Any] = Field(default_factory=dict)
    classes: Literal[1, 3] = 1

    @field_validator("family")
    @classmethod
    def _known_family(cls, family: str) -> str:
        name = family.lower().replace("+", "plus")  # DeepLabV3+, as its paper spells it
        if name not in _families():
            known = ", ".join(sorted(model.__name__ for model in _families().values()))
            raise ValueError(f"unknown family {family!r}; the installed segmentation-models-pytorch has {known}")
        return str(_families()[name].__name__)

    @model_validator(mode="after")
    def _groups_fit(self) -> SmpConfig:
        if self.layer_groups is None:
            return self
        if self.classes != 1:
            raise ValueError("layer_groups: expected classes of 1, got 3; leave layer_groups out")
        lengths = {len(group) for group in self.layer_groups}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(
                f"layer_groups: expected one or more groups of equal length, got groups of {sorted(lengths)} layers"
            )
        outside = sorted({i for group in self.layer_groups for i in group if not 0 <= i < self.depth_layers})
        if outside:
            raise ValueError(f"layer_groups: expected layers 0 to {self.depth_layers - 1}, got {outside}")
        return self

    @model_validator(mode="after")
    def _options_known(self) -> SmpConfig:
        """Refuse options that smp would ignore in silence."""
        allowed = _family_options(self.family) - SET_BY_US
        unknown = sorted(set(self.decoder) - allowed)
        if unknown:
            raise ValueError(f"decoder: {self.family} takes no {unknown}; it takes {sorted(allowed)}")
        if self.encoder_options and not self.encoder.startswith("tu-"):
            raise ValueError(f"encoder_options: only timm encoders (tu-…) take options, {self.encoder!r} takes none")
        taken = sorted(set(self.encoder_options) & (_family_options(self.family) | SET_BY_US))
        if taken:
            raise ValueError(f"encoder_options: {taken} are no options of the encoder; see decoder")
        return self

    @property
    def in_channels(self) -> int:
        """Channels of the picture that the encoder sees."""
        return self.depth_layers if self.layer_groups is None else len(self.layer_groups[0])


def build_net(config: SmpConfig, encoder_weights: str | bool | None = None) -> nn.Module:
    """Build the smp network itself.

    Args:
        config: Its shape.
        encoder_weights: Weights that smp fetches for the encoder; None starts with fresh weights, without a network.

    Raises:
        ConfigError: smp or timm refuse this combination of family, encoder and options.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`timm-` encoders are deprecated")
            net = _families()[config.family.lower()](
                encoder_name=config.encoder,
                encoder_weights=encoder_weights,
                in_channels=config.in_channels,
                classes=config.classes,
                **config.decoder,
                **config.encoder_options,
            )
    except (
        KeyError,
        ValueError,
        TypeError,
        NotImplementedError,
        AssertionError,
        AttributeError,
        RuntimeError,
    ) as error:
        reason = str(error.args[0] if error.args else error).split(", supported encoders", 1)[0]
        near = difflib.get_close_matches(config.encoder, _encoder_names(), n=4)
        hint = f"; similar encoders: {', '.join(near)}" if near and config.encoder not in near else ""
        raise ConfigError(
            f"model smp: {config.family} with encoder {config.encoder!r} cannot be built: {reason}{hint}"
        ) from error
    return cast(nn.Module, net)


def _encoder_names() -> list[str]:
    import segmentation_models_pytorch as smp

    return list(smp.encoders.get_encoder_names())


def unused_parameters(net: nn.Module, channels: int, tile_px: int) -> frozenset[str]:
    """Find the parameters that play no part in the answer (some encoders keep parts of their classifier).

    The network is run on the meta device, which has shapes but no numbers: nothing is computed or copied.

    Args:
        net: Network from (B, channels, tile_px, tile_px) to one tensor; not changed.
        channels: Channels of the picture.
        tile_px: Edge of the picture.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        parameters = {name: torch.empty_like(p, device="meta").requires_grad_() for name, p in net.named_parameters()}
        buffers = {name: torch.empty_like(buffer, device="meta") for name, buffer in net.named_buffers()}
        picture = torch.empty(2, channels, tile_px, tile_px, device="meta")
        logits = torch.func.functional_call(net, {**parameters, **buffers}, (picture,))
        gradients = torch.autograd.grad(logits.sum(), list(parameters.values()), allow_unused=True)
    return frozenset(name for name, gradient in zip(parameters, gradients, strict=True) if gradient is None)


def mean_probability_logit(logits: Tensor, dim: int) -> Tensor:
    """Return the logit of the mean of probabilities, without ever forming a probability of exactly 0 or 1.

    With p = sigmoid(l): logit(mean p) = log(sum p) - log(sum (1 - p)), and both sums are taken of logarithms. Exact to
    float32 rounding also where every probability rounds to 0 or to 1.

    Args:
        logits: Any float tensor.
        dim: Axis to average over.

    Returns:
        float32 tensor without that axis.
    """
    exact = logits.float()
    inked = torch.logsumexp(functional.logsigmoid(exact), dim=dim)
    bare = torch.logsumexp(functional.logsigmoid(-exact), dim=dim)
    return inked - bare


_unused_by_shape: dict[tuple[str, int], frozenset[str]] = {}  # a run of training builds the same network several times


@register_model("smp", SmpConfig)
class SmpNet(InkModel):
    """(B, 1, Z, Y, X) -> logits (B, classes, Y, X). Families that end coarser are enlarged bilinearly inside.

    After `ask_for_gradients`, parameters that play no part ask for none: distributed training would wait for them.
    """

    config: SmpConfig
    group_index: Tensor | None

    def __init__(self, config: SmpConfig) -> None:
        super().__init__(config)
        self.net = build_net(config)
        self._encoder_is_frozen = False
        groups = None if config.layer_groups is None else torch.tensor(config.layer_groups, dtype=torch.long)
        self.register_buffer("group_index", groups, persistent=False)

    @property
    def classes(self) -> int:
        """Classes of its config."""
        return self.config.classes

    @property
    def encoder(self) -> nn.Module:
        """The part that can be pretrained and frozen."""
        return cast(nn.Module, self.net.encoder)

    @property
    def output_scale(self) -> int:
        """One logit per pixel."""
        return 1

    @property
    def tile_multiple(self) -> int:
        """The encoder's coarsest stride; 1 for families that resize to their skip connections (Unet).

        A timm transformer with a position table for one size takes tiles of just that size.
        """
        if self.fixed_tile_px is not None:
            return self.fixed_tile_px
        strict = getattr(self.net, "requires_divisible_input_shape", True)
        return int(cast(Any, self.encoder).output_stride) if strict else 1

    @property
    def fixed_tile_px(self) -> int | None:
        """The only tile side that this network takes; None where many will do."""
        patches = getattr(getattr(self.encoder, "model", None), "patch_embed", None)
        if patches is None or not getattr(patches, "strict_img_size", False) or patches.img_size is None:
            return None
        return int(patches.img_size[0])

    @property
    def decoder_stages(self) -> tuple[nn.Module, ...]:
        """Blocks of the families that have a list of them (Unet, MAnet, Linknet); groups of layers answer apart."""
        blocks = getattr(self.net.decoder, "blocks", None)
        return tuple(blocks) if isinstance(blocks, nn.ModuleList) and self.config.layer_groups is None else ()

    def forward(self, subvolume: Tensor) -> Tensor:
        """Run the network on the layers, or on each group of them.

        Raises:
            ConfigError: The subvolume's depth or tile size does not fit this network.
        """
        require_subvolume(self, subvolume)
        picture = subvolume[:, 0]
        if self.group_index is None:
            return self._full_size(picture)
        groups = picture[:, self.group_index]  # (B, groups, layers, Y, X)
        logits = self._full_size(groups.flatten(0, 1))
        return mean_probability_logit(logits.reshape(*groups.shape[:2], *logits.shape[1:]), dim=1)

    def _full_size(self, picture: Tensor) -> Tensor:
        logits: Tensor = self.net(picture)
        if logits.shape[-2:] == picture.shape[-2:]:
            return logits
        return functional.interpolate(logits, size=picture.shape[-2:], mode="bilinear", align_corners=False)

    def freeze_encoder(self, frozen: bool = True) -> None:
        """Take the encoder out of training (or back in): no gradients, and its batch statistics stand still.

        A frozen encoder stays in evaluation mode through later calls of `train`.
        """
        self._encoder_is_frozen = frozen
        self.ask_for_gradients()
        self.train(self.training)

    def ask_for_gradients(self) -> None:
        """Let every parameter ask for gradients that plays a part and is not frozen.

        Looking for those that play none costs several times as much as building the network: inference does without.
        """
        frozen = ("encoder.",) if self._encoder_is_frozen else ()
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad_(name not in self._unused and not name.startswith(frozen))

    @cached_property
    def _unused(self) -> frozenset[str]:
        tile_px = self.fixed_tile_px or math.ceil(PROBE_PX / self.tile_multiple) * self.tile_multiple
        shape = (self.config.model_dump_json(), tile_px)
        if shape not in _unused_by_shape:
            _unused_by_shape[shape] = unused_parameters(self.net, self.config.in_channels, tile_px)
        return _unused_by_shape[shape]

    def train(self, mode: bool = True) -> SmpNet:
        """Set training mode everywhere but in a frozen encoder."""
        super().train(mode)
        if self._encoder_is_frozen:
            self.encoder.eval()
        return self
