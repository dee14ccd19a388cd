"""Losses on logits: weighted sums of Dice, BCE, Tversky, Focal, Lovász and others, with ignored and soft labels.

Every term is one number for the whole batch of all devices: sums are added over the devices before a term is formed
from them, so that a batch gives the same loss and the same gradients however many devices share it.

- Dice: ``1 - (2 Σwpt + s) / (Σwp + Σwt + s)``; Tversky: ``1 - (TP + s) / (TP + αFP + βFN + s)`` with soft counts
  (Milletari 2016; Salehi 2017).
- Soft Dice: Dice with ``Σw min(p, t)`` in place of ``Σwpt`` (the Dice semimetric loss of Wang et al. 2023). It equals
  Dice on labels of 0 and 1; on probabilities it is smallest where the map equals them, while Dice pushes to 0 and 1.
- BCE and Focal (Lin 2017) are means over counted pixels; Focal weighs a pixel's cross-entropy by ``|t - p|^γ``.
- Cross-entropy, of three classes: mean over counted pixels of ``-Σ weight t log p`` with the softmax p.
- Lovász hinge (Berman 2018): the convex surrogate of the Jaccard loss, per sample, averaged over samples.
- Boundary (Kervadec 2019): mean over counted pixels of ``p d``, d the signed distance to the outline of the ink in px,
  below 0 inside. It may be negative, and is meant to be added to another term with a small weight.
- Skeleton recall (Kirchhoff 2024): ``1 - (Σwpk + s) / (Σwk + s)``, k the middle of strokes, 0 or 1. It knows no false
  alarms, and is meant to be added to another term.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional

from inkbatch.data.labels.ink import INK_SHARE
from inkbatch.models.rules import Grown
from inkbatch.training.label_shapes import shapes_of, signed_distance, skeleton_tube

LossName = Literal[
    "dice", "soft-dice", "bce", "tversky", "focal", "lovasz", "boundary", "skeleton-recall", "cross-entropy"
]
OF_CLASSES: LossName = "cross-entropy"  # the term of networks of three classes
ROUNDING: frozenset[LossName] = frozenset({"lovasz", "boundary", "skeleton-recall"})  # they take labels as yes or no
SumOverDevices = Callable[[Tensor], Tensor]


class LossTerm(Grown):
    """One term of a loss.

    Attributes:
        name: Name of the loss.
        weight: Its factor in the sum.
        smooth: Added above and below in Dice, Soft Dice, Tversky and Skeleton recall; keeps tiles without ink defined.
        alpha: Weight of false alarms in Tversky.
        beta: Weight of misses in Tversky.
        gamma: Focal exponent.
        ink_weight: Factor on the cross-entropy of ink (BCE and Focal).
        class_weights: Factors of background, object and boundary in ``cross-entropy``; the defaults are those of
            segmenteverygrain.
    """

    younger: ClassVar[frozenset[str]] = frozenset({"class_weights"})

    name: LossName
    weight: float = Field(1.0, gt=0)
    smooth: float = Field(1.0, gt=0)
    alpha: float = Field(0.5, ge=0)
    beta: float = Field(0.5, ge=0)
    gamma: float = Field(2.0, ge=0)
    ink_weight: float = Field(1.0, gt=0)
    class_weights: tuple[float, float, float] = (0.6, 1.0, 5.0)

    @field_validator("class_weights")
    @classmethod
    def _weights_count(cls, weights: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(weights) <= 0:
            raise ValueError(f"class_weights: expected three numbers above 0, got {weights}")
        return weights


class LossConfig(Grown):
    """A weighted sum of terms.

    Attributes:
        terms: At least one.
        label_smoothing: Share s that pulls targets towards one half, ``t (1 - s) + s / 2``, in BCE and Focal, towards
            a third in cross-entropy; the overlap terms keep the labels as they are.
        deep_supervision: Coarser stages of the decoder that get a map and this loss of their own while training, each
            with half the weight of the next finer one; the weights sum to 1 (Lee 2015, as nnU-Net weighs them).
    """

    younger: ClassVar[frozenset[str]] = frozenset({"deep_supervision"})

    terms: tuple[LossTerm, ...] = Field((LossTerm(name="bce"), LossTerm(name="dice")), min_length=1)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    deep_supervision: int = Field(0, ge=0, le=4)


def ink_loss(
    logits: Tensor, target: Tensor, weight: Tensor, config: LossConfig, sum_over_devices: SumOverDevices = lambda x: x
) -> Tensor:
    """Compute the loss of a batch.

    Args:
        logits: (B, C, Y, X), any float dtype; computed in float32. C is 1 for ink, 3 for classes.
        target: Same shape, in [0, 1].
        weight: (B, 1, Y, X): share of counted pixels in [0, 1]; 0 where everything is ignored.
        config: The terms.
        sum_over_devices: Adds a tensor of all devices, gradients included.

    Returns:
        Scalar, equal on all devices; 0 where no pixel counts.
    """
    logits, target, weight = logits.float(), target.float(), weight.float()
    smoothed = target * (1 - config.label_smoothing) + config.label_smoothing / max(2, target.shape[1])
    parts = []
    for term in config.terms:
        if term.name in ("bce", "focal"):
            value = _pointwise(logits, smoothed, weight, term, sum_over_devices)
        elif term.name == OF_CLASSES:
            value = _of_classes(logits, smoothed, weight, term, sum_over_devices)
        elif term.name == "lovasz":
            value = _lovasz(logits, target, weight, sum_over_devices)
        elif term.name == "boundary":
            value = _boundary(logits, target, weight, sum_over_devices)
        elif term.name == "skeleton-recall":
            value = _skeleton_recall(logits, target, weight, term, sum_over_devices)
        else:
            value = _overlap(logits, target, weight, term, sum_over_devices)
        parts.append(term.weight * value)
    return torch.stack(parts).sum()


def _mean(values: Tensor, weight: Tensor, sum_over_devices: SumOverDevices) -> Tensor:
    """Average values by weight over all devices; 0 where nothing counts."""
    total, count = sum_over_devices(torch.stack([(values * weight).sum(), weight.sum()]))
    mean: Tensor = total / count.clamp_min(1e-6)
    return mean


def _pointwise(
    logits: Tensor, target: Tensor, weight: Tensor, term: LossTerm, sum_over_devices: SumOverDevices
) -> Tensor:
    entropy = functional.binary_cross_entropy_with_logits(
        logits, target, reduction="none", pos_weight=logits.new_tensor(term.ink_weight)
    )
    if term.name == "focal":
        entropy = entropy * (target - logits.sigmoid()).abs() ** term.gamma
    return _mean(entropy, weight, sum_over_devices)


def _of_classes(
    logits: Tensor, target: Tensor, weight: Tensor, term: LossTerm, sum_over_devices: SumOverDevices
) -> Tensor:
    factors = logits.new_tensor(term.class_weights).view(1, -1, 1, 1)
    entropy = -(factors * target * logits.log_softmax(1)).sum(1, keepdim=True)
    return _mean(entropy, weight, sum_over_devices)


def _overlap(
    logits: Tensor, target: Tensor, weight: Tensor, term: LossTerm, sum_over_devices: SumOverDevices
) -> Tensor:
    probability = logits.sigmoid()
    ink = probability * weight
    shared = torch.minimum(probability, target) * weight if term.name == "soft-dice" else ink * target
    both, found, there = sum_over_devices(torch.stack([shared.sum(), ink.sum(), (target * weight).sum()]))
    if term.name in ("dice", "soft-dice"):
        overlap: Tensor = (2 * both + term.smooth) / (found + there + term.smooth)
    else:
        wrong = term.alpha * (found - both) + term.beta * (there - both)
        overlap = (both + term.smooth) / (both + wrong + term.smooth)
    return 1 - overlap


def _boundary(logits: Tensor, target: Tensor, weight: Tensor, sum_over_devices: SumOverDevices) -> Tensor:
    far = logits.sigmoid() * shapes_of(target, weight, signed_distance)
    return _mean(far, weight, sum_over_devices)


def _skeleton_recall(
    logits: Tensor, target: Tensor, weight: Tensor, term: LossTerm, sum_over_devices: SumOverDevices
) -> Tensor:
    middle = shapes_of(target, weight, skeleton_tube) * weight
    found, there = sum_over_devices(torch.stack([(logits.sigmoid() * middle).sum(), middle.sum()]))
    recall: Tensor = (found + term.smooth) / (there + term.smooth)
    return 1 - recall


def _lovasz(logits: Tensor, target: Tensor, weight: Tensor, sum_over_devices: SumOverDevices) -> Tensor:
    values = [
        _lovasz_hinge(one[keep], truth[keep])
        for one, truth, keep in zip(
            logits.flatten(1), (target >= INK_SHARE).float().flatten(1), (weight > 0).flatten(1), strict=True
        )
    ]
    total = torch.stack(values).sum()
    summed, count = sum_over_devices(torch.stack([total, total.new_tensor(len(values))]))
    mean: Tensor = summed / count
    return mean


def _lovasz_hinge(logits: Tensor, truth: Tensor) -> Tensor:
    """Compute the Lovász extension of ``1 - Jaccard`` at the hinge errors of one sample; 0 for no pixels."""
    if not logits.numel():
        return logits.sum()
    errors, order = torch.sort(1 - logits * (2 * truth - 1), descending=True, stable=True)
    ordered = truth[order]
    present = ordered.sum()
    jaccard = 1 - (present - ordered.cumsum(0)) / (present + (1 - ordered).cumsum(0))
    steps = torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
    return torch.dot(errors.clamp_min(0), steps)
