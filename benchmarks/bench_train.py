"""What reading costs beside training: the step rate of the whole `train` job against the same job on tensors in memory.

The demo's network (a small U-Net; a larger one would hide more) trains on 128-pixel tiles cut at random out of samples
of 192 px, 13 real layers, augmented. The job streams them from segments (`index`) or from a pack. The floor is the very
same job, network, loop and batches, but with all batches in memory before it starts. Steps are timed within epochs,
without the validation between them. In the first epoch every chunk is decoded, into memory that was never touched; from
the second one on what was decoded is kept, as it is in a run of many epochs. Both have rows, the target is for both.
The first few steps of an epoch warm up. Jobs and floor run in turn.
"""

from __future__ import annotations

import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import torch

from benchmarks.common import Report, options, real_layers, scratch, write_stack
from inkbatch.run.job import RunContext
from inkbatch.steps import build_dataset, prepare, train
from inkbatch.training.data import Step, StepStream

FORMS = ("index", "pack")
NETWORK = {
    "family": "Unet",
    "encoder": "tu-mobilenetv3_small_100",
    "decoder": {"encoder_depth": 4, "decoder_channels": [64, 32, 16, 8]},
}
AUGMENT = {"tone": 0.5, "warp": 0.3, "noise": 0.2}
LAYERS, SAMPLE_PX, STRIDE_PX, TILE_PX = 13, 192, 96, 128


@dataclass(frozen=True)
class Size:
    """How much is trained.

    Attributes:
        edge_px: Edge of the training segment.
        epochs: Epochs of the run.
        steps: Steps of an epoch.
        warm_up: Steps at the beginning of an epoch that are not timed.
        batch: Tiles per step.
    """

    edge_px: int = 2048
    epochs: int = 3
    steps: int = 30
    warm_up: int = 6
    batch: int = 16


@dataclass
class Watch:
    """Wall-clock and CPU time at the end of each step."""

    size: Size
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def __call__(self, steps: int) -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.wall.append(time.perf_counter())
        self.cpu.append(usage.ru_utime + usage.ru_stime)

    def step_s(self, clock: Sequence[float], epochs: range) -> float:
        """Seconds per step of one clock within these epochs, the first steps of each left out."""
        spent = 0.0
        for epoch in epochs:
            ticks = clock[epoch * self.size.steps : (epoch + 1) * self.size.steps]
            spent += ticks[-1] - ticks[self.size.warm_up - 1]
        return spent / len(epochs) / (self.size.steps - self.size.warm_up)


def make_data(folder: Path, size: Size, layers: Path | None) -> None:
    """Prepare a large segment to train on and a small one that validates, and build both forms of the dataset."""
    root = str(folder / "root")
    for name, edge in (("large", size.edge_px), ("small", SAMPLE_PX)):
        write_stack(folder / name, real_layers(LAYERS, (edge, edge), layers))
        labels = np.zeros((edge, edge), np.uint8)
        labels[::4] = 255
        cv2.imwrite(str(folder / f"{name}.png"), labels)
        values = {"segment": name, "root": root, "source": str(folder / name)}
        prepare.run(prepare.PrepareConfig(**values, depth_order="forward", voxel_size_um=7.91), RunContext())
    for form in FORMS:
        settings: dict[str, Any] = {
            "name": form,
            "root": root,
            "segments": [
                {"id": name, "labels": {"image": str(folder / f"{name}.png"), "clean": {"min_area_px": 0}}}
                for name in ("large", "small")
            ],
            "sample_px": SAMPLE_PX,
            "sampling": {"kind": "grid", "stride_px": STRIDE_PX},
            "splits": {"kind": "lists", "train": ["large"], "validation": ["small"]},
            "form": form,
        }
        build_dataset.run(build_dataset.BuildDatasetConfig.checked(settings, "bench"), RunContext())


def config_of(folder: Path, form: str, size: Size, **changes: Any) -> train.TrainConfig:
    settings = {
        "dataset": form,
        "run": form,
        "root": str(folder / "root"),
        "model": {"architecture": "smp", "config": NETWORK},
        "tile_px": TILE_PX,
        "batch": size.batch,
        "epochs": size.epochs,
        "sampler": {"samples_per_epoch": size.batch * size.steps},
        "augment": AUGMENT,
        "device": "cpu",
        "channels_last": True,
    }
    return train.TrainConfig.checked({**settings, **changes}, "bench")


def job(config: train.TrainConfig, size: Size) -> Watch:
    """The whole job, once."""
    shutil.rmtree(Path(config.root) / "runs", ignore_errors=True)
    watch = Watch(size)
    train.run(config, RunContext(), watch)
    return watch


def with_steps_in_memory(config: train.TrainConfig, size: Size) -> Callable[[], Watch]:
    """The same job on batches that were read before."""
    kept: list[Step] = []
    read = StepStream.run

    def keep(self: StepStream, epoch: int, step: int) -> Iterator[Step]:
        for found in read(self, epoch, step):
            kept.append(found)
            yield found

    with patch.object(StepStream, "run", keep):
        job(config, size)

    def again() -> Watch:
        with patch.object(StepStream, "run", lambda self, epoch, step: (one for one in kept)):
            return job(config, size)

    return again


def main(arguments: Sequence[str] | None = None) -> int:
    found = options(__doc__, arguments, rounds=3)
    size = Size(edge_px=256, epochs=2, steps=3, warm_up=1, batch=2) if found.quick else Size()
    threads = torch.get_num_threads()
    facts = {"tile_px": TILE_PX, "layers": LAYERS, "batch": size.batch, "steps": size.steps, "torch_threads": threads}
    report = Report("train", found, facts)
    with scratch(found) as folder:
        make_data(folder, size, found.layers)
        configs = {form: config_of(folder, form, size) for form in FORMS}
        configs["index, nothing kept"] = config_of(folder, "index", size, read_cache="0")
        actions = {"memory": with_steps_in_memory(configs["index"], size)}
        actions |= {name: lambda one=config: job(one, size) for name, config in configs.items()}
        watches: dict[str, list[Watch]] = {name: [] for name in actions}
        for _ in range(found.rounds):
            for name, action in actions.items():
                watches[name].append(action())
    report.note(
        f"{size.epochs} epochs, {size.steps - size.warm_up} steps of {size.batch} tiles of each, {threads} torch "
        "thread(s), best of each kind"
    )
    floor = "the same job on tensors in memory"
    for words, epochs in (("first epoch", range(1)), ("later epochs", range(1, size.epochs))):
        wall = {name: [watch.step_s(watch.wall, epochs) for watch in runs] for name, runs in watches.items()}
        spent = {name: [watch.step_s(watch.cpu, epochs) for watch in runs] for name, runs in watches.items()}
        report.facts[words] = {"s_per_step": wall, "cpu_s_per_step": spent}
        for name in configs:
            target = 0.95 if name in FORMS else None
            figure, best = 1 / min(wall[name]), 1 / min(wall["memory"])
            report.row(f"steps, {name}, {words}", figure, "steps/s", best, floor, at_least=target)
        for name in configs:
            label = f"CPU seconds per step, {name}, {words}"
            report.row(label, min(spent[name]), "s", min(spent["memory"]), floor)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
