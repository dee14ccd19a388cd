"""A score on training pixels is no score: a bundle knows what trained it, and every job that scores says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from inkbatch.data.datasets.index import DatasetIndex, Sample
from inkbatch.errors import ConfigError, DataError
from inkbatch.io.store.location import Location
from inkbatch.models.bundle import Bundle
from inkbatch.run.job import RunContext
from inkbatch.steps.ensemble import job as ensemble
from inkbatch.steps.evaluate import job as evaluate
from inkbatch.steps.infer import job as infer
from inkbatch.steps.infer.score import score_line, stored_score
from inkbatch.steps.train.job import TrainConfig, run
from inkbatch.testing.datasets import labelled_segment
from inkbatch.testing.faults import Notes
from inkbatch.testing.maps import store_map
from inkbatch.testing.segments import identity_bundle
from inkbatch.testing.training import planted_segment, tiny_dataset, tiny_run

SIZE, HALF, VALIDATES = 96, 48, 72


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Rows 0 to 48 of segment s0 trained the bundle, 48 to 72 validated it; 72 to 96 are new to it."""
    place = tmp_path_factory.mktemp("trained") / "root"
    index = tiny_dataset(place, sample_px=24)
    samples = [
        Sample(
            id=f"{split}-{y}-{x}", segment="s0", box=(y, x, y + 24, x + 24), split=split, ink_share=0.2, papyrus_share=1
        )
        for y in range(0, VALIDATES, 24)
        for x in range(0, SIZE, 24)
        for split in ("train" if y < HALF else "validation",)
    ]
    DatasetIndex.model_validate({**index.model_dump(), "samples": samples}).save(
        Location.parse(place) / "datasets/tiny"
    )
    run(TrainConfig.checked(tiny_run(place, epochs=1), "test"), RunContext())
    return place


def inferred(root: Path, segment: str = "s0", name: str = "p") -> tuple[Location, list[str]]:
    notes = Notes()
    values = {"segment": segment, "bundle": str(root / "runs/first/bundle"), "root": str(root), "device": "cpu"}
    report = infer.run(infer.InferConfig(**values, name=name), RunContext(reporter=notes))
    return report.location, notes.said


def evaluated(root: Path, **changes) -> tuple[dict, str, str]:
    config = evaluate.EvaluateConfig(**{"segment": "s0", "name": "p", "root": str(root), "region_px": 24, **changes})
    place = evaluate.run(config, RunContext()).location
    found = json.loads((place / "evaluation.json").read_bytes())
    return found, "\n".join(evaluate.summary(place)), (place / "report.html").read_bytes().decode()


def test_a_bundle_knows_the_pixels_that_trained_and_validated_it(root):
    (record,) = Bundle.open(Location.parse(root / "runs/first/bundle")).document.training["pixels"]
    assert record["segment"] == "s0"
    assert record["train"] == [[0, 0, HALF, SIZE]]
    assert record["validation"] == [[HALF, 0, VALIDATES, SIZE]]


def test_infer_says_what_trained_the_network_and_scores_the_rest(root):
    folder, notes = inferred(root)
    assert any("50 % of segment s0 trained the network of bundle first" in line for line in notes)
    score = stored_score(folder)
    assert score is not None
    assert score["trained_share"] == 0.5
    assert score["counted_px"] == HALF * SIZE
    assert "50 % of the labelled pixels trained this network and are left out" in score_line(score)
    page = (folder / "report.html").read_bytes().decode()
    assert "50 % of these pixels trained this network" in page
    assert "50 % of these pixels trained it" in page


def test_evaluate_leaves_training_pixels_out_or_takes_those_that_validated(root):
    inferred(root)
    found, said, page = evaluated(root)
    assert (found["counted_px"], found["trained_share"]) == (HALF * SIZE, 0.5)
    for text in (said, page):
        assert "50 % of the labelled pixels trained this network and are left out" in text
    found, said, page = evaluated(root, on="validation")
    assert found["counted_px"] == (VALIDATES - HALF) * SIZE
    assert "only pixels that validated the network count" in said
    found, said, page = evaluated(root, on="all")
    assert found["counted_px"] == SIZE * SIZE
    for text in (said, page):
        assert "this is what it remembers, not a score" in text


def test_a_comparison_on_training_pixels_has_no_verdict(root):
    inferred(root)
    other = np.random.default_rng(0).uniform(0.01, 0.99, (SIZE, SIZE))
    store_map(root, "s0", "noise", other)
    found, _, _ = evaluated(root, versus="noise", draws=100)
    assert found["counted_px"] == HALF * SIZE
    _, said, page = evaluated(root, versus="noise", draws=100, on="all")
    assert "is better" not in said
    assert "No verdict" in page


def test_weights_are_fitted_outside_training_pixels_and_the_ensemble_knows_them(root):
    inferred(root)
    store_map(root, "s0", "other", np.random.default_rng(1).uniform(0.01, 0.99, (SIZE, SIZE)))
    notes = Notes()
    values = {"segment": "s0", "predictions": ["p", "other"], "fit_weights": True, "root": str(root), "name": "both"}
    place = ensemble.run(ensemble.EnsembleConfig.checked(values, "test"), RunContext(reporter=notes)).location
    assert json.loads((place / "weights.json").read_bytes())["pixels"] == HALF * SIZE
    assert any("50 % of the labelled ones trained a member and are left out" in line for line in notes.said)
    assert "50 % of these pixels trained a member" in (place / "report.html").read_bytes().decode()
    assert evaluated(root, name="both")[0]["trained_share"] == 0.5


def test_a_segment_that_is_all_training_has_no_score_and_one_that_is_new_is_not_mentioned(root, tmp_path):
    inferred(root)
    with pytest.raises(DataError, match="all 4,608 labelled pixels trained the network .* state --on all"):
        evaluated(root, area=(0, 0, HALF, SIZE), to=str(tmp_path / "none"))
    layers, labels = planted_segment(7, (4, SIZE, SIZE))
    labelled_segment(root, "new", labels, layers=layers)
    store_map(root, "new", "p", np.full((SIZE, SIZE), 0.5))
    with pytest.raises(ConfigError, match="its bundle names none on this segment"):
        evaluated(root, segment="new", on="validation")
    folder, notes = inferred(root, "s1", "q")
    assert not any("careful" in line for line in notes)
    assert stored_score(folder)["trained_share"] == 0
    page = (folder / "report.html").read_bytes().decode()
    assert "none of these pixels trained it" in page
    assert "24 px (0.19 mm) every" in page


def test_a_page_says_that_nobody_knows_what_trained_the_network(root):
    bundle = identity_bundle(root / "identity", layers=4, layer=1)
    values = {"segment": "s1", "bundle": str(bundle.location), "root": str(root), "device": "cpu"}
    folder = infer.run(infer.InferConfig(**values, name="identity"), RunContext()).location
    assert "ask who published the network what it was trained on" in (folder / "report.html").read_bytes().decode()
