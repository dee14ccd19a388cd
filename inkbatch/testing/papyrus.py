"""Phantom segments for depth probes: papyrus whose ink, order and depth are known exactly."""

from __future__ import annotations

import json

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from inkbatch.data.segments.catalog import shipped_catalog
from inkbatch.data.synthetic.phantom import InkConfig, depth_weight, ink_plane, label_mask, plant_layer

Stack = NDArray[np.uint8]  # (Z, Y, X), depth order
DEMO_LAYERS = 13
DEMO_INK_LAYER = 3  # where the demo bundle was trained to see ink, counted in its window
FIBRE_LAYERS = 4.0  # standard deviation along depth of synthetic fibres: far thicker than ink


def planted(stack: Stack, mask: NDArray[np.float32], **ink: float) -> Stack:
    """Plant ink into a stack; `ink` are values of `InkConfig`, `depth_layer` counts from 0."""
    config = InkConfig.model_validate({"crackle": 0.6, **ink})
    plane = ink_plane(mask, None, config)
    return np.stack([plant_layer(layer, plane, depth_weight(z, config)) for z, layer in enumerate(stack)])


def demo_stack() -> Stack:
    """Read the shipped demo segment: real papyrus with planted ink, (13, 640, 1024)."""
    folder = shipped_catalog().parent / "layers"
    return np.stack([tifffile.imread(folder / f"{z:02d}.tif") for z in range(DEMO_LAYERS)])


def demo_letters() -> NDArray[np.float32]:
    """Read the demo's letters with softened edges, (640, 1024) in [0, 1]."""
    picture = np.asarray(cv2.imread(str(shipped_catalog().parent / "truth.png"), cv2.IMREAD_GRAYSCALE), np.uint8)
    return label_mask(picture, (picture.shape[0], picture.shape[1]), edge_px=1.5)


def bare_demo_stack() -> Stack:
    """Read the demo's papyrus and take its planted ink away again, except where grey values had saturated."""
    document = json.loads((shipped_catalog().parent / "phantom.json").read_text(encoding="utf-8"))
    ink = InkConfig.model_validate({key: document["config"][key] for key in InkConfig.model_fields})
    plane = ink_plane(demo_letters(), None, ink)
    taken = [np.rint(plane * depth_weight(z, ink)) for z in range(DEMO_LAYERS)]
    bare: Stack = np.clip(demo_stack() - np.stack(taken), 0, 255).astype(np.uint8)
    return bare


def synthetic_papyrus(shape: tuple[int, int, int], seed: int) -> Stack:
    """Make papyrus without ink: fibres along both axes, thick in depth, under a slow change of brightness.

    Args:
        shape: (Z, Y, X).
        seed: Same seed, same papyrus.
    """
    depth, height, width = shape
    rng = np.random.default_rng(seed)
    reach = int(3 * FIBRE_LAYERS)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / FIBRE_LAYERS) ** 2)
    noise = rng.normal(size=(depth + 2 * reach, height, width)).astype(np.float32)
    thick = np.stack([np.tensordot(kernel, noise[z : z + 2 * reach + 1], (0, 0)) for z in range(depth)])
    fibres = sum(_blurred(thick, sigma) for sigma in ((2.0, 24.0), (24.0, 2.0), (3.0, 3.0)))
    brightness = rng.uniform(110, 135) + 15 * np.cos(np.arange(depth) / depth * 2 * np.pi + rng.uniform(0, 2 * np.pi))
    return np.clip(np.rint(fibres * 14 + brightness[:, None, None]), 0, 255).astype(np.uint8)


def _blurred(stack: NDArray[np.float32], sigma_yx: tuple[float, float]) -> NDArray[np.float64]:
    blurred = np.stack([cv2.GaussianBlur(layer, (0, 0), sigma_yx[1], sigmaY=sigma_yx[0]) for layer in stack])
    return np.asarray(blurred / blurred.std(axis=(1, 2), keepdims=True), np.float64)
