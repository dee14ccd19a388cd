"""Settings of `inkbatch estimate`: those of infer, and how its seconds are found."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, model_validator

from inkbatch.steps.infer.settings import InferConfig

HERE = "here"


class EstimateConfig(InferConfig):
    """Settings of `inkbatch estimate`: what an infer job takes, so that its own file can be given, and these.

    Attributes:
        segment: Segment id; empty with `all`.
        all: Every segment of the catalog.
        machine: A kind of the price table, or ``here``: the device at hand.
        calibrate: Measure the bundle on the device at hand for some seconds.
        save: File that gets the measured throughput, for ``INKBATCH_FIGURES`` elsewhere.
        calibrate_s: Seconds of its longest round.
    """

    job: ClassVar[str] = "estimate"

    segment: str = ""
    all: bool = False
    machine: str = HERE
    calibrate: bool = False
    save: str | None = None
    calibrate_s: float = Field(6.0, gt=0)

    @model_validator(mode="after")
    def _one_or_all(self) -> EstimateConfig:
        if bool(self.segment) == self.all:
            raise ValueError("give a segment, or --all for every segment of the catalog, one of them")
        if self.save and not self.calibrate:
            raise ValueError("save keeps what was measured; give --calibrate with it")
        return self

    @property
    def overrides(self) -> dict[str, Any]:
        """Values of the bundle's contract that are replaced."""
        return {**self.override, **({"stride_px": self.stride_px} if self.stride_px else {})}

    def of_segment(self, segment: str) -> InferConfig:
        """Make the infer job of one segment; layers that a probe found cost as much as the bundle's own."""
        layers = None if self.layers == "auto" else self.layers
        return self.model_copy(update={"segment": segment, "layers": layers})
