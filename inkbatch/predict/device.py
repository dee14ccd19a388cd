"""Choice of device and precision; never a silent fall-back from a device that was asked for."""

from __future__ import annotations

import contextlib
import os
from contextlib import AbstractContextManager
from typing import Any

import torch

from inkbatch.errors import DataError
from inkbatch.predict.names import DeviceName as DeviceName
from inkbatch.predict.names import PrecisionName as PrecisionName

REQUIRE_GPU = "INKBATCH_REQUIRE_GPU"  # set by engines that were asked for a GPU: never a silent CPU

TOLERANCE = {torch.float32: 0.05, torch.float16: 0.25, torch.bfloat16: 0.5}
"""Largest difference that another device or a compiler may make to one logit, in their standard deviations.

float32 may run as TF32. The answers of two unlike networks differ by more than 2.
"""

NO_MEMORY = ("out of memory", "STATUS_ALLOC_FAILED")  # CUDA and MPS; cuBLAS and cuDNN

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: DeviceName) -> torch.device:
    """Choose the device to compute on.

    Args:
        name: ``auto`` takes CUDA, then MPS, then the CPU, or only CUDA where ``INKBATCH_REQUIRE_GPU`` is set; any other
            name is taken at its word.

    Raises:
        DataError: The device that was asked for cannot be used on this machine.
    """
    if name == "auto" and os.environ.get(REQUIRE_GPU):
        name = "cuda"
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    usable = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if not usable[name]:
        raise DataError(
            f"device: expected {name}, this machine has no usable {name} device; "
            "check the driver and that the container sees the GPU, or pass --device cpu"
        )
    return torch.device(name)


def choose_precision(name: PrecisionName, device: torch.device) -> torch.dtype:
    """Choose the dtype of the forward pass.

    ``auto`` is bfloat16 on CUDA devices that have it (float16 on older ones) and float32 elsewhere, where results are
    the same to the bit.
    """
    if name != "auto":
        return _DTYPES[name]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def device_facts(device: torch.device, dtype: torch.dtype | None = None) -> dict[str, Any]:
    """Describe a device for run files: its kind and name, the precision, and its peak memory if it tells."""
    facts: dict[str, Any] = {"device": device.type}
    if dtype is not None:
        facts["precision"] = next(name for name, found in _DTYPES.items() if found == dtype)
    if device.type == "cuda":
        facts["device_name"] = torch.cuda.get_device_name(device)
        facts["device_peak_memory_bytes"] = torch.cuda.max_memory_reserved(device)
    return facts


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Make a context in which the forward pass computes in `dtype`."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def spread_of(logits: torch.Tensor) -> float:
    """Return the standard deviation of logits, or a small number where they are all alike."""
    return max(float(logits.float().std()) if logits.numel() > 1 else 0.0, 1e-3)


def ran_out_of_memory(error: RuntimeError) -> bool:
    """Tell whether a device's memory ran out; the libraries below torch and MPS say so in words alone."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in NO_MEMORY)


def synchronize(device: torch.device) -> None:
    """Wait for the device, so that a host clock tells the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
