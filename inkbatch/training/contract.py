"""Contract of a run's network: filled from the dataset and the configuration."""

from __future__ import annotations

from pydantic import ValidationError

from inkbatch.data.datasets.index import DatasetIndex, DatasetSegment, resolve
from inkbatch.errors import ConfigError, LayerRangeError
from inkbatch.io.store.location import Location
from inkbatch.io.surface import ClaheSettings, SurfaceVolume
from inkbatch.models.bundle import Contract, LayerRule
from inkbatch.models.contract import UNUSED_DIVISOR
from inkbatch.training.module import DTYPE_MAX
from inkbatch.training.settings import TrainConfig
from inkbatch.validation import in_words


def model_settings(config: TrainConfig, index: DatasetIndex) -> dict[str, object]:
    """Return the network's config; `depth_layers` defaults to the dataset's number of layers.

    Raises:
        LayerRangeError: The network takes more layers than the samples hold.
    """
    settings = {"depth_layers": index.contract.layer_count, **config.model.config}
    depth = settings["depth_layers"]
    if isinstance(depth, int) and depth > index.contract.layer_count:
        raise LayerRangeError(
            f"dataset {index.name}: the network takes {depth} layers, samples hold {index.contract.layer_count}; "
            f"set model.config.depth_layers, or build the dataset with {depth} layers or more"
        )
    return settings


def contract_of(config: TrainConfig, index: DatasetIndex, depth_layers: int, root: Location) -> Contract:
    """Make the contract that validation follows and the bundle will state.

    Args:
        config: The run.
        index: Its dataset.
        depth_layers: Layers that the network takes.
        root: The dataset's ROOT.

    Raises:
        ConfigError: A value that no contract can hold.
    """
    stored = index.contract
    tile_px = config.tile_px or index.sample_px
    try:
        return Contract(
            layers=LayerRule(count=depth_layers, source_range=_source_range(index, depth_layers, root)),
            dtype=stored.dtype,
            intensity=stored.intensity,
            lut=stored.lut,
            clahe=None if stored.clahe is None else ClaheSettings.model_validate(stored.clahe),
            clip=config.input.clip,
            divisor=config.input.divisor or _usual_divisor(config, stored.dtype),
            scaling=config.input.scaling,
            mean=config.input.mean,
            std=config.input.std,
            normaliser=config.input.normaliser,
            reads="pictures" if index.is_pictures else "surface",
            voxel_size_um=stored.voxel_size_um,
            z_spacing_um=stored.z_spacing_um,
            tile_px=tile_px,
            stride_px=config.stride_px or max(1, tile_px // 2),
            window=config.window,
            stitching=config.stitching,
            display_range=config.display_range,
            tta_axes=config.tta_axes,
            boundary_px=index.boundary_px,
        )
    except ValidationError as error:
        rows = in_words(error)
        raise ConfigError(
            f"run {config.run}: its settings make no contract: {rows}; check tile_px, stride_px and input"
        ) from error


def _usual_divisor(config: TrainConfig, dtype: str) -> float:
    return UNUSED_DIVISOR if config.input.normaliser.by_statistics else DTYPE_MAX[dtype]


def _source_range(index: DatasetIndex, count: int, root: Location) -> tuple[int, int] | None:
    """Return the source layers of the centred window if all segments give the same ones; else None (centred).

    They are stated only where the dataset chose layers: without a choice a bundle takes any surface's centred ones.
    """
    if any(segment.layers is None for segment in index.segments):
        return None
    found = {_centred(segment, count, root) for segment in index.segments}
    return found.pop() if len(found) == 1 else None


def _centred(segment: DatasetSegment, count: int, root: Location) -> tuple[int, int]:
    """Centre a window of layers; if that is not exact, it lies half a layer nearer to depth 0, as in training."""
    start, stop = segment.layers or segment.source_layers
    spare = stop - start - count
    first = start + spare // 2
    if spare % 2 and segment.kind == "surface":
        surface = SurfaceVolume.open(resolve(segment.surface, root))
        first += surface.provenance.depth_order == "reversed"
    return first, first + count
