"""SegFormer as transformers builds it, under the key names of its version 4, whatever version is installed.

transformers 5 renamed all parameters of SegFormer. Published ink checkpoints have the names of version 4, and a bundle
that was written with one version must load with the other; so these names are the ones that `state_dict` gives and
`load_state_dict` takes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, cast

from torch import nn

from inkbatch.errors import ConfigError


class SegformerShape(NamedTuple):
    """Sizes that tell SegFormers apart: widths and blocks of the four stages, width of the decode head."""

    widths: tuple[int, int, int, int]
    blocks: tuple[int, int, int, int]
    head: int


WIDE = (64, 128, 320, 512)
SHAPES = {
    "b0": SegformerShape((32, 64, 160, 256), (2, 2, 2, 2), 256),
    "b1": SegformerShape(WIDE, (2, 2, 2, 2), 256),
    "b2": SegformerShape(WIDE, (3, 4, 6, 3), 768),
    "b3": SegformerShape(WIDE, (3, 4, 18, 3), 768),
    "b4": SegformerShape(WIDE, (3, 8, 27, 3), 768),
    "b5": SegformerShape(WIDE, (3, 6, 40, 3), 768),
}

TO_VERSION_4 = [
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^segformer\.stages\.(\d+)\.patch_embeddings\.", r"segformer.encoder.patch_embeddings.\1."),
        (r"^segformer\.stages\.(\d+)\.blocks\.", r"segformer.encoder.block.\1."),
        (r"^segformer\.stages\.(\d+)\.layer_norm\.", r"segformer.encoder.layer_norm.\1."),
        (r"\.layernorm_before\.", ".layer_norm_1."),
        (r"\.layernorm_after\.", ".layer_norm_2."),
        (r"\.attention\.q_proj\.", ".attention.self.query."),
        (r"\.attention\.k_proj\.", ".attention.self.key."),
        (r"\.attention\.v_proj\.", ".attention.self.value."),
        (r"\.attention\.o_proj\.", ".attention.output.dense."),
        (r"\.attention\.sequence_reduction\.sequence_reduction\.", ".attention.self.sr."),
        (r"\.attention\.sequence_reduction\.layer_norm\.", ".attention.self.layer_norm."),
        (r"\.mlp\.fc(\d)\.", r".mlp.dense\1."),
        (r"^decode_head\.linear_projections\.(\d+)\.", r"decode_head.linear_c.\1."),
    )
]
"""Renamings from the key names of transformers 5 to those of 4; they leave names of version 4 alone."""

MARKS = ("segformer.encoder.block.0.0.attention.self.query.weight", "decode_head.linear_c.0.proj.weight")
"""Names that must come out; otherwise transformers has renamed its parameters once more."""


def segformer(size: str, channels: int) -> nn.Module:
    """Build a SegFormer for semantic segmentation with fresh weights and one label.

    Called with (B, channels, Y, X), it returns an object whose ``logits`` are (B, 1, Y / 4, X / 4).

    Args:
        size: ``b0`` to ``b5``.
        channels: Input channels.

    Raises:
        ConfigError: The installed transformers names its parameters in a way that is not known here.
    """
    import transformers  # late: it takes seconds, and the other networks do without it

    shape = SHAPES[size]
    config_class: Any = transformers.SegformerConfig
    config = config_class(
        num_channels=channels,
        num_labels=1,
        hidden_sizes=list(shape.widths),
        depths=list(shape.blocks),
        num_attention_heads=[1, 2, 5, 8],
        decoder_hidden_size=shape.head,
    )
    net = transformers.SegformerForSemanticSegmentation(config)
    names = {key: version_4_name(key) for key in net.state_dict()}
    if not set(MARKS) <= set(names.values()):
        raise ConfigError(
            f"model segformer: transformers {transformers.__version__} names its parameters in an unknown way "
            f"(expected {MARKS[0]}, got {next(iter(names))}); install transformers 4.51 or 5.23"
        )
    rename_state(net, names)
    return cast(nn.Module, net)


def version_4_name(key: str) -> str:
    """Spell a key of a SegFormer as transformers 4 does."""
    for pattern, name in TO_VERSION_4:
        key = pattern.sub(name, key)
    return key


def rename_state(module: nn.Module, names: Mapping[str, str]) -> None:
    """Let a module give and take its state under other names.

    Args:
        module: Any module; its parameters themselves keep their names.
        names: By its own key the key outside; no two alike.
    """
    inward = {outside: own for own, outside in names.items()}
    module.register_state_dict_post_hook(partial(_rename_on_save, dict(names)))  # type: ignore[no-untyped-call]
    module.register_load_state_dict_pre_hook(partial(_rename_on_load, inward))  # type: ignore[no-untyped-call]


def _rename_on_save(names: dict[str, str], _module: nn.Module, state: dict[str, Any], prefix: str, _meta: Any) -> None:
    _rename(names, state, prefix)


def _rename_on_load(
    names: dict[str, str], _module: nn.Module, state: dict[str, Any], prefix: str, *_load_arguments: Any
) -> None:
    _rename(names, state, prefix)


def _rename(names: dict[str, str], state: dict[str, Any], prefix: str) -> None:
    """Rename the keys under `prefix` in place, in their order; unknown ones stay, for strict loading to name them."""
    for key in [key for key in state if key.startswith(prefix)]:
        own = key.removeprefix(prefix)
        state[prefix + names.get(own, own)] = state.pop(key)
