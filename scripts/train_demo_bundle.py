"""Train the demo bundle: a small 2.5-D U-Net that reads planted ink, from random weights, on two CPU cores.

    python scripts/train_demo_bundle.py

Every sample is a new phantom: a tile of `scripts/data/papyrus` with letters of `scripts/data/letters` planted at a
random amplitude, depth, width and crackle, turned and flipped. The right part of that papyrus and the letters of
another column are kept for validation; the threshold is fitted there. The demo segment is only scored, at the end.

Equal seeds and thread counts give equal weights on one machine and one version of torch.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from inkbatch.data.phantom import InkConfig, depth_weight, ink_plane, plant_layer, truth_of
from inkbatch.data.scoring import ScoreHistogram
from inkbatch.geometry import Box, TileGrid
from inkbatch.io.layers import open_layer_source
from inkbatch.io.storage import Location
from inkbatch.models import InkModel, build_model
from inkbatch.models.bundle import TTA_AXES, Bundle, BundleDocument, Contract, LayerRule
from inkbatch.predict.blend import window_1d
from inkbatch.steps.phantom import read_picture

REPOSITORY = Path(__file__).resolve().parent.parent
DATA = REPOSITORY / "scripts" / "data"
DEMO = REPOSITORY / "inkbatch" / "demo"

ARCHITECTURE = "smp"
MODEL: dict[str, Any] = {
    "family": "Unet",
    "encoder": "tu-mobilenetv3_small_100",
    "depth_layers": 13,
    "decoder": {"encoder_depth": 4, "decoder_channels": [64, 32, 16, 8]},
}
CONTRACT = Contract(
    layers=LayerRule(count=13),
    clip=(0, 255),
    divisor=255,
    voxel_size_um=7.91,
    tile_px=128,
    stride_px=64,
    tta_axes=TTA_AXES,
)

Stack = NDArray[np.uint8]  # (Z, Y, X), depth order
Letters = NDArray[np.float32]  # (Y, X) in [0, 1]


@dataclass(frozen=True)
class Settings:
    """What the training is made of; stored in the bundle.

    Attributes:
        seed: Seed of weights, samples and validation phantoms.
        steps: Optimiser steps.
        batch: Tiles per step.
        learning_rate: Highest rate of the one-cycle cosine.
        warm_up: Part of the steps in which the rate rises.
        weight_decay: Of AdamW.
        amplitude: Range of planted grey values of 255.
        depth_layer: Range of the ink's centre.
        width_layers: Range of its depth profile's standard deviation.
        crackle: Range of the modulation.
        crackle_px: Range of its size.
        edge_px: Range of the letters' softness.
        letter_scale: Range of enlargement of the letters.
        bare_share: Part of the samples without any ink.
        gain: Range of a factor on all grey values of a tile.
        validation_columns: Columns on the right of the papyrus that are kept for validation.
        validation_amplitudes: Amplitudes of the validation phantoms.
    """

    seed: int = 0
    steps: int = 2000
    batch: int = 16
    learning_rate: float = 3e-3
    warm_up: float = 0.08
    weight_decay: float = 0.01
    amplitude: tuple[float, float] = (30, 70)
    depth_layer: tuple[float, float] = (2.3, 3.7)
    width_layers: tuple[float, float] = (1.2, 1.8)
    crackle: tuple[float, float] = (0.0, 0.9)
    crackle_px: tuple[float, float] = (5, 14)
    edge_px: tuple[float, float] = (0.8, 2.2)
    letter_scale: tuple[float, float] = (0.8, 1.5)
    bare_share: float = 0.1
    gain: tuple[float, float] = (0.9, 1.1)
    validation_columns: int = 192
    validation_amplitudes: tuple[float, ...] = (40, 50, 60)


def read_stack(folder: Path) -> Stack:
    """All layers of a folder, (Z, Y, X)."""
    with open_layer_source(str(folder)) as source:
        count, height, width = source.shape_zyx
        first = source.first_layer
        stack: Stack = source.read(range(first, first + count), Box(0, 0, height, width)).astype(np.uint8)
        return stack


def read_letters(name: str) -> Letters:
    """One picture of letters as a mask of 0 and 1."""
    return (read_picture(str(DATA / "letters" / name)) > 127).astype(np.float32)


def planted(stack: Stack, mask: Letters, ink: InkConfig) -> Stack:
    """A stack with ink."""
    plane = ink_plane(mask, None, ink)
    return np.stack([plant_layer(layer, plane, depth_weight(number, ink)) for number, layer in enumerate(stack)])


@dataclass(frozen=True)
class PhantomTiles:
    """Endless random phantoms of one tile each.

    Attributes:
        papyrus: Bare layers (Z, Y, X).
        letters: Letters to cut from.
        settings: Ranges.
        rng: Source of all choices.
    """

    papyrus: Stack
    letters: Letters
    settings: Settings
    rng: np.random.Generator

    def batch(self) -> tuple[Tensor, Tensor]:
        """Subvolumes (B, 1, Z, Y, X) in [0, 1] and targets (B, 1, Y, X)."""
        stacks, targets = zip(*(self._sample() for _ in range(self.settings.batch)), strict=True)
        subvolumes = torch.from_numpy(np.stack(stacks)[:, None]).float() / CONTRACT.divisor
        gain = self.rng.uniform(*self.settings.gain, (len(stacks), 1, 1, 1, 1)).astype(np.float32)
        return subvolumes * torch.from_numpy(gain), torch.from_numpy(np.stack(targets)[:, None])

    def _sample(self) -> tuple[Stack, NDArray[np.float32]]:
        mask = self._mask()
        stack = self._view(_window(self.papyrus, CONTRACT.tile_px, self.rng))
        return planted(stack, mask, self._ink()), truth_of(mask).astype(np.float32)

    def _mask(self) -> Letters:
        tile, ranges = CONTRACT.tile_px, self.settings
        if self.rng.random() < ranges.bare_share:
            return np.zeros((tile, tile), np.float32)
        side = math.ceil(tile / self.rng.uniform(*ranges.letter_scale))
        cut = self._view(_window(self.letters[None], side, self.rng))[0]
        enlarged = cv2.resize(cut, (tile, tile), interpolation=cv2.INTER_LINEAR)
        return np.asarray(cv2.GaussianBlur(enlarged, (0, 0), self.rng.uniform(*ranges.edge_px)), np.float32)

    def _ink(self) -> InkConfig:
        ranges = self.settings
        names = ("amplitude", "depth_layer", "width_layers", "crackle", "crackle_px")
        values = {name: self.rng.uniform(*getattr(ranges, name)) for name in names}
        return InkConfig(seed=int(self.rng.integers(2**31)), **values)

    def _view(self, stack: NDArray[Any]) -> NDArray[Any]:
        """One of the eight quarter turns and flips."""
        turned = np.rot90(stack, int(self.rng.integers(4)), axes=(1, 2))
        return np.ascontiguousarray(turned[:, :, ::-1] if self.rng.random() < 0.5 else turned)


def _window(stack: NDArray[Any], side: int, rng: np.random.Generator) -> NDArray[Any]:
    y = int(rng.integers(stack.shape[1] - side + 1))
    x = int(rng.integers(stack.shape[2] - side + 1))
    return stack[:, y : y + side, x : x + side]


def learning_rate(step: int, settings: Settings) -> float:
    """Linear warm-up, then a cosine down to zero."""
    done = step / settings.steps
    rising = min(1.0, done / settings.warm_up) if settings.warm_up else 1.0
    return settings.learning_rate * rising * 0.5 * (1 + math.cos(math.pi * done))


def ink_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy plus one minus the batch's soft Dice coefficient."""
    probability = logits.sigmoid()
    dice = (2 * (probability * target).sum() + 1) / (probability.sum() + target.sum() + 1)
    return functional.binary_cross_entropy_with_logits(logits, target) + 1 - dice


def train(model: InkModel, tiles: PhantomTiles, settings: Settings) -> None:
    """Train in place; prints the mean loss of every hundred steps."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    model.train()
    started, losses = time.perf_counter(), []
    for step in range(settings.steps):
        subvolumes, targets = tiles.batch()
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, settings)
        loss = ink_loss(model(subvolumes), targets)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(loss.item())
        if (step + 1) % 100 == 0:
            spent = time.perf_counter() - started
            print(f"step {step + 1} of {settings.steps}: loss {np.mean(losses[-100:]):.3f}, {spent:.0f} s", flush=True)
    model.eval()


@torch.inference_mode()
def predict(model: InkModel, stack: Stack) -> NDArray[np.float32]:
    """Ink probability (Y, X): the contract's tiles, blended by its window."""
    grid = TileGrid(stack.shape[1:], CONTRACT.tile_px, CONTRACT.stride_px)
    axis = window_1d(CONTRACT.window, CONTRACT.tile_px)
    window = axis[:, None] * axis[None, :]
    total, weight = np.zeros(stack.shape[1:], np.float32), np.zeros(stack.shape[1:], np.float32)
    for boxes in _tile_rows(grid):
        batch = np.stack([stack[:, *box.slices] for box in boxes])[:, None]
        probability = model(torch.from_numpy(batch).float() / CONTRACT.divisor).sigmoid().numpy()[:, 0]
        for box, tile in zip(boxes, probability, strict=True):
            total[box.slices] += tile * window
            weight[box.slices] += window
    return total / weight


def _tile_rows(grid: TileGrid) -> Iterator[list[Box]]:
    edge = grid.tile_px
    for row in range(grid.rows.count):
        y = grid.rows.origin(row)
        origins = [grid.columns.origin(column) for column in range(grid.columns.count)]
        yield [Box(y, x, y + edge, x + edge) for x in origins]


def validate(model: InkModel, papyrus: Stack, letters: Letters, settings: Settings) -> ScoreHistogram:
    """Score phantoms on papyrus and letters that training never saw."""
    rng = np.random.default_rng([settings.seed, 1])
    histogram = ScoreHistogram()
    height, width = papyrus.shape[1:]
    for amplitude in settings.validation_amplitudes:
        for turn in range(2):
            y, x = rng.integers(letters.shape[0] - height), rng.integers(letters.shape[1] - width)
            mask = cv2.GaussianBlur(letters[y : y + height, x : x + width], (0, 0), 1.5).astype(np.float32)
            depth, width_layers = np.mean(settings.depth_layer), np.mean(settings.width_layers)
            ink = InkConfig(
                amplitude=amplitude, depth_layer=float(depth), width_layers=float(width_layers), crackle=0.6, seed=turn
            )
            add_score(histogram, predict(model, planted(papyrus, mask, ink)), truth_of(mask))
    return histogram


def add_score(histogram: ScoreHistogram, probability: NDArray[np.float32], truth: NDArray[np.bool_]) -> None:
    """Count every pixel."""
    histogram.add(probability, truth, np.ones(truth.shape, np.bool_))


def flops_per_tile(model: InkModel) -> float:
    """Floating-point operations of one forward pass over one tile."""
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        model(torch.zeros(1, 1, CONTRACT.layers.count, CONTRACT.tile_px, CONTRACT.tile_px))
    return float(counter.get_total_flops())


def save(output: Path, model: InkModel, settings: Settings, threshold: float, metrics: dict[str, Any]) -> Bundle:
    """Store the bundle; no clock in it, so that equal trainings are equal bytes."""
    contract = CONTRACT.model_copy(
        update={
            "threshold": threshold,
            "threshold_fitted_on": "phantoms on the held-out part of scripts/data/papyrus, letters/validation.png",
        }
    )
    document = BundleDocument(
        name="demo",
        architecture=ARCHITECTURE,
        model=MODEL,
        contract=contract,
        flops_per_tile=flops_per_tile(model),
        training={
            "script": "scripts/train_demo_bundle.py",
            "data": "planted ink on real papyrus; see NOTICE.md of the demo",
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            **asdict(settings),
        },
        metrics=metrics,
    )
    return Bundle.save(Location.parse(output), model, document)


def main() -> None:
    """Train, fit the threshold, save, and score the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DEMO / "bundle")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--picture", type=Path, help="also write the demo's ink map to this PNG")
    arguments = parser.parse_args()
    settings = replace(Settings(), steps=arguments.steps, seed=arguments.seed)
    cv2.setNumThreads(1)
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(settings.seed)

    papyrus = read_stack(DATA / "papyrus")
    border = papyrus.shape[2] - settings.validation_columns
    tiles = PhantomTiles(
        papyrus[:, :, :border], read_letters("train.png"), settings, np.random.default_rng(settings.seed)
    )
    model = build_model(ARCHITECTURE, MODEL).to(memory_format=torch.channels_last)  # twice as fast on a CPU
    started = time.perf_counter()
    train(model, tiles, settings)
    seconds = time.perf_counter() - started

    validation = validate(model, papyrus[:, :, border:], read_letters("validation.png"), settings)
    best, threshold = (round(number, 4) for number in validation.best_f_beta())
    demo = ScoreHistogram()
    probability = predict(model, read_stack(DEMO / "layers"))
    add_score(demo, probability, read_picture(str(DEMO / "truth.png")) > 0)
    metrics = {
        "validation": {"auc": round(validation.auc(), 4), "f05": best},
        "demo": {"auc": round(demo.auc(), 4), "f05": round(demo.f_beta(threshold), 4)},
    }
    bundle = save(arguments.output, model, settings, threshold, metrics)
    if arguments.picture:
        cv2.imwrite(str(arguments.picture), np.rint(probability * 255).astype(np.uint8))
    print(f"trained in {seconds:.0f} s, threshold {threshold:.3f}: {metrics}")
    print(f"demo at its own best threshold: {demo.best_f_beta()}")
    print(f"saved to {bundle.location}")


if __name__ == "__main__":
    main()
