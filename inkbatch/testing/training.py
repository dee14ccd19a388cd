"""A tiny labelled dataset with planted ink, and a run on it that takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.data.datasets.index import DatasetIndex, DatasetSegment, Sample, SurfaceContract
from inkbatch.geometry import Box
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.store.location import Location
from inkbatch.run.job import RunContext
from inkbatch.steps.prepare.job import run as run_prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.testing.segments import VOXEL_SIZE_UM, write_layers

TILE_PX = 32
SHARD_PX = 64
NETWORK: dict[str, Any] = {
    "family": "Unet",
    "encoder": "tu-mobilenetv3_small_050",
    "decoder": {"encoder_depth": 3, "decoder_channels": [16, 8, 8]},
}


def planted_segment(seed: int, shape: tuple[int, int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Make layers (Z, Y, X) of noise in which discs are brighter, and their labels (Y, X), 0 or 255."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape[1:], np.uint8)
    for _ in range(max(3, shape[1] * shape[2] // 1500)):
        centre = int(rng.integers(shape[2])), int(rng.integers(shape[1]))
        cv2.circle(labels, centre, int(rng.integers(5, 10)), 255, -1)
    layers = rng.integers(40, 120, shape) + (labels // 3)[None]
    return layers.astype(np.uint8), labels


def tiny_dataset(
    root: Path | str,
    *,
    folds: int = 0,
    layers: int = 4,
    size_px: int = 96,
    sample_px: int = TILE_PX,
    name: str = "tiny",
    sources: Path | None = None,
) -> DatasetIndex:
    """Prepare two segments, label them, and index a grid of samples; segment ``s1`` validates, or rows take turns.

    Args:
        root: ROOT.
        folds: Number of folds; 0: none.
        layers: Layers of the segments.
        size_px: Edge of the segments.
        sample_px: Edge of the samples.
        name: Name of the dataset.
        sources: Local folder for the layers; None takes one in ROOT.
    """
    place = Location.parse(root)
    segments: list[DatasetSegment] = []
    samples: list[Sample] = []
    for number in range(2):
        segment = f"s{number}"
        stack, labels = planted_segment(number, (layers, size_px, size_px))
        if not (place / "segments" / segment).exists():
            _store(root, sources or Path(root, "sources"), segment, stack, labels)
        segments.append(_described(segment, layers, size_px))
        for y in range(0, size_px - sample_px + 1, sample_px // 2):
            for x in range(0, size_px - sample_px + 1, sample_px // 2):
                ink = float((labels[y : y + sample_px, x : x + sample_px] > 0).mean())
                row: dict[str, Any] = {"split": "validation" if number else "train"}
                if folds:
                    row = {"split": "train", "fold": len(samples) % folds}
                box = (y, x, y + sample_px, x + sample_px)
                identity = f"{segment}-y{y:05d}-x{x:05d}"
                samples.append(Sample(id=identity, segment=segment, box=box, ink_share=ink, papyrus_share=1.0, **row))
    index = DatasetIndex(
        name=name,
        sample_px=sample_px,
        contract=SurfaceContract(dtype="uint8", intensity=("keep",), voxel_size_um=VOXEL_SIZE_UM, layer_count=layers),
        segments=tuple(segments),
        samples=tuple(samples),
    )
    return index.save(place / "datasets" / name)


def tiny_run(root: Path | str, **changes: Any) -> dict[str, Any]:
    """Return settings of a run on `tiny_dataset`: two epochs of six steps, with every kind of augmentation."""
    values: dict[str, Any] = {
        "dataset": "tiny",
        "run": "first",
        "root": str(root),
        "model": {"architecture": "smp", "config": NETWORK},
        "augment": {"warp": 0.5, "tone": 0.5, "blur": 0.3, "noise": 0.3, "cut_out": 0.3, "cut_out_px": 8},
        "optimiser": {"rate": 3e-3},
        "epochs": 2,
        "batch": 4,
        "device": "cpu",
        "threads": 2,
    }
    return {**values, **changes}


def _store(root: Path | str, sources: Path, segment: str, stack: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    source = write_layers(sources / segment, stack)
    prepare = {"segment": segment, "root": str(root), "source": str(source), "shard_px": SHARD_PX}
    config = PrepareConfig.checked({**prepare, "depth_order": "forward", "voxel_size_um": VOXEL_SIZE_UM}, "tiny")
    run_prepare(config, RunContext())
    write_labels(root, segment, labels)


def write_labels(root: Path | str, segment: str, labels: NDArray[np.uint8]) -> None:
    """Store labels (Y, X), 0 to 255, as ``ink_labels.zarr`` of a segment."""
    place = Location.parse(root) / "segments" / segment / "ink_labels.zarr"
    place.delete_folder()
    pyramid = Multiscale.create(
        place,
        labels.shape,
        dtype="uint8",
        chunk=(32, 32),
        shard_px=1024,
        voxel_size_um=VOXEL_SIZE_UM,
        provenance={"kind": "ink-labels"},
    )
    pyramid.write(Box(0, 0, *labels.shape), labels)


def _described(segment: str, layers: int, size_px: int) -> DatasetSegment:
    folder = f"segments/{segment}"
    return DatasetSegment(
        id=segment,
        surface=folder,
        ink_labels=f"{folder}/ink_labels.zarr",
        source_layers=(0, layers),
        shape_yx=(size_px, size_px),
        voxel_size_um=VOXEL_SIZE_UM,
    )
