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

# OpenCV takes a third of the time of NumPy, which moves one value after the other.
MOVED_BY_OPENCV = tuple(np.dtype(name) for name in ("uint8", "uint16", "float32"))
COUNTED_FROM = 0.999  # a resampled pixel counts only if all its sources count


def arrange(
    array: NDArray[Any], changes: Changes, tile_px: int, fill: float = 0, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Crop, flip and turn one array, exactly.

    Args:
        array: (Y, X) or (Z, Y, X), a sample or the part of it that becomes the tile.
        changes: Changes to make.
        tile_px: Edge of the tile; a smaller array is filled up at its far sides.
        fill: With this value.
        out: Contiguous (…, tile_px, tile_px) of the array's dtype that is filled; None makes one.

    Returns:
        `out`, rows from top to bottom.

    Raises:
        ValueError: `out` cannot hold the tile; OpenCV would leave it as it is.
    """
    height, width = array.shape[-2:]
    if height > tile_px or width > tile_px:
        y, x = changes.crop_yx
        array = array[..., y : y + tile_px, x : x + tile_px]
        height, width = array.shape[-2:]
    if height < tile_px or width < tile_px:
        rim = [(0, 0)] * (array.ndim - 2) + [(0, tile_px - height), (0, tile_px - width)]
        array = np.pad(array, rim, constant_values=fill)
    if out is None:
        out = np.empty(array.shape, array.dtype)
    if out.shape != array.shape or out.dtype != array.dtype or not out.flags.c_contiguous:
        raise ValueError(f"a tile {array.shape} of {array.dtype} does not fit into {out.shape} of {out.dtype}")
    swap, mirror_y, mirror_x = _as_mirrors(changes)
    if array.dtype not in MOVED_BY_OPENCV:
        turned = np.swapaxes(array, -2, -1) if swap else array
        np.copyto(out, turned[..., :: -1 if mirror_y else 1, :: -1 if mirror_x else 1])
    elif swap:
        _transposed(array[..., :: -1 if mirror_x else 1, :], out, mirror_y=mirror_y)
    else:
        np.copyto(out, array[..., :: -1 if mirror_y else 1, :])
        if mirror_x:
            _mirror_columns(out)
    return out


def _transposed(tile: NDArray[Any], out: NDArray[Any], *, mirror_y: bool) -> None:
    """Transpose all planes in one go: the same row of all planes lies side by side."""
    rows = np.ascontiguousarray(tile.swapaxes(0, -2))
    if mirror_y:
        _mirror_columns(rows)
    cv2.transpose(rows.reshape(len(rows), -1), out.reshape(-1, len(rows)))


def _mirror_columns(array: NDArray[Any]) -> None:
    """Turn the last axis of a contiguous array round, in place."""
    flat = array.reshape(-1, array.shape[-1])
    cv2.flip(flat, 1, flat)


def _as_mirrors(changes: Changes) -> tuple[bool, bool, bool]:
    """Express flips and quarter turns as (swap the axes, then mirror rows, then mirror columns)."""
    y, x = changes.flip_y, changes.flip_x
    return ((False, y, x), (True, not x, y), (False, not y, not x), (True, x, not y))[changes.turns % 4]


def apply_changes(
    layers: Tensor, labels: Tensor, counted: Tensor, changes: Sequence[Changes]
) -> tuple[Tensor, Tensor, Tensor]:
    """Do what is left after `arrange`: warps, tones, blur, noise, blanked layers and boxes.

    Args:
        layers: (B, Z, Y, X) float32 in [0, 1]; may be changed in place.
        labels: (B, C, Y, X) float32.
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
    flat = torch.cat([labels[which] * seen, seen], dim=1)  # labels of ignored pixels do not reach their neighbours
    moved = functional.grid_sample(layers[which], grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    flat = functional.grid_sample(flat, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    layers[which], labels, counted = moved, labels.clone(), counted.clone()
    labels[which], counted[which] = flat[:, :-1].clamp(0, 1), flat[:, -1:] >= COUNTED_FROM
    return layers, labels, counted


def _coordinates(change: Changes, shape_yx: Sequence[int], device: torch.device) -> Tensor:
    """Compute the source of each output pixel: (Y, X, 2), (x, y) in [-1, 1] from border to border."""
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
