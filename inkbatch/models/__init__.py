"""Networks, their registry, and bundles. Importing this room registers every architecture."""

from inkbatch.models import (  # noqa: F401  # each registers its architecture
    hecate,
    i3d,
    i3d_nonlocal,
    identity,
    residual_unet,
    resnet3d,
    resnet3d_3d_decoder,
    resnet3d_upsampled,
    smp_nets,
    stem3d_unet,
    timesformer,
    unetr_segformer,
)
from inkbatch.models.base import (
    InkModel,
    ModelConfig,
    build_model,
    known_architectures,
    model_class,
    register_model,
)

__all__ = ["InkModel", "ModelConfig", "build_model", "known_architectures", "model_class", "register_model"]
