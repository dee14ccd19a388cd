"""What reading costs beside training: the step rate of the whole `train` job against the same job on tensors in memory.

The demo's network (a small U-Net; a larger one would hide more) trains on 128-pixel tiles cut at random out of samples
of 192 px, 13 real layers, augmented. The job streams them from segments (`index`) or from a pack. The floor is the very
same job, network, loop and batches, but with all batches in memory before it starts. Steps are timed within the first
epoch, where hardly a chunk has been decoded before; the first few warm up. Jobs and floor run in turn.
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
        steps: Steps of the run.
        warm_up: Steps at its beginning that are not timed.
        batch: Tiles per step.
    """

    edge_px: int = 2048
    steps: int = 30
    warm_up: int = 6
    batch: int = 16


@dataclass
class Watch:
    """Wall-clock and CPU time at the end of each step."""

    warm_up: int
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def __call__(self, steps: int) -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.wall.append(time.perf_counter())
        self.cpu.append(usage.ru_utime + usage.ru_stime)

    @property
    def rate(self) -> float:
        """Steps per second, the first ones left out."""
        return (len(self.wall) - self.warm_up) / (self.wall[-1] - self.wall[self.warm_up - 1])

    @property
    def cpu_s(self) -> float:
        """CPU seconds per step."""
        return (self.cpu[-1] - self.cpu[self.warm_up - 1]) / (len(self.cpu) - self.warm_up)


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
        "epochs": 1,
        "sampler": {"samples_per_epoch": size.batch * size.steps},
        "augment": AUGMENT,
        "device": "cpu",
        "channels_last": True,
    }
    return train.TrainConfig.checked({**settings, **changes}, "bench")


def job(config: train.TrainConfig, size: Size) -> Watch:
    """The whole job, once."""
    shutil.rmtree(Path(config.root) / "runs", ignore_errors=True)
    watch = Watch(size.warm_up)
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
    size = Size(edge_px=256, steps=3, warm_up=1, batch=2) if found.quick else Size()
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
    rates = {name: [watch.rate for watch in runs] for name, runs in watches.items()}
    spent = {name: [watch.cpu_s for watch in runs] for name, runs in watches.items()}
    report.facts |= {"steps_per_s": rates, "cpu_s_per_step": spent}
    report.note(
        f"{size.steps - size.warm_up} steps of {size.batch} tiles, {threads} torch thread(s), best of each kind"
    )
    floor = "the same job on tensors in memory"
    for name in configs:
        target = 0.95 if name in FORMS else None
        report.row(f"steps, {name}", max(rates[name]), "steps/s", max(rates["memory"]), floor, at_least=target)
    for name in configs:
        report.row(f"CPU seconds per step, {name}", min(spent[name]), "s", min(spent["memory"]), floor)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
