"""One small finished run of each job whose page `inkbatch.testing.reports` checks, beside prepare and infer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inkbatch.io.store.location import Location
from inkbatch.run.job import RunContext
from inkbatch.testing.datasets import inked, labelled_segment
from inkbatch.testing.maps import store_map, store_picture
from inkbatch.testing.segments import identity_bundle, random_papyrus, write_layers

SHAPE = (96, 128)


def dataset(folder: Path) -> Location:
    """Run `build-dataset` below `folder`: two segments, one of which validates."""
    from inkbatch.steps.dataset import job as build_dataset

    for segment, box in (("a", (10, 10, 60, 70)), ("b", (40, 20, 90, 60))):
        ignore = inked(SHAPE, (0, 100, 30, 128))
        labelled_segment(folder / "root", segment, inked(SHAPE, box), ignore=ignore)
    values = {
        "name": "letters",
        "root": str(folder / "root"),
        "segments": ["a", "b"],
        "sample_px": 32,
        "splits": {"kind": "lists", "train": ["a"], "validation": ["b"]},
    }
    return build_dataset.run(build_dataset.BuildDatasetConfig.checked(values, "test"), RunContext()).location


def trained(folder: Path) -> Location:
    """Run `train` below `folder`."""
    from inkbatch.steps.train import job as train
    from inkbatch.testing.training import tiny_dataset, tiny_run

    tiny_dataset(folder / "root")
    return train.run(train.TrainConfig.checked(tiny_run(folder / "root"), "test"), RunContext()).location


def averaged(folder: Path) -> Location:
    """Run `train` and `soup` below `folder`."""
    from inkbatch.steps.train import job as train
    from inkbatch.steps.train import soup
    from inkbatch.testing.training import tiny_dataset, tiny_run

    tiny_dataset(folder / "root")
    values = tiny_run(folder / "root", keep_epochs=2, sampler={"samples_per_epoch": 8})
    train.run(train.TrainConfig.checked(values, "test"), RunContext())
    asked = soup.SoupConfig(run="first", root=str(folder / "root"), last=2, statistics_steps=2, device="cpu")
    return soup.run(asked, RunContext()).location


def combined(folder: Path) -> Location:
    """Run `ensemble` with fitted weights below `folder`."""
    from inkbatch.steps.ensemble import job as ensemble

    values = {**_two_maps(folder), "predictions": ["good", "poor"], "fit_weights": True, "name": "both"}
    return ensemble.run(ensemble.EnsembleConfig.checked(values, "test"), RunContext()).location


def evaluated(folder: Path) -> Location:
    """Run `evaluate` of two maps below `folder`."""
    from inkbatch.steps.evaluate import job as evaluate

    values = {**_two_maps(folder), "name": "good", "versus": "poor", "region_px": 32, "draws": 100}
    return evaluate.run(evaluate.EvaluateConfig.checked(values, "test"), RunContext()).location


def cleaned(folder: Path) -> Location:
    """Run `clean` below `folder`."""
    from inkbatch.steps.labels import clean

    values = {**_two_maps(folder), "name": "poor", "min_area_px": 20}
    return clean.run(clean.CleanConfig.checked(values, "test"), RunContext()).location


def parted(folder: Path) -> Location:
    """Run `instances` below `folder`, on two maps with their pictures."""
    from inkbatch.steps.instances import job as instances
    from inkbatch.steps.instances.settings import InstancesConfig
    from inkbatch.testing.instances import write_maps

    write_maps(folder, {"a": (96, 128), "b": (80, 100)})
    values = {"subject": "grains", "root": str(folder / "root"), "unit_px": 64, "pixel_um": 5.0}
    values |= {"maps": str(folder / "maps"), "pictures": str(folder / "pictures")}
    return instances.run(InstancesConfig.checked(values, "test"), RunContext()).location


def read(folder: Path) -> Location:
    """Run letters below `folder`, on a column of two lines."""
    from inkbatch.steps.letters import job as letters
    from inkbatch.testing.letters import write_column
    from inkbatch.testing.maps import store_map

    store_map(folder / "root", "column", "net", write_column(lines=2, letters=3, height_px=24, pitch_px=40).ink * 0.9)
    values = {"segment": "column", "root": str(folder / "root"), "rules": {"min_stroke": 10}, "unit_px": 64}
    return letters.run(letters.LettersConfig.checked(values, "test"), RunContext()).location


def probed(folder: Path) -> Location:
    """Run `probe` below `folder`, with a bundle that sees no ink."""
    from inkbatch.steps.prepare import job as prepare
    from inkbatch.steps.prepare.settings import PrepareConfig
    from inkbatch.steps.probe import job as probe

    source = write_layers(folder / "layers", random_papyrus())
    values = {"segment": "tiny", "root": str(folder / "root"), "source": str(source), "shard_px": 64}
    values |= {"depth_order": "forward", "voxel_size_um": 8.0}
    prepare.run(PrepareConfig.checked(values, "test"), RunContext())
    identity_bundle(folder / "bundle")
    asked = {"segment": "tiny", "root": str(folder / "root"), "bundle": str(folder / "bundle"), "device": "cpu"}
    config = probe.ProbeConfig.checked({**asked, "at": [[0, 0]], "window_px": 48}, "test")
    return probe.run(config, RunContext()).location


def preflighted(folder: Path) -> Location:
    """Run `preflight` below `folder`, on layers without a texture."""
    from inkbatch.steps.preflight import job as preflight
    from inkbatch.steps.prepare import job as prepare
    from inkbatch.steps.prepare.settings import PrepareConfig

    source = write_layers(folder / "layers", random_papyrus())
    values = {"segment": "tiny", "root": str(folder / "root"), "source": str(source), "shard_px": 64}
    values |= {"depth_order": "forward", "voxel_size_um": 8.0}
    prepare.run(PrepareConfig.checked(values, "test"), RunContext())
    asked = {"segment": "tiny", "root": str(folder / "root")}
    return preflight.run(preflight.PreflightConfig.checked(asked, "test"), RunContext()).location


def swept(folder: Path) -> Location:
    """Run `sweep` below `folder`: two networks that see nothing, three depths."""
    from inkbatch.steps.prepare import job as prepare
    from inkbatch.steps.prepare.settings import PrepareConfig
    from inkbatch.steps.sweep import job as sweep

    source = write_layers(folder / "layers", random_papyrus((5, 96, 128)))
    root = {"segment": "tiny", "root": str(folder / "root")}
    stated = {"source": str(source), "shard_px": 64, "depth_order": "forward", "voxel_size_um": 8.0}
    prepare.run(PrepareConfig.checked({**root, **stated}, "test"), RunContext())
    identity_bundle(folder / "bundle", 3)
    bundles = [{"bundle": str(folder / "bundle"), "name": name} for name in ("first", "second")]
    config = sweep.SweepConfig.checked({**root, "bundles": bundles, "unit_px": 128, "device": "cpu"}, "test")
    return sweep.run(config, RunContext()).location


def rounded(folder: Path) -> Location:
    """Run `round` below `folder`."""
    from inkbatch.steps.round import job as rounds
    from inkbatch.testing.rounds import rounds_root, tiny_round

    rounds_root(folder / "root", folder / "sources")
    return rounds.run(rounds.RoundConfig.checked(tiny_round(folder / "root"), "test"), RunContext()).location


def _two_maps(folder: Path) -> dict[str, str]:
    ink = inked(SHAPE, (20, 20, 60, 100), (70, 30, 90, 60))
    for name, noise in (("good", 0.2), ("poor", 0.6)):
        store_map(folder / "root", "s", name, _map(ink, noise))
    store_picture(folder / "root", "s", "mask", np.full(SHAPE, 255), pooling="max")
    store_picture(folder / "root", "s", "ink_labels", ink)
    return {"segment": "s", "root": str(folder / "root")}


def _map(ink: NDArray[np.uint8], noise: float) -> NDArray[np.float32]:
    rough = np.random.default_rng(0).standard_normal(ink.shape)
    return np.clip(0.2 + 0.6 * (ink / 255) + noise * rough, 0.001, 0.999).astype(np.float32)
