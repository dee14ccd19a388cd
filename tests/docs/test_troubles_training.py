"""Labels, datasets and training: every message of docs/troubleshooting.md is provoked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from inkbatch.io.store.location import Location
from inkbatch.testing.maps import store_map, store_picture
from inkbatch.testing.training import tiny_dataset, tiny_run, write_labels
from inkbatch.testing.troubles import SHAPE, Troubles

TROUBLES = Troubles()
provokes = TROUBLES.provokes


# ---- labels, datasets, training --------------------------------------------------------------------------------------


@provokes("no ink labels are known")
def _(desk):
    return desk.inferred().says("evaluate", "tiny")


@provokes("the size of its labels is …, that of the surface …")
def _(desk):
    cv2.imwrite("labels.png", np.zeros((80, 120), np.uint8))
    return desk.prepared().says("labels", "tiny", "--image", "labels.png")


@provokes("expected equal shapes up to one scale, got …")
def _(desk):
    root = desk.prepared().folder / "root"
    store_picture(root, "fine", "mask", np.ones((80, 400)))
    store_map(root, "fine", "net", np.ones((80, 400)))
    return desk.says("labels", "--from-map", "fine/net", "--onto", "tiny")


def _dataset(desk, **changes: object) -> tuple[int, str]:
    """Build a dataset of the tiny segment, which has ink at its left."""
    labels = np.zeros(SHAPE[1:], np.uint8)
    labels[:, :40] = 255
    write_labels(desk.prepared().folder / "root", "tiny", labels)
    values = {"name": "d", "segments": ["tiny"], "sample_px": 32, "sampling": {"kind": "grid", "stride_px": 16}}
    Path("d.yaml").write_text(json.dumps({**values, "splits": {"kind": "kfold", "folds": 2}, **changes}))
    return desk.says("build-dataset", "--config", "d.yaml")


@provokes("samples see pixels… of held-out ones")
def _(desk):
    return _dataset(desk)


def _train(desk, **changes: object) -> tuple[int, str]:
    tiny_dataset(desk.folder / "root")
    Path("run.yaml").write_text(json.dumps(tiny_run(desk.folder / "root", **changes)))
    return desk.says("train", "--config", "run.yaml")


def _train_on(desk, **sample: object) -> tuple[int, str]:
    """Train on a dataset of which every sample was changed."""
    index = tiny_dataset(desk.folder / "root")
    place = desk.folder / "root/datasets/tiny"
    (place / "index.json").unlink()
    samples = tuple(one.model_copy(update=sample) for one in index.samples)
    index.model_copy(update={"samples": samples, "digest": ""}).save(Location.parse(place))
    Path("run.yaml").write_text(json.dumps(tiny_run(desk.folder / "root")))
    return desk.says("train", "--config", "run.yaml")


@provokes("split … holds no sample")
def _(desk):
    return _train_on(desk, split="train")


@provokes("samples of split … holds ink")
def _(desk):
    return _train_on(desk, ink_share=0.0)


def _model(**changes: object) -> dict[str, object]:
    run = tiny_run(Path("root"))
    return {**run["model"], "config": {**run["model"]["config"], **changes}}


@provokes("the network takes … layers, samples hold …")
def _(desk):
    return _train(desk, model=_model(depth_layers=9))


@provokes("is not a multiple of … px, the coarsest stride inside the network")
def _(desk):
    return _train(desk, tile_px=24, model=_model(family="FPN", decoder={}))


@provokes("the loss of epoch … is …; its batch holds the samples")
def _(desk):
    return _train(desk, optimiser={"rate": 1e30}, clip_gradient=None)


@provokes("cannot be shared evenly by … devices")
def _(desk):
    tiny_dataset(desk.folder / "root")
    Path("run.yaml").write_text(json.dumps(tiny_run(desk.folder / "root", batch=5, devices=2)))
    ended = subprocess.run(
        [sys.executable, "-m", "inkbatch", "train", "--config", "run.yaml"], capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stderr  # in processes of its own: training on several devices starts some


@pytest.mark.timeout(120)
@pytest.mark.parametrize("heading", TROUBLES.headings())
def test_the_message_says_the_words_of_the_page_and_ends_with_its_code(heading, desk, request):
    TROUBLES.check(heading, desk, request.getfixturevalue)
