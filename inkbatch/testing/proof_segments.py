"""Segments of known truth for the proof of a sweep: real and made papyrus, with and without ink, and spoiled ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.testing.papyrus import DEMO_LAYERS, Stack, bare_demo_stack, demo_letters, planted, synthetic_papyrus

SHAPE_YX = (384, 512)
LAYERS = {"real": DEMO_LAYERS, "made": 19}
AMPLITUDES = (25.0, 40.0, 60.0)  # grey values of 255
DEPTHS_OFF = (-2, 0, 2)  # layers from the middle
SPOILED_OFF = 6
COARSER = 2  # times as coarse as it says: what a wrong scale does to letters and fibres

Kind = Literal["ink", "blank", "shuffled", "reversed", "off-centre", "wrong scale"]
Papyrus = Literal["real", "made"]
SPOILED: tuple[Kind, ...] = ("shuffled", "reversed", "off-centre", "wrong scale")


@dataclass(frozen=True, eq=False)
class ProofSegment:
    """Segment whose ink is known.

    Attributes:
        name: Of the segment.
        kind: ``ink`` and ``blank`` are as they should be, the others are spoiled and hold ink.
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
    bare = _real(rng) if papyrus == "real" else synthetic_papyrus((LAYERS[papyrus], *SHAPE_YX), 5000 + seed)
    name = f"{kind.replace(' ', '-')}-{papyrus}-{seed:03d}"
    if kind == "blank":
        return ProofSegment(name, kind, papyrus, 0.0, bare, np.zeros(SHAPE_YX, bool), None)
    amplitude = AMPLITUDES[seed % len(AMPLITUDES)]
    off = SPOILED_OFF * int(rng.choice([-1, 1])) if kind == "off-centre" else DEPTHS_OFF[seed // 3 % len(DEPTHS_OFF)]
    layer, mask = LAYERS[papyrus] // 2 + off, _letters(rng)
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


def _real(rng: np.random.Generator) -> Stack:
    """Cut a part of the demo's papyrus, turned over at random."""
    whole = _bare()
    y, x = (int(rng.integers(size - part + 1)) for size, part in zip(whole.shape[1:], SHAPE_YX, strict=True))
    part = whole[:, y : y + SHAPE_YX[0], x : x + SHAPE_YX[1]]
    return np.ascontiguousarray(part[:, :: int(rng.choice([-1, 1])), :: int(rng.choice([-1, 1]))])


def _letters(rng: np.random.Generator) -> NDArray[np.float32]:
    whole = _all_letters()
    y, x = (int(rng.integers(size - part + 1)) for size, part in zip(whole.shape, SHAPE_YX, strict=True))
    mask = whole[y : y + SHAPE_YX[0], x : x + SHAPE_YX[1]][:, :: int(rng.choice([-1, 1]))].copy()
    edge = int(SHAPE_YX[1] * rng.uniform(0.4, 0.7))
    mask[:, edge:] = 0
    return np.ascontiguousarray(mask if rng.random() < 0.5 else mask[:, ::-1])


def _coarser(stack: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Enlarge the middle of a stack, so that its pixels are finer than they are said to be."""
    height, width = (size // COARSER for size in SHAPE_YX)
    y, x = (SHAPE_YX[0] - height) // 2, (SHAPE_YX[1] - width) // 2
    layers = [cv2.resize(layer[y : y + height, x : x + width], SHAPE_YX[::-1]) for layer in stack]
    return np.stack(layers).astype(np.uint8)
