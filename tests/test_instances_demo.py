"""`make instances-demo`: shipped networks, of which one finds a grain by a point; a table that says who is better."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inkbatch.data.instances.scoring import Overlaps, score
from inkbatch.data.synthetic.grains import GrainConfig, make_section
from inkbatch.io.store.location import Location
from inkbatch.models.prompting import PromptableBundle
from inkbatch.steps.dataset.job import BuildDatasetConfig
from inkbatch.steps.train.job import TrainConfig

REPOSITORY = Path(__file__).parent.parent
SAM2 = REPOSITORY / "scripts/data/grains-sam2"
UNSEEN = GrainConfig(shape_yx=(128, 128), radius_px=(8, 22), seed=200_000)


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / f"scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def demo():
    return loaded("instances_demo")


def test_the_run_takes_the_dataset_and_the_bundle_is_of_that_run():
    dataset = BuildDatasetConfig.load(str(REPOSITORY / "jobs/demo/grains-dataset.yaml"))
    run = TrainConfig.load(str(REPOSITORY / "jobs/demo/grains-train.yaml"))
    assert run.dataset == dataset.name
    document = Location.parse(str(REPOSITORY / "scripts/data/grains-unet/bundle.json")).read_mapping()
    assert (document["name"], document["training"]["dataset"]) == (run.run, dataset.name)


def test_the_shipped_network_is_small_and_says_how_it_was_made():
    bundle = PromptableBundle.open(Location.parse(str(SAM2)))
    assert sum(place.stat().st_size for place in SAM2.iterdir()) < 4_000_000
    assert bundle.document.kind == "sam2"
    assert bundle.document.source["made by"] == "scripts/train_tiny_sam.py"


@pytest.mark.parametrize("number", [0, 1], ids=["plain", "crossed"])
def test_the_shipped_network_outlines_a_grain_that_it_is_pointed_at(number):
    section = make_section(UNSEEN, number)
    segmenter = PromptableBundle.open(Location.parse(str(SAM2))).build()
    ids = [one for one in np.unique(section.instances) if one and np.count_nonzero(section.instances == one) > 150]
    true = np.stack([section.instances == one for one in ids])
    points = np.array([np.argwhere(mask).mean(axis=0) for mask in true])
    masks, scores = segmenter.masks(segmenter.embed(section.picture), points)
    best = masks[np.arange(len(ids)), scores.argmax(axis=1)]
    iou = (best & true).sum((1, 2)) / (best | true).sum((1, 2))
    assert np.mean(iou) > 0.75


def test_outlines_are_coloured_by_their_agreement_and_the_verdict_names_what_is_worse(demo):
    true = np.zeros((40, 60), np.int64)
    true[5:25, 5:25], true[5:25, 35:55] = 1, 2
    found = true.copy()
    found[5:15, 35:55] = 0
    found[30:36, 30:36] = 3
    drawn = demo.outlined(np.zeros((40, 60, 3), np.uint8), found, true)
    colours = {tuple(colour) for colour in drawn.reshape(-1, 3).tolist()} - {(0, 0, 0)}
    assert colours == {demo.GOOD, demo.FAIR, demo.MISSED}
    right, wrong = score([Overlaps.of(true, true)]), score([Overlaps.of(found, true)])
    assert "better than watershed by AP" in demo.verdict({"watershed": wrong, "refined": right})
    assert demo.verdict({"watershed": right, "refined": replace(right, aji=0.5)}).endswith(
        "worse than watershed by AJI"
    )
    assert "as good as" in demo.verdict({"watershed": right, "refined": right})
    assert demo.table({"refined": right}).splitlines()[1].split()[:2] == ["refined", "1.000"]


@pytest.mark.slow
def test_the_whole_demo_runs_and_each_way_is_better_than_the_one_before_it(tmp_path):
    command = [sys.executable, str(REPOSITORY / "scripts/instances_demo.py"), "--root", str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    scores = json.loads((tmp_path / "instances-demo/scores.json").read_text())
    for key in ("ap", "ap50", "ap75", "pq", "aji", "f1"):
        ways = [scores[way][key] for way in ("refined", "watershed", "not grown", "first pass")]
        assert ways == sorted(set(ways), reverse=True)
    assert "refined is better than watershed by AP" in said
    assert "not worse by any score" in said
    assert said.splitlines()[1].startswith("first pass")
    assert (tmp_path / "instances-demo/report.html").stat().st_size > 100_000


@pytest.mark.slow
def test_a_training_that_was_stopped_goes_on_as_if_it_had_not(tmp_path):
    train = loaded("train_tiny_sam")
    document = train.PromptableDocument(
        name="x", kind="sam2", config=train.tiny_config(), image_px=train.IMAGE_PX, licence="MIT"
    )
    sections, weights = train.made(0, 1), []
    for stopped in (False, True):
        run = train.Run.begin(document.config, 0, tmp_path / f"{stopped}.pt")
        for step in range(2):
            chance = np.random.default_rng(step)
            run.learn(train.draw_batch(sections, document, train.drawn_crops(0, step), chance), False)
            if stopped:
                run.keep()
                run = train.Run.begin(document.config, 0, tmp_path / f"{stopped}.pt")
        weights.append(run.net.state_dict())
    for name, values in weights[0].items():
        assert np.array_equal(values, weights[1][name]), name
