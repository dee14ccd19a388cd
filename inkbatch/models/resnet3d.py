"""3-D ResNet with a 2-D decoder: (B, 1, Z, Y, X) -> logits (B, 1, Y / 4, X / 4).

Maps lose depth by their maximum. Used with ResNet 101 in the 2023 Grand Prize, with ResNet 50 since.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from inkbatch.errors import MismatchError
from inkbatch.models.base import InkModel, register_model
from inkbatch.models.decoder2d import Decoder2d
from inkbatch.models.inputs import require_subvolume
from inkbatch.models.resnet3d_backbone import FEATURE_WIDTHS, Resnet3dBackbone, Resnet3dConfig, backbone_facts


@register_model("resnet3d", Resnet3dConfig)
class Resnet3d(InkModel):
    """(B, 1, Z, Y, X) -> logits (B, 1, Y / 4, X / 4); Y and X are multiples of 32."""

    config: Resnet3dConfig

    def __init__(self, config: Resnet3dConfig) -> None:
        super().__init__(config)
        self.normalization = nn.BatchNorm3d(1) if config.with_norm else None
        self.backbone = Resnet3dBackbone(config.resnet, config.fc_width)
        self.decoder = Decoder2d(FEATURE_WIDTHS)

    @property
    def output_scale(self) -> int:
        """Input pixels per output pixel."""
        return 4

    @property
    def tile_multiple(self) -> int:
        """The coarsest stride, so that doubled maps meet the next finer ones."""
        return 32

    @property
    def decoder_stages(self) -> tuple[nn.Module, ...]:
        """Stages of the 2-D decoder."""
        return self.decoder.stages

    def forward(self, subvolume: Tensor) -> Tensor:
        """Return the logits.

        Raises:
            ConfigError: The subvolume's layers are not the config's, or its sides are no multiples of 32.
        """
        require_subvolume(self, subvolume)
        if self.normalization is not None:
            subvolume = self.normalization(subvolume)
        logits: Tensor = self.decoder([feature.amax(dim=2) for feature in self.backbone(subvolume)])
        return logits

    @classmethod
    def infer_config(cls, shapes: Mapping[str, tuple[int, ...]]) -> Resnet3dConfig:
        """Derive the config of a published checkpoint from its key names and shapes.

        The number of layers is not in the weights; the config gets the default, 30.

        Raises:
            MismatchError: The keys are not this network's.
        """
        facts = backbone_facts(cls.architecture, shapes)
        if "decoder.convs.0.0.weight" not in shapes:
            raise MismatchError(
                f"{cls.architecture}: the checkpoint has no 2-D decoder (decoder.convs); "
                "if it has a 3-D one, import it as resnet3d-3d-decoder"
            )
        return Resnet3dConfig.model_validate(facts)
