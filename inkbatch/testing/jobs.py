"""One tiny finished run of every job that is recorded, in one ROOT: for tests of what holds for all jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch

from inkbatch.errors import ConfigError
from inkbatch.io.store.location import Location
from inkbatch.models.prompting import build_promptable
from inkbatch.run.job import JobReport, RunContext
from inkbatch.steps import evaluate_instances, import_checkpoint, import_promptable, infer_pictures
from inkbatch.steps.dataset import job as build_dataset
from inkbatch.steps.ensemble import job as ensemble
from inkbatch.steps.evaluate import job as evaluate
from inkbatch.steps.infer import job as infer
from inkbatch.steps.instances import job as instances
from inkbatch.steps.instances.settings import InstancesConfig
from inkbatch.steps.labels import clean
from inkbatch.steps.labels import job as labels
from inkbatch.steps.letters import job as letters
from inkbatch.steps.preflight import job as preflight
from inkbatch.steps.prepare import job as prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.steps.probe import job as probe
from inkbatch.steps.round import job as rounds
from inkbatch.steps.sweep import job as sweep
from inkbatch.steps.sweep.settings import SweepConfig
from inkbatch.steps.synthetic import phantom_series
from inkbatch.steps.synthetic.phantom_series import PhantomSeriesConfig
from inkbatch.steps.train import job as train
from inkbatch.steps.train import soup
from inkbatch.testing.instances import write_maps
from inkbatch.testing.prompting import tiny_sam2
from inkbatch.testing.published import tiny_published, write_checkpoint, write_preset
from inkbatch.testing.rounds import rounds_root, tiny_round
from inkbatch.testing.segments import network_bundle, write_layers
from inkbatch.testing.training import planted_segment, tiny_dataset, tiny_run
from inkbatch.text import near_matches

UNIT_PX = 64


@dataclass(frozen=True)
class Step:
    """A tiny run of a job.

    Attributes:
        job: Name of the job.
        run: Carries it out; gives a `JobReport`, or the lines of a command without units.
    """

    job: str
    run: Callable[[RunContext], Any]


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
    root = folder / "root"
    write_inputs(folder, str(root))
    runs = {step.job: Path(step.run(RunContext()).location.path) for step in steps_of(folder, str(root))}
    return EveryJob(Path(Location.parse(root).path), folder, runs)


def write_inputs(folder: Path, root: str) -> None:
    """Write what the jobs begin with: layers, labels, a bundle and pictures into `folder`, a dataset under `root`."""
    stack, ink = planted_segment(0, (5, 160, 192))
    write_layers(folder / "layers", stack)
    cv2.imwrite(str(folder / "ink.png"), ink)
    network_bundle(folder / "bundle")
    (folder / "pictures").mkdir()
    grey = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "pictures/a.png"), grey)
    tiny_dataset(root, sources=folder / "sources")
    rounds_root(root, folder / "sources")


def steps_of(folder: Path, root: str) -> list[Step]:
    """List a tiny run of every job, in an order in which each finds what it reads; see `write_inputs`."""
    segment = "page"
    common = {"root": root, "segment": segment}
    bundle = {"bundle": str(folder / "bundle"), "device": "cpu"}
    stated = {"source": str(folder / "layers"), "depth_order": "forward", "voxel_size_um": 8.0, "shard_px": UNIT_PX}
    cleaning = {"clean": {"min_area_px": 20}, "unit_px": UNIT_PX, "image": str(folder / "ink.png")}
    pair = {"predictions": ["first", "second"], "fit_weights": True, "unit_px": UNIT_PX}
    swept = {
        "bundles": [{"bundle": bundle["bundle"], "stride_px": 32}],
        "depths": "-1:2",
        "directions": "forward",
        "nulls": ["shuffled"],
        "phases": 2,
        "control_windows": 1,
        "control": [60.0, 25.0],
        "device": "cpu",
        "unit_px": UNIT_PX,
    }
    rules = {"object_from": 0.3, "min_area": 5, "reach": 8, "boundary_min": 0}
    parted = {"subject": segment, "name": "first", "unit_px": UNIT_PX, "proposals": rules, "selection": {"edge": 0}}
    read = {"name": "first", "unit_px": UNIT_PX, "rules": {"ink_from": 0.3, "min_stroke": 5}}
    trained = tiny_run(root, epochs=2, keep_epochs=2, sampler={"samples_per_epoch": 8})
    asked_soup = soup.SoupConfig(run="first", root=root, last=2, statistics_steps=2, device="cpu")
    samples = {
        "name": "letters",
        "root": root,
        "segments": ["s0", "s1"],
        "form": "pack",
        "sample_px": 32,
        "sampling": {"kind": "grid", "stride_px": 32},
        "splits": {"kind": "lists", "train": ["s0"], "validation": ["s1"]},
    }
    asked: list[tuple[str, Any, Callable[[Any, RunContext], JobReport]]] = [
        ("prepare", PrepareConfig(**common, **stated), prepare.run),
        ("labels", labels.LabelsConfig.checked({**common, **cleaning}, "labels"), labels.run),
    ]
    for name, stride in (("second", 12), ("first", 16)):
        looks = {**common, **bundle, "unit_px": UNIT_PX, "name": name, "stride_px": stride}
        asked.append(("infer", infer.InferConfig(**looks), infer.run))
    asked += [
        ("ensemble", ensemble.EnsembleConfig.checked({**common, **pair}, "ensemble"), ensemble.run),
        ("clean", clean.CleanConfig(**common, name="first", unit_px=UNIT_PX, min_area_px=5), clean.run),
        ("instances", InstancesConfig.checked({"root": root, **parted}, "instances"), instances.run),
        ("letters", letters.LettersConfig.checked({**common, **read}, "letters"), letters.run),
        (
            "evaluate",
            evaluate.EvaluateConfig(**common, name="first", versus="second", region_px=32, draws=100),
            evaluate.run,
        ),
        ("probe", probe.ProbeConfig(**common, **bundle, at=((0, 0),), window_px=64), probe.run),
        ("preflight", preflight.PreflightConfig(**common, unit_px=256), preflight.run),
        ("sweep", SweepConfig.checked({**common, **swept}, "sweep"), sweep.run),
        ("train", train.TrainConfig.checked(trained, "train"), train.run),
        ("soup", asked_soup, soup.run),
        ("build-dataset", build_dataset.BuildDatasetConfig.checked(samples, "build-dataset"), build_dataset.run),
        ("round", rounds.RoundConfig.checked(tiny_round(root, round=1), "round"), rounds.run),
        (
            "infer-pictures",
            infer_pictures.InferPicturesConfig(**bundle, root=root, images=str(folder / "pictures")),
            infer_pictures.run,
        ),
    ]
    return [Step(job, partial(_run, run, config)) for job, config, run in asked]


def write_more_inputs(folder: Path) -> None:
    """Write what `more_steps_of` begins with into `folder`: published networks, a picture, its map and true labels."""
    write_maps(folder / "grains", {"a": (70, 90)}, grains=8)
    _, numbers = cv2.connectedComponents((np.load(folder / "grains/maps/a.npy") > 0.5).astype(np.uint8))
    (folder / "truth").mkdir()
    np.save(folder / "truth/a.npy", numbers.astype(np.int32))
    promptable = tiny_sam2()
    torch.manual_seed(0)
    cast(Any, build_promptable(promptable.kind, promptable.config)).save_pretrained(folder / "published")
    write_checkpoint(folder / "last.ckpt", tiny_published())
    write_preset(folder / "preset.yaml")


def more_steps_of(folder: Path, root: str) -> list[Step]:
    """List jobs of which `steps_of` has another way, imports and phantoms; they read what its steps left."""
    network, found = f"{root}/networks/tiny", f"{root}/instances/grains/refined"
    taken = import_promptable.ImportPromptableConfig(source=str(folder / "published"), dest=network, licence="MIT")
    kept = import_checkpoint.ImportConfig(
        source=str(folder / "last.ckpt"), dest=f"{root}/networks/kept", preset=str(folder / "preset.yaml")
    )
    series: dict[str, Any] = {
        "source": str(folder / "layers"),
        "labels": str(folder / "ink.png"),
        "output": f"{root}/phantoms",
    }
    series |= {"count": 2, "depth_order": "forward", "voxel_size_um": 8.0, "source_box": [0, 0, 96, 96]}
    planted = PhantomSeriesConfig.checked({**series, "amplitude": [40, 60], "depth_layer": [1, 3]}, "phantoms")
    carried = {"segment": "page", "root": root, "output_root": f"{root}/carried", "unit_px": UNIT_PX}
    outlined = {
        "subject": "grains",
        "result": "refined",
        "root": root,
        "unit_px": 32,
        "refine": network,
        "device": "cpu",
    }
    outlined |= {"maps": str(folder / "grains/maps"), "pictures": str(folder / "grains/pictures")}
    outlined |= {"proposals": {"min_area": 5}, "refinement": {"cell_px": 32, "halo_px": 16}}
    outlined |= {"selection": {"edge": 0, "background": 1.0, "largest_share": 1.0}}  # fresh weights answer anything
    scored = evaluate_instances.EvaluateInstancesConfig(result=found, labels=str(folder / "truth"))
    onto = labels.LabelsConfig.checked({**carried, "from_map": "page/first"}, "labels")
    refined = InstancesConfig.checked(outlined, "instances")
    return [
        Step("import-checkpoint", lambda _: import_checkpoint.run(kept)),
        Step("import-promptable", lambda _: import_promptable.run(taken)),
        Step("phantoms", lambda _: phantom_series.run(planted)),
        Step("labels", partial(labels.run, onto)),
        Step("instances", partial(instances.run, refined)),
        Step("evaluate-instances", lambda _: evaluate_instances.run(scored)),
    ]


def require_steps(asked: Iterable[str] | None, others: Iterable[str] = ()) -> None:
    """Refuse names that are those of no step.

    Args:
        asked: The names.
        others: Names that go, too.

    Raises:
        ConfigError: Names the steps.
    """
    steps = [step.job for of in (steps_of, more_steps_of) for step in of(Path("inputs"), "root")]
    known = sorted({*steps, *others})
    if unknown := sorted(set(asked or ()) - set(known)):
        raise ConfigError(f"--job {unknown[0]}: expected one of {', '.join(known)}{near_matches(unknown[0], known)}")


def _run(run: Callable[[Any, RunContext], JobReport], config: Any, context: RunContext) -> JobReport:
    return run(config, context)
