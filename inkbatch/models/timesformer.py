"""TimeSformer: attention in turns over depth and over the surface, (B, 1, Z, Y, X) -> logits (B, 1, Y / 16, X / 16).

Layers play the part of video frames. Each layer is cut into patches, every patch is a token, and one learnt token, the
cls token, gathers the answer for the whole tile. Key names are those of the published ink checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Self

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional

from inkbatch.errors import MismatchError
from inkbatch.models.base import InkModel, ModelConfig, register_model
from inkbatch.models.inputs import require_subvolume
from inkbatch.validation import reason

Rotary = tuple[Tensor, Tensor]
"""Cosines and sines of rotary angles, float32, ready to be broadcast against (B, frames, patches, heads, head_dim)."""

OUTPUT_SCALE = 16


class TimesformerConfig(ModelConfig):
    """Shape of a TimeSformer; the defaults are the network of the 2023 Grand Prize.

    Attributes:
        depth_layers: Layers of the subvolume. No weight depends on it; the published weights were used with 26 and 30.
        tile_px: Edge of the square tile. One logit comes out per 16 x 16 pixels.
        dim: Width of a token.
        blocks: Number of blocks (attention over depth, attention over the surface, feed-forward).
        heads: Attention heads.
        head_dim: Width of one head; a multiple of 4.
        patch_px: Edge of the square patch that becomes one token.
        with_norm: Whether a one-channel batch norm stands in front of the network.
        dropout: Dropout after each attention and inside each feed-forward, in training only.
    """

    depth_layers: int = 26
    tile_px: int = 64
    dim: int = 512
    blocks: int = 8
    heads: int = 6
    head_dim: int = 64
    patch_px: int = 16
    with_norm: bool = False
    dropout: float = 0.1

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if min(self.depth_layers, self.tile_px, self.dim, self.blocks, self.heads, self.head_dim, self.patch_px) < 1:
            raise ValueError("all sizes must be at least 1")
        if self.tile_px % self.patch_px or self.tile_px % OUTPUT_SCALE:
            raise ValueError(
                f"tile_px {self.tile_px} must be a multiple of patch_px {self.patch_px} and {OUTPUT_SCALE}"
            )
        if self.head_dim % 4:
            raise ValueError(f"head_dim {self.head_dim} must be a multiple of 4, for the rotary angles")
        return self


class FrameRotary(nn.Module):
    """Rotary angles of a layer's depth; the frequencies are a buffer and part of the checkpoint."""

    inv_freqs: Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.register_buffer("inv_freqs", 10000.0 ** (-torch.arange(0, head_dim, 2) / head_dim))

    def forward(self, frames: int) -> Rotary:
        """Compute tables for angle[t, j] = t * inv_freqs[j mod n], shaped (frames, 1, 1, head_dim).

        The n angles stand twice one after the other, while `rotate` pairs neighbours: the two members of a pair get
        different angles. That is no rotation, yet the published weights were trained with it.
        """
        freqs = self.inv_freqs.float()
        angles = torch.outer(torch.arange(frames, device=freqs.device, dtype=torch.float32), freqs)
        angles = torch.cat((angles, angles), dim=-1)[:, None, None]
        return angles.cos(), angles.sin()


class SurfaceRotary(nn.Module):
    """Rotary angles of a patch's row and column; the scales are a buffer and part of the checkpoint."""

    scales: Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.register_buffer("scales", torch.logspace(0.0, math.log2(5.0), head_dim // 4, base=2))

    def forward(self, rows: int, columns: int) -> Rotary:
        """Compute tables (rows * columns, 1, head_dim): row angles, then column angles, each angle twice in a row.

        A coordinate u runs from -1 to 1 over the patches of an axis; its angles are pi * u * scales.
        """
        scales = self.scales.float()
        down = torch.linspace(-1.0, 1.0, rows, device=scales.device)[:, None] * scales * math.pi
        across = torch.linspace(-1.0, 1.0, columns, device=scales.device)[:, None] * scales * math.pi
        down = down[:, None].expand(rows, columns, -1)
        across = across[None].expand(rows, columns, -1)
        angles = torch.cat((down, across), dim=-1).repeat_interleave(2, dim=-1).flatten(0, 1)[:, None]
        return angles.cos(), angles.sin()


def rotate(values: Tensor, rotary: Rotary) -> Tensor:
    """Turn neighbouring pairs of the last axis: (a, b) -> (a cos - b sin, b cos + a sin), each with its own angle."""
    cos, sin = rotary
    swapped = torch.stack((-values[..., 1::2], values[..., 0::2]), dim=-1).flatten(-2)
    return (values * cos + swapped * sin).to(values.dtype)


class DividedAttention(nn.Module):
    """Attention inside groups of patch tokens: over depth at one patch position, or over the patches of one layer.

    Every group also sees the cls token, which carries no position; the cls token itself sees all tokens.
    """

    def __init__(self, config: TimesformerConfig, *, over_depth: bool) -> None:
        super().__init__()
        inner = config.heads * config.head_dim
        self.heads = config.heads
        self.over_depth = over_depth
        self.to_qkv = nn.Linear(config.dim, 3 * inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, config.dim), nn.Dropout(config.dropout))

    def forward(self, tokens: Tensor, frames: int, rotary: Rotary, *, cls_only: bool = False) -> Tensor:
        """Attend.

        Args:
            tokens: (B, 1 + frames * patches, dim); the cls token first, then patches by layer, row, column.
            frames: Number of layers.
            rotary: Tables for the axis of this attention.
            cls_only: Answer for the cls token only.

        Returns:
            (B, 1 + frames * patches, dim), or (B, 1, dim) with `cls_only`.
        """
        batch, count, _ = tokens.shape
        query, key, value = self.to_qkv(tokens).view(batch, count, 3, self.heads, -1).unbind(dim=2)
        answer = functional.scaled_dot_product_attention(
            query[:, :1].transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        ).transpose(1, 2)
        if not cls_only:
            answer = torch.cat((answer, self._attend_in_groups(query, key, value, frames, rotary)), dim=1)
        return self.to_out(answer.flatten(2))  # type: ignore[no-any-return]

    def _attend_in_groups(self, query: Tensor, key: Tensor, value: Tensor, frames: int, rotary: Rotary) -> Tensor:
        """Map (B, 1 + frames * patches, heads, head_dim) each to (B, frames * patches, heads, head_dim)."""
        batch, count, heads, width = query.shape
        grid = (batch, frames, (count - 1) // frames, heads, width)
        to_groups = (0, 2, 3, 1, 4) if self.over_depth else (0, 1, 3, 2, 4)
        back = (0, 3, 1, 2, 4) if self.over_depth else (0, 1, 3, 2, 4)
        groups = grid[2] if self.over_depth else frames

        def grouped(patches: Tensor) -> Tensor:
            return patches.permute(to_groups).flatten(0, 1)

        def with_cls(patches: Tensor, source: Tensor) -> Tensor:
            cls = source[:, :1].transpose(1, 2).repeat_interleave(groups, dim=0)
            return torch.cat((cls, grouped(patches)), dim=2)

        answer = functional.scaled_dot_product_attention(
            grouped(rotate(query[:, 1:].reshape(grid), rotary)),
            with_cls(rotate(key[:, 1:].reshape(grid), rotary), key),
            with_cls(value[:, 1:].reshape(grid), value),
        )
        return answer.view(batch, groups, *answer.shape[1:]).permute(back).flatten(1, 2)


class GatedGelu(nn.Module):
    """Split the last axis in halves, value first, gate second: value * GELU(gate)."""

    def forward(self, both: Tensor) -> Tensor:
        """Map (…, 2 n) to (…, n); the GELU is the exact one, by the error function."""
        value, gate = both.chunk(2, dim=-1)
        return value * functional.gelu(gate)


class FeedForward(nn.Module):
    """Gated feed-forward of every token by itself, four times as wide as the token."""

    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(config.dim, 8 * config.dim),
            GatedGelu(),
            nn.Dropout(config.dropout),
            nn.Linear(4 * config.dim, config.dim),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, tokens, dim) to the same shape."""
        return self.net(tokens)  # type: ignore[no-any-return]


class PreNorm(nn.Module):
    """A layer norm in front of `fn`."""

    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor, *rest: object, **options: object) -> Tensor:
        """Apply `fn` to the normed tokens; the other arguments go to `fn`."""
        return self.fn(self.norm(tokens), *rest, **options)  # type: ignore[no-any-return]


class Block(nn.ModuleList):
    """Attention over depth (key ``0``), attention over the surface (``1``), feed-forward (``2``), each added on."""

    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__(
            (
                PreNorm(config.dim, DividedAttention(config, over_depth=True)),
                PreNorm(config.dim, DividedAttention(config, over_depth=False)),
                PreNorm(config.dim, FeedForward(config)),
            )
        )

    def forward(self, tokens: Tensor, frames: int, depth: Rotary, surface: Rotary, *, cls_only: bool) -> Tensor:
        """Map (B, 1 + frames * patches, dim) to the same shape, or to (B, 1, dim) with `cls_only`."""
        over_depth, over_surface, feed_forward = self
        tokens = tokens + over_depth(tokens, frames, depth)
        kept = tokens[:, :1] if cls_only else tokens
        tokens = kept + over_surface(tokens, frames, surface, cls_only=cls_only)
        return tokens + feed_forward(tokens)  # type: ignore[no-any-return]


class Backbone(nn.Module):
    """The token network: (B, 1, Z, Y, X) -> one vector of logits per tile, (B, classes)."""

    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__()
        self.patch_px = config.patch_px
        self.cls_token = nn.Parameter(torch.randn(1, config.dim))
        self.to_patch_embedding = nn.Linear(config.patch_px**2, config.dim)
        self.frame_rot_emb = FrameRotary(config.head_dim)
        self.image_rot_emb = SurfaceRotary(config.head_dim)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.blocks))
        classes = (config.tile_px // OUTPUT_SCALE) ** 2
        self.to_out = nn.Sequential(nn.LayerNorm(config.dim), nn.Linear(config.dim, classes))

    def forward(self, subvolume: Tensor) -> Tensor:
        """Run all blocks; the last one answers for the cls token only, since nothing reads the other tokens."""
        batch, _, frames, height, width = subvolume.shape
        rows, columns = height // self.patch_px, width // self.patch_px
        depth_rotary = self.frame_rot_emb(frames)
        surface_rotary = self.image_rot_emb(rows, columns)
        cls = self.cls_token.expand(batch, 1, -1)
        embedded = self.to_patch_embedding(self.patches(subvolume, rows, columns))
        tokens = torch.cat((cls.to(embedded.dtype), embedded), dim=1)
        for index, block in enumerate(self.layers):
            is_last = index == len(self.layers) - 1
            tokens = block(tokens, frames, depth_rotary, surface_rotary, cls_only=is_last)
        return self.to_out(tokens[:, 0])  # type: ignore[no-any-return]

    def patches(self, subvolume: Tensor, rows: int, columns: int) -> Tensor:
        """Cut (B, 1, Z, Y, X) into (B, Z * rows * columns, patch_px ** 2), pixels of a patch row-major."""
        batch, _, frames = subvolume.shape[:3]
        cut = subvolume.reshape(batch, frames, rows, self.patch_px, columns, self.patch_px)
        return cut.transpose(3, 4).reshape(batch, frames * rows * columns, self.patch_px**2)


@register_model("timesformer", TimesformerConfig)
class Timesformer(InkModel):
    """(B, 1, Z, Y, X) -> logits (B, 1, Y / 16, X / 16). Run it under autocast, not cast: its angles need float32."""

    config: TimesformerConfig

    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__(config)
        self.normalization = nn.BatchNorm3d(1) if config.with_norm else None
        self.backbone = Backbone(config)

    @property
    def output_scale(self) -> int:
        """Input pixels per output pixel."""
        return OUTPUT_SCALE

    @property
    def fixed_tile_px(self) -> int:
        """The config's tile: the number of logits is fixed; with another tile the network would run, and be wrong."""
        return self.config.tile_px

    def forward(self, subvolume: Tensor) -> Tensor:
        """Return the logits.

        Raises:
            ConfigError: The subvolume has other layers or another tile than the config says.
        """
        require_subvolume(self, subvolume)
        if self.normalization is not None:
            subvolume = self.normalization(subvolume)
        side = self.config.tile_px // OUTPUT_SCALE
        return self.backbone(subvolume).view(-1, 1, side, side)  # type: ignore[no-any-return]

    @classmethod
    def infer_config(cls, shapes: Mapping[str, tuple[int, ...]]) -> TimesformerConfig:
        """Derive the config of a published checkpoint from its key names and shapes.

        The number of layers is not in the weights; the config gets the default, 26.

        Raises:
            MismatchError: The keys are not a TimeSformer's.
        """
        blocks = {key.split(".")[2] for key in shapes if key.startswith("backbone.layers.")}
        try:
            dim, patch_area = shapes["backbone.to_patch_embedding.weight"]
            (frequencies,) = shapes["backbone.frame_rot_emb.inv_freqs"]
            qkv_width, _ = shapes["backbone.layers.0.0.fn.to_qkv.weight"]
            classes, _ = shapes["backbone.to_out.1.weight"]
            return TimesformerConfig(
                tile_px=math.isqrt(classes) * OUTPUT_SCALE,
                dim=dim,
                blocks=len(blocks),
                heads=qkv_width // (6 * frequencies),
                head_dim=2 * frequencies,
                patch_px=math.isqrt(patch_area),
                with_norm="normalization.weight" in shapes,
            )
        except (KeyError, ValueError, ZeroDivisionError) as error:
            raise MismatchError(
                f"timesformer: the checkpoint has no TimeSformer's keys and shapes: {reason(error)}; "
                "name the architecture that it was trained with"
            ) from error
