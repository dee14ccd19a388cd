"""`inkbatch evaluate-instances`: scores of separate objects against true labels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.config import JobConfig
from inkbatch.data.datasets.index import DatasetIndex, resolve, root_of
from inkbatch.data.instances.scoring import QUANTILES, InstanceScores, Overlaps, score
from inkbatch.data.instances.tables import csv_cell
from inkbatch.data.labels.components import label
from inkbatch.data.labels.objects import CLASSES, ObjectLabels, class_labels
from inkbatch.errors import ConfigError, CorruptDataError, DataError, MismatchError
from inkbatch.io.layers.npy import npy_header
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.pictures.decoding import decode_image
from inkbatch.io.store.location import Location
from inkbatch.run.finished import StoredRun, open_run
from inkbatch.steps.stored_evaluation import DOCUMENT, require_same_settings
from inkbatch.text import count_text

TABLE = "pictures.csv"
ENDINGS = (".npy", ".png", ".tif", ".tiff")
LEFT_OUT = -1  # among true labels: pixels that do not count


class EvaluateInstancesConfig(JobConfig):
    """Settings of `inkbatch evaluate-instances`.

    Attributes:
        result: Folder of a result of `inkbatch instances`.
        labels: Folder of true labels ``NAME.npy``, ``NAME.png`` or ``NAME.tif`` (whole numbers; 0 is no object, in
            ``.npy`` -1 does not count); None takes the annotations of the dataset that the maps were made from.
        given: ``instances``: a number per object. ``classes``: 0 background, 1 object, 2 boundary; every connected
            component of object (4 neighbours) is one, boundary is none. A dataset states it itself.
        to: Folder of the scores; None is ``evaluation`` in `result`.
    """

    job: ClassVar[str] = "evaluate-instances"

    result: str
    labels: str | None = None
    given: Literal["instances", "classes"] = "instances"
    to: str | None = None


def run(config: EvaluateInstancesConfig, *, replace: bool = False) -> list[str]:
    """Score every picture of a result, each by itself and all together; returns lines for people.

    Args:
        config: The job's settings.
        replace: Replace an evaluation with other settings.

    Raises:
        DataError: A result that is not complete, or labels that are missing or no labels.
        MismatchError: Labels of another size, or a run of another job; an evaluation with other settings is there.
    """
    made = open_run(config.result)
    made.require_complete()
    if made.job != "instances":
        raise MismatchError(
            f"{config.result}: expected a result of instances, got one of {made.job}; name another folder"
        )
    place = made.folder / "evaluation" if config.to is None else Location.parse(config.to)
    labels = None if config.labels is None else Location.parse(config.labels).uri
    settings = {"result": made.folder.uri, "labels": labels, "given": config.given}
    replaced = require_same_settings(place, settings, replace=replace)
    names = _pictures(made.folder / "instances.json")
    pairs = {name: _overlaps(made.folder, name, true) for name, true in _true(config, made, names)}
    total = score(list(pairs.values()))
    (place / DOCUMENT).write_json({**settings, "pictures": len(names), **_finite(asdict(total))})
    (place / TABLE).write_bytes(_csv({name: score([one]) for name, one in pairs.items()}))
    return [*replaced, *_lines(total, len(names), place)]


def _pictures(place: Location) -> list[str]:
    """Read the names of a result's pictures."""
    rows = place.read_mapping()["pictures"]
    found = rows if isinstance(rows, list) else [None]
    names = [one["picture"] for one in found if isinstance(one, dict) and isinstance(one.get("picture"), str)]
    if len(names) < len(found):
        raise CorruptDataError(
            f"{place}: expected a name for each of {count_text(len(found), 'picture')}, got {len(names)}; the file was "
            "edited: delete it and run inkbatch instances again"
        )
    return names


def _true(
    config: EvaluateInstancesConfig, made: StoredRun, names: list[str]
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Read the true labels of each picture.

    Raises:
        ConfigError: Neither labels nor a dataset that has them.
    """
    if config.labels is not None:
        folder = Location.parse(config.labels)
        for name in names:
            yield name, _numbered(true_labels(folder, name), config.given, f"{folder}: {name}")
        return
    dataset = _dataset_of(made)
    if dataset is None:
        raise ConfigError(f"{config.result}: its maps come from no dataset with annotations; give --labels FOLDER")
    annotated = {one.id: one for one in DatasetIndex.open(dataset).segments if one.objects is not None}
    for name in names:
        if name not in annotated:
            raise ConfigError(f"{config.result}: the dataset has no objects of {name}; give --labels FOLDER")
        one, place = annotated[name], resolve(annotated[name].ink_labels, root_of(dataset))
        yield name, _numbered(_labels_in(place), one.objects.given if one.objects else config.given, str(place))


def _dataset_of(made: StoredRun) -> Location | None:
    """Find the dataset whose pictures `infer-pictures` made the maps of; None where there is none."""
    maps = made.manifest["request"].get("maps")
    if maps is None or not (Location.parse(maps) / "manifest.json").exists():
        return None
    place = open_run(maps).manifest["request"].get("dataset")
    return None if place is None else Location.parse(place)


def _overlaps(result: Location, name: str, true: NDArray[np.int64]) -> Overlaps:
    array = Multiscale.open(result / f"labels/{name}/labels.zarr").levels[0]
    height, width = array.layout.shape
    found = array.read((slice(0, height), slice(0, width))).astype(np.int64)
    if true.shape == found.shape:
        found = np.where(true == LEFT_OUT, 0, found)
        true = np.where(true == LEFT_OUT, 0, true)
    return Overlaps.of(found, true, name)


def true_labels(folder: Location, name: str) -> NDArray[np.int64]:
    """Read true labels of one picture (height, width).

    Raises:
        DataError: There are none, or they are no labels.
    """
    there = set(folder.names())
    files = [name + ending for ending in ENDINGS if name + ending in there]
    if len(files) != 1:
        raise DataError(
            f"{folder}: expected labels of the picture {name!r} (one file, its name with {', '.join(ENDINGS)}), got "
            f"{' and '.join(files) or 'none'}; {'keep the right one' if files else 'add it'}"
        )
    return _labels_in(folder / files[0])


def _labels_in(place: Location) -> NDArray[np.int64]:
    values = _npy(place) if place.name.endswith(".npy") else _picture(place)
    if values.size and not LEFT_OUT <= int(values.min()) <= int(values.max()) < 1 << 63:
        raise DataError(
            f"{place}: expected 0 for no object, a number from 1 per object and {LEFT_OUT} for what does not count, "
            f"got {int(values.min())} to {int(values.max())}; number the objects from 1"
        )
    return np.asarray(values, np.int64)


def _numbered(classes: NDArray[np.int64], given: Literal["instances", "classes"], place: str) -> NDArray[np.int64]:
    """Number the objects of a mask of three classes; what does not count stays so, and numbers stay as they are."""
    if given == "instances":
        return classes
    class_labels(np.maximum(classes, 0), ObjectLabels(given="classes"), place)
    return np.where(classes == LEFT_OUT, LEFT_OUT, label(classes == CLASSES.index("object"), 4).labels)


def _npy(place: Location) -> NDArray[Any]:
    size = place.size()
    shape, fortran, dtype, start = npy_header(place, size)
    _require_numbers(place, shape, dtype)
    if start + math.prod(shape) * dtype.itemsize > size:
        raise CorruptDataError(f"{place}: expected labels of shape {shape}, got a file that ends before; copy it again")
    values = np.frombuffer(place.read_bytes(), dtype, math.prod(shape), start)
    return values.reshape(shape, order="F" if fortran else "C")


def _picture(place: Location) -> NDArray[Any]:
    values = decode_image(place.read_bytes(), cv2.IMREAD_UNCHANGED, str(place))
    _require_numbers(place, values.shape, values.dtype)
    return values


def _require_numbers(place: Location, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if len(shape) != 2 or dtype.kind not in "iu":
        raise DataError(
            f"{place}: expected whole numbers (height, width), one per object, got {dtype} {shape}; export labels, not "
            "colours"
        )


def _finite(value: Any) -> Any:
    """Turn NaN into None, which JSON has."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and value != value else value


def _csv(rows: Mapping[str, InstanceScores]) -> bytes:
    plain = ("found", "true", "ap", "ap50", "ap75", "precision", "recall", "f1", "aji", "pq")
    lines = [",".join(("picture", *plain, *(f"d{part}_error" for part in QUANTILES)))]
    for name, one in rows.items():
        errors = [one.sizes[f"d{part}"][2] for part in QUANTILES]
        cells: Sequence[Any] = [*(getattr(one, key) for key in plain), *errors]
        lines.append(",".join([csv_cell(name), *("" if cell != cell else f"{cell:.6g}" for cell in cells)]))
    return ("\n".join(lines) + "\n").encode()


def _shown(value: float, form: str = ".4f") -> str:
    """Format a score; one without objects to count is none."""
    return "none" if value != value else format(value, form)


def _lines(found: InstanceScores, pictures: int, place: Location) -> Iterator[str]:
    yield f"{count_text(pictures, 'picture')}: {found.found:,} objects found, {found.true:,} true"
    yield (
        f"AP {_shown(found.ap)} (at IoU 0.5: {_shown(found.ap50)}, at 0.75: {_shown(found.ap75)}), "
        f"AJI {_shown(found.aji)}, PQ {_shown(found.pq)}"
    )
    yield (f"at IoU 0.5: precision {_shown(found.precision)}, recall {_shown(found.recall)}, F1 {_shown(found.f1)}")
    sizes = [(name.upper(), *values) for name, values in found.sizes.items()]
    texts = [
        f"{name} {_shown(one, '.2f')} px (true {_shown(other, '.2f')}, {_shown(error, '+.1%')})"
        for name, one, other, error in sizes
    ]
    yield f"sizes: {', '.join(texts)}"
    yield f"by picture: {place / TABLE}"
