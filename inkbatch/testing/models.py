"""Contract of every architecture, as a suite: a new one adds a subclass of `ModelContract` with a small config.

class TestMyNet(ModelContract):
    architecture = "my-net"
    config = {"depth_layers": 8}
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, ClassVar, cast

import pytest
import safetensors.torch
import torch
from torch import Tensor

from inkbatch.errors import ConfigError
from inkbatch.models.base import InkModel, build_model
from inkbatch.predict.passes import cpu_threads


class ModelContract:
    """Tests of one architecture, on the CPU, with fresh weights from a fixed seed.

    Attributes:
        architecture: Registered name.
        config: The smallest config that shows all of the network; JSON values, as a bundle stores them.
        tile_px: Edge of the tiles.
        dead_parameters: Prefixes of parameters that published files hold and that play no part. They must not ask for
            gradients: an optimiser would decay them, and distributed training would wait for them.
        bfloat16_tolerance: Largest difference that bfloat16 autocast may make, in standard deviations of the logits.
    """

    architecture: ClassVar[str]
    config: ClassVar[dict[str, Any]]
    tile_px: ClassVar[int] = 64
    dead_parameters: ClassVar[tuple[str, ...]] = ()
    bfloat16_tolerance: ClassVar[float] = 0.1

    @pytest.fixture
    def model(self) -> InkModel:
        """Return the network in evaluation mode; tests leave it so."""
        return self._case()[0]

    @pytest.fixture
    def subvolume(self) -> Tensor:
        """Return a batch of two different tiles, (2, 1, Z, Y, X), uniform in [0, 1)."""
        return self._case()[1]

    @pytest.fixture
    def logits(self) -> Tensor:
        """Return the network's logits for `subvolume`."""
        return self._case()[2]

    def _case(self) -> tuple[InkModel, Tensor, Tensor]:
        return _build_once(self.architecture, json.dumps(self.config), self.tile_px)

    def test_config_survives_json(self, model: InkModel) -> None:
        """The bundle stores the config as JSON; it comes back equal."""
        stored = json.loads(json.dumps(model.config.model_dump(mode="json")))
        assert type(model).config_class.model_validate(stored) == model.config

    def test_unknown_config_keys_are_refused(self) -> None:
        """A misspelt key must not fall back to a default."""
        with pytest.raises(ConfigError, match="no_such_key"):
            build_model(self.architecture, {**self.config, "no_such_key": 1})

    def test_logits_have_the_promised_shape_and_dtype(self, model: InkModel, logits: Tensor) -> None:
        """(B, 1, Y / output_scale, X / output_scale), float32, finite, and not constant."""
        side = self.tile_px // model.output_scale
        assert logits.shape == (2, 1, side, side)
        assert logits.dtype == torch.float32
        assert torch.isfinite(logits).all()
        assert logits.std() > 0

    def test_two_threads_at_once_get_the_answers_of_one(self, model: InkModel, subvolume: Tensor) -> None:
        """On a CPU passes are made side by side: a network keeps nothing between calls that another call would see."""

        def single(tile: Tensor) -> Tensor:
            torch.set_num_threads(1)
            with torch.inference_mode():
                return cast(Tensor, model(tile))

        tiles = [subvolume[index % 2][None] for index in range(4)]
        with cpu_threads(1), ThreadPoolExecutor(2) as pool:
            at_once = list(pool.map(single, tiles))
            assert all(torch.equal(found, single(tile)) for found, tile in zip(at_once, tiles, strict=True))

    def test_another_depth_is_refused(self, model: InkModel, subvolume: Tensor) -> None:
        """One layer more would be another depth for every layer; the message names both numbers."""
        deeper = torch.cat((subvolume, subvolume[:, :, :1]), dim=2)
        with pytest.raises(ConfigError, match=rf"{model.config.depth_layers}.*{deeper.shape[2]}"):
            model(deeper)

    def test_a_tile_off_the_multiple_is_refused(self, model: InkModel, subvolume: Tensor) -> None:
        """A tile that the strides do not divide is named, not padded."""
        if model.tile_multiple == 1:
            pytest.skip("takes tiles of any size")
        with pytest.raises(ConfigError, match=str(model.tile_multiple)):
            model(subvolume[..., :-1])

    def test_gradient_reaches_every_living_parameter(self, model: InkModel, subvolume: Tensor) -> None:
        """Parameters that ask for gradients get finite ones; matrices and kernels get some that are not zero."""
        dead = {name for name, _ in model.named_parameters() if name.startswith(self.dead_parameters or ("\0",))}
        asking = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert not dead & set(asking), "dead parameters must not ask for gradients"
        assert set(dict(model.named_parameters())) - dead == set(asking), "only dead parameters may be frozen"
        model.zero_grad()
        model(subvolume).square().sum().backward()
        cut_off = [name for name, parameter in asking.items() if parameter.grad is None]
        bad = [name for name, parameter in asking.items() if parameter.grad is not None and not _reached(parameter)]
        model.zero_grad(set_to_none=True)
        assert cut_off == []
        assert bad == []

    def test_each_tile_is_judged_alone(self, model: InkModel, subvolume: Tensor, logits: Tensor) -> None:
        """The logits of a tile do not depend on its neighbours in the batch, nor on its place."""
        with torch.inference_mode():
            turned = model(subvolume.flip(0))
            alone = model(subvolume[1:])
        spread = float(logits.std())
        torch.testing.assert_close(turned.flip(0), logits, rtol=0, atol=1e-4 * spread)
        torch.testing.assert_close(alone, logits[1:], rtol=0, atol=1e-4 * spread)

    def test_different_tiles_get_different_logits(self, logits: Tensor) -> None:
        """The network looks at its input."""
        assert not torch.equal(logits[0], logits[1])

    def test_bfloat16_autocast_stays_close(self, model: InkModel, subvolume: Tensor, logits: Tensor) -> None:
        """Reduced precision moves the logits by no more than the stated tolerance."""
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            reduced = model(subvolume).float()
        difference = float((reduced - logits).abs().max() / logits.std())
        assert difference < self.bfloat16_tolerance

    def test_weights_survive_the_bundle(self, model: InkModel, subvolume: Tensor, logits: Tensor) -> None:
        """Through safetensors into a network built from the stored config: the same logits, bit for bit."""
        state = {name: value.contiguous() for name, value in model.state_dict().items()}
        stored = safetensors.torch.load(safetensors.torch.save(state))
        again = build_model(self.architecture, model.config.model_dump(mode="json")).eval()
        again.load_state_dict(stored, strict=True)
        with torch.inference_mode():
            assert torch.equal(again(subvolume), logits)


@lru_cache(maxsize=1)
def _build_once(architecture: str, config: str, tile_px: int) -> tuple[InkModel, Tensor, Tensor]:
    """Build a network, a batch and its logits, and keep them while the tests of one class run."""
    torch.manual_seed(0)
    model = build_model(architecture, json.loads(config)).eval()
    model.ask_for_gradients()
    shape = (2, 1, model.config.depth_layers, tile_px, tile_px)
    subvolume = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return model, subvolume, model(subvolume)


def _reached(parameter: torch.nn.Parameter) -> bool:
    grad = parameter.grad
    assert grad is not None
    return bool(torch.isfinite(grad).all()) and (parameter.ndim < 2 or bool(grad.any()))
