"""Steps of the GPU check that feed networks directly: golden tensors, forward rates, batches and their memory."""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks import bench_models
from benchmarks.common import REPOSITORY
from benchmarks.gpu_runner import Given, Row
from inkbatch.models import InkModel, build_model
from inkbatch.models.contract import Contract, LayerRule
from inkbatch.models.presets import load_preset
from inkbatch.predict.compiling import compiled
from inkbatch.predict.device import TOLERANCE, autocast, choose_device, synchronize
from inkbatch.predict.passes import Passes
from inkbatch.run.signals import StopFlag
from inkbatch.testing.golden import Golden

GOLDEN = REPOSITORY / "tests" / "models" / "golden"
GOLDEN_NETWORKS = {"i3d": "i3d-first-letters", "timesformer-26": "timesformer-gp", "ink-9um": "ink-9um"}
"""Fixture and the preset that has its network, small ones first."""

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
MEASURED = ("ink-9um", "timesformer", "unet-resnet34-2.5d")
MOST_TILES = 256  # asked one by one first: seconds, not minutes
CROWDED_SHARE = 0.5  # of the memory that a batch takes is what the recovery gets


Ask = Callable[[InkModel, Tensor, torch.dtype], Tensor]  # network, subvolume and precision -> logits


@torch.inference_mode()
def logits_of(model: InkModel, subvolume: Tensor, dtype: torch.dtype) -> Tensor:
    """Ask a network in a precision; logits in float32 on the CPU."""
    with autocast(subvolume.device, dtype):
        return model(subvolume).float().cpu()  # type: ignore[no-any-return]


def golden(given: Given, ask: Ask = logits_of) -> Iterator[Row]:
    """Compare golden logits with what the device answers, in float32 and bfloat16."""
    yield from _golden(given, ("eager",), ask)


def golden_compiled(given: Given) -> Iterator[Row]:
    """Do the same with compiled networks."""
    yield from _golden(given, ("compiled",), logits_of)


def _golden(given: Given, kinds: tuple[str, ...], ask: Ask) -> Iterator[Row]:
    device = choose_device(given.device)  # type: ignore[arg-type]
    for name, preset in list(GOLDEN_NETWORKS.items())[: 1 if given.quick else None]:
        fixture = Golden.read(GOLDEN, name)
        chosen = load_preset(preset)
        model = build_model(chosen.architecture, chosen.model)
        fixture.fill(model)
        model.eval().to(device)
        for kind in kinds:
            for precision, dtype in PRECISIONS.items():
                runner = compiled(copy.deepcopy(model), device) if kind == "compiled" else model
                began = time.perf_counter()
                found = ask(runner, fixture.subvolume().to(device), dtype)
                kept = found[..., :: fixture.step, :: fixture.step].reshape(fixture.output.shape)
                difference = fixture.difference(kept, fixture.output)
                yield {
                    **{"network": name, "precision": precision, "kind": kind, "difference_std": difference},
                    "allowed_std": TOLERANCE[dtype],
                    "first_pass_s": round(time.perf_counter() - began, 3),
                    "ok": difference <= TOLERANCE[dtype],
                }


def forward(given: Given) -> Iterator[Row]:
    """Measure forward passes as a share of the device's matrix rate."""
    device = choose_device(given.device)  # type: ignore[arg-type]
    asked = argparse.Namespace(
        seconds=0.0 if given.quick else 1.5,
        models=["i3d"] if given.quick else list(MEASURED),
        precision=["fp32"] if given.quick else ["bf16", "fp32"],
        batch=1 if given.quick else 0,
        memory_format="auto",
        compile=False,
    )
    for row in bench_models.results(asked, device, time.perf_counter):
        yield {key: value for key, value in row.items() if key != "config"}


class Crowded(InkModel):
    """A network whose device runs out of memory beyond so many tiles: how a CPU rehearses the recovery."""

    def __init__(self, inner: InkModel, most: int) -> None:
        super().__init__(inner.config)
        self.inner, self.most = inner, most

    @property
    def output_scale(self) -> int:
        return self.inner.output_scale

    def forward(self, subvolume: Tensor) -> Tensor:
        if len(subvolume) > self.most:
            raise torch.OutOfMemoryError(f"{len(subvolume)} tiles, {self.most} fit")
        found: Tensor = self.inner(subvolume)
        return found


def batch(given: Given) -> Iterator[Row]:
    """Find a batch, then run out of memory and go on with a smaller one, with the same answers."""
    device = choose_device(given.device)  # type: ignore[arg-type]
    chosen = load_preset("ink-9um")
    torch.manual_seed(0)
    small: dict[str, Any] = {"widths": [8, 16], "blocks": [1, 1]} if given.quick else {}
    model = build_model(chosen.architecture, {**chosen.model, **small}).eval().to(device)
    edge = 32 if given.quick else chosen.contract.tile_px
    contract = Contract(layers=LayerRule(count=17), voxel_size_um=9.6, tile_px=edge, stride_px=edge // 2)
    began = time.perf_counter()
    found = passes_of(model, contract, device, 0).batch_tiles
    yield {"batch_tiles": found, "found_in_s": round(time.perf_counter() - began, 2)}

    large = 8 if given.quick else min(2 * max(found, 8), MOST_TILES)
    tiles = torch.rand((large, 1, 17, contract.tile_px, contract.tile_px), device=device)
    expected = passes_of(model, contract, device, 1).maps(tiles)
    with _little_memory(model, contract, device, tiles) as crowded:
        passes = passes_of(crowded, contract, device, large)
        answer = passes.maps(tiles)
    difference = float((answer - expected).abs().max())
    yield {
        **{"asked_tiles": large, "went_on_with_tiles": passes.batch_tiles, "difference": difference},
        "ok": passes.batch_tiles < large and difference < 0.05,
    }


def passes_of(model: InkModel, contract: Contract, device: torch.device, batch_tiles: int) -> Passes:
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return Passes(model, contract, device, dtype, StopFlag(), batch_tiles)


class _little_memory:  # noqa: N801  # reads as a function where it is used
    """Let the device have too little memory for `tiles` at once: truly on CUDA, by a network that says so on a CPU."""

    def __init__(self, model: InkModel, contract: Contract, device: torch.device, tiles: Tensor) -> None:
        self.model, self.contract, self.device, self.tiles = model, contract, device, tiles

    def __enter__(self) -> InkModel:
        if self.device.type != "cuda":
            return Crowded(self.model, len(self.tiles) // 4)
        synchronize(self.device)
        torch.cuda.empty_cache()
        held = torch.cuda.memory_reserved(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        passes_of(self.model, self.contract, self.device, len(self.tiles)).maps(self.tiles)
        needed = torch.cuda.max_memory_reserved(self.device) - held
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(self.device).total_memory
        limit = (held + CROWDED_SHARE * needed) / total
        torch.cuda.set_per_process_memory_fraction(min(limit, 1.0), torch.cuda.current_device())  # wants a number
        return self.model

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0, torch.cuda.current_device())
