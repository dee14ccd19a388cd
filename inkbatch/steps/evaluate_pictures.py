"""`inkbatch evaluate-pictures`: scores of the maps of pictures against their annotations."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from inkbatch.config import JobConfig
from inkbatch.data.datasets.image_folders import picture_files
from inkbatch.data.datasets.index import DatasetIndex, resolve, root_of
from inkbatch.data.datasets.picture_layers import decode_annotation, decode_objects, label_rule
from inkbatch.data.datasets.trained_pixels import NOTHING, TrainedPixels, picture_pixels
from inkbatch.data.labels.ink import INK_LABEL
from inkbatch.data.labels.objects import CLASS_GREYS, CLASSES, OBJECT_CLASS, ObjectLabels
from inkbatch.data.maps.comparison import Where
from inkbatch.data.maps.scoring import ScoreHistogram, threshold_of
from inkbatch.errors import ConfigError, CorruptDataError, DataError, MismatchError
from inkbatch.geometry import Box
from inkbatch.io.store.location import Location
from inkbatch.models.bundle import Bundle
from inkbatch.run.finished import StoredRun, open_run
from inkbatch.steps.stored_evaluation import DOCUMENT, require_same_settings
from inkbatch.text import count_text, share_text

TABLE = "pictures.csv"


class EvaluatePicturesConfig(JobConfig):
    """Settings of `inkbatch evaluate-pictures`.

    Attributes:
        maps: Folder of maps that `inkbatch infer-pictures` wrote, with ``npy`` among its forms.
        annotations: Folder of annotations of the pictures' names; None takes those of the maps' dataset.
        label_above: Annotation values above it are object; None takes at least half of full scale.
        on: Which pixels count: ``unseen`` leaves out those that trained the network, ``validation`` takes those alone
            that validated it, ``all`` takes all.
        threshold: Probability from which a pixel counts as object; None is the bundle's, else 0.5.
        beta: Of F-beta.
        to: Folder of the result; None is ``evaluation`` in `maps`.
    """

    job: ClassVar[str] = "evaluate-pictures"

    maps: str
    annotations: str | None = None
    label_above: int | None = Field(0, ge=0, le=254)
    on: Where = "unseen"
    threshold: float | None = Field(None, ge=0, le=1)
    beta: float = Field(0.5, gt=0, le=100)
    to: str | None = None


@dataclass(frozen=True)
class _Pair:
    """A map with its picture and annotation, and what an annotation's values mean."""

    name: str
    picture: Location
    annotation: Location
    label_above: int | None
    objects: ObjectLabels | None = None


def run(config: EvaluatePicturesConfig, *, replace: bool = False) -> list[str]:
    """Score every map of a folder, each by itself and all together; returns lines for people.

    Args:
        config: The job's settings.
        replace: Replace an evaluation with other settings.

    Raises:
        ConfigError: Neither annotations nor a dataset that has them.
        DataError: Maps that are not complete, a missing annotation, or nothing that counts.
        MismatchError: Map and annotation differ in size; an evaluation with other settings is there.
    """
    made = open_run(config.maps)
    made.require_complete()
    if made.job != "infer-pictures":
        raise MismatchError(
            f"{config.maps}: expected maps of infer-pictures, got those of {made.job}; for a segment run inkbatch "
            "evaluate SEGMENT"
        )
    bundle = _bundle(made)
    threshold = threshold_of(config.threshold, made.manifest["config"]["contract"].get("threshold"))
    place = made.folder / "evaluation" if config.to is None else Location.parse(config.to)
    annotations = None if config.annotations is None else Location.parse(config.annotations).uri
    settings: dict[str, Any] = {"maps": made.folder.uri, "annotations": annotations, "label_above": config.label_above}
    settings |= {"on": config.on, "beta": config.beta, "threshold": threshold}
    replaced = require_same_settings(place, settings, replace=replace)
    total, rows, sizes = ScoreHistogram(), [], np.zeros(2, np.int64)
    for pair in _pairs(config, made):
        found, labelled, trained = _counted(config, made.folder, pair, bundle)
        total.merge(found)
        sizes += labelled, trained
        rows.append(
            {"picture": pair.name, "labelled_px": labelled, "trained_px": trained, **_scores(found, threshold, config)}
        )
    share = int(sizes[1]) / max(int(sizes[0]), 1)
    if not total.ink.any() or not total.bare.any():
        why = f"; {share_text(share)} of the annotated pixels trained this network" if share else ""
        raise DataError(
            f"{config.maps}: the pixels that count are not of both kinds{why}; give other annotations, state "
            "label_above, or --on all"
        )
    document = {
        **settings,
        "pictures": len(rows),
        "labelled_px": int(sizes[0]),
        "trained_px": int(sizes[1]),
        "trained_share": share,
        "known_training": bundle is not None and bool(bundle.document.training.get("pixels")),
        **_scores(total, threshold, config),
    }
    (place / DOCUMENT).write_json(document)
    (place / TABLE).write_bytes(_csv(rows))
    return [*replaced, *_lines(document, place)]


def _bundle(made: StoredRun) -> Bundle | None:
    """Open the bundle that made the maps; None where it is gone or another one lies there."""
    try:
        bundle = Bundle.open(Location.parse(made.manifest["request"]["bundle"]))
    except (DataError, KeyError):
        return None
    return bundle if bundle.document.weights_sha256 == made.manifest["inputs"]["weights_sha256"] else None


def _pairs(config: EvaluatePicturesConfig, made: StoredRun) -> Iterator[_Pair]:
    asked = made.manifest["request"]
    if asked.get("dataset"):
        place = Location.parse(asked["dataset"])
        index = DatasetIndex.open(place)
        wanted = {one.segment for one in index.samples if asked["split"] in ("all", one.split)}
        for segment in index.segments:
            if segment.id in wanted:
                picture, labels = (resolve(uri, root_of(place)) for uri in (segment.surface, segment.ink_labels))
                yield _Pair(segment.id, picture, labels, segment.label_above, segment.objects)
        return
    if config.annotations is None:
        raise ConfigError(f"{config.maps}: these pictures come from a folder; give --annotations FOLDER")
    pictures, folder = Location.parse(asked["images"]), Location.parse(config.annotations)
    files, annotations = picture_files(pictures), picture_files(folder)
    missing = sorted(set(files) - set(annotations))
    if missing:
        raise DataError(
            f"{folder}: expected an annotation for each of {count_text(len(files), 'picture')}, {missing[0]!r} has "
            "none; add it, or leave the picture out"
        )
    for name in sorted(files):
        annotation = folder / annotations[name]
        yield _Pair(name, pictures / files[name], annotation, label_rule(annotation, config.label_above))


def _counted(
    config: EvaluatePicturesConfig, maps: Location, pair: _Pair, bundle: Bundle | None
) -> tuple[ScoreHistogram, int, int]:
    """Count a map's values; returns them, the annotated pixels, and those of them that trained the network."""
    probability, values = _map(maps / f"{pair.name}.npy"), _values(pair)
    if probability.shape != values.shape:
        raise MismatchError(
            f"{pair.annotation}: expected {probability.shape} (height, width) like its map, got {values.shape}; give "
            "the annotation of this picture"
        )
    whole = Box(0, 0, *values.shape)
    trained = _trained(pair, bundle)
    counted, learnt = np.ones(values.shape, bool), trained.trained(whole)
    if config.on == "unseen":
        counted &= ~learnt
    elif config.on == "validation":
        counted = trained.validated(whole)
    found = ScoreHistogram()
    if pair.objects is not None:
        marked = values == CLASS_GREYS[OBJECT_CLASS]
    else:
        marked = values >= INK_LABEL if pair.label_above is None else values > pair.label_above
    found.add(probability, marked, counted, f"map {pair.name}")
    return found, values.size, int(learnt.sum())


def _values(pair: _Pair) -> NDArray[np.uint8]:
    return decode_annotation(pair.annotation) if pair.objects is None else decode_objects(pair.annotation, pair.objects)


def _trained(pair: _Pair, bundle: Bundle | None) -> TrainedPixels:
    if bundle is None:
        return NOTHING
    digest = hashlib.sha256()
    for place in (pair.picture, pair.annotation):
        digest.update(hashlib.sha256(place.read_bytes()).digest())
    return picture_pixels(bundle.document.training, digest.hexdigest(), str(bundle.location))


def _map(place: Location) -> NDArray[np.float32]:
    try:
        found: NDArray[np.float32] = np.load(io.BytesIO(place.read_bytes()), allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(
            f"{place}: expected a map, got nothing; run inkbatch infer-pictures with --set 'forms=[npy]'"
        ) from error
    except (ValueError, EOFError) as error:
        raise CorruptDataError(f"{place}: this map is damaged; infer it again") from error
    if found.ndim == 3 and len(found) == len(CLASSES):
        found = found[OBJECT_CLASS]
    if found.ndim != 2 or found.dtype != np.float32:
        raise CorruptDataError(
            f"{place}: expected float32 (height, width), got {found.dtype} {found.shape}; infer it again"
        )
    return found


def _scores(found: ScoreHistogram, threshold: float, config: EvaluatePicturesConfig) -> dict[str, Any]:
    """Score counts; scores that need both object and background are None without."""
    both = bool(found.ink.any() and found.bare.any())
    best, at = found.best_f_beta(config.beta) if both else (None, None)
    given = found.scores(threshold, config.beta) if found.ink.any() else {}
    return {
        "counted_px": found.counted,
        "object_px": int(found.ink.sum()),
        "f_beta": given.get("f_beta"),
        "dice": given.get("dice"),
        "iou": given.get("iou"),
        "best_f_beta": best,
        "best_threshold": at,
        "auc": found.auc() if both else None,
    }


def _csv(rows: list[dict[str, Any]]) -> bytes:
    head = list(rows[0])
    lines = [",".join("" if row[key] is None else str(row[key]) for key in head) for row in rows]
    return ("\n".join([",".join(head), *lines]) + "\n").encode()


def _lines(found: Mapping[str, Any], place: Location) -> Iterator[str]:
    beta, share = f"F{found['beta']:g}", found["object_px"] / found["counted_px"]
    pictures = count_text(found["pictures"], "picture")
    yield f"{pictures}, {found['counted_px']:,} pixels count, {share:.1%} of them are object"
    if found["on"] == "validation":
        yield "careful: only pixels that validated the network count; its best epoch and threshold were chosen on them"
    elif found["trained_share"]:
        said = f"careful: {share_text(found['trained_share'])} of the annotated pixels trained this network"
        end = (
            "are left out" if found["on"] == "unseen" else "count all the same: this is what it remembers, not a score"
        )
        yield f"{said} and {end}"
    elif not found["known_training"]:
        yield "careful: it is not known which pictures trained this network"
    yield (
        f"{beta} {found['f_beta']:.4f} at {found['threshold']:g} (best {found['best_f_beta']:.4f} at "
        f"{found['best_threshold']:.4f}), Dice {found['dice']:.4f}, IoU {found['iou']:.4f}, AUC {found['auc']:.4f}"
    )
    yield f"by picture: {place / TABLE}"
