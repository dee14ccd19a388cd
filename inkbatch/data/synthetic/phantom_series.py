"""A series of phantoms: one papyrus, many plantings, each with letters and ink of its own drawn from ranges.

A network that is shown one planting learns that planting. A series shows the same papyrus under other letters, at other
strengths and depths, so that what stays the same, the papyrus, is what the network learns to look past.
"""

from __future__ import annotations

import math
from typing import Any, Self

from pydantic import Field, model_validator

from inkbatch.config import JobConfig
from inkbatch.data.labels.ink import LAST_BARE
from inkbatch.data.segments import stable_random as chance
from inkbatch.data.segments.catalog import SegmentEntry, check_segment_id
from inkbatch.data.synthetic.phantom import PhantomConfig
from inkbatch.errors import ConfigError
from inkbatch.io.surface import DepthOrder

Span = tuple[float, float]
BoxNumbers = tuple[int, int, int, int]

RANGES = ("amplitude", "depth_layer", "width_layers", "crackle", "crackle_px", "edge_px", "label_scale")
DIGITS = 4  # of drawn values, so that phantom.json stays readable


class PhantomSeriesConfig(JobConfig):
    """Settings of `inkbatch phantoms`. Ranges are (smallest, largest); equal ends fix a value.

    Attributes:
        source: Layers of real papyrus: whatever a layer source opens.
        labels: Picture of letters; each phantom takes another part of it.
        output: Folder that gets one folder per phantom and ``segments.yaml``, the catalog that `inkbatch prepare` and
            `inkbatch build-dataset` take.
        prefix: Segment ids are ``{prefix}-00``, ``{prefix}-01``, …
        count: Number of phantoms.
        seed: Seed of all draws; phantom 3 of seed 7 is the same in a longer series.
        depth_order: Of the source; for the catalog.
        voxel_size_um: Of the source; for the catalog.
        sample: Scroll or fragment; for the catalog.
        source_box: (y0, x0, y1, x1) of the papyrus that is used; None: all of it.
        segment_mask: As for `inkbatch phantom`.
        label_box: (y0, x0, y1, x1) of the picture that letters are taken from; None: all of it.
        label_threshold: As for `inkbatch phantom`.
        label_invert: As for `inkbatch phantom`.
        amplitude: Grey values of 255 that are added; not 0.
        depth_layer: Centre of the ink along depth.
        width_layers: Standard deviation of the depth profile.
        crackle: Strength of the modulation.
        crackle_px: Size of its noise.
        edge_px: Softness of the letters' edges.
        label_scale: Phantom pixels per label pixel.
        source_note: Free text on origin and licence.
    """

    source: str
    labels: str
    output: str
    prefix: str = "phantom"
    count: int = Field(ge=1, le=1000)
    seed: int = Field(0, ge=0)
    depth_order: DepthOrder
    voxel_size_um: float = Field(gt=0)
    sample: str | None = None
    source_box: BoxNumbers | None = None
    segment_mask: str | None = None
    label_box: BoxNumbers | None = None
    label_threshold: int = Field(LAST_BARE, ge=0, le=254)
    label_invert: bool = False
    amplitude: Span
    depth_layer: Span
    width_layers: Span = (1.5, 1.5)
    crackle: Span = (0.4, 0.4)
    crackle_px: Span = (8.0, 8.0)
    edge_px: Span = (1.5, 1.5)
    label_scale: Span = (1.0, 1.0)
    source_note: str = ""

    @model_validator(mode="after")
    def _ranges_run_upwards(self) -> Self:
        for name in RANGES:
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: [{low:g}, {high:g}] runs downwards; give [smallest, largest]")
        check_segment_id(self.segment_id(0))
        return self

    def segment_id(self, number: int) -> str:
        """Return the segment id of a phantom."""
        return f"{self.prefix}-{number:02d}"

    def phantom(self, number: int, papyrus_yx: tuple[int, int], letters_yx: tuple[int, int]) -> PhantomConfig:
        """Draw the settings of one phantom.

        Args:
            number: From 0.
            papyrus_yx: (height, width) of the source.
            letters_yx: (height, width) of the picture of letters.

        Raises:
            ConfigError: The letters are smaller than the phantom, or a drawn value cannot be planted.
        """
        values: dict[str, Any] = {name: self._drawn(number, name) for name in RANGES}
        values["label_box"] = self._letters(number, values["label_scale"], papyrus_yx, letters_yx)
        same = ("source", "labels", "source_box", "segment_mask", "label_threshold", "label_invert", "source_note")
        values |= {name: getattr(self, name) for name in same}
        values |= {"output": f"{self.output}/{self.segment_id(number)}", "seed": self._number(number, "noise") % 2**31}
        return PhantomConfig.checked(values, f"phantom {self.segment_id(number)}")

    def entry(self, number: int) -> SegmentEntry:
        """Return the catalog's entry of a phantom; paths are relative to the catalog."""
        here = self.segment_id(number)
        return SegmentEntry(
            source=f"{here}/layers",
            ink_labels=f"{here}/truth.png",
            depth_order=self.depth_order,
            voxel_size_um=self.voxel_size_um,
            sample=self.sample,
            note="planted ink",
        )

    def _number(self, number: int, *words: str) -> int:
        return chance.number("phantoms", self.seed, number, *words)

    def _share(self, number: int, *words: str) -> float:
        """Draw a number in [0, 1)."""
        return self._number(number, *words) / 2**64

    def _drawn(self, number: int, name: str) -> float:
        low, high = getattr(self, name)
        value: float = low + (high - low) * self._share(number, name)
        return round(value, DIGITS)

    def _letters(
        self, number: int, scale: float, papyrus_yx: tuple[int, int], letters_yx: tuple[int, int]
    ) -> BoxNumbers:
        """Draw a random part of the letters that just covers the phantom."""
        height, width = papyrus_yx if self.source_box is None else _size(self.source_box)
        y0, x0, y1, x1 = self.label_box or (0, 0, *letters_yx)
        wanted = math.ceil(height / scale), math.ceil(width / scale)
        if y1 - y0 < wanted[0] or x1 - x0 < wanted[1]:
            raise ConfigError(
                f"phantoms {self.labels}: a phantom of {height} x {width} px at label_scale {scale:g} needs letters on "
                f"{wanted[0]} x {wanted[1]} px, got {y1 - y0} x {x1 - x0} px; enlarge label_box or label_scale, or "
                "make source_box smaller"
            )
        y = y0 + int(self._share(number, "y") * (y1 - y0 - wanted[0] + 1))
        x = x0 + int(self._share(number, "x") * (x1 - x0 - wanted[1] + 1))
        return y, x, y + wanted[0], x + wanted[1]


def _size(box: BoxNumbers) -> tuple[int, int]:
    return box[2] - box[0], box[3] - box[1]
