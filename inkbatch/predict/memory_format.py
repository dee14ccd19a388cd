"""Channels-last weights, where that was measured to be faster.

Measured on one core of a 2-core AMD EPYC (torch 2.15, oneDNN, one thread, CPU seconds of a forward pass, best of five),
contiguous over channels-last, above 1 where channels-last is faster:

| network | float32 | bfloat16 |
|---|---|---|
| i3d, 30 x 64 x 64 | 0.94 to 1.1 | 1.7 |
| i3d-nonlocal, 30 x 64 x 64 | 0.95 | 1.5 |
| resnet3d 50, 30 x 64 x 64 | 0.87 to 0.93 | 0.96 to 1.0 |
| resnet3d-3d-decoder 50, 62 x 64 x 64 | 0.94 | 1.17 |
| unetr-segformer, 16 x 128 x 128 | 1.15 | 1.13 |

Training of 2-D networks, same machine, CPU seconds of a forward and a backward pass in float32 on tiles of 128 px:

| network | contiguous | channels-last |
|---|---|---|
| smp Unet, tu-mobilenetv3_small_100, 13 layers, batch 8 | 0.133 | 0.097 |
| smp Unet, tu-efficientnet_b0, 16 layers, batch 2 | 0.129 | 0.097 |
| smp Segformer, mit_b0, 16 layers, batch 2 | 0.087 | 0.090 |
| smp Unet, resnet18, 16 layers, batch 2 | 0.131 | 0.151 |

It pays for depthwise convolutions and not for others, so training asks (`channels_last` of `inkbatch train`).
CUDA has not been measured; `benchmarks/bench_models.py --memory-format both` does it.
"""

from __future__ import annotations

import torch

from inkbatch.models.base import InkModel

FLAT_KERNEL_AXES = 4  # (out, in, y, x)
VOLUME_KERNEL_AXES = 5  # (out, in, z, y, x)


def channels_last_pays(device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether 3-D convolutions were measured to be faster with channels last: on a CPU in bfloat16."""
    return device.type == "cpu" and dtype == torch.bfloat16


def arrange(model: InkModel, *, channels_last: bool) -> InkModel:
    """Lay out the kernels of all 3-D convolutions, in place; activations follow their kernels.

    Subvolumes have one channel and need no change. Logits differ by rounding.

    Args:
        model: The network; weights stay what they are, in value and in key.
        channels_last: Else contiguous.
    """
    wished = torch.channels_last_3d if channels_last else torch.contiguous_format
    for parameter in model.parameters():
        if parameter.ndim == VOLUME_KERNEL_AXES:
            parameter.data = parameter.data.contiguous(memory_format=wished)
    return model


def arrange_all(model: InkModel) -> InkModel:
    """Lay out the kernels of all convolutions channels-last, in place, to train a network; see `arrange`."""
    arrange(model, channels_last=True)
    for parameter in model.parameters():
        if parameter.ndim == FLAT_KERNEL_AXES:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model
