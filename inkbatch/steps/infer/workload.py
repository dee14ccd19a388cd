"""Work of an infer job: units, tiles and bytes; exact for prepared segments, an upper bound for others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from inkbatch.data.segments.catalog import Catalog
from inkbatch.data.segments.prepared import segment_folder
from inkbatch.errors import ConfigError, MismatchError
from inkbatch.io.layers import open_layer_source
from inkbatch.models.bundle import Bundle, bundle_location
from inkbatch.predict.coverage import covered_tiles, grid_of
from inkbatch.predict.variants import views_of
from inkbatch.steps.infer.plan import InferPlan, asked_ranges, chosen_unit_px, make_plan
from inkbatch.steps.infer.settings import InferConfig


@dataclass(frozen=True)
class Workload:
    """Work of one segment."""

    segment: str
    units: int
    tiles: int
    read_bytes: int  # grey values, before compression
    exact: bool  # the segment mask was counted; else every tile of the rectangle is, an upper bound
    passes_per_tile: int = 1  # layer windows times views

    @property
    def passes(self) -> int:
        """Forward passes of a tile, all together."""
        return self.tiles * self.passes_per_tile

    @property
    def passes_text(self) -> str:
        """The factor behind a number of tiles, where each takes more than one pass."""
        return f" x {self.passes_per_tile} passes" if self.passes_per_tile > 1 else ""


def tiles_per_unit(plan: InferPlan) -> Mapping[str, int]:
    """Count the tiles that hold papyrus, by unit; only masks are read."""
    found = {}
    for unit in plan.units:
        contract, read_mask = plan.contract, plan.read_mask
        found[unit.name] = covered_tiles(contract, plan.grid, unit.write_box, read_mask, plan.box)[1].count
    return found


def read_bytes(plan: InferPlan, tiles: Mapping[str, int]) -> int:
    """Count the bytes of grey values that the units with papyrus read, before compression."""
    area = sum(unit.read_box.area for unit in plan.units if tiles[unit.name])
    return area * len(plan.layers) * plan.volume.dtype.itemsize


def workload(config: InferConfig, catalog: str | None = None) -> Workload:
    """Count the work of one segment.

    A segment that is prepared is compared with the bundle and its mask is counted. Of another one only the size is
    read, from its layers.

    Args:
        config: The infer job.
        catalog: The user's catalog file.

    Raises:
        ConfigError: A segment that is neither prepared nor in the catalog.
        DataError: Layers that cannot be opened, or a surface that does not match the bundle.
    """
    prepared = segment_folder(config.root, config.segment) / "prepare" / "complete.json"
    if prepared.exists():
        plan = make_plan(config)
        tiles = tiles_per_unit(plan)
        read = read_bytes(plan, tiles)
        passes = plan.passes_per_tile
        return Workload(config.segment, len(plan.units), sum(tiles.values()), read, exact=True, passes_per_tile=passes)
    return _from_layers(config, catalog)


def _from_layers(config: InferConfig, catalog: str | None) -> Workload:
    entry = Catalog.load(catalog).entry(config.segment, config.source)
    if entry.source is None:
        raise ConfigError(f"segment {config.segment}: is not prepared, and the catalog states no source")
    bundle = Bundle.open(bundle_location(config.bundle), config.override)
    contract = config.choices.applied(bundle.contract)
    windows = asked_ranges(config, contract)
    views = views_of(config.tta, contract, bundle.document.name)
    with open_layer_source(entry.source, axes=entry.axes, level=entry.level) as source:
        depth, *shape = source.shape_zyx
        if depth < contract.layers.count:
            raise MismatchError(
                f"segment {config.segment}: expected the bundle's {contract.layers.count} layers, got {depth}; take "
                "another bundle"
            )
        grid = grid_of(contract, (shape[0], shape[1]))
        units = grid.units(chosen_unit_px(config, contract))
        tiles = 0
        for unit in units:
            rows, columns = grid.touching(unit.write_box)
            tiles += len(rows) * len(columns)
        layers = max(stop for _, stop in windows) - min(start for start, _ in windows) if windows else 0
        size = sum(unit.read_box.area for unit in units) * max(layers, contract.layers.count)
        passes = max(1, len(windows)) * len(views) * len(config.series)
        return Workload(config.segment, len(units), tiles, size, exact=False, passes_per_tile=passes)
