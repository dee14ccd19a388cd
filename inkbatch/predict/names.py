"""Words of settings around predictions, without torch: settings are checked before it is imported."""

from __future__ import annotations

from typing import Literal

DeviceName = Literal["auto", "cuda", "mps", "cpu"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
Combine = Literal["mean", "max"]
ViewName = Literal["flip-y", "flip-x", "turn-90", "turn-180", "turn-270", "flips", "turns", "allowed"]
