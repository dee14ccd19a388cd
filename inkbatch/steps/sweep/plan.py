"""Plan of a sweep: bundles against the surface, layers at every depth, phases, units; no pixel is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.datasets.trained_pixels import TrainedPixels, pixels_on
from inkbatch.data.maps.series import Series, series_of
from inkbatch.data.maps.sweep import COUNTS_NAME, MAPS_NAME
from inkbatch.data.segments.prepared import open_prepared, surface_state
from inkbatch.errors import ConfigError, LayerRangeError
from inkbatch.geometry import Unit, cut
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume
from inkbatch.models.bundle import Bundle, Contract, bundle_address, bundle_location
from inkbatch.predict.coverage import usual_unit_px
from inkbatch.predict.phases import Phase, phases_of, read_box_of
from inkbatch.predict.variants import View, views_of
from inkbatch.run.record import RunFolder, RunManifest
from inkbatch.steps.sweep.settings import BundleChoice, SweepConfig

USUAL_DEPTHS = 15  # layers either way, where the surface has them
RESERVED = frozenset({COUNTS_NAME, "done"})  # folders beside those of the bundles


@dataclass(frozen=True)
class SweepMember:
    """One bundle of a sweep on its surface.

    Attributes:
        name: Name of its maps.
        bundle: The bundle with the user's overrides.
        contract: Its contract with what the sweep chose.
        views: Views of each tile.
        layers: Indices of the surface, depth order, that it takes at depth 0.
        phases: Its tile grids, the plain one first.
    """

    name: str
    bundle: Bundle
    contract: Contract
    views: tuple[View, ...]
    layers: range
    phases: tuple[Phase, ...]

    def places(self, depth: int, order: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return indices of the surface in the order in which the network is given them.

        Args:
            depth: Layers by which the window is moved.
            order: From `Series.order`.
        """
        window = np.arange(self.layers.start + depth, self.layers.stop + depth)
        as_read = window[::-1] if self.contract.depth_order == "reversed" else window
        found: NDArray[np.intp] = as_read[order]
        return found


@dataclass(frozen=True)
class SweepPlan:
    """Everything that is known before a model is built.

    Attributes:
        config: The job's settings.
        depths: The depths, ascending.
        volume: The surface.
        members: The bundles.
        series: What each bundle is swept with.
        unit_px: Edge of a unit.
        units: All units, row-major, of both stages.
        folder: ``ROOT/sweeps/{segment}/{name}``.
        manifest: Of the second stage, all bundles together; the first one differs in its job's name.
    """

    config: SweepConfig
    depths: tuple[int, ...]
    volume: SurfaceVolume
    members: tuple[SweepMember, ...]
    series: tuple[Series, ...]
    unit_px: int
    units: list[Unit]
    folder: Location
    manifest: RunManifest

    @property
    def record(self) -> RunFolder:
        """The run of the second stage."""
        return RunFolder(self.folder, self.manifest)

    @property
    def maps_record(self) -> RunFolder:
        """The run of the first stage, every bundle by itself."""
        found = self.manifest
        first = RunManifest("sweep-maps", found.config, found.inputs, found.units, state=found.state)
        return RunFolder(self.folder / MAPS_NAME, first)

    def counts_place(self, unit: Unit) -> Location:
        """Return the place of a unit's counts."""
        return self.folder / MAPS_NAME / COUNTS_NAME / f"{unit.name}.npz"

    @cached_property
    def layers(self) -> range:
        """Indices of the layers that are read: all that any bundle takes at any depth."""
        first, last = self.depths[0], self.depths[-1]
        starts, stops = ([getattr(member.layers, end) for member in self.members] for end in ("start", "stop"))
        return range(min(starts) + first, max(stops) + last)

    @property
    def maps_per_bundle(self) -> int:
        """Maps that each bundle makes: depths times series."""
        return len(self.depths) * len(self.series)


def make_plan(config: SweepConfig) -> SweepPlan:
    """Open surface and bundles, compare them, and cut the surface into units; no model is built.

    Raises:
        ConfigError: A value that cannot be carried out, or two bundles of one name.
        DataError: The surface is not complete, does not match a bundle, or has too few layers for a depth.
    """
    volume, surface_digest = open_prepared(config.root, config.segment)
    members = tuple(_member(choice, volume, config) for choice in config.bundles)
    _require_names(members)
    depths = _depths(members, volume, config)
    series = series_of(config.directions, config.nulls)
    unit_px = config.unit_px or usual_unit_px(max(member.contract.tile_px for member in members))
    phases = [phase for member in members for phase in member.phases]
    boxes = cut(volume.shape_yx, unit_px, unit_px)
    units = [Unit(index, box, read_box_of(phases, box)) for index, box in enumerate(boxes)]
    settings: dict[str, Any] = config.model_dump(
        mode="json", include={"segment", "name", "phases", "seed", "keep_depths", "precision", "compile"}
    )
    settings |= {"depths": list(depths), "series": [one.name for one in series], "unit_px": unit_px}
    settings["bundles"] = [_settings_of(member, choice) for member, choice in zip(members, config.bundles, strict=True)]
    inputs: dict[str, Any] = {"surface": surface_digest, "bundles": [_inputs_of(member) for member in members]}
    trained = [pixels_on(one.bundle.document.training, volume, str(one.bundle.location)) for one in members]
    if trained_on := TrainedPixels.together(trained).document:
        inputs["trained_on"] = trained_on
    asked = [
        {**choice.model_dump(mode="json", exclude_defaults=True), "bundle": bundle_address(choice.bundle)}
        for choice in config.bundles
    ]
    request = config.request(bundles=asked, depths=[depths[0], depths[-1] + 1, _step(depths)])
    state = surface_state(config.root, config.segment)
    manifest = RunManifest("sweep", settings, inputs, len(units), request, state)
    folder = Location.parse(config.output_root or config.root) / "sweeps" / config.segment / config.name
    return SweepPlan(config, depths, volume, members, series, unit_px, units, folder, manifest)


def _member(choice: BundleChoice, volume: SurfaceVolume, config: SweepConfig) -> SweepMember:
    bundle = Bundle.open(bundle_location(choice.bundle), choice.override)
    bundle.require_matches(volume)
    chosen = {"stride_px": choice.stride_px, "window": choice.window}
    contract = bundle.contract.overridden({key: value for key, value in chosen.items() if value is not None})
    return SweepMember(
        choice.name or bundle.document.name,
        bundle,
        contract,
        views_of(choice.tta, contract, bundle.document.name),
        contract.layer_indices(volume),
        phases_of(contract, volume.shape_yx, config.phases),
    )


def _settings_of(member: SweepMember, choice: BundleChoice) -> dict[str, Any]:
    return {
        "name": member.name,
        "layers": [member.layers.start, member.layers.stop],
        "override": dict(choice.override),
        "tta": [view.name for view in member.views[1:]],
        "contract": member.contract.model_dump(mode="json"),
    }


def _inputs_of(member: SweepMember) -> dict[str, Any]:
    document = member.bundle.document
    found: dict[str, Any] = {"name": member.name, "bundle": document.name, "weights_sha256": document.weights_sha256}
    found |= {"architecture": document.architecture, "model": document.model}
    return {**found, **document.noted}


def _require_names(members: Sequence[SweepMember]) -> None:
    names = [member.name for member in members]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"bundles: two of them are named {twice[0]} and would share their maps; name them: --bundle NAME=PLACE"
        )
    if taken := sorted(RESERVED & set(names)):
        raise ConfigError(f"bundles: {taken[0]} is the name of another folder of a sweep; name it: --bundle NAME=PLACE")


def _step(depths: Sequence[int]) -> int:
    return depths[1] - depths[0] if len(depths) > 1 else 1


def _depths(members: Sequence[SweepMember], volume: SurfaceVolume, config: SweepConfig) -> tuple[int, ...]:
    """List the depths; those that were asked for and leave the surface are refused, no window is cut or moved.

    Raises:
        LayerRangeError: They do; says which depths all bundles have.
    """
    lowest = max(-member.layers.start for member in members)
    highest = min(volume.layer_count - member.layers.stop for member in members)
    if config.depths is None:  # depth 0 is inside: what a bundle takes by itself
        return tuple(range(max(lowest, -USUAL_DEPTHS), min(highest, USUAL_DEPTHS) + 1))
    depths = tuple(range(*config.depths))
    if lowest <= depths[0] and depths[-1] <= highest:
        return depths
    rows = "; ".join(f"{member.name} takes {member.layers.start}:{member.layers.stop} at depth 0" for member in members)
    raise LayerRangeError(
        f"segment {volume.provenance.segment}: expected depths inside {lowest}:{highest + 1} (its {volume.layer_count} "
        f"layers in depth order; {rows}), got {depths[0]}:{depths[-1] + 1}; pass --depths={lowest}:{highest + 1}, or "
        "prepare more layers"
    )
