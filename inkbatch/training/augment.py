"""Augmentation on tensors: layers, labels and counted pixels move together, batch by batch, on the training device.

Crops, depth shifts, flips and quarter turns are exact and are done on the stored arrays. Rotation, scale, perspective
and grid distortion are composed into one map of coordinates, so that pixels are resampled once (bilinearly). What a
warp pulls in from outside the tile counts in no loss. Tones, blur and noise work on intensities scaled to [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2.functional import gaussian_blur

from inkbatch.training.augment_settings import Changes

MOVED_BY_OPENCV = ("uint8", "uint16", "float32")  # in a third of NumPy's time, which moves one value after the other
COUNTED_FROM = 0.999  # a resampled pixel counts only where all that it was made of counted


def arrange(array: NDArray[Any], changes: Changes, tile_px: int, fill: float = 0) -> NDArray[Any]:
    """Crop, flip and turn one array, exactly.

    Args:
        array: (…, Y, X).
        changes: What to do.
        tile_px: Edge of the tile; a smaller array is filled up at its far sides.
        fill: With this value.

    Returns:
        (…, tile_px, tile_px), rows from top to bottom; a view where nothing had to be moved.
    """
    y, x = changes.crop_yx
    tile = array[..., y : y + tile_px, x : x + tile_px]
    missing = tile_px - tile.shape[-2], tile_px - tile.shape[-1]
    if any(missing):
        rim = [(0, 0)] * (tile.ndim - 2) + [(0, missing[0]), (0, missing[1])]
        tile = np.pad(tile, rim, constant_values=fill)
    swap, mirror_y, mirror_x = _as_mirrors(changes)
    if not (swap or mirror_y or mirror_x):
        return tile
    if tile.dtype.name not in MOVED_BY_OPENCV:
        turned = np.swapaxes(tile, -2, -1) if swap else tile
        return np.ascontiguousarray(turned[..., :: -1 if mirror_y else 1, :: -1 if mirror_x else 1])
    out = np.empty(tile.shape, tile.dtype)
    code = -1 if mirror_y and mirror_x else int(mirror_x)
    for plane, target in zip(tile.reshape(-1, tile_px, tile_px), out.reshape(-1, tile_px, tile_px), strict=True):
        if not (mirror_y or mirror_x):
            cv2.transpose(plane, target)
        else:
            cv2.flip(cv2.transpose(plane) if swap else plane, code, target)
    return out


def _as_mirrors(changes: Changes) -> tuple[bool, bool, bool]:
    """The same flips and quarter turns as an exchange of the axes, then mirrored rows, then mirrored columns."""
    y, x = changes.flip_y, changes.flip_x
    return ((False, y, x), (True, not x, y), (False, not y, not x), (True, x, not y))[changes.turns % 4]


def apply_changes(
    layers: Tensor, labels: Tensor, counted: Tensor, changes: Sequence[Changes]
) -> tuple[Tensor, Tensor, Tensor]:
    """Do what is left after `arrange`: warps, tones, blur, noise, blanked layers and boxes.

    Args:
        layers: (B, Z, Y, X) float32 in [0, 1]; may be changed in place.
        labels: (B, 1, Y, X) float32.
        counted: (B, 1, Y, X) boolean.
        changes: One per sample.

    Returns:
        The three, same shapes and dtypes.
    """
    layers, labels, counted = _warped(layers, labels, counted, changes)
    _toned(layers, changes)
    _blurred(layers, changes)
    for number, change in enumerate(changes):
        if change.noise_sigma:
            generator = torch.Generator(layers.device).manual_seed(change.noise_seed)
            noise = torch.randn(layers.shape[1:], generator=generator, device=layers.device)
            layers[number].add_(noise, alpha=change.noise_sigma).clamp_(0, 1)
        if change.blank_layers:
            layers[number, list(change.blank_layers)] = 0
        for y0, x0, y1, x1 in change.blank_boxes:
            layers[number, :, y0:y1, x0:x1] = 0
            counted[number, :, y0:y1, x0:x1] = False
    return layers, labels, counted


def _warped(
    layers: Tensor, labels: Tensor, counted: Tensor, changes: Sequence[Changes]
) -> tuple[Tensor, Tensor, Tensor]:
    which = [number for number, change in enumerate(changes) if change.matrix is not None]
    if not which:
        return layers, labels, counted
    grid = torch.stack([_coordinates(changes[number], labels.shape[-2:], layers.device) for number in which])
    seen = counted[which].float()
    flat = torch.cat([labels[which] * seen, seen], dim=1)  # no label of an ignored pixel bleeds into its neighbours
    moved = functional.grid_sample(layers[which], grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    flat = functional.grid_sample(flat, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    layers[which], labels, counted = moved, labels.clone(), counted.clone()
    labels[which], counted[which] = flat[:, :1].clamp(0, 1), flat[:, 1:] >= COUNTED_FROM
    return layers, labels, counted


def _coordinates(change: Changes, shape_yx: Sequence[int], device: torch.device) -> Tensor:
    """Where each output pixel is taken from: (Y, X, 2), (x, y) in [-1, 1] from border to border."""
    if change.matrix is None or change.bend is None:
        raise ValueError("no warp was drawn for this sample")
    height, width = shape_yx
    y = (torch.arange(height, device=device) + 0.5) * 2 / height - 1
    x = (torch.arange(width, device=device) + 0.5) * 2 / width - 1
    ones = torch.ones(height, width, device=device)
    places = torch.stack([x[None].expand(height, -1), y[:, None].expand(-1, width), ones], dim=-1)
    bend = torch.from_numpy(change.bend).to(device).permute(2, 0, 1)[None]
    smooth = functional.interpolate(bend, size=(height, width), mode="bicubic", align_corners=True)[0]
    places[..., :2] += smooth.permute(1, 2, 0)
    found = places @ torch.from_numpy(change.matrix).to(device).T
    return found[..., :2] / found[..., 2:].clamp_min(1e-3)


def _toned(layers: Tensor, changes: Sequence[Changes]) -> None:
    for number, change in enumerate(changes):
        gamma, contrast, brightness = change.tone
        if change.tone != (1.0, 1.0, 0.0):
            tile = layers[number].pow_(gamma)
            mean = tile.mean()
            tile.sub_(mean).mul_(contrast).add_(mean + brightness).clamp_(0, 1)


def _blurred(layers: Tensor, changes: Sequence[Changes]) -> None:
    for number, change in enumerate(changes):
        if not change.blur_px:
            continue
        radius = min(max(1, math.ceil(3 * change.blur_px)), min(layers.shape[-2:]) - 1)
        layers[number] = gaussian_blur(layers[number], [2 * radius + 1] * 2, [change.blur_px] * 2)
