"""One tiny finished run of every job that is recorded, in one ROOT: for tests of what holds for all jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from inkbatch.io.store.location import Location
from inkbatch.run.job import RunContext
from inkbatch.steps import infer_pictures
from inkbatch.steps.dataset import job as build_dataset
from inkbatch.steps.ensemble import job as ensemble
from inkbatch.steps.evaluate import job as evaluate
from inkbatch.steps.infer import job as infer
from inkbatch.steps.labels import clean
from inkbatch.steps.labels import job as labels
from inkbatch.steps.preflight import job as preflight
from inkbatch.steps.prepare import job as prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.steps.probe import job as probe
from inkbatch.steps.train import job as train
from inkbatch.steps.train import soup
from inkbatch.testing.segments import network_bundle, write_layers
from inkbatch.testing.training import planted_segment, tiny_dataset, tiny_run

UNIT_PX = 64


@dataclass(frozen=True)
class EveryJob:
    """Finished runs.

    Attributes:
        root: Their ROOT.
        folder: Folder of pictures, layers and the bundle.
        runs: By job: the run's folder.
    """

    root: Path
    folder: Path
    runs: Mapping[str, Path]


def run_every_job(folder: Path) -> EveryJob:
    """Run every job once: a papyrus of 5 layers of 160 x 192 px with ink, a small network, seconds in all."""
    root, segment = folder / "root", "page"
    common = {"root": str(root), "segment": segment}
    stack, ink = planted_segment(0, (5, 160, 192))
    source = write_layers(folder / "layers", stack)
    cv2.imwrite(str(folder / "ink.png"), ink)
    network_bundle(folder / "bundle")
    bundle = {"bundle": str(folder / "bundle"), "device": "cpu"}
    runs: dict[str, Any] = {}

    def done(job: str, report: Any) -> None:
        runs[job] = Path(report.location.path)

    stated = {"source": str(source), "depth_order": "forward", "voxel_size_um": 8.0, "shard_px": UNIT_PX}
    done("prepare", prepare.run(PrepareConfig(**common, **stated), RunContext()))
    cleaning = {"clean": {"min_area_px": 20}, "unit_px": UNIT_PX, "image": str(folder / "ink.png")}
    done("labels", labels.run(labels.LabelsConfig.checked({**common, **cleaning}, "labels"), RunContext()))
    for name, stride in (("second", 12), ("first", 16)):
        asked = {**common, **bundle, "unit_px": UNIT_PX, "name": name, "stride_px": stride}
        done("infer", infer.run(infer.InferConfig(**asked), RunContext()))
    pair = {"predictions": ["first", "second"], "fit_weights": True, "unit_px": UNIT_PX}
    asked_fit = ensemble.EnsembleConfig.checked({**common, **pair}, "ensemble")
    done("ensemble", ensemble.run(asked_fit, RunContext()))
    done("clean", clean.run(clean.CleanConfig(**common, name="first", unit_px=UNIT_PX, min_area_px=5), RunContext()))
    scored = evaluate.EvaluateConfig(**common, name="first", versus="second", region_px=32, draws=100)
    done("evaluate", evaluate.run(scored, RunContext()))
    done("probe", probe.run(probe.ProbeConfig(**common, **bundle, at=((0, 0),), window_px=64), RunContext()))
    done("preflight", preflight.run(preflight.PreflightConfig(**common, unit_px=256), RunContext()))
    tiny_dataset(root)
    trained = tiny_run(root, epochs=2, keep_epochs=2, sampler={"samples_per_epoch": 8})
    done("train", train.run(train.TrainConfig.checked(trained, "train"), RunContext()))
    asked_soup = soup.SoupConfig(run="first", root=str(root), last=2, statistics_steps=2, device="cpu")
    done("soup", soup.run(asked_soup, RunContext()))
    samples = {
        "name": "letters",
        "root": str(root),
        "segments": ["s0", "s1"],
        "form": "pack",
        "sample_px": 32,
        "sampling": {"kind": "grid", "stride_px": 32},
        "splits": {"kind": "lists", "train": ["s0"], "validation": ["s1"]},
    }
    dataset = build_dataset.BuildDatasetConfig.checked(samples, "build-dataset")
    done("build-dataset", build_dataset.run(dataset, RunContext()))
    (folder / "pictures").mkdir()
    grey = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "pictures/a.png"), grey)
    pictures = infer_pictures.InferPicturesConfig(**bundle, root=str(root), images=str(folder / "pictures"))
    done("infer-pictures", infer_pictures.run(pictures, RunContext()))
    return EveryJob(Path(Location.parse(root).path), folder, runs)
