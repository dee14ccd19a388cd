"""Devices and nodes of a training run, through Lightning Fabric; read from torchrun, Slurm or AWS Batch variables."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass

import torch

from inkbatch.errors import ConfigError, DataError
from inkbatch.predict.device import REQUIRE_GPU
from inkbatch.text import count_text
from inkbatch.training.fabric import Fabric, LightningEnvironment, MisconfigurationException, SLURMEnvironment
from inkbatch.training.settings import TrainConfig

PORT = "29500"
SLURM_JOB = "SLURM_JOB_ID"
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
AWS_NODE, AWS_NODES = "AWS_BATCH_JOB_NODE_INDEX", "AWS_BATCH_JOB_NUM_NODES"
AWS_MAIN = "AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS"  # set on all nodes but the main one


def read_aws_batch_nodes(environment: MutableMapping[str, str]) -> None:
    """Translate AWS Batch's variables of a multi-node job to Lightning's; values that are already set stay.

    Args:
        environment: Usually ``os.environ``; gains NODE_RANK, MASTER_ADDR and MASTER_PORT.
    """
    if AWS_NODE in environment and int(environment.get(AWS_NODES, "1")) > 1:
        environment.setdefault("NODE_RANK", environment[AWS_NODE])
        environment.setdefault("MASTER_ADDR", environment.get(AWS_MAIN, "localhost"))
        environment.setdefault("MASTER_PORT", PORT)


@dataclass(frozen=True)
class Started:
    """Processes of a run, as torchrun or a scheduler started them.

    Attributes:
        who: Name of what started them.
        nodes: Nodes.
        per_node: Processes on each, already started; None: one on each, which starts the others.
    """

    who: str
    nodes: int
    per_node: int | None = None


def started_by(environment: Mapping[str, str]) -> Started | None:
    """Read the run's processes from torchrun's, Slurm's or AWS Batch's variables; None if there is this one alone."""
    if "TORCHELASTIC_RUN_ID" in environment:
        per_node = int(environment["LOCAL_WORLD_SIZE"])
        return Started("torchrun", int(environment["WORLD_SIZE"]) // per_node, per_node)
    if SLURMEnvironment.detect() and (tasks := int(environment.get("SLURM_NTASKS", "1"))) > 1:
        nodes = int(environment.get("SLURM_NNODES", "1"))
        return Started("Slurm", nodes, tasks // nodes)
    if AWS_NODE in environment and (nodes := int(environment.get(AWS_NODES, "1"))) > 1:
        return Started("AWS Batch", nodes)
    return None


def _devices_and_nodes(config: TrainConfig, started: Started | None, on_cuda: bool) -> tuple[int | str, int]:
    """Choose devices and nodes for Lightning.

    Raises:
        ConfigError: The configuration states other numbers than were started: processes would not find each other,
            and each would train by itself.
    """
    told = started or Started("this process", 1)
    alone: int | str = "auto" if on_cuda else 1
    devices = (told.per_node or alone) if config.devices == "auto" else config.devices
    nodes = told.nodes if config.num_nodes == "auto" else config.num_nodes
    if started and (nodes != started.nodes or started.per_node not in (None, devices)):
        each = "" if started.per_node is None else f" with {count_text(started.per_node, 'process', 'processes')} each"
        raise ConfigError(
            f"devices {config.devices}, num_nodes {config.num_nodes}: not available here: {started.who} started "
            f"{count_text(started.nodes, 'node')}{each}; set devices and num_nodes to that, or leave them at "
            "auto"
        )
    return devices, nodes


@contextlib.contextmanager
def _without_hint_of_srun() -> Iterator[None]:
    """Ignore Lightning's hint to use srun, unless this is a Slurm job: it comes wherever Slurm is installed."""
    with warnings.catch_warnings():
        if SLURM_JOB not in os.environ:
            warnings.filterwarnings("ignore", message="The `srun` command is available on your system but is not used")
        yield


@_without_hint_of_srun()
def launch_fabric(config: TrainConfig) -> Fabric:
    """Start the processes, or join those that a launcher started; each gets its share of the batch.

    Raises:
        DataError: CUDA was requested and is not available.
        ConfigError: The batch cannot be shared evenly, or the device lacks the precision.
    """
    has_cuda = torch.cuda.is_available()
    wanted = config.device == "cuda" or (config.device == "auto" and bool(os.environ.get(REQUIRE_GPU)))
    if wanted and not has_cuda:
        raise DataError(
            "device: cuda is not available on this machine; check the driver and that the container sees "
            "the GPU, or set device to cpu"
        )
    on_cuda = has_cuda and config.device != "cpu"
    precision = config.precision
    if precision == "auto":
        precision = (
            ("bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16") if on_cuda else "fp32"
        )
    if precision == "fp16" and not on_cuda:
        raise ConfigError("precision fp16: a CPU trains in fp32 or bf16; set precision to one of them, or to auto")
    devices, nodes = _devices_and_nodes(config, started_by(os.environ), on_cuda)
    read_aws_batch_nodes(os.environ)
    try:
        fabric = Fabric(
            accelerator="cuda" if on_cuda else "cpu",
            devices=devices,
            num_nodes=nodes,
            precision=PRECISIONS[precision],  # type: ignore[arg-type]  # one of Fabric's literals
        )
        fabric.launch()
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        raise ConfigError(
            f"devices {config.devices}, num_nodes {config.num_nodes}: not available here: {error}; set devices and "
            "num_nodes to what the scheduler gave this job"
        ) from error
    if config.batch % fabric.world_size:
        raise ConfigError(
            f"batch {config.batch}: cannot be shared evenly by {fabric.world_size} devices; set it to a multiple"
        )
    return fabric


def precision_of(fabric: Fabric) -> torch.dtype:
    """Return the dtype of its forward passes."""
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return next(dtypes[name] for name, words in PRECISIONS.items() if words == fabric.strategy.precision.precision)


def is_our_child(fabric: Fabric) -> bool:
    """Return True in a process that our own first process started; that one speaks for all."""
    environment = getattr(fabric.strategy, "cluster_environment", None)
    return isinstance(environment, LightningEnvironment) and fabric.local_rank > 0
