"""Checks of the device: one matrix product per GPU, in float32 and bfloat16, compared with the CPU."""

from __future__ import annotations

import time

import torch

from inkbatch.errors import DataError, InkbatchError
from inkbatch.predict.device import DeviceName, choose_device, synchronize
from inkbatch.run.doctor import Finding
from inkbatch.text import bytes_text

SIZE = 1024
# Largest error of one element, relative to the largest element of the product; float32 may run as TF32.
TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 2e-2}


def cuda_version() -> str | None:
    """Return the CUDA version that torch was built for; None for a build without CUDA."""
    return torch.version.cuda


def check_device(name: DeviceName, gpus: int | None) -> list[Finding]:
    """Compute on the device that was asked for, or on the best there is.

    Args:
        name: ``auto``, or the device that must be usable.
        gpus: Number of GPUs that must be usable; None takes those there are.

    Returns:
        One finding per device; a bad one carries a `DataError`. Never a silent CPU.
    """
    try:
        device = choose_device(name)
    except InkbatchError as error:
        return [Finding.bad("device", error)]
    seen = torch.cuda.device_count() if device.type == "cuda" else 0
    findings = []
    if gpus is not None and seen < gpus:
        message = (
            f"device: expected {gpus} GPUs, got {seen} (torch computes on {device.type}); "
            "check the driver, and that the container was given the GPUs (--gpus all, NVIDIA_VISIBLE_DEVICES)"
        )
        findings.append(Finding.bad("device", DataError(message)))
    devices = [torch.device("cuda", index) for index in range(seen)] if seen else [device]
    return findings + [_check_one(one) for one in devices]


def _check_one(device: torch.device) -> Finding:
    try:
        words = [_describe(device), *(_product(device, dtype) for dtype in TOLERANCE if _offers(device, dtype))]
    except (RuntimeError, DataError) as error:
        message = str(error).splitlines()[0]
        return Finding.bad(
            f"device {device}",
            DataError(
                f"device {device}: a product of two {SIZE} × {SIZE} matrices failed: {message}; check the driver "
                "against the CUDA version of torch, and whether another process holds the GPU's memory"
            ),
        )
    if not _offers(device, torch.bfloat16):
        words.append("no bfloat16: --precision auto takes float16")
    return Finding(f"device {device}", "note" if device.type == "cpu" else "good", "; ".join(words))


def _describe(device: torch.device) -> str:
    if device.type != "cuda":
        return f"torch {torch.__version__} on the {device.type}, {torch.get_num_threads()} threads"
    properties = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    return (
        f"{properties.name}, compute capability {properties.major}.{properties.minor}, "
        f"{bytes_text(free)} of {bytes_text(total)} free"
    )


def _offers(device: torch.device, dtype: torch.dtype) -> bool:
    if dtype != torch.bfloat16 or device.type != "cuda":
        return True
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _product(device: torch.device, dtype: torch.dtype) -> str:
    """Multiply two matrices on the device and compare with the CPU.

    Raises:
        DataError: The product is wrong.
    """
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(SIZE, SIZE, generator=generator).to(dtype) for _ in range(2))
    truth = left.float() @ right.float()
    on_device = left.to(device), right.to(device)
    product = on_device[0] @ on_device[1]  # the first one also starts the libraries
    synchronize(device)
    started = time.perf_counter()
    product = on_device[0] @ on_device[1]
    synchronize(device)
    seconds = time.perf_counter() - started
    error = float((product.float().cpu() - truth).abs().max() / truth.abs().max())
    name = str(dtype).removeprefix("torch.")
    if not error <= TOLERANCE[dtype]:  # also NaN
        raise DataError(f"the {name} product differs by {error:.3g} of its largest element")
    return f"{name} product right, {seconds * 1000:.2f} ms"
