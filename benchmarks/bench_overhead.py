"""What a job costs beside its network: the whole `infer` step against the same forward passes on tensors in memory.

The shipped demo bundle (a small U-Net on 128-pixel tiles) on 13 real layers of 4000 x 4000. The floor runs the same
network in this process: as many passes as the job made, on batches of the same shape that lie in memory already (1 GiB
of them, used in turn), as many side by side as there are threads, like the job; the same passes one by one, each cut
among all threads, stand beside it. Job and floor run in turn. A small network is the hard case: building it, reading,
tiling, blending and writing weigh most beside it.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import (
    REPOSITORY,
    Report,
    Sample,
    best,
    cpu,
    free_bytes,
    in_turn,
    median,
    options,
    real_layers,
    scratch,
    timed,
    write_stack,
)
from inkbatch.io.storage import Location
from inkbatch.models.base import InkModel
from inkbatch.models.bundle import Bundle
from inkbatch.predict.passes import cpu_threads
from inkbatch.run.job import RunContext
from inkbatch.steps import infer, prepare
from inkbatch.testing.segments import network_bundle

ONE_BY_ONE = 64  # passes; the time of all is reckoned from them
BATCHES_BYTES, MEMORY_SHARE = 1 << 30, 0.25  # in memory for the floor: this, or a share of what is free
DEMO_BUNDLE = REPOSITORY / "inkbatch" / "demo" / "bundle"


@contextmanager
def shapes_of_passes(found: list[tuple[int, ...]]) -> Iterator[None]:
    """Note the shape of every batch that a network is fed."""

    def note(module: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        if isinstance(module, InkModel):
            found.append(tuple(arguments[0].shape))

    hook = torch.nn.modules.module.register_module_forward_pre_hook(note)
    try:
        yield
    finally:
        hook.remove()


def batches_in_memory(shape: tuple[int, ...], count: int) -> torch.Tensor:
    """So many batches, or what fits: far more than any cache in any case."""
    fitting = int(min(BATCHES_BYTES, MEMORY_SHARE * free_bytes())) // (4 * math.prod(shape))
    return torch.rand((max(1, min(count, fitting)), *shape))


def side_by_side(model: InkModel, batches: torch.Tensor, count: int) -> None:
    """Run the network `count` times, on the batches in turn: as many passes at once as torch has threads, one each."""
    workers = torch.get_num_threads()

    def share(worker: int) -> None:
        torch.set_num_threads(1)
        with torch.inference_mode():
            for number in range(worker, count, workers):
                model(batches[number % len(batches)])

    with cpu_threads(1), ThreadPoolExecutor(workers) as pool:
        list(pool.map(share, range(workers)))


def one_by_one(model: InkModel, batches: torch.Tensor, count: int) -> None:
    """Run the network `count` times, on the batches in turn, each pass cut among all of torch's threads."""
    with torch.inference_mode():
        for number in range(count):
            model(batches[number % len(batches)])


def job(config: infer.InferConfig, reports: list[Any]) -> Callable[[], Sample]:
    def run() -> Sample:
        shutil.rmtree(Path(config.root) / "predictions", ignore_errors=True)
        return timed(lambda: reports.append(infer.run(config, RunContext())))

    return run


def main(arguments: Sequence[str] | None = None) -> int:
    found = options(__doc__, arguments, rounds=3)
    shipped = DEMO_BUNDLE.is_dir() and not found.quick
    edge = 4000 if not found.quick else 96
    report = Report("overhead", found, {"edge_px": edge, "bundle": "demo" if shipped else "network of the tests"})
    with scratch(found) as folder:
        bundle = (
            Bundle.open(Location.parse(DEMO_BUNDLE))
            if shipped
            else network_bundle(folder / "bundle", 13, voxel_size_um=7.91)
        )
        contract = bundle.contract
        write_stack(folder / "layers", real_layers(contract.layers.count, (edge, edge), found.layers))
        values = {"segment": "real", "root": str(folder / "root"), "source": str(folder / "layers")}
        prepare.run(prepare.PrepareConfig(**values, depth_order="forward", voxel_size_um=7.91), RunContext())
        config = infer.InferConfig(
            segment="real",
            root=str(folder / "root"),
            bundle=str(DEMO_BUNDLE if shipped else folder / "bundle"),
            device="cpu",
        )
        model = bundle.build(torch.device("cpu"))
        shapes: list[tuple[int, ...]] = []
        reports: list[Any] = []
        with shapes_of_passes(shapes):
            job(config, reports)()
        size = shapes[-1][0]
        unique = infer.plan(config).grid
        unique_passes = -(-unique.rows.count * unique.columns.count // size)
        batches = batches_in_memory(shapes[-1], len(shapes))
        samples = in_turn(
            {
                "job": job(config, reports),
                "passes": lambda: timed(lambda: side_by_side(model, batches, len(shapes))),
                "unique": lambda: timed(lambda: side_by_side(model, batches, unique_passes)),
                "one by one": lambda: timed(lambda: one_by_one(model, batches, min(len(shapes), ONE_BY_ONE))),
            },
            found.rounds,
        )
    report.keep(samples)
    tiles = int(reports[-1].facts["tiles"])
    report.facts |= {"tiles": tiles, "passes": len(shapes), "unique_passes": unique_passes, "batch": shapes[-1]}
    report.note(f"{tiles} tiles in {len(shapes)} passes of {shapes[-1]}; {torch.get_num_threads()} thread(s)")
    same = f"the same {len(shapes)} passes on tensors in memory"
    report.row("whole job, best", best(samples["job"]), "s", best(samples["passes"]), same, at_most=1.05)
    report.row("whole job, median", median(samples["job"]), "s", median(samples["passes"]), same)
    report.row("whole job, CPU seconds", cpu(samples["job"]), "s", cpu(samples["passes"]), same)
    fewest = f"{unique_passes} passes: every tile once, no batch part-filled"
    report.row("whole job, best", best(samples["job"]), "s", best(samples["unique"]), fewest)
    slow = best(samples["one by one"]) * len(shapes) / min(len(shapes), ONE_BY_ONE)
    report.row("whole job, best", best(samples["job"]), "s", slow, "the same passes one by one, each on all threads")
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
