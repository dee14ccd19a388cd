"""inkbatch from Python: stored surfaces and maps as arrays, jobs as functions, a network over a NumPy array.

Jobs take the same settings as the command line and its YAML files; every error is an `inkbatch.errors.InkbatchError`
that names place, expectation, finding and cure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.maps.stored import open_map
from inkbatch.data.segments.prepared import open_prepared
from inkbatch.errors import DataError, MismatchError
from inkbatch.geometry import Box, Unit
from inkbatch.io.prediction import Prediction as StoredPrediction
from inkbatch.io.shard_size import whole_shard_px
from inkbatch.io.surface import DepthOrder, SurfaceProvenance
from inkbatch.run.job import JobReport, RunContext

if TYPE_CHECKING:
    from inkbatch.models.bundle import Bundle
    from inkbatch.predict.names import DeviceName, PrecisionName

__all__ = [
    "JobReport",
    "Prediction",
    "Predictor",
    "StoredArray",
    "Surface",
    "ensemble",
    "evaluate",
    "infer",
    "open_bundle",
    "open_prediction",
    "open_surface",
    "prepare",
    "train",
]

Index = int | slice


class StoredArray:
    """A stored array that reads what is indexed: integers and slices of step 1, one per axis.

    Attributes:
        shape: Length of each axis.
        dtype: Dtype of what indexing returns.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], read: Callable[[tuple[slice, ...]], NDArray[Any]]
    ) -> None:
        self.shape, self.dtype, self._read = shape, dtype, read

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Index | tuple[Index, ...]) -> NDArray[Any]:
        keys = key if isinstance(key, tuple) else (key,)
        if len(keys) > self.ndim:
            raise IndexError(f"expected at most {self.ndim} indices, got {len(keys)}")
        slices, dropped = [], []
        for axis, length in enumerate(self.shape):
            part = keys[axis] if axis < len(keys) else slice(None)
            if isinstance(part, slice):
                start, stop, step = part.indices(length)
                if step != 1:
                    raise IndexError(f"expected slices of step 1, got {part} along axis {axis}; slice the result")
                slices.append(slice(start, max(start, stop)))
                continue
            index = range(length)[part]  # raises IndexError where it leaves the array
            slices.append(slice(index, index + 1))
            dropped.append(axis)
        if any(part.start == part.stop for part in slices):
            found: NDArray[Any] = np.empty([part.stop - part.start for part in slices], self.dtype)
        else:
            found = self._read(tuple(slices))
        return found.squeeze(tuple(dropped)) if dropped else found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        whole = self[(slice(None),) * self.ndim]
        return whole if dtype is None else whole.astype(dtype)

    def __repr__(self) -> str:
        return f"StoredArray(shape={self.shape}, dtype={self.dtype})"


@dataclass(frozen=True)
class Surface:
    """A prepared segment.

    Attributes:
        layers: (Z, Y, X) in depth order, stored dtype.
        mask: (Y, X) bool, True where there is papyrus.
        voxel_size_um: Edge of a voxel in micrometres.
        depth_order: ``reversed`` where the source's order was turned by prepare; `layers` always run in depth order.
        source_layers: Half-open range of the source's layer numbers.
    """

    layers: StoredArray
    mask: StoredArray
    voxel_size_um: float
    depth_order: DepthOrder
    source_layers: tuple[int, int]


@dataclass(frozen=True)
class Prediction:
    """A finished ink map.

    Attributes:
        probability: (Y, X) float32 in [0, 1]; 0 outside the mask.
        pixel_um: Edge of a pixel in micrometres.
        threshold: Threshold that goes with the map, if one was fitted or stated.
        name: Name of the prediction.
    """

    probability: StoredArray
    pixel_um: float
    threshold: float | None
    name: str

    def __getitem__(self, key: Index | tuple[Index, ...]) -> NDArray[Any]:
        return self.probability[key]

    @property
    def shape(self) -> tuple[int, ...]:
        """(height, width) in pixels."""
        return self.probability.shape


def open_surface(segment: str, root: str = "root") -> Surface:
    """Open a prepared segment; arrays are read where they are indexed.

    Args:
        segment: Segment id.
        root: ROOT: a folder or ``s3://bucket/prefix``.

    Raises:
        DataError: It is not there, or not complete.
        MismatchError: It was edited since it was prepared.
    """
    volume, _ = open_prepared(root, segment)

    def read_layers(key: tuple[slice, ...]) -> NDArray[Any]:
        z, y, x = key
        return volume.read(range(z.start, z.stop), Box(y.start, x.start, y.stop, x.stop))

    def read_mask(key: tuple[slice, ...]) -> NDArray[Any]:
        y, x = key
        return volume.read_mask(Box(y.start, x.start, y.stop, x.stop))

    provenance = volume.provenance
    return Surface(
        StoredArray((volume.layer_count, *volume.shape_yx), volume.dtype, read_layers),
        StoredArray(volume.shape_yx, np.dtype(bool), read_mask),
        provenance.voxel_size_um,
        provenance.depth_order,
        provenance.source_layers,
    )


def open_prediction(segment: str, name: str | None = None, root: str = "root") -> Prediction:
    """Open a finished ink map; it is read where it is indexed.

    Args:
        segment: Segment id.
        name: Name of the prediction; None takes the only one.
        root: ROOT: a folder or ``s3://bucket/prefix``.

    Raises:
        DataError: It is not there, or not complete.
        ConfigError: There are several, and none is named.
    """
    found = open_map(root, segment, name)

    def read(key: tuple[slice, ...]) -> NDArray[Any]:
        y, x = key
        return _read_map(found.prediction, Box(y.start, x.start, y.stop, x.stop))

    probability = StoredArray(found.shape_yx, np.dtype(np.float32), read)
    return Prediction(probability, found.pixel_um, found.threshold, found.folder.name)


def _read_map(prediction: StoredPrediction, box: Box) -> NDArray[Any]:
    return prediction.read(box).astype(np.float32)


def open_bundle(place: str) -> Bundle:
    """Open a bundle: its document and contract; weights are loaded when a network is built of it.

    Args:
        place: Folder, URI, or ``demo``.

    Raises:
        DataError: There is none, or its document cannot be read.
    """
    from inkbatch.models.bundle import Bundle, bundle_location

    return Bundle.open(bundle_location(place))


def prepare(segment: str, **settings: Any) -> JobReport:
    """Bring a segment's layers into ROOT; settings as for ``inkbatch prepare`` (`steps.prepare.settings`).

    Raises:
        InkbatchError: See ``inkbatch prepare``.
    """
    from inkbatch.steps.prepare.job import run
    from inkbatch.steps.prepare.settings import PrepareConfig

    return run(PrepareConfig.load(None, (), {"segment": segment, **settings}), RunContext())


def infer(segment: str, bundle: str, **settings: Any) -> JobReport:
    """Compute the ink map of a prepared segment; settings as for ``inkbatch infer`` (`steps.infer.settings`).

    Raises:
        InkbatchError: See ``inkbatch infer``.
    """
    from inkbatch.steps.infer.job import InferConfig, run

    return run(InferConfig.load(None, (), {"segment": segment, "bundle": bundle, **settings}), RunContext())


def ensemble(segment: str, predictions: list[str], **settings: Any) -> JobReport:
    """Combine finished maps of a segment; settings as for ``inkbatch ensemble`` (`steps.ensemble.job`).

    Raises:
        InkbatchError: See ``inkbatch ensemble``.
    """
    from inkbatch.steps.ensemble.job import EnsembleConfig, run

    config = EnsembleConfig.load(None, (), {"segment": segment, "predictions": predictions, **settings})
    return run(config, RunContext())


def evaluate(segment: str, **settings: Any) -> JobReport:
    """Compare a finished map with its labels; settings as for ``inkbatch evaluate`` (`steps.evaluate.job`).

    Raises:
        InkbatchError: See ``inkbatch evaluate``.
    """
    from inkbatch.steps.evaluate.job import EvaluateConfig, run

    return run(EvaluateConfig.load(None, (), {"segment": segment, **settings}), RunContext())


def train(**settings: Any) -> JobReport:
    """Train a network on a dataset; settings as for ``inkbatch train`` (`training.settings`).

    Raises:
        InkbatchError: See ``inkbatch train``.
    """
    from inkbatch.steps.train.job import TrainConfig, run

    return run(TrainConfig.load(None, (), settings), RunContext())


class Predictor:
    """A bundle's network over NumPy arrays: layers in, probability out, with tiling and blending as `infer` does it.

    Attributes:
        bundle: The opened bundle; ``bundle.contract`` says what it must be fed.

    Raises:
        DataError: There is no bundle, or it was edited since its weights were stored.
    """

    def __init__(self, bundle: str, device: DeviceName = "auto", precision: PrecisionName = "auto") -> None:
        from inkbatch.predict.device import choose_device, choose_precision
        from inkbatch.predict.predictor import Predictor as DevicePredictor

        self.bundle = open_bundle(bundle)
        self.bundle.require_unedited()
        chosen = choose_device(device)
        self._predictor = DevicePredictor(
            self.bundle.build(chosen), self.bundle.contract, chosen, choose_precision(precision, chosen)
        )

    def predict(
        self,
        layers: NDArray[Any],
        *,
        voxel_size_um: float,
        depth_order: DepthOrder,
        mask: NDArray[np.bool_] | None = None,
        z_spacing_um: float | None = None,
    ) -> NDArray[np.float32]:
        """Compute the probability of ink.

        Args:
            layers: (Z, Y, X) of the dtype that the contract names, exactly the layers that the network takes; grey
                values made as the contract says (``intensity``, ``lut``, ``clahe``).
            voxel_size_um: Edge of a voxel; compared with the contract, never guessed.
            depth_order: The order in which `layers` run.
            mask: (Y, X), True where there is papyrus; None: where any layer is not zero.
            z_spacing_um: Spacing of layers, where it is not `voxel_size_um`.

        Returns:
            (Y, X) float32; 0 outside the mask.

        Raises:
            MismatchError: Layers, dtype or scale are not what the network was trained on.
            DataError: Arrays whose shapes do not fit.
        """
        from inkbatch.predict.coverage import covered_tiles
        from inkbatch.predict.predictor import SubVolume

        contract = self.bundle.contract
        self._require(layers, (voxel_size_um, z_spacing_um), mask)
        height, width = layers.shape[1:]
        ground = np.asarray(layers.any(axis=0)) if mask is None else mask
        grid = self._predictor.grid((height, width))

        def read_mask(box: Box) -> NDArray[np.bool_]:
            return _cut(ground, box)

        unit = grid.units(whole_shard_px(max(height, width)))[0]
        inside, tiles = covered_tiles(contract, grid, unit.write_box, read_mask)
        if not tiles.count:
            return np.zeros((height, width), np.float32)
        ordered = layers if contract.depth_order == depth_order else layers[::-1]
        read = np.stack([_cut(layer, unit.read_box) for layer in ordered])
        return self._predictor.blend(Unit(0, unit.write_box, unit.read_box), SubVolume(read, inside, tiles))

    def _require(
        self, layers: NDArray[Any], spacing_um: tuple[float, float | None], mask: NDArray[np.bool_] | None
    ) -> None:
        contract = self.bundle.contract
        name = self.bundle.document.name
        if layers.ndim != 3:
            raise DataError(f"predict: expected layers (Z, Y, X), got an array of {layers.ndim} axes")
        if mask is not None and mask.shape != layers.shape[1:]:
            raise DataError(f"predict: expected a mask of {layers.shape[1:]}, got {mask.shape}")
        if layers.shape[0] != contract.layers.count:
            raise MismatchError(
                f"predict: bundle {name} expects {contract.layers.count} layers, got {layers.shape[0]}; slice them"
            )
        stated = SurfaceProvenance(
            segment="array",
            source="array",
            source_dtype=layers.dtype.name,
            source_layers=(0, layers.shape[0]),
            depth_order=contract.depth_order,
            intensity=contract.intensity[0],
            lut=contract.lut,
            clahe=contract.clahe,
            voxel_size_um=spacing_um[0],
            z_spacing_um=spacing_um[1],
            mask="given",
        )
        found = contract.mismatches(stated, layers.dtype.name)
        if found:
            raise MismatchError(f"predict: layers do not match bundle {name}: {'; '.join(found)}")


def _cut(values: NDArray[Any], box: Box) -> NDArray[Any]:
    """Return a window, zero outside the array."""
    inside = box.intersect(Box(0, 0, *values.shape))
    out = np.zeros(box.shape, values.dtype)
    out[inside.within(box)] = values[inside.slices]
    return out
