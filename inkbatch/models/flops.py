"""Cost of one forward pass, counted from shapes: nothing is computed."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from inkbatch.models.base import InkModel


def flops_per_tile(model: InkModel, tile_px: int) -> float:
    """Count the floating-point operations of one forward pass of one tile; a multiplication and an addition are two.

    Matrix products, convolutions and attention are counted; what works element by element is not.

    Args:
        model: The network; not changed, its mode and weights do not matter.
        tile_px: Edge of the tile.
    """
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    device = next((tensor.device for tensor in state.values()), torch.device("cpu"))
    training = model.training
    counter = FlopCounterMode(display=False)
    try:
        model.eval()
        with FakeTensorMode() as fake, counter, torch.no_grad():
            shapes: dict[str, torch.Tensor] = {name: fake.from_tensor(tensor) for name, tensor in state.items()}
            tile = torch.empty(1, 1, model.config.depth_layers, tile_px, tile_px, device=device)
            torch.func.functional_call(model, shapes, (tile,))
    finally:
        model.train(training)
    return float(counter.get_total_flops())
