"""Kernels are laid out as asked, and nothing else changes."""

import pytest
import torch

from inkbatch.models.base import build_model
from inkbatch.predict.memory_format import arrange, channels_last_pays


@pytest.mark.parametrize(
    ("device", "dtype", "pays"),
    [("cpu", torch.float32, False), ("cpu", torch.bfloat16, True), ("cuda", torch.bfloat16, False)],
)
def test_channels_last_is_taken_where_it_was_measured_to_be_faster(device, dtype, pays):
    assert channels_last_pays(torch.device(device), dtype) is pays


def test_layout_changes_no_weight_and_hardly_a_logit():
    torch.manual_seed(0)
    model = build_model("i3d", {"depth_layers": 4, "unused_logits": 1}).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    subvolume = torch.rand(1, 1, 4, 32, 32)
    with torch.inference_mode():
        logits = model(subvolume)
        arrange(model, channels_last=True)
        kernels = [parameter for parameter in model.parameters() if parameter.ndim == 5 and parameter.shape[1] > 1]
        assert all(kernel.is_contiguous(memory_format=torch.channels_last_3d) for kernel in kernels)
        torch.testing.assert_close(model(subvolume), logits, rtol=1e-4, atol=1e-4 * float(logits.std()))
        arrange(model, channels_last=False)
        assert torch.equal(model(subvolume), logits)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
