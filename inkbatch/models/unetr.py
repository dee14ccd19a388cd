"""UNETR: a transformer over cubes of a subvolume and a 3-D decoder back to every voxel.

(B, 1, Z, Y, X) -> (B, C, Z, Y, X). Key names are those of the published ink checkpoints of 2025; a ``block`` in them is
a wrapper that those checkpoints put around their convolutions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

CUBE = 16
"""Edge of the cube that becomes one token, in voxels along every axis."""


@dataclass(frozen=True)
class UnetrShape:
    """Widths of one variant of UNETR.

    Attributes:
        dim: Width of a token.
        heads: Attention heads; each is 64 wide.
        blocks: Transformer blocks.
        hidden: Width inside the feed-forward.
        taps: After how many blocks the tokens go to the decoder; four, ascending.
        filters: Channels of the decoder at 2, 4 and 8 times the token grid; the finest maps have half the last.
    """

    dim: int
    heads: int
    blocks: int
    hidden: int
    taps: tuple[int, int, int, int]
    filters: tuple[int, int, int]


class Block(nn.Module):
    """Keeps a module under the key ``block``."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.block = modules[0] if len(modules) == 1 else nn.Sequential(*modules)

    def forward(self, volume: Tensor) -> Tensor:
        """Run what is kept."""
        result: Tensor = self.block(volume)
        return result


def conv(inputs: int, outputs: int, kernel: int = 3) -> Block:
    """Make a convolution that keeps sizes."""
    return Block(nn.Conv3d(inputs, outputs, kernel, padding=kernel // 2))


def doubling(inputs: int, outputs: int) -> Block:
    """Make a transposed convolution that doubles every axis."""
    return Block(nn.ConvTranspose3d(inputs, outputs, 2, stride=2))


def conv_block(inputs: int, outputs: int) -> Block:
    """Make convolution, batch norm, ReLU."""
    return Block(conv(inputs, outputs), nn.BatchNorm3d(outputs), nn.ReLU(inplace=True))


def doubling_block(inputs: int, outputs: int) -> Block:
    """Make a transposed convolution that doubles every axis, then convolution, batch norm, ReLU."""
    return Block(doubling(inputs, outputs), conv(outputs, outputs), nn.BatchNorm3d(outputs), nn.ReLU(inplace=True))


class Embeddings(nn.Module):
    """Cubes as tokens, in (z, y, x) order, plus a learnt table of positions that ties the network to one size."""

    def __init__(self, dim: int, grid: tuple[int, int, int], dropout: float) -> None:
        super().__init__()
        self.position_embeddings = nn.Parameter(torch.zeros(1, math.prod(grid), dim))
        self.patch_embeddings = nn.Conv3d(1, dim, CUBE, stride=CUBE)
        self.dropout = nn.Dropout(dropout)

    def forward(self, subvolume: Tensor) -> Tensor:
        """Map (B, 1, Z, Y, X) to (B, tokens, dim)."""
        tokens = self.patch_embeddings(subvolume).flatten(2).transpose(1, 2)
        embedded: Tensor = self.dropout(tokens + self.position_embeddings)
        return embedded


class Attention(nn.Module):
    """All tokens ask all tokens."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, tokens, dim) to the same shape."""
        query, key, value = (
            layer(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        dropout = self.dropout if self.training else 0.0
        answer = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        mixed: Tensor = self.out(answer.transpose(1, 2).flatten(2))
        return mixed


class FeedForward(nn.Module):
    """Two linear layers with a ReLU between them."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.w_1 = nn.Linear(dim, hidden)
        self.w_2 = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, tokens, dim) to the same shape."""
        result: Tensor = self.w_2(self.dropout(functional.relu(self.w_1(tokens))))
        return result


class TransformerBlock(nn.Module):
    """Attention and feed-forward, each behind a layer norm and added on."""

    def __init__(self, shape: UnetrShape, eps: float, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(shape.dim, eps=eps)
        self.mlp_norm = nn.LayerNorm(shape.dim, eps=eps)
        self.mlp = FeedForward(shape.dim, shape.hidden, dropout)
        self.attn = Attention(shape.dim, shape.heads, dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, tokens, dim) to the same shape."""
        tokens = tokens + self.attn(self.attention_norm(tokens))
        return tokens + self.mlp(self.mlp_norm(tokens))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """Blocks over the tokens, tapped on the way. ``encoder_norm`` is in the checkpoints and plays no part."""

    def __init__(self, shape: UnetrShape, grid: tuple[int, int, int], eps: float, dropout: float) -> None:
        super().__init__()
        self.taps = shape.taps
        self.grid = grid
        self.embeddings = Embeddings(shape.dim, grid, dropout)
        self.layer = nn.ModuleList(TransformerBlock(shape, eps, dropout) for _ in range(shape.blocks))
        self.encoder_norm = nn.LayerNorm(shape.dim, eps=eps).requires_grad_(False)

    def forward(self, subvolume: Tensor) -> list[Tensor]:
        """Map (B, 1, Z, Y, X) to four maps (B, dim, Z / 16, Y / 16, X / 16), shallow to deep, not normed."""
        tokens = self.embeddings(subvolume)
        maps = []
        for count, block in enumerate(self.layer, start=1):
            tokens = block(tokens)
            if count in self.taps:
                maps.append(tokens.transpose(1, 2).unflatten(2, self.grid))
        return maps


class Unetr(nn.Module):
    """(B, 1, Z, Y, X) -> (B, outputs, Z, Y, X). The number in a decoder's name counts twelfths of the transformer."""

    def __init__(
        self, shape: UnetrShape, *, grid: tuple[int, int, int], outputs: int, eps: float, dropout: float
    ) -> None:
        """Build the network.

        Args:
            shape: Its widths.
            grid: Tokens along (z, y, x): the size of the subvolume over 16.
            outputs: Channels at every voxel.
            eps: Of the layer norms.
            dropout: Inside the transformer, in training only.
        """
        super().__init__()
        first, second, third = shape.filters
        last = third // 2
        self.transformer = Transformer(shape, grid, eps, dropout)
        self.decoder0 = nn.Sequential(conv_block(1, last // 2), conv_block(last // 2, last))
        self.decoder3 = nn.Sequential(
            doubling_block(shape.dim, first), doubling_block(first, second), doubling_block(second, third)
        )
        self.decoder6 = nn.Sequential(doubling_block(shape.dim, first), doubling_block(first, second))
        self.decoder9 = doubling_block(shape.dim, first)
        self.decoder12_upsampler = doubling(shape.dim, first)
        self.decoder9_upsampler = nn.Sequential(
            conv_block(2 * first, first), conv_block(first, first), conv_block(first, first), doubling(first, second)
        )
        self.decoder6_upsampler = nn.Sequential(
            conv_block(2 * second, second), conv_block(second, second), doubling(second, third)
        )
        self.decoder3_upsampler = nn.Sequential(
            conv_block(2 * third, third), conv_block(third, third), doubling(third, last)
        )
        self.decoder0_header = nn.Sequential(
            conv_block(2 * last, last), conv_block(last, last), conv(last, outputs, kernel=1)
        )

    def forward(self, subvolume: Tensor) -> Tensor:
        """Run the transformer, then decode from its deepest map to the voxels."""
        shallow, second, third, deep = self.transformer(subvolume)
        current = self.decoder12_upsampler(deep)
        current = self.decoder9_upsampler(torch.cat((self.decoder9(third), current), dim=1))
        current = self.decoder6_upsampler(torch.cat((self.decoder6(second), current), dim=1))
        current = self.decoder3_upsampler(torch.cat((self.decoder3(shallow), current), dim=1))
        voxels: Tensor = self.decoder0_header(torch.cat((self.decoder0(subvolume), current), dim=1))
        return voxels
