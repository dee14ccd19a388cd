"""First stage of a sweep: a unit's layers are read once, and every bundle, series and depth computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inkbatch.data.maps.depth_agreement import (
    COMMON_PIXELS,
    DepthAgreement,
    common_product_name,
    common_sum_name,
    no_agreement,
)
from inkbatch.data.maps.series import Series
from inkbatch.data.maps.sweep import (
    BEST,
    BEST_DEPTH,
    BLOCK_PX,
    COUNT_NAME,
    DEPTHS,
    DEVIATION,
    MAPS_NAME,
    MEAN,
    block_pixels_name,
    block_sum_name,
    counts_bytes,
    histogram_name,
)
from inkbatch.geometry import Box, Unit
from inkbatch.io.multiscale import CHUNK_PX, Multiscale
from inkbatch.io.prediction import Prediction
from inkbatch.predict.blend import map_of
from inkbatch.predict.device import choose_device, choose_precision, device_facts
from inkbatch.predict.phases import PhaseTiles, phase_tiles
from inkbatch.predict.predictor import Predictor, require_finite, require_probabilities
from inkbatch.predict.reference import check_reference
from inkbatch.predict.running import DepthStatistics, RunningAgreement, RunningStatistics
from inkbatch.predict.segment_statistics import stored_statistics
from inkbatch.predict.variants import ordered
from inkbatch.run.job import RunContext
from inkbatch.run.pipeline import UnitWork
from inkbatch.steps.live_preview import drawn, live_preview
from inkbatch.steps.sweep.plan import SweepPlan
from inkbatch.steps.sweep.surfaces import SweepMember


@dataclass(frozen=True)
class Loaded:
    """Input of one unit.

    Attributes:
        layers: For each surface (Z, height, width) of its read box, depth order, stored dtype; without rows where no
            tile is computed.
        mask: Segment mask of the write box.
        own_masks: For each surface the mask of its part of the write box, in its own pixels.
        tiles: For each bundle its tiles, phase by phase.
    """

    layers: tuple[NDArray[Any], ...]
    mask: NDArray[np.bool_]
    own_masks: tuple[NDArray[np.bool_], ...]
    tiles: tuple[tuple[PhaseTiles, ...], ...]

    @property
    def tile_count(self) -> int:
        """Tiles of all bundles and phases."""
        return sum(part.tiles.count for parts in self.tiles for part in parts)


@dataclass(frozen=True)
class MemberMaps:
    """Everything that one bundle says of one unit.

    Attributes:
        has_value: Papyrus that a tile covers, (height, width).
        series: Statistics by series, in their order; None where no tile is computed.
        tiles: Tiles of all phases.
    """

    has_value: NDArray[np.bool_]
    series: tuple[DepthStatistics, ...] | None = None
    tiles: int = 0


@dataclass(frozen=True)
class UnitMaps:
    """Everything that the bundles say of one unit.

    Attributes:
        members: Each bundle by itself.
        agreement: Sums of all bundles, by series in their order.
    """

    members: tuple[MemberMaps, ...]
    agreement: tuple[DepthAgreement, ...]


def load_unit(plan: SweepPlan, unit: Unit) -> Loaded:
    """Read what one unit needs, each surface once for all its bundles; no layers where none computes a tile."""
    tiles = tuple(tiles_of_member(plan, member, unit.write_box) for member in plan.members)
    read = {member.segment for member, parts in zip(plan.members, tiles, strict=True) if parts}
    layers, masks = [], []
    for surface in plan.surfaces:
        box = surface.read_box(unit.write_box) if surface.segment in read else Box(0, 0, 0, 0)
        layers.append(surface.volume.read(surface.layers, box))
        masks.append(surface.volume.read_mask(surface.frame.box(unit.write_box)))
    return Loaded(tuple(layers), plan.read_mask(unit.write_box), tuple(masks), tiles)


def tiles_of_member(plan: SweepPlan, member: SweepMember, write_box: Box) -> tuple[PhaseTiles, ...]:
    """Choose a bundle's tiles in a write box of the sweep, in pixels of the surface that it reads."""
    surface = plan.surface_of(member)
    read_mask = plan.read_mask if surface.segment == plan.config.segment else surface.volume.read_mask
    return phase_tiles(member.contract, member.phases, surface.frame.box(write_box), read_mask)


def maps_work(plan: SweepPlan, context: RunContext) -> UnitWork[Any, Any]:
    """Build the functions of the first stage; the networks are built here."""
    config = plan.config
    device = choose_device(config.device)
    dtype = choose_precision(config.precision, device)
    predictors = [predictor_of(plan, member, device, dtype, context) for member in plan.members]
    output = _Output(plan)

    def compute(unit: Unit, loaded: Loaded) -> UnitMaps:
        started, total = sum(one.tiles_done for one in predictors), loaded.tile_count * plan.maps_per_bundle

        def on_tiles(count: int) -> None:
            done = sum(one.tiles_done for one in predictors) - started
            context.reporter.advance(done / total, {"tiles": count / plan.maps_per_bundle})

        for predictor in predictors:
            predictor.on_tiles = on_tiles
        # once for all bundles of a surface, all series, depths and phases
        layers = [torch.from_numpy(one).to(device) for one in loaded.layers]
        return unit_maps(plan, predictors, unit, loaded, layers)

    live = live_preview(context, plan.volume.shape_yx, plan.folder)
    work = UnitWork(
        load=lambda unit: load_unit(plan, unit),
        compute=compute,
        store=output.write,
        mark=plan.maps_record.mark,
        device=lambda: device_facts(device, predictors[0].dtype),
    )
    return drawn(work, live, context, _shown)


def _shown(computed: UnitMaps) -> NDArray[Any]:
    first = computed.members[0]
    return first.series[0].mean if first.series else np.zeros(first.has_value.shape, np.float16)


def predictor_of(
    plan: SweepPlan, member: SweepMember, device: torch.device, dtype: torch.dtype, context: RunContext
) -> Predictor:
    """Build the network of a bundle, and compare it with its reference."""
    place = plan.folder / MAPS_NAME / member.name
    predictor = Predictor(
        member.bundle.build(device),
        member.contract,
        device,
        dtype,
        plan.config.batch_tiles,
        context.stop,
        plan.config.compile,
        member.views,
        statistics=stored_statistics(
            member.contract, plan.surface_of(member).volume, place, device, context.stop.check
        ),
    )
    check_reference(predictor.model, member.bundle, device, dtype)
    return predictor


def unit_maps(
    plan: SweepPlan, predictors: Sequence[Predictor], unit: Unit, loaded: Loaded, layers: Sequence[Tensor]
) -> UnitMaps:
    """Compute the statistics of every bundle and series, depth by depth, so that bundles meet at each depth.

    Args:
        plan: The sweep; its series and depths are computed.
        predictors: Network of each bundle.
        unit: The unit.
        loaded: Its tiles and masks.
        layers: For each surface its layers in the read box, on the device.
    """
    papyrus = torch.from_numpy(loaded.mask).to(layers[0].device)
    units = []
    for member, predictor, parts in zip(plan.members, predictors, loaded.tiles, strict=True):
        place = plan.surfaces.index(plan.surface_of(member))
        units.append(_MemberUnit(plan, member, predictor, unit, parts, layers[place], loaded.own_masks[place], papyrus))
    agreement = tuple(_add_series(plan, series, units) for series in plan.series)
    return UnitMaps(tuple(one.maps for one in units), agreement)


def _add_series(plan: SweepPlan, series: Series, units: Sequence[_MemberUnit]) -> DepthAgreement:
    """Compute one series of every bundle that has a tile here; returns what all of them have in common."""
    computed, count = [one for one in units if one.parts], len(plan.depths)
    running: list[RunningStatistics] = []
    together: RunningAgreement | None = None
    for depth in plan.depths:
        maps = [one.map(depth, series) for one in computed]
        if not running:
            known = [one.has_value for one in computed]
            running = [RunningStatistics(one, count, keep=plan.config.keep_depths) for one in known]
            if len(computed) == len(units):
                together = RunningAgreement(torch.stack(known).all(dim=0), len(units), count)
        counted = [one.add(values) for one, values in zip(running, maps, strict=True)]
        if together is not None:
            together.add(counted)
    for one, statistics in zip(computed, running, strict=True):
        one.add(statistics.result())
    if together is not None:
        return together.result()
    rows, columns = (-(-side // BLOCK_PX) for side in units[0].papyrus.shape)
    return no_agreement(len(units), count, (rows, columns))


@dataclass(eq=False)
class _MemberUnit:
    """One bundle at work on one unit.

    Attributes:
        layers: Of the surface that it reads, in that one's read box, on the device.
        own_mask: Mask of that surface in its part of the write box.
        papyrus: Mask of the write box, on the device.
        has_value: Papyrus that its tiles cover; known with the first map.
        series: Statistics of the series that were added.
    """

    plan: SweepPlan
    member: SweepMember
    predictor: Predictor
    unit: Unit
    parts: tuple[PhaseTiles, ...]
    layers: Tensor
    own_mask: NDArray[np.bool_]
    papyrus: Tensor
    has_value: Tensor = field(default_factory=lambda: torch.zeros(0))
    series: list[DepthStatistics] = field(default_factory=list)

    @property
    def maps(self) -> MemberMaps:
        """Everything that this bundle says of the unit."""
        if not self.parts:
            return MemberMaps(np.zeros(self.papyrus.shape, bool))
        tiles = sum(part.tiles.count for part in self.parts)
        return MemberMaps(self.has_value.cpu().numpy(), tuple(self.series), tiles)

    def map(self, depth: int, series: Series) -> Tensor:
        """Compute the map of one depth and series, float32."""
        config = self.plan.config
        order = series.order(len(self.member.layers), segment=config.segment, seed=config.seed)
        total, weight = self._summed(self.member.places(depth, order))
        if not self.has_value.numel():
            self.has_value = self.papyrus & (weight > 0)
        return map_of(total, weight)

    def _summed(self, places: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        """Sum the weighted tiles of all phases, and their weights, in the unit's write box.

        Of a surface at another scale the map and where it has a value are brought here in their place.
        """
        surface, device = self.plan.surface_of(self.member), self.layers.device
        box, read_box = surface.frame.box(self.unit.write_box), surface.read_box(self.unit.write_box)
        total, weight = (torch.zeros(box.shape, device=device) for _ in range(2))
        for part in self.parts:
            rows, columns = part.read_box.within(read_box)
            layers = ordered(self.layers[:, rows, columns], places - surface.layers.start)
            found = self.predictor.sums(part.unit, part.tiles, layers)
            where = part.write_box.within(box)
            total[where] += found[0]
            weight[where] += found[1]
        if surface.frame.is_same:
            return total, weight
        has_value = (weight > 0) & torch.from_numpy(self.own_mask).to(device)
        values = torch.where(has_value, map_of(total, weight), 0)
        target = self.unit.write_box
        return surface.frame.brought(values, target), surface.frame.brought(has_value.float(), target)

    def add(self, found: DepthStatistics) -> None:
        """Add the next series.

        Raises:
            DataError: Maps hold no probabilities.
        """
        require_finite(found.is_finite, f"unit {self.unit.name}, bundle {self.member.name}")
        if self.member.contract.activation == "none":
            require_probabilities(*found.bounds, self.unit)
        self.series.append(found)


class _Output:
    """Arrays of the first stage."""

    def __init__(self, plan: SweepPlan) -> None:
        self._plan = plan
        self._floats: dict[tuple[int, int, str], Prediction] = {}
        self._depths: dict[tuple[int, int, str], Multiscale] = {}
        self._counts: list[Multiscale] = []
        for b, member in enumerate(plan.members):
            base = plan.folder / MAPS_NAME / member.name
            self._counts.append(self._whole_numbers(base / COUNT_NAME))
            for s, series in enumerate(plan.series):
                for name in (MEAN, DEVIATION, BEST):
                    self._floats[b, s, name] = Prediction.create(base / series.name, *self._place, self._made_by, name)
                self._depths[b, s, BEST_DEPTH] = self._whole_numbers(base / series.name / BEST_DEPTH)
                if plan.config.keep_depths:
                    self._depths[b, s, DEPTHS] = self._stack(base / series.name / DEPTHS)

    @property
    def _place(self) -> tuple[tuple[int, int], int, float]:
        plan = self._plan
        return plan.volume.shape_yx, plan.unit_px, plan.volume.provenance.voxel_size_um

    @property
    def _made_by(self) -> dict[str, Any]:
        return {"kind": "sweep", "digest": self._plan.maps_record.manifest.digest}

    def _whole_numbers(self, place: Any) -> Multiscale:
        shape, unit_px, um = self._place
        return Multiscale.create_mask(place, shape, shard_px=unit_px, voxel_size_um=um, provenance=self._made_by)

    def _stack(self, place: Any) -> Multiscale:
        shape, unit_px, um = self._place
        return Multiscale.create(
            place,
            (len(self._plan.depths), *shape),
            dtype="uint8",
            chunk=(1, CHUNK_PX, CHUNK_PX),
            shard_px=unit_px,
            voxel_size_um=um,
            provenance=self._made_by,
            codec="zstd",
        )

    def write(self, unit: Unit, computed: UnitMaps) -> dict[str, Any]:
        """Store everything of one unit; the facts of its marker come back."""
        box, plan = unit.write_box, self._plan
        counts: dict[str, NDArray[Any]] = {COMMON_PIXELS: computed.agreement[0].pixels}
        for s, agreed in enumerate(computed.agreement):
            counts[common_sum_name(s)], counts[common_product_name(s)] = agreed.sums, agreed.products
        stored = 0
        for b, maps in enumerate(computed.members):
            count = maps.has_value.astype(np.uint8) * np.uint8(len(plan.depths))
            stored += self._counts[b].write(box, count)
            counts[block_pixels_name(b)] = _block_pixels(maps.has_value)
            for s in range(len(plan.series)):
                found = maps.series[s] if maps.series else _nothing(maps.has_value, plan)
                counts[histogram_name(b, s)], counts[block_sum_name(b, s)] = found.histogram, found.block_sum
                for name, values in ((MEAN, found.mean), (DEVIATION, found.deviation), (BEST, found.best)):
                    stored += self._floats[b, s, name].write(box, values)
                stored += self._depths[b, s, BEST_DEPTH].write(box, found.best_depth)
                if found.depths is not None:
                    stored += self._depths[b, s, DEPTHS].write(box, found.depths)
        data = counts_bytes(counts)
        plan.counts_place(unit).write_bytes(data)
        tiles = [maps.tiles for maps in computed.members]
        passes = sum(count * len(one.views) for count, one in zip(tiles, plan.members, strict=True))
        return {
            "bytes_written": stored + len(data),
            "tiles": sum(tiles),
            "tile_passes": passes * plan.maps_per_bundle,
        }


def _block_pixels(has_value: NDArray[np.bool_]) -> NDArray[np.int32]:
    height, width = (-(-side // BLOCK_PX) * BLOCK_PX for side in has_value.shape)
    whole = np.zeros((height, width), np.int32)
    whole[: has_value.shape[0], : has_value.shape[1]] = has_value
    found: NDArray[np.int32] = whole.reshape(height // BLOCK_PX, BLOCK_PX, -1, BLOCK_PX).sum((1, 3), dtype=np.int32)
    return found


def _nothing(has_value: NDArray[np.bool_], plan: SweepPlan) -> DepthStatistics:
    """Make the statistics of a unit without a tile."""
    running = RunningStatistics(torch.from_numpy(has_value), len(plan.depths), keep=plan.config.keep_depths)
    for _ in plan.depths:
        running.add(torch.zeros(has_value.shape))
    return running.result()
