"""Shared by benchmarks of whole jobs with a network: the prepared segment, the job, and its floor, bare passes."""

from __future__ import annotations

import argparse
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import Report, Sample, best, cpu, free_bytes, median, parser, real_layers, timed, write_stack
from benchmarks.networks import NETWORKS, VOXEL_SIZE_UM, bundle_of
from inkbatch.models.base import InkModel
from inkbatch.models.bundle import Bundle
from inkbatch.predict.device import autocast, choose_precision, synchronize
from inkbatch.predict.passes import cpu_threads
from inkbatch.run.job import RunContext
from inkbatch.steps.infer import job as infer
from inkbatch.steps.prepare import job as prepare
from inkbatch.steps.prepare.settings import PrepareConfig

BATCHES_BYTES, MEMORY_SHARE = 1 << 30, 0.25  # in memory for the floor: this, or a share of what is free


@dataclass(frozen=True)
class Floor:
    """Forward passes on tensors that lie on the device already.

    Attributes:
        model: The network, on its device.
        batches: (n, B, 1, Z, T, T): used in turn.
        dtype: Precision of a pass.
    """

    model: InkModel
    batches: torch.Tensor
    dtype: torch.dtype

    @classmethod
    def of(cls, bundle: Bundle, shapes: Sequence[tuple[int, ...]], device: torch.device) -> Floor:
        """Make the floor of a job that made passes of these shapes."""
        batches = batches_in_memory(shapes[-1], len(shapes), device)
        return cls(bundle.build(device), batches, choose_precision("auto", device))

    def side_by_side(self, count: int) -> None:
        """Make `count` passes: as many at once as torch has threads, one each; on another device one by one."""
        if self.batches.device.type != "cpu":
            return self.one_by_one(count)
        workers = torch.get_num_threads()

        def share(worker: int) -> None:
            torch.set_num_threads(1)
            self._run(range(worker, count, workers))

        with cpu_threads(1), ThreadPoolExecutor(workers) as pool:
            list(pool.map(share, range(workers)))
        return None

    def one_by_one(self, count: int) -> None:
        """Make `count` passes, each on all threads."""
        self._run(range(count))
        synchronize(self.batches.device)

    @torch.inference_mode()
    def _run(self, numbers: range) -> None:
        with autocast(self.batches.device, self.dtype):
            for number in numbers:
                self.model(self.batches[number % len(self.batches)])


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


def batches_in_memory(shape: tuple[int, ...], count: int, device: torch.device) -> torch.Tensor:
    """Make so many batches, or as many as fit: far more than any cache in any case."""
    fitting = int(min(BATCHES_BYTES, MEMORY_SHARE * free_bytes())) // (4 * math.prod(shape))
    return torch.rand((max(1, min(count, fitting)), *shape)).to(device)


def job(config: infer.InferConfig, reports: list[Any]) -> Callable[[], Sample]:
    def run() -> Sample:
        shutil.rmtree(Path(config.root) / "predictions", ignore_errors=True)
        return timed(lambda: reports.append(infer.run(config, RunContext())))

    return run


def prepare_layers(folder: Path, layers: int, edge: int, shipped: Path | None) -> str:
    """Prepare a segment of real layers; returns its ROOT."""
    write_stack(folder / "layers", real_layers(layers, (edge, edge), shipped))
    values = {"segment": "real", "root": str(folder / "root"), "source": str(folder / "layers")}
    prepare.run(PrepareConfig(**values, depth_order="forward", voxel_size_um=VOXEL_SIZE_UM), RunContext())
    return values["root"]


def batch_tiles(name: str, device: torch.device) -> int:
    """Choose the setting of a network's jobs: on a CPU the batch is found."""
    return 0 if device.type == "cpu" else NETWORKS[name].batch_tiles


def prepared(folder: Path, name: str, edge: int, layers: Path | None, device: torch.device, quick: bool) -> Any:
    """Prepare a segment of real layers and a bundle for `infer`; return its configuration and the bundle."""
    bundle = bundle_of(name, folder, quick=quick)
    root, place = prepare_layers(folder, bundle.contract.layers.count, edge, layers), str(bundle.location)
    batch = batch_tiles(name, device)
    return infer.InferConfig(segment="real", root=root, bundle=place, device=device.type, batch_tiles=batch), bundle


def rows_beside_passes(
    report: Report, what: str, taken: list[Sample], passes: list[Sample], floor: str, target: float | None
) -> None:
    """Add the rows of a job beside its passes: the best run, the median, and CPU seconds."""
    report.row(f"{what}, best", best(taken), "s", best(passes), floor, at_most=target)
    report.row(f"{what}, median", median(taken), "s", median(passes), floor)
    report.row(f"{what}, CPU seconds", cpu(taken), "s", cpu(passes), floor)


def network_parser(text: str | None, networks: Mapping[str, Any]) -> argparse.ArgumentParser:
    """Make a parser that chooses among networks, and a device."""
    known = parser(text)
    known.add_argument("--networks", nargs="+", choices=list(networks), default=list(networks), metavar="NETWORK")
    known.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    return known
