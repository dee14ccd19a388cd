"""Train the small SAM 2 that tests and the demo of instances refine with, on made thin sections.

    python scripts/train_tiny_sam.py --out scripts/data/grains-sam2        (make train-grains-sam2)

Classes and code are SAM 2's, as transformers builds them; the network is small, and its patches are 2 px wide instead
of 4, so that masks have half the resolution of a picture. Three things let so small a network learn on a CPU: first
weights whose size follows from the number of inputs, twelve prompts per encoded picture, and linear heads on the three
maps of the encoder, which learn object, outline and the way to the middle of each pixel's grain, and are thrown away.

Step `n` of a seed is the same however often the run is stopped. Seeds from 90,000 on are never trained on.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from inkbatch.cli.outcome import run_script
from inkbatch.data.synthetic.grains import GrainConfig, make_section
from inkbatch.io.store.location import Location
from inkbatch.models.prompting import PromptableBundle, PromptableDocument, build_promptable

IMAGE_PX, PATCH_PX, WIDTH = 128, 2, 64
MASK_PX = IMAGE_PX // PATCH_PX
CROPS_PX = (72, 150)  # of a section, resized to IMAGE_PX
PICTURES, PROMPTS = 4, 12  # per step
ONE_CROP, ALL_CROPS = 150, 800  # steps: until the first one a single crop, from the second on ever new ones
LEAST_PX = 40  # of a grain in a crop
SECTIONS, WARM_UP = 160, 20
CYCLES, DECAY_FROM = (0, 850, 8000), 0.5  # steps at which the rate is back at its height; it falls in their second half
RATE, CLIP = 1.5e-3, 1.0
GRAINS = GrainConfig(shape_yx=(384, 384), radius_px=(8, 26))
DENSE_STEPS = 2000  # over which the dense answers lose four fifths of their weight
HELD_SEED, HELD_SECTIONS = 90_000, 4
WAY_PX = 16.0  # unit of ways to the middle

Picture = tuple[NDArray[np.uint8], NDArray[np.uint16]]


def tiny_config() -> dict[str, Any]:
    """Return the shape of the network, as transformers names it: SAM 2 with 0.8 million weights."""
    widths = [24, 48, 96, 128]
    return {
        "vision_config": {
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": widths[0],
                "image_size": [IMAGE_PX, IMAGE_PX],
                "patch_stride": [PATCH_PX, PATCH_PX],
                "window_positional_embedding_background_size": [8, 8],
                "blocks_per_stage": [1, 2, 3, 1],
                "embed_dim_per_stage": widths,
                "num_attention_heads_per_stage": [1, 2, 4, 4],
                "window_size_per_stage": [8, 8, 16, 8],
                "global_attention_blocks": [5],
                "mlp_ratio": 3.0,
            },
            "backbone_channel_list": widths[::-1],
            "backbone_feature_sizes": [[MASK_PX, MASK_PX], [MASK_PX // 2, MASK_PX // 2], [MASK_PX // 4, MASK_PX // 4]],
            "fpn_hidden_size": WIDTH,
            "fpn_kernel_size": 3,
            "fpn_padding": 1,
            "fpn_top_down_levels": [0, 1, 2, 3],
        },
        "prompt_encoder_config": {"hidden_size": WIDTH, "image_size": IMAGE_PX, "patch_size": 4 * PATCH_PX},
        "mask_decoder_config": {
            "hidden_size": WIDTH,
            "mlp_dim": 2 * WIDTH,
            "iou_head_hidden_dim": 64,
            "num_attention_heads": 4,
        },
    }


def fresh_network(config: dict[str, Any]) -> nn.Module:
    """Build the network with first weights that suit its few channels; those of transformers are made for many.

    Places of prompts and of pixels are encoded alike, which transformers leaves to the weights that it loads: in fresh
    ones they have two codes, and no prompt finds its pixels. Queries and keys between both begin alike, too, so that a
    pixel near a prompt attends to it at once.
    """
    net: Any = build_promptable("sam2", config)
    net.prompt_encoder.shared_embedding.positional_embedding.copy_(net.shared_image_embedding.positional_embedding)
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        elif isinstance(module, nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=module.in_channels**-0.5)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.5)
    backbone = net.vision_encoder.backbone
    nn.init.normal_(backbone.pos_embed, std=0.1)
    nn.init.normal_(backbone.pos_embed_window, std=0.1)
    for block in backbone.blocks:
        block.attn.proj.weight.data.mul_(0.5)
        block.mlp.proj_out.weight.data.mul_(0.5)
    for module in net.vision_encoder.neck.convs:
        module.weight.data.mul_(0.3)
    for module in (net.mask_decoder.conv_s0, net.mask_decoder.conv_s1):
        module.weight.data.mul_(0.5)
    for head in net.mask_decoder.output_hypernetworks_mlps:
        head.proj_out.weight.data.mul_(0.1)
    for name, module in net.mask_decoder.transformer.named_modules():
        if hasattr(module, "q_proj") and "self_attn" not in name:
            nn.init.orthogonal_(module.q_proj.weight, 1.3)
            module.k_proj.weight.data.copy_(module.q_proj.weight.data)
    trained: nn.Module = net.train()
    return trained


@dataclass(frozen=True)
class Prompted:
    """Crops with prompts, coordinates as (x, y).

    Attributes:
        pixels: (B, 3, Y, X), normalised.
        points: (B, N, 1, 2).
        boxes: (B, N, 4).
        masks: (B, N, MASK_PX, MASK_PX): share of the grain in each pixel of a mask.
        dense: (B, 4, Y, X): object, outline, and the way (y, x) to the middle of the pixel's grain.
    """

    pixels: Tensor
    points: Tensor
    boxes: Tensor
    masks: Tensor
    dense: Tensor


def drawn_crops(seed: int, step: int) -> list[list[int]]:
    """Seed the crops of a step: first one, over and over; then of 2, 4, 8 …; in the end ever new ones.

    A prompt means nothing to a fresh network, whose first answer is that no pixel is meant. It leaves that answer after
    a hundred steps on one crop, and not in three hundred on new ones.
    """
    count = 1 if step < ONE_CROP else PICTURES
    if step >= ALL_CROPS:
        return [[seed, 1, step, number] for number in range(count)]
    pool = 2 ** (12 * max(0, step - ONE_CROP) / (ALL_CROPS - ONE_CROP)) + count - 1
    rng = np.random.default_rng([seed, 2, step])
    return [[seed, 0, int(number)] for number in rng.integers(0, int(pool), count)]


def draw_batch(
    sections: list[Picture], document: PromptableDocument, crops: list[list[int]], rng: np.random.Generator
) -> Prompted:
    """Cut crops, each by its seed, and prompt some grains of each."""
    found: list[tuple[NDArray[Any], ...]] = []
    for chance in map(np.random.default_rng, crops):
        grains = np.zeros(0, np.int64)
        while not len(grains):
            pixels, labels = _crop(*sections[int(chance.integers(len(sections)))], chance)
            grains = np.flatnonzero(np.bincount(labels.ravel())[1:] >= LEAST_PX) + 1
        chosen = np.resize(rng.permutation(grains)[:PROMPTS], PROMPTS)
        found.append((pixels, *_prompts(labels, chosen, rng), _dense(labels)))
    seen, points, boxes, masks, dense = (torch.from_numpy(np.stack(arrays)) for arrays in zip(*found, strict=True))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (document.mean, document.std))
    return Prompted((seen.permute(0, 3, 1, 2) / 255 - mean) / std, points[:, :, None], boxes, masks, dense)


def _crop(
    picture: NDArray[np.uint8], instances: NDArray[np.uint16], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    edge, size = int(rng.integers(*CROPS_PX)), (IMAGE_PX, IMAGE_PX)
    y, x = (int(rng.integers(0, whole - edge + 1)) for whole in instances.shape)
    part = (slice(y, y + edge), slice(x, x + edge))
    pixels = cv2.resize(picture[part], size, interpolation=cv2.INTER_AREA if edge > IMAGE_PX else cv2.INTER_LINEAR)
    labels = cv2.resize(instances[part], size, interpolation=cv2.INTER_NEAREST)
    turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
    pixels, labels = np.rot90(pixels, turns), np.rot90(labels, turns)
    if mirrored:
        pixels, labels = pixels[:, ::-1], labels[:, ::-1]
    toned = pixels.astype(np.float32) * rng.uniform(0.85, 1.15) + rng.uniform(-12, 12)
    return np.clip(toned, 0, 255).astype(np.float32), np.ascontiguousarray(labels).astype(np.int32)


def _prompts(
    labels: NDArray[np.int32], chosen: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Prompt grains: points near the middle or anywhere inside, boxes up to 2 px too small and shaken, masks."""
    masks = labels[None] == chosen[:, None, None]
    points, boxes = np.zeros((len(chosen), 2), np.float32), np.zeros((len(chosen), 4), np.float32)
    for number, mask in enumerate(masks):
        ys, xs = np.nonzero(mask)
        y, x = round(float(ys.mean() + rng.normal(0, 2))), round(float(xs.mean() + rng.normal(0, 2)))
        if rng.random() < 0.4 or not (0 <= y < IMAGE_PX and 0 <= x < IMAGE_PX and mask[y, x]):
            place = int(rng.integers(len(ys)))
            y, x = int(ys[place]), int(xs[place])
        points[number] = x, y
        box = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], np.float32) - 0.5
        shake = rng.normal(0, 0.05, 4) * np.array([box[2] - box[0], box[3] - box[1]] * 2)
        boxes[number] = box + np.array([1, 1, -1, -1]) * rng.uniform(0, 2) + shake
    shares = masks.reshape(len(chosen), MASK_PX, PATCH_PX, MASK_PX, PATCH_PX).mean((2, 4))
    return points, boxes, shares.astype(np.float32)


def _dense(labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return object, outline and the way to the middle at each pixel, (4, Y, X)."""
    flat, count = labels.ravel(), int(labels.max()) + 1
    y, x = np.mgrid[:IMAGE_PX, :IMAGE_PX].astype(np.float32)
    areas = np.maximum(np.bincount(flat, minlength=count), 1)
    ways = [(np.bincount(flat, at.ravel(), count) / areas)[labels] - at for at in (y, x)]
    inside, square = labels > 0, np.ones((3, 3), np.uint8)
    outline = cv2.dilate(labels.astype(np.uint16), square) != cv2.erode(labels.astype(np.uint16), square)
    rows = [inside, outline, *(np.where(inside, way / WAY_PX, 0) for way in ways)]
    return np.stack(rows).astype(np.float32)


class DenseHeads(nn.Module):
    """Linear heads on the maps that the mask decoder is given; only training has them."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Conv2d(channels, 4, 1) for channels in (WIDTH // 8, WIDTH // 4, WIDTH))

    def forward(self, maps: list[Tensor], dense: Tensor) -> Tensor:
        """Compare what the heads say with the dense answer, averaged to each map's resolution."""
        losses = []
        for head, given in zip(self.heads, maps, strict=True):
            wanted, found = functional.adaptive_avg_pool2d(dense, given.shape[-1]), head(given)
            classes = functional.binary_cross_entropy_with_logits(found[:, :2], wanted[:, :2])
            losses.append(classes + functional.smooth_l1_loss(found[:, 2:], wanted[:, 2:], beta=0.3))
        return torch.stack(losses).mean()


def loss_of(logits: Tensor, predicted: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Compare three masks per prompt with the one that is meant: (loss, mean IoU of the mask that scores best).

    The best of the three learns most (Kirillov et al. 2023, 3.2); each learns what its IoU is.

    Args:
        logits: (B, N, 3, y, x).
        predicted: (B, N, 3): IoU that the network predicts.
        masks: (B, N, y, x) in [0, 1].
    """
    wanted = masks[:, :, None]
    entropy = functional.binary_cross_entropy_with_logits(logits, wanted.expand_as(logits), reduction="none")
    share, area = logits.sigmoid(), wanted.sum((-2, -1))
    dice = 1 - (2 * (share * wanted).sum((-2, -1)) + 1) / (share.sum((-2, -1)) + area + 1)
    each = entropy.sum((-2, -1)) / (4 * area.clamp_min(16)) + dice
    with torch.no_grad():
        found, there = logits > 0, wanted > 0.5
        iou = (found & there).sum((-2, -1)) / (found | there).sum((-2, -1)).clamp_min(1)
    loss = 0.6 * each.min(2).values.mean() + 0.4 * each.mean() + 0.5 * functional.mse_loss(predicted, iou)
    return loss, iou.gather(2, predicted.argmax(2, keepdim=True)).mean()


def rate_of(step: int) -> float:
    """Return the learning rate of a step."""
    begun, end = next((pair for pair in itertools.pairwise(CYCLES) if step < pair[1]), CYCLES[-2:])
    share = (step - begun) / (end - begun)
    return RATE * min(1.0, (step - begun + 1) / WARM_UP, max(0.02, (1 - share) / (1 - DECAY_FROM)))


@dataclass
class Run:
    """A training run that goes on where it stopped."""

    net: nn.Module
    heads: DenseHeads
    optimiser: torch.optim.Optimizer
    state: Path
    step: int = 0
    spent_s: float = 0.0

    @staticmethod
    def begin(config: dict[str, Any], seed: int, state: Path) -> Run:
        """Build a fresh network, or take up what an earlier call left."""
        torch.manual_seed(seed)
        net, heads = fresh_network(config), DenseHeads()
        weights = [*net.parameters(), *heads.parameters()]
        run = Run(net, heads, torch.optim.AdamW(weights, RATE, (0.9, 0.98), weight_decay=0.02), state)
        if state.exists():
            kept = torch.load(state, weights_only=True)
            net.load_state_dict(kept["net"])
            heads.load_state_dict(kept["heads"])
            run.optimiser.load_state_dict(kept["optimiser"])
            run.step, run.spent_s = kept["step"], kept["spent_s"]
        return run

    def keep(self) -> None:
        """Leave what a later call needs, the old state until the new one is whole."""
        values: dict[str, Any] = {"net": self.net.state_dict(), "heads": self.heads.state_dict()}
        values |= {"optimiser": self.optimiser.state_dict(), "step": self.step, "spent_s": self.spent_s}
        fresh = self.state.with_suffix(".new")
        torch.save(values, fresh)
        fresh.replace(self.state)

    def learn(self, batch: Prompted, boxes: bool) -> tuple[float, float]:
        """Make one step; return its loss and the mean IoU of the masks that score best."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate_of(self.step)
        given = batch.boxes if boxes else None
        found = self.net(pixel_values=batch.pixels, input_points=batch.points, input_boxes=given)
        loss, iou = loss_of(found.pred_masks, found.iou_scores, batch.masks)
        dense = self.heads(found.image_embeddings, batch.dense)
        self.optimiser.zero_grad()
        (loss + (1 - 0.8 * min(1.0, self.step / DENSE_STEPS)) * dense).backward()
        nn.utils.clip_grad_norm_([*self.net.parameters(), *self.heads.parameters()], CLIP)
        self.optimiser.step()
        self.step += 1
        return loss.item(), float(iou)


def made(seed: int, count: int) -> list[Picture]:
    """Make thin sections."""
    config = GRAINS.model_copy(update={"seed": seed})
    return [(one.picture, one.instances) for one in (make_section(config, number) for number in range(count))]


def train(run: Run, document: PromptableDocument, seed: int, steps: int, until: float) -> None:
    """Train to so many steps, or until a time of `time.monotonic`."""
    sections, recent = made(seed, SECTIONS) if run.step < steps else [], []
    while run.step < steps and time.monotonic() < until:
        started, rng = time.process_time(), np.random.default_rng([seed, run.step])
        boxes = bool(rng.random() < 0.5)
        batch = draw_batch(sections, document, drawn_crops(seed, run.step), rng)
        recent.append((*run.learn(batch, boxes), boxes))
        run.spent_s += time.process_time() - started
        if run.step % 25 == 0 or run.step == steps:
            loss = np.mean([row[0] for row in recent])
            ious = [np.mean([row[1] for row in recent if row[2] is asked] or [np.nan]) for asked in (False, True)]
            by = f"IoU {ious[0]:.3f} by point, {ious[1]:.3f} by point and box"
            print(f"step {run.step} · {run.spent_s:.0f} s · loss {loss:.3f} · {by}", flush=True)
            recent.clear()
            run.keep()
    run.keep()


@torch.inference_mode()
def held_out(net: nn.Module, document: PromptableDocument) -> dict[str, float]:
    """Measure the mean IoU of the masks that score best on sections that no step saw."""
    net.eval()
    sections = made(HELD_SEED, HELD_SECTIONS)
    batches = []
    for number in range(8):
        crops = [[HELD_SEED, number, place] for place in range(PICTURES)]
        batches.append(draw_batch(sections, document, crops, np.random.default_rng([HELD_SEED, number])))
    ious: dict[str, list[float]] = {"by point": [], "by point and box": []}
    for batch in batches:
        for name, boxes in (("by point", None), ("by point and box", batch.boxes)):
            found = net(pixel_values=batch.pixels, input_points=batch.points, input_boxes=boxes)
            ious[name].append(float(loss_of(found.pred_masks, found.iou_scores, batch.masks)[1]))
    return {name: round(float(np.mean(values)), 3) for name, values in ious.items()}


def main() -> None:
    """Train, measure, and store the network in half precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder of the bundle")
    parser.add_argument("--state", type=Path, default=Path("tiny-sam.pt"), help="stopped, the same command goes on")
    parser.add_argument("--steps", type=int, default=CYCLES[-1])
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so many seconds; call again to go on")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    until = time.monotonic() + chosen.seconds
    document = PromptableDocument(name="tiny-sam2", kind="sam2", config=tiny_config(), image_px=IMAGE_PX, licence="MIT")
    run = Run.begin(document.config, chosen.seed, chosen.state)
    train(run, document, chosen.seed, chosen.steps, until)
    if run.step < chosen.steps:
        return
    iou = held_out(run.net, document)
    made_by = {"made by": "scripts/train_tiny_sam.py", "seed": chosen.seed, "steps": run.step}
    made_by |= {"held-out seed": HELD_SEED, "mean IoU": iou}
    halves = {name: tensor.half() for name, tensor in run.net.state_dict().items()}
    bundle = PromptableBundle.save(Location.parse(chosen.out), document.model_copy(update={"source": made_by}), halves)
    print(f"{bundle.location}: {run.step} steps in {run.spent_s:.0f} s of one core, mean IoU {iou}")


if __name__ == "__main__":
    sys.exit(run_script(main, "python scripts/train_tiny_sam.py"))
