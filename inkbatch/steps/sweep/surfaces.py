"""Surfaces of a sweep, the segment's own and those of its sheet at other scales, and the bundles that read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import MismatchError
from inkbatch.geometry import Box
from inkbatch.io.surface import SurfaceVolume, in_order
from inkbatch.models.bundle import Bundle, Contract, bundle_location
from inkbatch.predict.frames import Frame
from inkbatch.predict.phases import Phase, phases_of, read_box_of
from inkbatch.predict.variants import View, views_of
from inkbatch.steps.sweep.settings import BundleChoice, SweepConfig

SLACK_PX = 2  # by which sizes of one sheet at two scales may differ, in pixels of the coarser one


@dataclass(frozen=True)
class SweepMember:
    """One bundle of a sweep on its surface.

    Attributes:
        name: Name of its maps.
        bundle: The bundle with the user's overrides.
        contract: Its contract with what the sweep chose.
        views: Views of each tile.
        segment: The segment whose surface it reads.
        layers: Indices of that surface, depth order, that it takes at depth 0.
        layers_per_depth: Layers of that surface along one layer of the sweep's own.
        phases: Its tile grids, the plain one first.
    """

    name: str
    bundle: Bundle
    contract: Contract
    views: tuple[View, ...]
    segment: str
    layers: range
    layers_per_depth: float
    phases: tuple[Phase, ...]

    def window(self, depth: int) -> range:
        """Return the indices that it takes at a depth; between two layers the nearer one, halves to even."""
        moved = round(depth * self.layers_per_depth)
        return range(self.layers.start + moved, self.layers.stop + moved)

    def places(self, depth: int, order: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return indices of the surface in the order in which the network is given them.

        Args:
            depth: Layers by which the window is moved.
            order: From `Series.order`.
        """
        as_read = in_order(np.array(self.window(depth)), self.contract.depth_order)
        found: NDArray[np.intp] = as_read[order]
        return found


@dataclass(frozen=True)
class SweepSurface:
    """A surface with the bundles that read it.

    Attributes:
        segment: Its segment.
        volume: The surface.
        frame: Its pixels on the sweep's own grid.
        layers: Indices of the layers that are read: all that any bundle takes at any depth.
        phases: Tile grids of all its bundles.
    """

    segment: str
    volume: SurfaceVolume
    frame: Frame
    layers: range
    phases: tuple[Phase, ...]

    def read_box(self, write_box: Box) -> Box:
        """Return what must be read, in its own pixels, for a write box of the sweep."""
        return read_box_of(self.phases, self.frame.box(write_box))


def frame_of(volume: SurfaceVolume, own: SurfaceVolume) -> Frame:
    """Lay a surface under the pixels of another one of the same sheet.

    Args:
        volume: The surface that maps are made for.
        own: The one that a bundle reads.

    Raises:
        MismatchError: They do not cover the same sheet.
    """
    ratio = volume.provenance.voxel_size_um / own.provenance.voxel_size_um
    slack = SLACK_PX * max(1.0, ratio)
    if any(abs(here * ratio - there) > slack for here, there in zip(volume.shape_yx, own.shape_yx, strict=True)):
        height, width = (round(size * ratio) for size in volume.shape_yx)
        raise MismatchError(
            f"segment {own.provenance.segment}: expected the sheet of {volume.provenance.segment} at "
            f"{own.provenance.voxel_size_um:g} µm, {height} × {width} px (height × width), got {own.shape_yx[0]} × "
            f"{own.shape_yx[1]} px; prepare both from one surface, without a box"
        )
    return Frame(ratio, own.shape_yx)


def member_of(choice: BundleChoice, config: SweepConfig, volumes: Mapping[str, SurfaceVolume]) -> SweepMember:
    """Open a bundle and compare it with the surface that it reads.

    Args:
        choice: The bundle, and what is chosen for it.
        config: The job's settings.
        volumes: Surfaces by segment.

    Raises:
        ConfigError: A value that cannot be carried out.
        DataError: The surface does not match the bundle.
    """
    bundle = Bundle.open(bundle_location(choice.bundle), choice.override)
    segment = choice.segment or config.segment
    volume = volumes[segment]
    try:
        bundle.require_matches(volume)
    except MismatchError as error:
        raise MismatchError(
            f"{error}. In a sweep: --set 'bundles=[{{bundle: {choice.bundle}, override: {{…}}}}]'; a sheet that was "
            "prepared at the bundle's scale, as a segment of its own, is named there: segment: …"
        ) from error
    chosen = {"stride_px": choice.stride_px, "window": choice.window}
    contract = bundle.contract.overridden({key: value for key, value in chosen.items() if value is not None})
    return SweepMember(
        choice.name or bundle.document.name,
        bundle,
        contract,
        views_of(choice.tta, contract, bundle.document.name),
        segment,
        contract.layer_indices(volume),
        volumes[config.segment].provenance.layer_um / volume.provenance.layer_um,
        phases_of(contract, volume.shape_yx, config.phases),
    )


def surfaces_of(
    members: Sequence[SweepMember], volumes: Mapping[str, SurfaceVolume], segment: str, depths: Sequence[int]
) -> tuple[SweepSurface, ...]:
    """List the surfaces that bundles read, each once, in the order of the bundles.

    Raises:
        MismatchError: One does not cover the sheet of `segment`.
    """
    found = []
    for name in dict.fromkeys(member.segment for member in members):
        readers = [member for member in members if member.segment == name]
        ends = [member.window(depth) for member in readers for depth in (depths[0], depths[-1])]
        layers = range(min(end.start for end in ends), max(end.stop for end in ends))
        phases = tuple(phase for member in readers for phase in member.phases)
        frame = frame_of(volumes[segment], volumes[name])
        found.append(SweepSurface(name, volumes[name], frame, layers, phases))
    return tuple(found)
