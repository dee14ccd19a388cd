"""The score that infer leaves beside a map: evaluate's own, taken again only for other labels, silent without any."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from inkbatch.io.store.location import Location
from inkbatch.run.job import RunContext
from inkbatch.steps.evaluate.job import run
from inkbatch.steps.infer.score import leave_score, score_line, stored_score
from inkbatch.testing.evaluation import COUNTED, INK, SHAPE


def document(report) -> dict:
    return json.loads(Path(str(report.location / "evaluation.json")).read_text())


def scored(folder, config, note):
    return leave_score(folder, config.root, config.segment, config.choice, note)


def test_the_score_of_infer_is_the_same_one(configure, root):
    folder, notes = Location.parse(root / "predictions/s/good"), []
    assert scored(folder, configure(), notes.append)
    score = stored_score(folder)
    found = document(run(configure(thresholds=(0.6,)), RunContext()))["maps"][0]
    wanted = (found["at"][0]["f_beta"], found["best"]["f_beta"], found["best"]["threshold"], found["auc"])
    kept = [score[key] for key in ("f05", "best_f05", "best_threshold", "auc")]
    np.testing.assert_allclose(kept, wanted, atol=1e-6)
    assert (score["threshold"], score["counted_px"], notes) == (0.6, int(COUNTED.sum()), [])
    assert f"F0.5 {kept[0]:.3f} at the bundle's threshold 0.60 (best {kept[1]:.3f}" in score_line(score)


def test_a_score_is_taken_again_only_where_the_labels_are_others(configure, root):
    folder = Location.parse(root / "predictions/s/poor")
    assert scored(folder, configure(name="poor"), print)
    first = stored_score(folder)
    assert "bundle" not in score_line(first)  # it states no threshold
    assert not scored(folder, configure(name="poor"), print)
    cv2.imwrite(str(root / "other.png"), (~INK * 255).astype(np.uint8))
    assert scored(folder, configure(name="poor", labels=str(root / "other.png")), print)
    assert stored_score(folder)["auc"] == pytest.approx(1 - first["auc"])


def test_a_damaged_score_is_made_again_and_this_is_said(configure, root):
    folder, notes = Location.parse(root / "predictions/s/poor"), []
    assert scored(folder, configure(name="poor"), notes.append)
    before = (folder / "score.json").read_bytes()
    (folder / "score.json").write_bytes(before[:-3])
    assert scored(folder, configure(name="poor"), notes.append)
    assert (folder / "score.json").read_bytes() == before
    assert notes == [f"score: {folder / 'score.json'} is damaged and made again"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("segments: {s: {ink_label: labels.png}}", "unknown key"),
        ("segments: {s: {ink_labels: nowhere.png}}", "nowhere.png"),
        ("segments: {s: {ink_labels: 's4://bucket/labels.png'}}", "protocol 's4'"),
    ],
)
def test_a_broken_catalog_and_a_mistyped_address_of_labels_are_said_aloud(configure, root, tmp_path, text, said):
    folder, notes = Location.parse(root / "predictions/s/good"), []
    shutil.rmtree(root / "segments/s/ink_labels.zarr")
    (tmp_path / "catalog.yaml").write_text(text)
    assert not scored(folder, configure(catalog=str(tmp_path / "catalog.yaml")), notes.append)
    assert len(notes) == 1
    assert said in notes[0]
    assert "the map at" in notes[0]
    assert "is complete" in notes[0]


def test_without_labels_or_ink_there_is_no_score_and_bad_labels_are_said_aloud(configure, root):
    folder, notes = Location.parse(root / "predictions/s/good"), []
    shutil.rmtree(root / "segments/s/ink_labels.zarr")
    assert not scored(folder, configure(), notes.append)
    cv2.imwrite(str(root / "empty.png"), np.zeros(SHAPE, np.uint8))
    assert not scored(folder, configure(labels=str(root / "empty.png")), notes.append)
    assert notes == []
    cv2.imwrite(str(root / "small.png"), np.zeros((5, 5), np.uint8))
    assert not scored(folder, configure(labels=str(root / "small.png")), notes.append)
    assert "small.png" in notes[0]
    assert "inkbatch evaluate" in notes[0]
    assert stored_score(folder) is None
