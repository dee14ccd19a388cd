"""The configuration of `inkbatch sweep`; without torch, so that launchers check it before anything is submitted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from inkbatch.config import JobConfig, WindowName
from inkbatch.data.maps.series import Directions, Null
from inkbatch.data.maps.sweep import BLOCK_PX
from inkbatch.data.synthetic.phantom import Amplitude
from inkbatch.io.shard_size import is_power_of_two
from inkbatch.predict.names import DeviceName, PrecisionName, ViewName
from inkbatch.redaction import shown

MOST_DEPTHS = 255  # a depth's place is stored in 8 bits, and 0 is none
_DEPTHS_TEXT = re.compile(r"(-?\d{1,4}):(-?\d{1,4})(?::(\d{1,4}))?")


def _depths_of_text(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    found = _DEPTHS_TEXT.fullmatch(value.strip())
    if found is None:
        raise ValueError(f"expected START:STOP or START:STOP:STEP in layers, for example -15:16, got {shown(value)}")
    return tuple(int(part) for part in found.groups() if part is not None)


Depths = Annotated[
    tuple[int, int] | tuple[int, int, int],
    BeforeValidator(_depths_of_text, json_schema_input_type=tuple[int, int] | tuple[int, int, int] | str),
]
"""Half-open range with a step: ``[-15, 16, 2]``, or ``-15:16:2`` as the command line writes it."""


class BundleChoice(JobConfig):
    """A bundle of a sweep.

    Attributes:
        bundle: Folder or URI of the bundle; ``demo`` is the shipped one.
        name: Name of its maps; None is the bundle's own.
        segment: Segment of the same sheet that is prepared at this bundle's scale; None is the sweep's own.
        override: Contract values that are to be replaced; recorded in the manifest.
        stride_px: Step between tiles; None is what the bundle says.
        window: Blending window; None is what the bundle says.
        tta: Views that are averaged with the tile as it is.
    """

    bundle: str
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    segment: str | None = None
    override: dict[str, Any] = Field(default_factory=dict)
    stride_px: int | None = Field(None, ge=1)
    window: WindowName | None = None
    tta: tuple[ViewName, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _named_alone(cls, value: Any) -> Any:
        """Read a text as the bundle's address."""
        return {"bundle": value} if isinstance(value, str) else value


class SweepConfig(JobConfig):
    """Settings of `inkbatch sweep`.

    Attributes:
        segment: Segment id.
        bundles: The bundles: addresses, or mappings with ``bundle`` and what is chosen for it, see `BundleChoice`.
        depths: Layers by which each bundle's window is moved from where it lies by itself, half-open, with a step. None
            takes every one from -15 to 15 that all bundles have on this surface.
        directions: ``forward`` (layers as each bundle reads them), ``reversed`` (the other way) or ``both``.
        nulls: Nulls that are swept alike: ``shuffled`` (layers in a random order), ``repeated`` (one layer repeated).
        phases: Tile grids that are summed: the plain one, and others shifted by parts of a stride.
        seed: Of the shuffle.
        window_mm: Edge of the windows that are held against themselves; a whole number of blocks of 64 px is taken.
        control_windows: Windows in which ink is planted, to say what would have been seen; 0: none.
        control: Contrasts of planted ink, grey values of 255, all of one sign; negative is darker than papyrus.
        blank: Boxes y0, x0, y1, x1 in pixels where there is no ink, as you know: false marks are counted there.
        blank_side: Direction that shows the reverse side, without ink; None: neither does.
        preflight: ``mask`` leaves out tiles in which a preflight found nothing to read; ``warn`` says what it found.
        keep_depths: Store the map of every depth, too, in 8 bits.
        name: Name of the sweep.
        root: ROOT: a folder or ``s3://bucket/prefix``.
        output_root: ROOT of the result, if it is not stored beside the surface.
        unit_px: Edge of a unit, a power of two of at least 64; None follows from the largest tile.
        device: ``auto`` takes CUDA, then MPS, then the CPU.
        precision: ``auto`` is bf16 (or fp16) on CUDA and fp32 elsewhere.
        batch_tiles: Tiles per forward pass; 0 finds it.
        compile: Compile the networks first (minutes; pays on GPUs and long runs). Maps differ by rounding.
    """

    job: ClassVar[str] = "sweep"
    spelled: ClassVar[Mapping[str, str]] = {"bundles": "--bundle"}

    segment: str
    bundles: tuple[BundleChoice, ...] = Field(min_length=1)
    depths: Depths | None = None
    directions: Directions = "both"
    nulls: tuple[Null, ...] = ("shuffled", "repeated")
    phases: int = Field(1, ge=1, le=16)
    seed: int = Field(0, ge=0)
    preflight: Literal["mask", "warn"] | None = None
    window_mm: float = Field(2.5, gt=0, allow_inf_nan=False)
    control_windows: int = Field(16, ge=0, le=256)
    control: tuple[Amplitude, ...] = Field((60.0, 40.0, 25.0, 15.0, 10.0), min_length=1)
    blank: tuple[tuple[int, int, int, int], ...] = ()
    blank_side: Literal["forward", "reversed"] | None = None
    keep_depths: bool = False
    name: str = Field("sweep", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    root: str = "root"
    output_root: str | None = None
    unit_px: int | None = None
    device: DeviceName = "auto"
    precision: PrecisionName = "auto"
    batch_tiles: int = Field(0, ge=0)
    compile: bool = False

    @field_validator("unit_px")
    @classmethod
    def _whole_blocks(cls, value: int | None) -> int | None:
        if value is not None and not is_power_of_two(value, BLOCK_PX):
            raise ValueError(f"expected a power of two of at least {BLOCK_PX}")
        return value

    @field_validator("depths")
    @classmethod
    def _depths_ascend(cls, value: Depths | None) -> Depths | None:
        if value is None:
            return None
        start, stop, *step = value
        if not (start < stop and min(step, default=1) > 0):
            raise ValueError(
                f"expected START:STOP (half-open) and a STEP of 1 or more, for example -15:16, got {list(value)}"
            )
        if len(range(*value)) > MOST_DEPTHS:
            raise ValueError(f"expected at most {MOST_DEPTHS} depths, got {len(range(*value))}; take a larger step")
        return value

    @field_validator("control")
    @classmethod
    def _one_kind_of_ink(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len({f"{contrast:g}" for contrast in value}) < len(value):
            raise ValueError("expected different contrasts; name each once")
        if min(value) < 0 < max(value):
            raise ValueError("expected strokes that are all brighter or all darker than papyrus; sweep twice for both")
        return value

    @model_validator(mode="after")
    def _sweeps_its_blank_side(self) -> SweepConfig:
        if self.blank_side is not None and self.directions not in (self.blank_side, "both"):
            raise ValueError(
                f"blank_side: expected a direction that is swept, {self.directions}, got {self.blank_side}; set "
                "directions: both, or leave blank_side out"
            )
        return self
