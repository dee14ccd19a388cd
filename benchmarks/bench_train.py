"""Cost of reading beside training: the step rate of the whole `train` job against the same job on tensors in memory.

Two networks train on 128-pixel tiles cut at random out of samples of 192 px, 13 real layers, augmented, streamed from
segments (`index`) or from a pack: a U-Net with ResNet-34, the field's most common one, and the demo's, the smallest
that we ship and the worst case, for on two cores reading takes from the device what it takes itself.

The machine's own pace drifts by more than reading costs. Therefore the floor and what is measured take turns within one
run, a few steps each, on the very same batches: all of them in memory before they are needed (the floor); streamed by
readers that have kept nothing yet and opened nothing, as in the first epoch; streamed again, as in every later one. The
median over all turns of the ratio within a turn counts, and its standard error, found by drawing turns again, says what
it is worth.
Readers run ahead beyond the steps that are timed, as they do within an epoch, and the first few steps warm up. One
thing is kinder than in a real first epoch: the file system's memory holds the data, and the allocator may hand out
memory that an earlier turn has touched.
"""

from __future__ import annotations

import copy
import itertools
import resource
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import torch

from benchmarks.common import Report, options, real_layers, scratch, write_stack
from inkbatch.run.job import RunContext
from inkbatch.steps import chains
from inkbatch.steps.dataset import job as build_dataset
from inkbatch.steps.prepare import job as prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.steps.train import job as train
from inkbatch.training.data import Step, StepStream

FORMS = ("index", "pack")
KINDS = ("memory", "first epoch", "later epochs")
NETWORKS: dict[str, dict[str, Any]] = {
    "ResNet-34": {"family": "Unet", "encoder": "resnet34"},
    "demo": {
        "family": "Unet",
        "encoder": "tu-mobilenetv3_small_100",
        "decoder": {"encoder_depth": 4, "decoder_channels": [64, 32, 16, 8]},
    },
}
AUGMENT = {"tone": 0.5, "warp": 0.3, "noise": 0.2}
LAYERS, SAMPLE_PX, STRIDE_PX, TILE_PX = 13, 192, 96, 128


@dataclass(frozen=True)
class Size:
    """Size of a training.

    Attributes:
        edge_px: Edge of the training segment.
        turns: Turns; each takes some steps of every kind.
        steps: Steps of one kind in a turn, an epoch to the job.
        warm_up: Steps at their beginning that are not timed.
        batch: Tiles per step.
    """

    edge_px: int = 2048
    turns: int = 25
    steps: int = 12
    warm_up: int = 4
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

    def step_s(self, clock: Sequence[float], kind: int) -> list[float]:
        """Return seconds per step in the epochs of one kind, without the first steps of each and the first turn."""
        starts = range((len(KINDS) + kind) * self.size.steps, len(clock), len(KINDS) * self.size.steps)
        timed = self.size.steps - self.size.warm_up
        return [(clock[at + self.size.steps - 1] - clock[at + self.size.warm_up - 1]) / timed for at in starts]


def make_data(folder: Path, size: Size, layers: Path | None) -> None:
    """Prepare a large segment to train on and a small one that validates, and build both forms of the dataset."""
    root = str(folder / "root")
    for name, edge in (("large", size.edge_px), ("small", SAMPLE_PX)):
        write_stack(folder / name, real_layers(LAYERS, (edge, edge), layers))
        labels = np.zeros((edge, edge), np.uint8)
        labels[::4] = 255
        cv2.imwrite(str(folder / f"{name}.png"), labels)
        values = {"segment": name, "root": root, "source": str(folder / name)}
        prepare.run(PrepareConfig(**values, depth_order="forward", voxel_size_um=7.91), RunContext())
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
        chains.build_dataset(build_dataset.BuildDatasetConfig.checked(settings, "bench"), RunContext())


def config_of(folder: Path, form: str, size: Size, network: str = "demo", **changes: Any) -> train.TrainConfig:
    settings = {
        "dataset": form,
        "run": form,
        "root": str(folder / "root"),
        "model": {"architecture": "smp", "config": NETWORKS[network]},
        "tile_px": TILE_PX,
        "batch": size.batch,
        "epochs": size.turns * len(KINDS),
        "sampler": {"samples_per_epoch": size.batch * size.steps},
        "augment": AUGMENT,
        "device": "cpu",
        "channels_last": True,
    }
    return train.TrainConfig.checked({**settings, **changes}, "bench")


def in_turns(config: train.TrainConfig, size: Size) -> Watch:
    """Run the whole job, once; the kinds of reading take turns."""
    read = StepStream.run

    def run(self: StepStream, epoch: int, step: int) -> Iterator[Step]:
        for turn in range(size.turns):
            ready = list(itertools.islice(read(_reading_on(self, turn), turn, 0), size.steps))
            for number, kind in enumerate(KINDS):
                if kind == "first epoch":
                    self.tiles.reader = copy.copy(self.tiles.reader)
                steps = iter(ready) if kind == "memory" else read(_reading_on(self, turn), turn, 0)
                for one in itertools.islice(steps, size.steps):
                    yield replace(one, epoch=turn * len(KINDS) + number)

    shutil.rmtree(Path(config.root) / "runs", ignore_errors=True)
    watch = Watch(size)
    with patch.object(StepStream, "run", run):
        train.run(config, RunContext(), watch)
    return watch


def _reading_on(stream: StepStream, epoch: int) -> StepStream:
    """Make a stream that reads ahead into the next epoch, so that reading does not end before the steps do."""
    own = copy.copy(stream)
    own.epochs = epoch + 2
    return own


def ratio_of(wall: Sequence[float], memory: Sequence[float]) -> tuple[float, float]:
    """Compute the median ratio of the rates within a turn, and its standard error (bootstrap over turns)."""
    ratios = np.array(memory) / np.array(wall)
    drawn = np.random.default_rng(0).integers(0, len(ratios), (1000, len(ratios)))
    return float(np.median(ratios)), float(np.std(np.median(ratios[drawn], axis=1)))


def main(arguments: Sequence[str] | None = None) -> int:
    found = options(__doc__, arguments, rounds=1)
    size = Size(edge_px=256, turns=2, steps=3, warm_up=1, batch=2) if found.quick else Size()
    size = replace(size, turns=size.turns * found.rounds)
    large = replace(size, batch=max(1, size.batch // 4))
    few = replace(size, turns=max(2, size.turns // 3))
    threads = torch.get_num_threads()
    facts = {"tile_px": TILE_PX, "layers": LAYERS, "batch": size.batch, "steps": size.steps, "torch_threads": threads}
    report = Report("train", found, facts)
    report.note(
        f"medians over {size.turns - 1} turns of {size.steps - size.warm_up} steps of {size.batch} tiles (ResNet-34: "
        f"{large.batch}), {threads} torch thread(s); ± is the standard error of the ratio"
    )
    with scratch(found) as folder:
        make_data(folder, size, found.layers)
        for form in FORMS:
            state(report, f"ResNet-34, {form}", in_turns(config_of(folder, form, large, "ResNet-34"), large))
        for form in FORMS:
            state(report, f"demo, {form}", in_turns(config_of(folder, form, size), size))
        nothing_kept = config_of(folder, "index", few, read_cache="0")
        state(report, "demo, index, nothing kept", in_turns(nothing_kept, few), target=None)
    return report.finish()


def state(report: Report, name: str, watch: Watch, target: float | None = 0.95) -> None:
    """Write the rows of one network and one form."""
    floor = "the same batches in memory"
    memory = watch.step_s(watch.wall, 0)
    for number, kind in list(enumerate(KINDS))[1:]:
        wall = watch.step_s(watch.wall, number)
        report.facts[f"{name}, {kind}"] = {"s_per_step": wall, "s_per_step_in_memory": memory}
        floor_rate, (ratio, error) = 1 / statistics.median(memory), ratio_of(wall, memory)
        what = f"steps, {name}, {kind} (± {error:.3f})"
        report.row(what, floor_rate * ratio, "steps/s", floor_rate, floor, at_least=target)
    for number, kind in list(enumerate(KINDS))[1:]:
        spent, least = (statistics.median(watch.step_s(watch.cpu, one)) for one in (number, 0))
        report.row(f"CPU seconds per step, {name}, {kind}", spent, "s", least, floor)


if __name__ == "__main__":
    sys.exit(main())
