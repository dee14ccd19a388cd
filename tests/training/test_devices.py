"""Several processes: two of them give the losses of one with twice the batch; schedulers' variables are understood."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from inkbatch.errors import ConfigError, DataError
from inkbatch.run.job import RunContext
from inkbatch.steps.train.job import TrainConfig, run
from inkbatch.testing.training import NETWORK, tiny_run
from inkbatch.training.devices import Started, launch_fabric, read_aws_batch_nodes, started_by

# Batch statistics would be taken per process: the encoder's stand still, and the decoder has none.
NO_STATISTICS = {
    "architecture": "smp",
    "config": {**NETWORK, "decoder": {**NETWORK["decoder"], "decoder_use_norm": False}},
    "encoder": {"freeze_encoder": True},
}
LOSSES = {"terms": [{"name": name} for name in ("dice", "bce", "tversky", "focal", "lovasz")]}


def settings_file(root: Path, name: str, **changes: Any) -> Path:
    place = root / f"{name}.yaml"
    place.write_text(yaml.safe_dump(tiny_run(root, run=name, **changes)))
    return place


def column(root: Path, name: str, file: str, key: str) -> list[float]:
    with (root / "runs" / name / file).open() as lines:
        return [float(row[key]) for row in csv.DictReader(lines)]


def train(settings: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    command = [sys.executable, "-m", "inkbatch", "train", "--config", str(settings), "--log", "plain"]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, **options)


@pytest.mark.slow
@pytest.mark.timeout(600)  # four starts of torch
def test_two_processes_give_the_losses_of_one_with_twice_the_batch(root):
    changes = {"model": NO_STATISTICS, "loss": LOSSES, "accumulate": 2, "batch": 2, "clip_gradient": 1.0}
    for name, devices in (("one", 1), ("two", 2)):
        found = train(settings_file(root, name, **changes, devices=devices))
        assert found.returncode == 0, found.stderr
        assert found.stdout.count("complete") == 1
    ones, twos = (column(root, name, "losses.csv", "loss") for name in ("one", "two"))
    assert len(ones) == 12
    assert twos == pytest.approx(ones, rel=1e-4)
    ones, twos = (column(root, name, "metrics.csv", "validation_loss") for name in ("one", "two"))
    assert twos == pytest.approx(ones, rel=1e-3)


@pytest.mark.slow
@pytest.mark.timeout(600)  # four starts of torch
def test_two_processes_leave_together_and_go_on(root):
    changes = {"model": NO_STATISTICS, "devices": 2, "batch": 2, "epochs": 3}
    whole = train(settings_file(root, "whole", **changes))
    assert whole.returncode == 0, whole.stderr
    settings = settings_file(root, "cut", **changes)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "STOP_AFTER": "4"}
    script = root / "stopped.py"
    script.write_text(STOPPED)
    command = [sys.executable, str(script), "train", "--config", str(settings), "--log", "plain"]
    cut = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert cut.returncode == 75, cut.stderr
    again = train(settings)
    assert again.returncode == 0, again.stderr
    assert "going on after step 4" in again.stderr
    assert column(root, "cut", "losses.csv", "loss") == column(root, "whole", "losses.csv", "loss")


STOPPED = """
import os, signal, sys
from inkbatch.training.loop import Trainer
step = Trainer.take_step
def counted(self, one):
    step(self, one)
    if self.progress.total_steps + 1 == int(os.environ["STOP_AFTER"]) and self.fabric.is_global_zero:
        os.kill(os.getpid(), signal.SIGTERM)
Trainer.take_step = counted
from inkbatch.cli.app import main
main(sys.argv[1:])
"""


def test_a_batch_that_cannot_be_shared_is_refused(root, monkeypatch):
    from inkbatch.training.fabric import Fabric

    monkeypatch.setattr(Fabric, "world_size", property(lambda self: 3))
    with pytest.raises(ConfigError, match="batch 4: cannot be shared evenly by 3 devices; set it to a multiple"):
        run(TrainConfig.checked(tiny_run(root), "test"), RunContext())


def test_a_device_that_is_not_there_is_refused(root, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(DataError, match="cuda is not available on this machine"):
        run(TrainConfig.checked(tiny_run(root, device="cuda"), "test"), RunContext())


@pytest.mark.slow
def test_mixed_precision_trains_nearly_as_full_precision_does(root):
    for precision in ("fp32", "bf16"):
        run(TrainConfig.checked(tiny_run(root, run=precision, precision=precision, epochs=1), "test"), RunContext())
    full, mixed = (column(root, name, "losses.csv", "loss") for name in ("fp32", "bf16"))
    assert mixed != full
    assert mixed == pytest.approx(full, rel=0.05)


def test_a_precision_that_a_cpu_lacks_is_refused_and_not_replaced(root):
    with pytest.raises(ConfigError, match="precision fp16: a CPU trains in fp32 or bf16"):
        run(TrainConfig.checked(tiny_run(root, precision="fp16"), "test"), RunContext())


def test_devices_that_the_scheduler_did_not_give_are_refused(root, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    slurm = {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NAME": "train", "SLURM_NNODES": "2"}
    slurm |= {"SLURM_NODEID": "0", "SLURM_LOCALID": "0", "SLURM_PROCID": "0", "SLURM_JOB_ID": "1"}
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="devices 3, num_nodes 2: not available here"):
        run(TrainConfig.checked(tiny_run(root, devices=3, num_nodes=2), "test"), RunContext())


@pytest.mark.parametrize(("job", "hinted"), [(None, False), ("7", True)])
def test_lightnings_hint_of_srun_is_for_slurm_jobs_alone(root, monkeypatch, recwarn, job, hinted):
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if job:
        monkeypatch.setenv("SLURM_JOB_ID", job)
    launch_fabric(TrainConfig.checked(tiny_run(root, device="cpu"), "test"))
    assert any("srun" in str(warning.message) for warning in recwarn) is hinted


TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "6"}
SLURM = {"SLURM_NTASKS": "6", "SLURM_NNODES": "3", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NAME": "train"}


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        (TORCHRUN, Started("torchrun", 3, 2)),
        (SLURM, Started("Slurm", 3, 2)),
        ({**SLURM, "SLURM_NTASKS": "1"}, None),
        ({**SLURM, "SLURM_JOB_NAME": "bash"}, None),  # a shell inside an allocation
        ({"AWS_BATCH_JOB_NODE_INDEX": "1", "AWS_BATCH_JOB_NUM_NODES": "3"}, Started("AWS Batch", 3)),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "1"}, None),
        ({}, None),
    ],
)
def test_launchers_tell_how_many_processes_there_are(monkeypatch, environment, found):
    for name in (*TORCHRUN, *SLURM, "AWS_BATCH_JOB_NODE_INDEX", "AWS_BATCH_JOB_NUM_NODES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert started_by(os.environ) == found


def test_processes_that_would_each_train_by_themselves_are_refused(root, monkeypatch):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    words = r"devices 1, num_nodes auto: not available here: torchrun started 3 nodes with 2 processes each"
    with pytest.raises(ConfigError, match=words):
        run(TrainConfig.checked(tiny_run(root, devices=1), "test"), RunContext())


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.mark.slow
@pytest.mark.timeout(600)  # six starts of torch
def test_torchrun_slurm_and_aws_batch_give_one_run_without_any_setting(root):
    changes = {"model": NO_STATISTICS, "batch": 4, "epochs": 1}
    run(TrainConfig.checked(tiny_run(root, run="one", **changes), "test"), RunContext())
    one = column(root, "one", "losses.csv", "loss")
    module = ["-m", "inkbatch", "train", "--log", "plain", "--config"]
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port()), "-m", "--"]
    command = [sys.executable, *torchrun, *module[1:], str(settings_file(root, "torchrun", **changes))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert column(root, "torchrun", "losses.csv", "loss") == pytest.approx(one, rel=1e-4)
    for name in ("slurm", "batch"):
        settings, port = settings_file(root, name, **changes), str(free_port())
        nodes = [
            subprocess.Popen(
                [sys.executable, *module, str(settings)],
                env={**os.environ, "OMP_NUM_THREADS": "1", "MASTER_PORT": port, **NODES[name](number)},
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(2)
        ]
        for node in nodes:
            assert node.wait(240) == 0, node.communicate()[1]
        assert column(root, name, "losses.csv", "loss") == pytest.approx(one, rel=1e-4)


NODES: dict[str, Callable[[int], dict[str, str]]] = {
    "slurm": lambda number: {
        "SLURM_NTASKS": "2",
        "SLURM_NNODES": "2",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_JOB_NAME": "train",
        "SLURM_JOB_ID": "7",
        "SLURM_NODEID": str(number),
        "SLURM_PROCID": str(number),
        "SLURM_LOCALID": "0",
        "MASTER_ADDR": "127.0.0.1",
    },
    "batch": lambda number: {
        "AWS_BATCH_JOB_NODE_INDEX": str(number),
        "AWS_BATCH_JOB_NUM_NODES": "2",
        **({"AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS": "127.0.0.1"} if number else {}),
    },
}


def test_nodes_of_aws_batch_are_told_to_lightning():
    child = {
        "AWS_BATCH_JOB_NODE_INDEX": "2",
        "AWS_BATCH_JOB_NUM_NODES": "4",
        "AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS": "10.0.0.7",
    }
    read_aws_batch_nodes(child)
    assert (child["NODE_RANK"], child["MASTER_ADDR"]) == ("2", "10.0.0.7")
    main = {"AWS_BATCH_JOB_NODE_INDEX": "0", "AWS_BATCH_JOB_NUM_NODES": "4", "MASTER_PORT": "4711"}
    read_aws_batch_nodes(main)
    assert (main["NODE_RANK"], main["MASTER_ADDR"], main["MASTER_PORT"]) == ("0", "localhost", "4711")
    single: dict[str, str] = {}
    read_aws_batch_nodes(single)
    assert single == {}
