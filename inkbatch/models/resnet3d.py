"""3-D ResNet with a 2-D decoder: (B, 1, Z, Y, X) -> logits (B, 1, Y / 4, X / 4).

Maps lose depth by their maximum. Used with ResNet 101 in the 2023 Grand Prize, with ResNet 50 since.
"""

from __future__ import annotations

from collections.abc import Mapping

from inkbatch.errors import MismatchError
from inkbatch.models.base import register_model
from inkbatch.models.decoder2d import FlattenedNet
from inkbatch.models.resnet3d_backbone import FEATURE_WIDTHS, Resnet3dBackbone, Resnet3dConfig, backbone_facts


@register_model("resnet3d", Resnet3dConfig)
class Resnet3d(FlattenedNet):
    """(B, 1, Z, Y, X) -> logits (B, 1, Y / 4, X / 4); Y and X are multiples of 32."""

    config: Resnet3dConfig

    def __init__(self, config: Resnet3dConfig) -> None:
        backbone = Resnet3dBackbone(config.resnet, config.fc_width)
        super().__init__(config, backbone, FEATURE_WIDTHS, with_norm=config.with_norm)

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
