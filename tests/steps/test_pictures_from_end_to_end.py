"""Pictures are no segments: no invented scale, their own words and commands, scores that leave training out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from inkbatch.data.datasets.index import DatasetIndex
from inkbatch.errors import ConfigError, DataError, MismatchError
from inkbatch.io.store.location import Location
from inkbatch.models.bundle import Bundle
from inkbatch.reports.picture_words import picture_text
from inkbatch.run.job import RunContext
from inkbatch.steps import evaluate_pictures, infer_pictures
from inkbatch.steps.dataset import job as build_dataset
from inkbatch.steps.infer import job as infer
from inkbatch.steps.train import job as train
from inkbatch.testing.datasets import inked, labelled_segment
from inkbatch.testing.training import NETWORK

EDGE = 64


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A tiny network that was trained on two pictures and validated on one; a fourth tests it."""
    place = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        for folder in (split, f"{split}annot"):
            (place / "drawings" / folder).mkdir(parents=True)
        for number in range(count):
            marked = np.zeros((EDGE, EDGE), np.uint8)
            cv2.circle(marked, (int(rng.integers(16, 48)), int(rng.integers(16, 48))), 12, 255, -1)
            drawing = rng.integers(0, 90, (EDGE, EDGE, 3), np.uint8) + (marked // 2)[..., None]
            cv2.imwrite(str(place / f"drawings/{split}/{number}.png"), drawing)
            cv2.imwrite(str(place / f"drawings/{split}annot/{number}.png"), marked)
    values: dict[str, Any] = {"name": "drawings", "root": str(place), "images": {"folder": str(place / "drawings")}}
    values |= {"sample_px": 32, "sampling": {"kind": "grid", "stride_px": 32}, "splits": {"kind": "given"}}
    build_dataset.run(build_dataset.BuildDatasetConfig.checked(values, "test"), RunContext())
    model = {"architecture": "smp", "config": {**NETWORK, "depth_layers": 3}}
    asked = {"dataset": "drawings", "run": "net", "root": str(place), "model": model, "epochs": 3, "batch": 4}
    train.run(train.TrainConfig.checked({**asked, "device": "cpu", "threads": 1}, "test"), RunContext())
    return place


def maps(root: Path, **changes) -> Path:
    values = {"bundle": str(root / "runs/net/bundle"), "root": str(root), "dataset": "drawings", "device": "cpu"}
    values |= {"output": str(root / f"maps-{len(list(root.glob('maps-*')))}"), "split": "all"}
    config = infer_pictures.InferPicturesConfig.checked({**values, **changes}, "test")
    return Path(str(infer_pictures.run(config, RunContext()).location))


def scored(folder: Path, **changes) -> tuple[dict[str, Any], str]:
    config = evaluate_pictures.EvaluatePicturesConfig.checked({"maps": str(folder), **changes}, "test")
    lines = evaluate_pictures.run(config, replace=True)
    return json.loads((folder / "evaluation/evaluation.json").read_text()), "\n".join(lines)


def test_no_scale_is_invented_and_pages_speak_of_objects(root):
    index = DatasetIndex.open(Location.parse(root / "datasets/drawings"))
    assert index.contract.voxel_size_um is None
    contract = Bundle.open(Location.parse(root / "runs/net/bundle")).document.contract
    assert (contract.voxel_size_um, contract.reads) == (None, "pictures")
    for page in (root / "datasets/drawings/report.html", root / "runs/net/report.html"):
        text = re.sub(r"<style>.*?</style>", "", page.read_text(), flags=re.S)
        words = re.sub(r"<[^>]+>", " ", text)
        assert not re.search(r"\b(papyrus|µm|mm)\b", words), page
        assert "object" in words
    assert "inkbatch infer-pictures --bundle ROOT/runs/net/bundle" in (root / "runs/net/report.html").read_text()


def test_infer_refuses_a_bundle_for_pictures_with_the_right_next_step(root):
    labelled_segment(root, "s", inked((64, 64), (0, 0, 30, 30)))
    config = infer.InferConfig(segment="s", bundle=str(root / "runs/net/bundle"), root=str(root), device="cpu")
    with pytest.raises(MismatchError, match=r"reads pictures, .* run inkbatch infer-pictures --bundle .*net/bundle"):
        infer.make_plan(config)


def test_maps_become_masks_and_overlays(root):
    folder = maps(root, forms=["npy", "mask", "overlay"], threshold=0.4, split="test")
    probability = np.load(folder / "test-0.npy")
    mask = cv2.imread(str(folder / "test-0-mask.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask, (probability >= np.float32(0.4)) * 255)
    assert cv2.imread(str(folder / "test-0-overlay.png"), cv2.IMREAD_UNCHANGED).shape == (EDGE, EDGE, 3)


def test_pictures_are_scored_without_those_that_trained(root):
    folder = maps(root)
    found, said = scored(folder)
    assert found["trained_share"] == 0.5
    assert found["counted_px"] == 2 * EDGE**2
    assert "50 % of the annotated pixels trained this network and are left out" in said
    truth = np.concatenate([cv2.imread(str(root / f"drawings/{name}annot/0.png"), 0) for name in ("val", "test")]) > 0
    ink = np.concatenate([np.load(folder / f"{name}-0.npy") for name in ("validation", "test")])
    above = ink.astype(np.float16) >= found["threshold"]
    assert found["dice"] == pytest.approx(2 * (above & truth).sum() / (above.sum() + truth.sum()), abs=2e-3)
    assert scored(folder, on="validation")[0]["counted_px"] == EDGE**2
    assert "not a score" in scored(folder, on="all")[1]
    before = (folder / "evaluation/evaluation.json").read_bytes()
    config = evaluate_pictures.EvaluatePicturesConfig.checked({"maps": str(folder)}, "test")
    with pytest.raises(MismatchError, match=r"\(on: there 'all', here 'unseen'\); .* give --replace"):
        evaluate_pictures.run(config)
    assert (folder / "evaluation/evaluation.json").read_bytes() == before
    assert evaluate_pictures.run(config, replace=True)[0].startswith("--replace: removed the evaluation at ")
    assert not evaluate_pictures.run(config)[0].startswith("--replace")


def test_maps_say_how_many_of_their_pixels_trained_the_network(root):
    folder = maps(root)
    assert json.loads((folder / "manifest.json").read_text())["inputs"]["trained_share"] == 0.5
    values = {"bundle": str(root / "runs/net/bundle"), "root": str(root), "dataset": "drawings"}
    said = {
        split: infer_pictures.describe(infer_pictures.InferPicturesConfig.checked({**values, "split": split}, "test"))
        for split in ("all", "train", "test")
    }
    assert "50 % of these pixels trained this network" in said["all"]
    assert "100 % of these pixels trained this network" in said["train"]
    assert "careful" not in said["test"]


def test_pictures_of_a_folder_take_annotations_and_are_known_by_content(root):
    folder = maps(root, dataset=None, images=str(root / "drawings/train"))
    with pytest.raises(ConfigError, match="give --annotations FOLDER"):
        scored(folder)
    with pytest.raises(DataError, match="100 % of the annotated pixels trained this network"):
        scored(folder, annotations=str(root / "drawings/trainannot"))
    with pytest.raises(DataError, match="'1' has none"):
        scored(folder, annotations=str(root / "drawings/testannot"))


def test_names_and_paths_keep_their_words():
    assert picture_text("Share of ink on bare papyrus. Ink!") == "Share of object on background. Object!"
    assert picture_text("ink_labels.zarr, inkbatch, red-ink, segments/a, {segment}") == (
        "ink_labels.zarr, inkbatch, red-ink, segments/a, {segment}"
    )
