"""The report of a finished run: one HTML page that carries its pictures; equal runs give equal bytes."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from inkbatch import __version__
from inkbatch.data.dataset import DatasetIndex, Sample
from inkbatch.models.bundle import Bundle
from inkbatch.training.metrics import OVERALL, SCORES
from inkbatch.training.picture import plot
from inkbatch.training.progress import Progress
from inkbatch.training.settings import TrainConfig

TEMPLATE = "report.html.j2"
FIGURES = {"f05": "F0.5", "dice": "Dice", "iou": "IoU", "average_precision": "average precision", "auc": "AUC"}
EPOCH_SCORES = ("f05", "dice", "average_precision", "auc")


def report_html(
    config: TrainConfig,
    index: DatasetIndex,
    split: Mapping[str, Sequence[Sample]],
    bundle: Bundle,
    progress: Progress,
    pictures: Mapping[str, bytes],
    card: str,
    place: str,
) -> bytes:
    """Write the report.

    Args:
        config: The run.
        index: Its dataset.
        split: Training and validation samples, by name.
        bundle: What the run ended with.
        progress: The finished run.
        pictures: Validation pictures of the best epoch, PNG, by area.
        card: Link to the dataset's card, as seen from the run's folder.
        place: The bundle's folder below ROOT.
    """
    best = progress.best(config.monitor)
    contract = bundle.contract
    overall = best.scores[OVERALL]
    environment = Environment(
        loader=PackageLoader("inkbatch.training", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=False
    )
    page = environment.get_template(TEMPLATE).render(
        run=config.run,
        version=__version__,
        network=" ".join([config.model.architecture, *_words(bundle.document.model)]),
        dataset=index.name,
        fold=config.fold,
        figures=[(words, _shown(overall[name])) for name, words in FIGURES.items()],
        best_epoch=best.epoch,
        epochs=len(progress.rows),
        monitor=FIGURES.get(config.monitor, "validation loss"),
        threshold=_shown(overall["threshold"]),
        bundle=place,
        layers=contract.layers.count,
        voxel_size=f"{contract.voxel_size_um:g}",
        dtype=contract.dtype,
        tile_px=contract.tile_px,
        card=card,
        curves=_inline(plot(progress.curves())),
        pictures=[(name, _inline(png)) for name, png in pictures.items()],
        score_names=list(SCORES),
        segments=[(name, [_shown(scores[key]) for key in SCORES]) for name, scores in _overall_first(best.scores)],
        epoch_names=["train loss", "validation loss", "rate", *(FIGURES[name] for name in EPOCH_SCORES)],
        rows=[
            (
                row.epoch,
                [_shown(row.train_loss), _shown(row.validation_loss), f"{row.rate:.2e}"]
                + [_shown(row.scores[OVERALL][name]) for name in EPOCH_SCORES],
            )
            for row in progress.rows
        ],
        data=[*_data(index, split), ("optimiser steps", f"{progress.total_steps:,}")],
        config=_as_yaml(config),
    )
    return page.encode()


def _words(shape: Mapping[str, Any]) -> list[str]:
    """What a network's settings say in words, such as its family and encoder."""
    return [value for _, value in sorted(shape.items(), reverse=True) if isinstance(value, str)]


def _as_yaml(config: TrainConfig) -> str:
    """The run's YAML in the order of the settings; a network's own keys, which come in any order, are sorted."""
    settings = config.result_settings()
    network = json.loads(json.dumps(settings["model"]["config"], sort_keys=True))
    settings["model"] = {**settings["model"], "config": network}
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def _data(index: DatasetIndex, split: Mapping[str, Sequence[Sample]]) -> list[tuple[str, str]]:
    rows = [("form", index.form), ("digest", index.digest)]
    for name, samples in split.items():
        segments = len({segment for sample in samples for segment, _ in sample.sources})
        ink = sum(sample.ink_share for sample in samples) / len(samples)
        rows.append((f"{name} samples", f"{len(samples):,} from {segments} segments, {ink:.1%} ink"))
    return rows


def _overall_first(scores: Mapping[str, dict[str, float]]) -> list[tuple[str, dict[str, float]]]:
    return [(OVERALL, scores[OVERALL]), *((name, found) for name, found in scores.items() if name != OVERALL)]


def _shown(value: float) -> Any:
    return "–" if math.isnan(value) else f"{value:.4f}"


def _inline(png: bytes) -> str:
    return base64.b64encode(png).decode("ascii")
