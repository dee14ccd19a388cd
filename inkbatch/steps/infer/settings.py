"""The configuration of `inkbatch infer`; without torch, so that launchers check it before anything is submitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from inkbatch.config import JobConfig, LayerPair, WindowName
from inkbatch.data.maps.series import Directions, Null, Series, series_of
from inkbatch.predict.names import Combine, DeviceName, PrecisionName, ViewName
from inkbatch.steps.infer.choices import RunChoices


class InferConfig(JobConfig):
    """Settings of `inkbatch infer`.

    Attributes:
        segment: Segment id.
        bundle: Folder or URI of the bundle; ``demo`` is the shipped one.
        root: ROOT: a folder or ``s3://bucket/prefix``.
        output_root: ROOT of the prediction, if it is not stored beside the surface.
        catalog: The user's catalog file, for labels that the map is compared with at the end.
        source: Layers of a segment that is not prepared yet and not in the catalog, for the plan alone.
        name: Name of the prediction; None makes one from the bundle, tile and stride.
        layers: Half-open range of source layer numbers; ``auto`` is what a depth probe found, together with the depth
            order; None is what the bundle says.
        layer_starts: First source layers of sliding windows, half-open with a step: ``[10, 20, 2]`` is 10, 12, … 18.
        layer_groups: Windows one by one: half-open ranges of source layer numbers.
        preflight: ``mask`` leaves tiles in which a preflight found nothing to read out of the map; ``warn`` says what
            it found and leaves out nothing.
        directions: ``forward`` (layers as the bundle reads them), ``reversed`` (the other way) or ``both``; every one
            but the first is a prediction of its own.
        nulls: Nulls that become predictions beside the map: ``shuffled`` (layers in a random order), ``repeated`` (one
            layer repeated).
        seed: Of the shuffle.
        box: Quick look: compute this part alone, y0, x0, y1, x1 in pixels, half-open; the rest of the map is 0. Inside,
            its values are those of the whole map.
        store_windows: Store a prediction per window, as ``layers`` would make it, instead of one of them all.
        tta: Views that are averaged with the tile as it is: names of the contract's `tta_axes`; ``turns``, ``flips``,
            ``allowed``.
        combine: ``mean`` or ``max``: how the maps of views and of windows become one.
        stride_px: Step between tiles; None is what the bundle says.
        window: Blending window; None is what the bundle says.
        unit_px: Edge of a unit, a power of two of at least 32; None follows from the tile.
        override: Contract values that are to be replaced; recorded in the manifest.
        device: ``auto`` takes CUDA, then MPS, then the CPU.
        precision: ``auto`` is bf16 (or fp16) on CUDA and fp32 elsewhere.
        batch_tiles: Tiles per forward pass; 0 finds it.
        compile: Compile the network first (minutes; pays on GPUs and long runs). Maps differ by rounding.
    """

    job: ClassVar[str] = "infer"
    spelled: ClassVar[Mapping[str, str]] = {"nulls": "--null"}

    segment: str
    bundle: str
    root: str = "root"
    output_root: str | None = None
    catalog: str | None = None
    source: str | None = None
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    layers: LayerPair | Literal["auto"] | None = None
    layer_starts: tuple[int, int] | tuple[int, int, int] | None = None
    layer_groups: tuple[tuple[int, int], ...] | None = Field(None, min_length=1)
    store_windows: bool = False
    preflight: Literal["mask", "warn"] | None = None
    directions: Directions = "forward"
    nulls: tuple[Null, ...] = ()
    seed: int = Field(0, ge=0)
    box: tuple[int, int, int, int] | None = None
    tta: tuple[ViewName, ...] = ()
    combine: Combine = "mean"
    stride_px: int | None = Field(None, ge=1)
    window: WindowName | None = None
    unit_px: int | None = None
    override: dict[str, Any] = Field(default_factory=dict)
    device: DeviceName = "auto"
    precision: PrecisionName = "auto"
    batch_tiles: int = Field(0, ge=0)
    compile: bool = False

    @property
    def series(self) -> tuple[Series, ...]:
        """Orders of the layers; a prediction for each."""
        return series_of(self.directions, self.nulls)

    @property
    def choices(self) -> RunChoices:
        """Values that this run chooses beside the bundle's contract."""
        return RunChoices(stride_px=self.stride_px, window=self.window)

    @model_validator(mode="after")
    def _box_ascends(self) -> InferConfig:
        if self.box is not None and not (0 <= self.box[0] < self.box[2] and 0 <= self.box[1] < self.box[3]):
            raise ValueError(f"box: expected y0, x0, y1, x1 in pixels, half-open, got {list(self.box)}")
        return self

    @model_validator(mode="after")
    def _windows_agree(self) -> InferConfig:
        given = [key for key in ("layers", "layer_starts", "layer_groups") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} both say which layers to take; give one of them")
        if self.layer_starts and not (
            0 <= self.layer_starts[0] < self.layer_starts[1] and min(self.layer_starts[2:], default=1) > 0
        ):
            raise ValueError(
                f"layer_starts: expected START, STOP (half-open) and a STEP of 1 or more, got {list(self.layer_starts)}"
            )
        if self.store_windows and given not in (["layer_starts"], ["layer_groups"]):
            raise ValueError("store_windows: there are no windows to store; give layer_starts or layer_groups, too")
        return self
