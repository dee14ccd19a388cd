"""The end of an epoch and of a run: curves and pictures become files, the best checkpoint a bundle with its report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from inkbatch.config import digest
from inkbatch.data.datasets.index import DatasetIndex, Sample
from inkbatch.data.datasets.trained_pixels import RECORD
from inkbatch.io.store.location import Location
from inkbatch.models.base import InkModel
from inkbatch.models.bundle import Bundle, BundleDocument, Contract
from inkbatch.models.flops import flops_per_tile
from inkbatch.predict.reference import keep_reference
from inkbatch.reports.charts import raster
from inkbatch.training.metrics import OVERALL
from inkbatch.training.progress import Progress
from inkbatch.training.settings import TrainConfig
from inkbatch.training.validate import Validation, area_of

PICTURES = 8  # per epoch


def write_curves(folder: Location, progress: Progress) -> None:
    """Write ``metrics.csv``, ``losses.csv`` and ``curves.png``; a function of the progress alone."""
    (folder / "metrics.csv").write_bytes(progress.metrics_csv())
    (folder / "losses.csv").write_bytes(progress.losses_csv())
    (folder / "curves.png").write_bytes(raster.png(raster.epochs(progress.curves())))


def write_pictures(folder: Location, progress: Progress, found: Validation) -> dict[str, bytes]:
    """Write the validation pictures of the epoch that just ended, `PICTURES` at most.

    Returns:
        PNG by area.
    """
    pictures = {name: picture.png() for name, picture in list(found.pictures.items())[:PICTURES]}
    for name, png in pictures.items():
        (folder / _picture_path(progress.rows[-1].epoch, name)).write_bytes(png)
    return pictures


def is_picture(path: str) -> bool:
    """Tell if a path in a run's folder is a validation picture: only the epoch itself could draw it."""
    return path.startswith("validation/")


def written_pictures(folder: Location, progress: Progress, validation: Sequence[Sample]) -> list[str]:
    """List the paths of the validation pictures that epochs of a run left, asking for each by name.

    A listing may lag behind; how many were written depends on the number of devices, which may change at a restart.
    """
    areas = sorted({area_of(sample) for sample in validation})
    paths = [_picture_path(row.epoch, name) for row in progress.rows for name in areas]
    return [path for path in paths if (folder / path).exists()]


def write_data(folder: Location, index: DatasetIndex, split: Mapping[str, Sequence[Sample]], card: str) -> None:
    """Write ``data.json``: what was trained and validated on, for the report, which must not need the dataset.

    Args:
        folder: The run's folder.
        index: The run's dataset.
        split: Training and validation samples, by name.
        card: Link to the dataset's card, as seen from the run's folder.
    """
    samples = {
        name: {
            "samples": len(listed),
            "segments": sorted({segment for sample in listed for segment, _ in sample.sources}),
            "ink_share": round(sum(sample.ink_share for sample in listed) / len(listed), 6),
        }
        for name, listed in split.items()
    }
    known = {"dataset": index.name, "digest": index.digest, "form": index.form, "card": card}
    (folder / "data.json").write_json({**known, "split": samples})


def _picture_path(epoch: int, name: str) -> str:
    return f"validation/epoch-{epoch:03d}-{name}.png"


def network_with(model: InkModel, state: Mapping[str, Any]) -> InkModel:
    """Give a network the weights of a checkpoint: the moving average where the run keeps one."""
    model.load_state_dict(checkpoint_weights(state), strict=True)
    return model


def checkpoint_weights(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the weights of a checkpoint that are validated and bundled."""
    average = state["average"]
    weights: Mapping[str, Any] = state["net"] if average is None else average["average"]
    return weights


def write_bundle(
    folder: Location,
    name: str,
    config: TrainConfig,
    index: DatasetIndex,
    contract: Contract,
    model: InkModel,
    scores: Mapping[str, Mapping[str, float]],
    history: Mapping[str, Any],
    pixels: Sequence[Mapping[str, Any]],
    contents: Mapping[str, Any],
) -> Bundle:
    """Make the bundle of a finished run, with a reference tile; equal runs give equal bundles.

    Args:
        folder: The bundle's folder.
        name: Its name.
        config: The run.
        index: Its dataset.
        contract: Contract that training followed.
        model: The network with the weights to keep.
        scores: Its scores on the validation areas, see `inkbatch.training.metrics.table`.
        history: How these weights came about: epochs, steps.
        pixels: What it was shown of each segment, see `inkbatch.data.datasets.trained_pixels.records_of`.
        contents: Content digests of the dataset and of the surfaces and labels that it was built from.
    """
    fitted = contract.model_copy(
        update={
            "threshold": scores[OVERALL]["threshold"],
            "threshold_fitted_on": f"best F0.5 on the validation split of dataset {index.name}{_fold_words(config)}",
        }
    )
    document = BundleDocument(
        name=name,
        architecture=config.model.architecture,
        model=model.config.model_dump(mode="json", exclude_none=True),
        contract=fitted,
        flops_per_tile=flops_per_tile(model, contract.tile_px),
        training={
            "dataset": index.name,
            "dataset_digest": index.digest,
            "config_digest": digest(config.result_settings()),
            **history,
            "averaged_weights": config.ema is not None,
            **({"fold": config.fold} if config.fold is not None else {}),
            **({RECORD: list(pixels)} if pixels else {}),
            **({"contents": dict(contents)} if contents else {}),
        },
        metrics={
            "measured_on": f"stitched validation areas of dataset {index.name}{_fold_words(config)}",
            "validation": {area: finite(found) for area, found in scores.items()},
        },
        reference=keep_reference(folder, model.eval(), fitted),
    )
    return Bundle.save(folder, model, document)


def finite(scores: Mapping[str, float]) -> dict[str, Any]:
    """Convert scores for JSON: rounded to six digits, None for NaN."""
    return {name: None if math.isnan(value) else round(value, 6) for name, value in scores.items()}


def _fold_words(config: TrainConfig) -> str:
    return "" if config.fold is None else f", fold {config.fold}"
