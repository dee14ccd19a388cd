"""Train the small SAM 2 that tests and the demo of instances refine with, on made thin sections.

    python scripts/train_tiny_sam.py --out inkbatch/demo/promptable

Its classes and its code are SAM 2's, as transformers builds them; widths and depths are small, so that a CPU trains
it in a quarter of an hour. Seeds from 100,000 on are the demo's and the tests', and never trained on.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from inkbatch.data.synthetic.grains import GrainConfig, make_section
from inkbatch.io.store.location import Location
from inkbatch.models.prompting import PromptableBundle, PromptableDocument, build_promptable
from inkbatch.text import seconds_text

IMAGE_PX, WIDTH = 192, 64
CROPS_PX = (72, 150)  # of a section, resized to IMAGE_PX
PICTURES, PROMPTS = 4, 12  # per step
TARGET_PX = 96  # masks are compared at this size
LEAST_PX = 40  # of a grain in a crop
SECTIONS, STEPS = 32, 900
RATE, WARM_UP = 2e-3, 20
INSIDE = torch.tensor(3.0)  # weight of a grain's pixels, which are few


def tiny_config() -> dict[str, Any]:
    """Return the shape of the network, as transformers names it: SAM 2 with 0.6 million weights."""
    widths, edge = [24, 48, 96, 128], IMAGE_PX // 4
    return {
        "vision_config": {
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": widths[0],
                "image_size": [IMAGE_PX, IMAGE_PX],
                "window_positional_embedding_background_size": [4, 4],
                "blocks_per_stage": [1, 1, 2, 1],
                "embed_dim_per_stage": widths,
                "num_attention_heads_per_stage": [1, 2, 4, 4],
                "window_size_per_stage": [8, 4, 8, 4],
                "global_attention_blocks": [3],
            },
            "backbone_channel_list": widths[::-1],
            "backbone_feature_sizes": [[edge, edge], [edge // 2, edge // 2], [edge // 4, edge // 4]],
            "fpn_hidden_size": WIDTH,
        },
        "prompt_encoder_config": {"hidden_size": WIDTH, "image_size": IMAGE_PX, "patch_size": 16},
        "mask_decoder_config": {
            "hidden_size": WIDTH,
            "mlp_dim": 128,
            "iou_head_hidden_dim": 64,
            "num_attention_heads": 2,
            "attention_downsample_rate": 1,
        },
    }


def fresh_network(config: dict[str, Any]) -> torch.nn.Module:
    """Build the network with first weights that suit its few channels; those of transformers are made for many.

    The decoder's queries and keys begin alike, so that a pixel near a prompt attends to it from the first step on.
    """
    net = build_promptable("sam2", config)
    for module in net.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            torch.nn.init.xavier_uniform_(module.weight)
    for name, module in net.named_modules():
        if name.startswith("mask_decoder") and hasattr(module, "q_proj"):
            torch.nn.init.orthogonal_(module.q_proj.weight, 1.3)
            module.k_proj.weight.data.copy_(module.q_proj.weight.data)
        if name.startswith("vision_encoder.neck") and isinstance(module, torch.nn.Conv2d):
            module.weight.data.mul_(0.3)  # places weigh more than looks
    return net.train()


@dataclass(frozen=True)
class Prompted:
    """Crops with prompts: pixels (B, 3, Y, X), points (B, N, 1, 2), boxes (B, N, 4) or None, masks (B, N, Y, X)."""

    pixels: Tensor
    points: Tensor
    boxes: Tensor | None
    masks: Tensor


def draw_batch(
    sections: list[tuple[NDArray[np.uint8], NDArray[np.uint16]]], document: PromptableDocument, rng: np.random.Generator
) -> Prompted:
    """Cut crops, and prompt some grains of each."""
    crops = [_crop(*sections[int(rng.integers(len(sections)))], rng) for _ in range(PICTURES)]
    pixels = torch.from_numpy(np.stack([picture for picture, _ in crops])).permute(0, 3, 1, 2).float() / 255
    pixels = (pixels - torch.tensor(document.mean).view(3, 1, 1)) / torch.tensor(document.std).view(3, 1, 1)
    prompts = [_prompts(instances, rng) for _, instances in crops]
    points, boxes, masks = (torch.from_numpy(np.stack(arrays)) for arrays in zip(*prompts, strict=True))
    return Prompted(pixels, points[:, :, None], boxes if rng.random() < 0.75 else None, masks)


def _crop(
    picture: NDArray[np.uint8], instances: NDArray[np.uint16], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    edge = int(rng.integers(*CROPS_PX))
    y, x = (int(rng.integers(0, size - edge + 1)) for size in instances.shape)
    part = (slice(y, y + edge), slice(x, x + edge))
    size = (IMAGE_PX, IMAGE_PX)
    pixels = cv2.resize(picture[part], size, interpolation=cv2.INTER_LINEAR)
    labels = cv2.resize(instances[part], size, interpolation=cv2.INTER_NEAREST)
    turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
    pixels, labels = np.rot90(pixels, turns), np.rot90(labels, turns)
    if mirrored:
        pixels, labels = pixels[:, ::-1], labels[:, ::-1]
    toned = pixels.astype(np.float32) * rng.uniform(0.85, 1.15) + rng.uniform(-12, 12)
    return np.clip(toned, 0, 255).astype(np.uint8), np.ascontiguousarray(labels)


def _prompts(labels: NDArray[np.uint16], rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Prompt grains of a crop: points (N, 2) and boxes (N, 4) as (x, y), masks (N, TARGET_PX, TARGET_PX) in [0, 1]."""
    counts = np.bincount(labels.ravel())
    grains = [number for number in range(1, len(counts)) if counts[number] >= LEAST_PX]
    chosen = rng.permutation(grains)[:PROMPTS] if grains else np.zeros(1, int)
    rows = []
    for number in np.resize(chosen, PROMPTS):
        mask = (labels == number).astype(np.uint8)
        ys, xs = np.nonzero(mask)
        depth = cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
        if rng.random() < 0.6:
            y, x = np.unravel_index(int(depth.argmax()), depth.shape)
        else:
            inner = np.flatnonzero(depth >= min(2.0, float(depth.max())))
            y, x = np.unravel_index(int(rng.choice(inner)), depth.shape)
        box = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], np.float32) - 0.5
        shake = rng.normal(0, 0.06, 4) * np.array([box[2] - box[0], box[3] - box[1]] * 2)
        target = cv2.resize(mask.astype(np.float32), (TARGET_PX, TARGET_PX), interpolation=cv2.INTER_AREA)
        rows.append((np.array([x, y], np.float32), (box + shake).astype(np.float32), target))
    points, boxes, masks = zip(*rows, strict=True)
    return np.stack(points), np.stack(boxes), np.stack(masks)


def loss_of(logits: Tensor, predicted: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Compare three masks per prompt with the one that is meant: (loss, mean IoU of the mask that scores best).

    The best of the three learns (Kirillov et al. 2023, 3.2); each learns what its IoU is.
    """
    masks = functional.interpolate(
        logits.flatten(0, 1).float(), (TARGET_PX, TARGET_PX), mode="bilinear", align_corners=False
    )
    wanted = target.flatten(0, 1)[:, None].expand_as(masks)
    entropy = functional.binary_cross_entropy_with_logits(masks, wanted, reduction="none", pos_weight=INSIDE)
    probability = masks.sigmoid()
    both, total = (probability * wanted).sum((-2, -1)), (probability + wanted).sum((-2, -1))
    dice = 1 - (2 * both + 1) / (total + 1)
    near = 1 + 8 * (functional.avg_pool2d(wanted, 9, 1, 4) - wanted).abs()  # borders count more
    each = (entropy * near).mean((-2, -1)) * 2 + dice
    found, there = masks > 0, wanted > 0.5
    iou = (found & there).sum((-2, -1)) / (found | there).sum((-2, -1)).clamp_min(1)
    score = predicted.flatten(0, 1).float()
    loss = each.min(1).values.mean() + 0.3 * each.mean() + functional.mse_loss(score, iou.float())
    return loss, iou.gather(1, score.argmax(1)[:, None]).float().mean()


@dataclass
class Run:
    """A training run that goes on where it stopped."""

    net: torch.nn.Module
    optimiser: torch.optim.Optimizer
    state: Path
    step: int = 0
    spent_s: float = 0.0

    def resume(self) -> None:
        """Take up what an earlier call left."""
        if self.state.exists():
            kept = torch.load(self.state, weights_only=True)
            self.net.load_state_dict(kept["net"])
            self.optimiser.load_state_dict(kept["optimiser"])
            self.step, self.spent_s = kept["step"], kept["spent_s"]

    def keep(self) -> None:
        """Leave what a later call needs."""
        values = {"net": self.net.state_dict(), "optimiser": self.optimiser.state_dict()}
        torch.save(values | {"step": self.step, "spent_s": self.spent_s}, self.state)


def train(run: Run, document: PromptableDocument, seed: int, steps: int, slice_s: float) -> float:
    """Train to so many steps, or for `slice_s`; return the mean IoU of the last 25 steps."""
    made = [make_section(GrainConfig(seed=seed), number) for number in range(SECTIONS)]
    sections = [(section.picture, section.instances) for section in made]
    before, started = run.spent_s, time.perf_counter()
    ious: deque[float] = deque(maxlen=25)
    while run.step < steps and run.spent_s < before + slice_s:
        rng = np.random.default_rng([seed, run.step])
        cosine = 0.02 + 0.98 * (1 + math.cos(math.pi * run.step / steps)) / 2
        for group in run.optimiser.param_groups:
            group["lr"] = RATE * min(1.0, (run.step + 1) / WARM_UP) * cosine
        batch = draw_batch(sections, document, rng)
        found = run.net(pixel_values=batch.pixels, input_points=batch.points, input_boxes=batch.boxes)
        loss, iou = loss_of(found.pred_masks, found.iou_scores, batch.masks)
        run.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(run.net.parameters(), 1.0)
        run.optimiser.step()
        ious.append(float(iou))
        run.step += 1
        run.spent_s = before + time.perf_counter() - started
        if run.step % 25 == 0:
            scores = f"loss {loss.item():.3f} · IoU {np.mean(ious):.3f}"
            print(f"step {run.step} · {seconds_text(run.spent_s)} · {scores}", flush=True)
            run.keep()
    run.keep()
    return float(np.mean(ious)) if ious else math.nan


def main() -> None:
    """Train for the given time, and store the network in half precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--state", type=Path, default=Path("tiny-sam.pt"), help="stopped, the same command goes on")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--slice-minutes", type=float, default=math.inf, help="of this call")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.manual_seed(chosen.seed)
    document = PromptableDocument(
        name="tiny-sam2",
        kind="sam2",
        config=tiny_config(),
        image_px=IMAGE_PX,
        source={"made by": "scripts/train_tiny_sam.py", "trained on": f"made thin sections, seed {chosen.seed}"},
        licence="MIT",
    )
    net = fresh_network(document.config)
    run = Run(net, torch.optim.AdamW(net.parameters(), RATE, weight_decay=0.01), chosen.state)
    run.resume()
    iou = train(run, document, chosen.seed, chosen.steps, 60 * chosen.slice_minutes)
    halves = {name: tensor.half() for name, tensor in net.state_dict().items()}
    bundle = PromptableBundle.save(Location.parse(chosen.out), document, halves)
    print(f"{bundle.location}: {run.step} steps in {seconds_text(run.spent_s)}, IoU of the last ones {iou:.3f}")


if __name__ == "__main__":
    main()
