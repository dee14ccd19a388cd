"""The configuration of `inkbatch preflight`."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from inkbatch.config import JobConfig


class PreflightConfig(JobConfig):
    """Settings of `inkbatch preflight`.

    Attributes:
        segment: Segment id.
        bundle: Folder or URI of the bundle that is to read it; ``demo`` is the shipped one. It says which layers count
            and on which scale it was trained.
        scale_um: Edge of the pixels that a network was trained on, in micrometres, without a bundle.
        root: ROOT: a folder or ``s3://bucket/prefix``.
        output_root: ROOT of the result, if it is not stored beside its inputs.
        name: Name of the result; None is the bundle's name, or ``layers`` without a bundle.
        off_centre_layers: How far from the middle of the layers that count a sheet may lie.
        unit_px: Edge of a unit, a multiple of 256.
        override: Contract values of the bundle that are to be replaced; recorded in the manifest.
    """

    job: ClassVar[str] = "preflight"

    segment: str
    bundle: str | None = None
    scale_um: float | None = Field(None, gt=0)
    root: str = "root"
    output_root: str | None = None
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    off_centre_layers: int = Field(4, ge=0)
    unit_px: int = Field(1024, ge=256, multiple_of=256)
    override: dict[str, Any] = Field(default_factory=dict)
