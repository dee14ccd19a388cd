"""Plan of a sweep: bundles against the surface, layers at every depth, phases, units; no pixel is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.datasets.trained_pixels import TrainedPixels, pixels_on
from inkbatch.data.maps.area import area_box
from inkbatch.data.maps.series import Series, series_of
from inkbatch.data.maps.sweep import COUNTS_NAME, MAPS_NAME
from inkbatch.data.segments.prepared import open_prepared, surface_now, surface_state
from inkbatch.errors import ConfigError, LayerRangeError
from inkbatch.geometry import Box, Unit, cut
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume
from inkbatch.models.bundle import bundle_address
from inkbatch.predict.coverage import usual_unit_px
from inkbatch.run.record import RunFolder, RunManifest
from inkbatch.steps.stored_preflight import StoredPreflight, stored_preflight
from inkbatch.steps.sweep.settings import MOST_DEPTHS, BundleChoice, SweepConfig
from inkbatch.steps.sweep.surfaces import SweepMember, SweepSurface, member_of, surfaces_of

USUAL_DEPTHS = 15  # layers either way, where the surface has them
RESERVED = frozenset({COUNTS_NAME, "done"})  # folders beside those of the bundles


KEPT = ("segment", "name", "phases", "seed", "keep_depths", "precision", "compile")


@dataclass(frozen=True)
class SweepPlan:
    """Everything that is known before a model is built.

    Attributes:
        config: The job's settings.
        depths: The depths, ascending.
        volume: The surface.
        members: The bundles.
        surfaces: The surfaces that they read.
        series: What each bundle is swept with.
        unit_px: Edge of a unit.
        units: All units, row-major, of both stages.
        folder: ``ROOT/sweeps/{segment}/{name}``.
        manifest: Of the second stage, all bundles together; the first one differs in its job's name.
        judged: Verdicts of a preflight; None where none was asked for.
    """

    config: SweepConfig
    depths: tuple[int, ...]
    volume: SurfaceVolume
    members: tuple[SweepMember, ...]
    surfaces: tuple[SweepSurface, ...]
    series: tuple[Series, ...]
    unit_px: int
    units: list[Unit]
    folder: Location
    manifest: RunManifest
    judged: StoredPreflight | None = None

    def read_mask(self, box: Box) -> NDArray[np.bool_]:
        """Read the segment mask in any box, less what a preflight found unreadable where that was asked for."""
        if self.judged is None or self.config.preflight != "mask":
            return self.volume.read_mask(box)
        return self.judged.readable(self.volume.read_mask)(box)

    @property
    def record(self) -> RunFolder:
        """The run of the second stage."""
        return RunFolder(self.folder, self.manifest)

    @property
    def maps_record(self) -> RunFolder:
        """The run of the first stage, every bundle by itself."""
        return RunFolder(self.folder / MAPS_NAME, self.manifest.of_pass("sweep-maps"))

    def counts_place(self, unit: Unit) -> Location:
        """Return the place of a unit's counts."""
        return self.folder / MAPS_NAME / COUNTS_NAME / f"{unit.name}.npz"

    def surface_of(self, member: SweepMember) -> SweepSurface:
        """Return the surface that a bundle reads."""
        return next(surface for surface in self.surfaces if surface.segment == member.segment)

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
    segments = dict.fromkeys([config.segment, *(one.segment for one in config.bundles if one.segment)])
    opened = {segment: open_prepared(config.root, segment) for segment in segments}
    volumes = {segment: found for segment, (found, _) in opened.items()}
    volume, surface_digest = opened[config.segment]
    for ground in config.blank:
        area_box(ground, volume.shape_yx, "blank", f"segment {config.segment}")
    members = tuple(member_of(choice, config, volumes) for choice in config.bundles)
    _require_names(members)
    depths = _depths(members, volumes, config)
    surfaces = surfaces_of(members, volumes, config.segment, depths)
    series = series_of(config.directions, config.nulls)
    unit_px = config.unit_px or usual_unit_px(max(member.contract.tile_px for member in members))
    units = [Unit(index, box, box) for index, box in enumerate(cut(volume.shape_yx, unit_px, unit_px))]
    settings: dict[str, Any] = config.model_dump(
        mode="json", include={*KEPT, "window_mm", "control_windows", "control", "blank", "blank_side"}
    )
    settings |= {"depths": list(depths), "series": [one.name for one in series], "unit_px": unit_px}
    judged = None
    if config.preflight is not None:
        judged = stored_preflight(config.root, config.segment, members[0].bundle.document.name)
        settings |= {"preflight": judged.record} if config.preflight == "mask" else {}
    settings["bundles"] = [_settings_of(member, choice) for member, choice in zip(members, config.bundles, strict=True)]
    inputs: dict[str, Any] = {"surface": surface_digest, "bundles": [_inputs_of(member) for member in members]}
    others = {segment: digest for segment, (_, digest) in opened.items() if segment != config.segment}
    inputs |= {"surfaces": others} if others else {}
    here = [one for one in members if one.segment == config.segment]
    trained = [pixels_on(one.bundle.document.training, volume, str(one.bundle.location)) for one in here]
    if trained_on := TrainedPixels.together(trained).document:
        inputs["trained_on"] = trained_on
    asked = [
        {**choice.model_dump(mode="json", exclude_defaults=True), "bundle": bundle_address(choice.bundle)}
        for choice in config.bundles
    ]
    request = config.request(bundles=asked, depths=[depths[0], depths[-1] + 1, _step(depths)])
    state = surface_state(config.root, config.segment)
    state |= {_state_key(one): found for one in others for found in surface_state(config.root, one).values()}

    def now() -> dict[str, str | None]:
        found = surface_now(config.root, config.segment)
        return found | {_state_key(one): row for one in others for row in surface_now(config.root, one).values()}

    manifest = RunManifest("sweep", settings, inputs, len(units), request, state, now)
    folder = Location.parse(config.output_root or config.root) / "sweeps" / config.segment / config.name
    return SweepPlan(config, depths, volume, members, surfaces, series, unit_px, units, folder, manifest, judged)


def _state_key(segment: str) -> str:
    """Name the surface of another segment in a manifest's state."""
    return f"surface {segment}"


def _settings_of(member: SweepMember, choice: BundleChoice) -> dict[str, Any]:
    other = {"segment": choice.segment} if choice.segment else {}
    return {
        **other,
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


def _depths(
    members: Sequence[SweepMember], volumes: Mapping[str, SurfaceVolume], config: SweepConfig
) -> tuple[int, ...]:
    """List the depths; those that were asked for and leave the surface are refused, no window is cut or moved.

    Raises:
        LayerRangeError: They do; says which depths all bundles have.
    """
    lowest, highest = -MOST_DEPTHS, MOST_DEPTHS
    for member in members:
        inside = range(volumes[member.segment].layer_count + 1)
        fitting = [d for d in range(lowest, highest + 1) if {(w := member.window(d)).start, w.stop} <= set(inside)]
        lowest, highest = fitting[0], fitting[-1]
    volume = volumes[config.segment]
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
