"""The layers of a segment, opened: from what is stored to the pixels of the surface."""

from __future__ import annotations

from dataclasses import dataclass

from inkbatch.geometry import Box
from inkbatch.io.layers.base import LayerSource
from inkbatch.io.layers.cropped import CroppedLayers
from inkbatch.io.layers.resampled import ResampledSource
from inkbatch.render.surface import RenderedSurface


@dataclass(frozen=True)
class OpenedLayers:
    """Layers that `prepare` opened: all of them or a box, as they are or at another spacing.

    Attributes:
        whole: Stored or rendered layers.
        read: `whole`, or the box of it that is taken.
        box: The pixels of `whole` that are taken; None for all.
        rendered: `whole`, where it is a rendering.
        resampled: `read` at another spacing, where that was asked for.
    """

    whole: LayerSource
    read: LayerSource
    box: Box | None = None
    rendered: RenderedSurface | None = None
    resampled: ResampledSource | None = None

    @classmethod
    def of(cls, whole: LayerSource, box: Box | None, rendered: RenderedSurface | None = None) -> OpenedLayers:
        """Take a box of some layers, or all.

        Raises:
            MismatchError: The box is empty or leaves the layers.
        """
        return cls(whole, whole if box is None else CroppedLayers(whole, box), box, rendered)

    @property
    def source(self) -> LayerSource:
        """Layers in the pixels of the surface."""
        return self.resampled or self.read

    @property
    def taken(self) -> Box:
        """The pixels of `whole` that are taken."""
        return self.box or Box(0, 0, *self.whole.shape_zyx[1:])

    def values_read(self, layers: int) -> int:
        """Count the grey values that are read for some layers of the surface."""
        if self.resampled is not None:
            layers = len(self.resampled.resampling.depth.source(0, self.resampled.shape_zyx[0]))
        return layers * self.read.shape_zyx[1] * self.read.shape_zyx[2]
