"""Readers of what runs and people leave for later commands: archives of units, strokes, label versions, true labels."""

from __future__ import annotations

import io
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from inkbatch.io.store.location import Location
from inkbatch.testing.fuzzing import Reader


def run_readers() -> list[Reader]:
    """List the readers."""
    from inkbatch.data.instances.answers import read_answers
    from inkbatch.data.instances.unit_facts import BasinFacts
    from inkbatch.data.labels.painting_version import read_facts, read_state
    from inkbatch.data.maps.sweep import read_counts
    from inkbatch.models.prompting import PromptableBundle
    from inkbatch.steps.evaluate_instances import true_labels

    def folder(path: Path) -> Location:
        return Location.parse(path.parent)

    return [
        Reader("counts", _archives, lambda path: read_counts(Location.parse(path)), "a.npz"),
        Reader("basins", _archives, lambda path: BasinFacts.read(Location.parse(path)), "a.npz"),
        Reader("answers", _archives, lambda path: list(read_answers(Location.parse(path), [])), "a.npz"),
        Reader("strokes", _journals, _read_strokes, "00000001.strokes"),
        Reader("version", lambda: [VERSION], lambda path: read_facts(folder(path)), "version.json"),
        Reader("painted", _states, lambda path: read_state(folder(path.parent)), "journal/state"),
        Reader("promptable", _promptables, lambda path: PromptableBundle.open(folder(path)), "promptable.json"),
        Reader("true-labels", _numbers, lambda path: true_labels(folder(path), "a"), "a.npy"),
        Reader("true-picture", _pictures, lambda path: true_labels(folder(path), "a"), "a.png"),
    ]


VERSION = json.dumps(
    {
        "name": "v001",
        "segment": "a",
        "shape_yx": [300, 560],
        "voxel_size_um": 7.91,
        "author": "ada",
        "time": "2026-11-29T06:00:00+00:00",
        "parent": None,
        "started_from": "nothing",
        "starts_with": {"ink": 0, "not_ink": 0, "ignore": 0, "supervision": 0},
    }
).encode()


def _archives() -> list[bytes]:
    from inkbatch.data.instances.answers import STORED
    from inkbatch.data.instances.unit_facts import BasinFacts

    names = [*STORED, *(field.name for field in fields(BasinFacts))]
    arrays: dict[str, Any] = dict.fromkeys(names, np.zeros(0, np.int64)) | {"boxes": np.zeros((0, 4), np.int64)}
    found = []
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, **arrays, histogram=np.arange(100))
        found.append(file.getvalue())
    return found


def _journals() -> list[bytes]:
    from inkbatch.data.labels.painting_journal import Change, Record

    records = [Record(n, "tab", n, "00", "brush", changes=(Change((0, n), b"before", b"flip"),)) for n in (1, 2)]
    return [b"".join(record.encode() for record in records), records[0].encode()]


def _read_strokes(path: Path) -> object:
    from inkbatch.data.labels.painting_journal import Journal

    place = path.parent / "v001/journal" / path.name
    place.parent.mkdir(parents=True)
    path.rename(place)
    return list(Journal(Location.parse(place.parent.parent)).after(0))


def _states() -> list[bytes]:
    from inkbatch.data.labels.painting_journal import framed

    facts = {"revision": 0, "counts": {"ink": 0}, "tabs": {}, "changes": [], "forgotten": {}, "overview": [32, 32]}
    return [framed(facts, [b"packed"])]


def _promptables() -> list[bytes]:
    from inkbatch.testing.prompting import tiny_sam, tiny_sam2

    return [made().model_dump_json().encode() for made in (tiny_sam2, tiny_sam)]


def _numbers() -> list[bytes]:
    found = []
    for dtype in (np.int32, np.uint16, np.int64):
        file = io.BytesIO()
        np.save(file, np.arange(30, dtype=dtype).reshape(5, 6))
        found.append(file.getvalue())
    return found


def _pictures() -> list[bytes]:
    numbers = np.arange(320, dtype=np.uint16).reshape(16, 20)
    return [cv2.imencode(".png", values)[1].tobytes() for values in (numbers, numbers.astype(np.uint8))]
