"""The configuration of `inkbatch probe`; without torch, so that launchers check it before anything is submitted."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from inkbatch.config import JobConfig
from inkbatch.data.synthetic.phantom import Amplitude
from inkbatch.predict.names import DeviceName, PrecisionName


class ProbeConfig(JobConfig):
    """Settings of `inkbatch probe`.

    Attributes:
        segment: Segment id.
        bundle: Folder or URI of the bundle; ``demo`` is the shipped one.
        root: ROOT: a folder or ``s3://bucket/prefix``.
        output_root: ROOT of the result, if it is not stored beside its inputs.
        name: Name of the probe; None is the bundle's name, where `infer --layers auto` looks.
        windows: How many windows are chosen, by papyrus and contrast.
        at: Upper left corners (y, x) of windows, instead of chosen ones.
        window_px: Edge of a window; None is twice the tile, at least 256.
        step: Layers between the first layers that are tried; the usual one is always among them.
        amplitude: Grey values of 255 that planted ink adds; negative is darker than papyrus.
        width_layers: Standard deviation of planted ink along depth.
        stroke_px: Width of planted strokes.
        edge_px: Softness of their edges.
        seed: Of strokes, null inputs and resampling.
        override: Contract values that are to be replaced; recorded in the manifest.
        device: ``auto`` takes CUDA, then MPS, then the CPU.
        precision: ``auto`` is bf16 (or fp16) on CUDA and fp32 elsewhere.
        batch_tiles: Tiles per forward pass; 0 finds it.
    """

    job: ClassVar[str] = "probe"

    segment: str
    bundle: str
    root: str = "root"
    output_root: str | None = None
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    windows: int = Field(6, ge=1, le=64)
    at: tuple[tuple[int, int], ...] | None = Field(None, min_length=1)
    window_px: int | None = Field(None, ge=16)
    step: int = Field(1, ge=1)
    amplitude: Amplitude = 50.0
    width_layers: float = Field(1.5, gt=0)
    stroke_px: float = Field(24.0, ge=2)
    edge_px: float = Field(1.5, ge=0)
    seed: int = Field(0, ge=0)
    override: dict[str, Any] = Field(default_factory=dict)
    device: DeviceName = "auto"
    precision: PrecisionName = "auto"
    batch_tiles: int = Field(0, ge=0)
