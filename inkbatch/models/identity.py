"""The model whose right answer is known: it hands back one layer of its input, as logits.

With the identity bundle (divisor 255, activation ``none``) the prediction must equal that layer of the surface, divided
by 255, wherever tiles were computed: stitching, blending, resuming and sharding are tested with it, and its run time
is what the pipeline costs by itself.
"""

from __future__ import annotations

from torch import Tensor

from inkbatch.models.base import InkModel, ModelConfig, register_model


class IdentityConfig(ModelConfig):
    """Config of the identity model.

    Attributes:
        layer: Index, in depth order, of the layer that is handed back.
        scale: Output pixels are every `scale`-th input pixel along y and x.
    """

    layer: int = 0
    scale: int = 1


@register_model("identity", IdentityConfig)
class Identity(InkModel):
    """(B, 1, Z, Y, X) -> (B, 1, Y / scale, X / scale): one layer, subsampled. No parameters."""

    config: IdentityConfig

    @property
    def output_scale(self) -> int:
        """Input pixels per output pixel."""
        return self.config.scale

    def forward(self, subvolume: Tensor) -> Tensor:
        """Return layer `config.layer` as it came."""
        step = self.config.scale
        return subvolume[:, :, self.config.layer, ::step, ::step]
