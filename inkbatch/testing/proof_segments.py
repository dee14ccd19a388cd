"""Segments of known truth for the proof of a sweep: real and made papyrus, with and without ink, and spoiled ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.testing.papyrus import DEMO_LAYERS, Stack, bare_demo_stack, demo_letters, planted, synthetic_papyrus

SHAPES_YX = {"real": (640, 1024), "made": (512, 640)}  # of segments with ink: all of the demo's papyrus; 80 windows
BLANK_YX = (384, 512)  # of segments without ink, of which it takes many
LAYERS = {"real": DEMO_LAYERS, "made": 15}
AMPLITUDES = (25.0, 40.0, 60.0)  # grey values of 255
DEPTHS_OFF = (-2, 0, 2)  # layers from the middle
SPOILED_OFF = 6
ROUGHER = 2.0  # times the contrast of a rough layer, which thins out over 1 to 3 layers
COARSER = 2  # times as coarse as it says: what a wrong scale does to letters and fibres

Kind = Literal["ink", "blank", "shuffled", "reversed", "off-centre", "wrong scale", "rough layer"]
Papyrus = Literal["real", "made"]
SPOILED: tuple[Kind, ...] = ("shuffled", "reversed", "off-centre", "wrong scale", "rough layer")
BARE: tuple[Kind, ...] = ("blank", "rough layer")


@dataclass(frozen=True, eq=False)
class ProofSegment:
    """Segment whose ink is known.

    Attributes:
        name: Of the segment.
        kind: ``ink`` and ``blank`` are as they should be, the others are spoiled; all of them but the ``rough layer``,
            whose papyrus has twice the contrast at one depth, hold ink.
        papyrus: ``real`` or ``made``.
        amplitude: Of its ink, grey values of 255; 0: none.
        stack: (Z, Y, X), depth order.
        truth: True where there is ink, (Y, X).
        ink_layer: Where it lies, of the stack as it is stored; None where it has no place.
    """

    name: str
    kind: Kind
    papyrus: Papyrus
    amplitude: float
    stack: Stack
    truth: NDArray[np.bool_]
    ink_layer: float | None


def proof_segment(kind: Kind, papyrus: Papyrus, seed: int) -> ProofSegment:
    """Make a segment; equal arguments, equal segment.

    Ink of one of `AMPLITUDES` covers letters on the left or the right part of the segment, `DEPTHS_OFF` layers from the
    middle; the rest is bare.
    """
    rng = np.random.default_rng([19, seed, ("real", "made").index(papyrus)])
    shape = BLANK_YX if kind == "blank" else SHAPES_YX[papyrus]
    bare = _real(rng, shape) if papyrus == "real" else synthetic_papyrus((LAYERS[papyrus], *shape), 5000 + seed)
    name = f"{kind.replace(' ', '-')}-{papyrus}-{seed:03d}"
    if kind in BARE:
        stack = bare if kind == "blank" else _rougher(bare, rng, 1.0 + seed % 3)
        return ProofSegment(name, kind, papyrus, 0.0, stack, np.zeros(shape, bool), None)
    amplitude = AMPLITUDES[seed % len(AMPLITUDES)]
    off = SPOILED_OFF * int(rng.choice([-1, 1])) if kind == "off-centre" else DEPTHS_OFF[seed // 3 % len(DEPTHS_OFF)]
    layer, mask = LAYERS[papyrus] // 2 + off, _letters(rng, shape)
    stack = planted(bare, mask, amplitude=amplitude, depth_layer=layer, seed=seed)
    truth, place = mask > 0.5, float(layer)
    if kind == "shuffled":
        return ProofSegment(name, kind, papyrus, amplitude, stack[rng.permutation(len(stack))], truth, None)
    if kind == "reversed":
        stack, place = np.ascontiguousarray(stack[::-1]), len(stack) - 1 - place
    if kind == "wrong scale":
        stack, truth = _coarser(stack), _coarser(truth.astype(np.uint8)[None])[0] > 0
    return ProofSegment(name, kind, papyrus, amplitude, stack, truth, place)


@cache
def _bare() -> Stack:
    return bare_demo_stack()


@cache
def _all_letters() -> NDArray[np.float32]:
    return demo_letters()


def _real(rng: np.random.Generator, shape: tuple[int, int]) -> Stack:
    """Cut a part of the demo's papyrus, turned over at random."""
    whole = _bare()
    y, x = (int(rng.integers(size - part + 1)) for size, part in zip(whole.shape[1:], shape, strict=True))
    part = whole[:, y : y + shape[0], x : x + shape[1]]
    return np.ascontiguousarray(part[:, :: int(rng.choice([-1, 1])), :: int(rng.choice([-1, 1]))])


def _letters(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
    whole = _all_letters()
    y, x = (int(rng.integers(size - part + 1)) for size, part in zip(whole.shape, shape, strict=True))
    mask = whole[y : y + shape[0], x : x + shape[1]][:, :: int(rng.choice([-1, 1]))].copy()
    edge = int(shape[1] * rng.uniform(0.4, 0.7))
    mask[:, edge:] = 0
    return np.ascontiguousarray(mask if rng.random() < 0.5 else mask[:, ::-1])


def _rougher(stack: Stack, rng: np.random.Generator, thickness: float) -> Stack:
    """Raise the contrast of the layers around one of them, as much as `ROUGHER` there."""
    values, middle = stack.astype(np.float32), rng.uniform(0.3, 0.7) * (len(stack) - 1)
    means = values.mean(axis=(1, 2), keepdims=True)
    gain = 1 + (ROUGHER - 1) * np.exp(-0.5 * ((np.arange(len(stack)) - middle) / thickness) ** 2)
    rough: Stack = np.clip(np.rint(means + (values - means) * gain[:, None, None]), 0, 255).astype(np.uint8)
    return rough


def _coarser(stack: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Enlarge the middle of a stack, so that its pixels are finer than they are said to be."""
    shape = stack.shape[1:]
    height, width = (size // COARSER for size in shape)
    y, x = (shape[0] - height) // 2, (shape[1] - width) // 2
    layers = [cv2.resize(layer[y : y + height, x : x + width], shape[::-1]) for layer in stack]
    return np.stack(layers).astype(np.uint8)
