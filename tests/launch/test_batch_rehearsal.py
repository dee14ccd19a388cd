"""A rehearsal of AWS Batch (no cloud is touched): requests recorded by an emulated API, run for real as processes."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from inkbatch.io.store.listing import objects_below
from inkbatch.io.store.location import Location
from inkbatch.launch.aws_batch import RETRY_RULES, AwsBatchLauncher
from inkbatch.launch.aws_settings import AwsBatchSettings
from inkbatch.launch.commands import Request
from inkbatch.launch.plan import plan_chain
from inkbatch.testing.segments import identity_bundle, random_papyrus, write_layers

_spec = importlib.util.spec_from_file_location("batch_host", Path(__file__).with_name("batch_host.py"))
batch_host = importlib.util.module_from_spec(_spec)
sys.modules["batch_host"] = batch_host
_spec.loader.exec_module(batch_host)
End, Host, decide = batch_host.End, batch_host.Host, batch_host.decide

DIGEST = "registry.example/inkbatch@sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("end", "decision"),
    [
        (End(75), "RETRY"),
        (End(64), "EXIT"),
        (End(65), "EXIT"),
        (End(1), "EXIT"),
        (End(137, "OutOfMemoryError: Container killed due to memory usage"), "EXIT"),
        (End(143), "EXIT"),
        (End(None, "", batch_host.RECLAIM), "RETRY"),
        (End(143, "", batch_host.RECLAIM), "RETRY"),
        (End(None, "CannotPullContainerError: pull image manifest has been retried", "Task failed to start"), "RETRY"),
        (End(None, "DockerTimeoutError: Could not transition to started", "Task failed to start"), "RETRY"),
        (End(750), "EXIT"),
    ],
)
def test_our_rules_retry_what_a_retry_can_cure(end, decision):
    assert decide(RETRY_RULES, end) == decision


def test_the_double_follows_the_documented_rules():
    first = [{"onExitCode": "1", "action": "EXIT"}, {"onReason": "*", "action": "RETRY"}]
    assert decide(first, End(1)) == "EXIT"  # the first match wins
    both = [{"onExitCode": "1", "onReason": "Out*", "action": "EXIT"}]
    assert decide(both, End(1, "OutOfMemory")) == "EXIT"  # conditions are ANDed
    assert decide(both, End(1, "other")) == "RETRY"  # nothing matched
    assert decide([{"onExitCode": "7", "action": "EXIT"}], End(75)) == "RETRY"  # no star, no prefix
    assert decide([{"onExitCode": "7*", "action": "exit"}], End(75)) == "EXIT"


@pytest.fixture
def cloud(monkeypatch):
    """The emulated API with a CPU and a GPU queue."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws(config={"batch": {"use_docker": False}}):
        role = boto3.client("iam").create_role(RoleName="batch", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
        batch = boto3.client("batch")
        batch.create_compute_environment(
            computeEnvironmentName="all", type="UNMANAGED", state="ENABLED", serviceRole=role
        )
        for queue in ("cpu", "gpu"):
            batch.create_job_queue(
                jobQueueName=queue,
                state="ENABLED",
                priority=1,
                computeEnvironmentOrder=[{"order": 1, "computeEnvironment": "all"}],
            )
        yield batch


def hit(job: str, child: int, attempt: int, process: subprocess.Popen[bytes], log: Path) -> End | None:
    """SIGTERM while a task still starts, and when it has stored a unit; a reclaim by name in between."""
    if (attempt, child) == (1, 0):
        batch_host.terminate_when(process, log, "")  # Python is hardly up
        return End(process.wait(), status_reason=batch_host.RECLAIM)
    if (attempt, child) in ((2, 0), (1, 1)):
        batch_host.terminate_when(process, log, '"event": "unit"')
    return None


@pytest.mark.slow
def test_a_chain_that_is_hit_by_reclaims_ends_with_the_quiet_runs_bytes(cloud, s3_server, tmp_path, monkeypatch):
    s3 = s3_server.environment
    layers = write_layers(tmp_path / "layers", random_papyrus((5, 200, 260)))
    identity_bundle(tmp_path / "bundle")
    places = {name: f"s3://bucket/rehearsal-{os.getpid()}-{name}" for name in ("quiet", "hit")}
    with monkeypatch.context() as patch:
        for name, value in s3.items():
            patch.setenv(name, value)
        there_before = set(Location.parse("s3://bucket").names())
        bundle = Location.parse(f"{places['hit']}/runs/tiny/bundle")
        for path in (tmp_path / "bundle").iterdir():
            (bundle / path.name).write_bytes(path.read_bytes())

    def launch(place: str, shards: int):
        request = Request(
            jobs=("prepare", "infer"),
            subject="tiny",
            root=place,
            shards={"prepare": shards, "infer": shards},
            bundles=(bundle.uri,),
            name="map",
            sets={"prepare": ["depth_order=forward", "voxel_size_um=8", "shard_px=64"], "infer": ["unit_px=64"]},
            source="s3://bucket/layers-of-the-rehearsal",
            resources={"gpus": 0},
        )
        with monkeypatch.context() as patch:
            for name, value in s3.items():
                patch.setenv(name, value)
            source = Location.parse(request.source)
            for path in layers.iterdir():
                (source / path.name).write_bytes(path.read_bytes())
        settings = AwsBatchSettings(gpu_queue="gpu", cpu_queue="cpu", image=DIGEST)
        chain = plan_chain(request, f"infer-tiny-20261121-120000-{shards}")
        return AwsBatchLauncher(settings).submit(chain, tmp_path / place.rsplit("-", 1)[-1])

    quiet = launch(places["quiet"], 1)
    host = Host(cloud, s3, tmp_path)
    assert set(host.run([*quiet.jobs["prepare"], *quiet.jobs["infer"]]).values()) == {"SUCCEEDED"}, host.logs()

    stormy = launch(places["hit"], 3)
    host = Host(cloud, s3, tmp_path, hit)
    assert set(host.run([*stormy.jobs["prepare"], *stormy.jobs["infer"]]).values()) == {"SUCCEEDED"}, host.logs()
    retried = [(job.split("-")[1], child, attempt) for job, child, attempt, _, made in host.history if made == "RETRY"]
    assert {("prepare", 0, 1), ("infer", 0, 1)} <= set(retried)
    assert {("infer", 0, 2), ("infer", 1, 1)} & set(retried)  # hit in the middle of the work
    assert all(code == 75 for _, _, attempt, code, made in host.history if made == "RETRY" and attempt > 1)

    with monkeypatch.context() as patch:
        for name, value in s3.items():
            patch.setenv(name, value)

        def stored(place):
            base = Location.parse(place)
            found = [base / folder for folder in ("segments", "predictions")]
            rows = [(folder, row.path) for folder in found for row in objects_below(folder)]
            return {
                f"{folder.name}/{path}": (folder / path).read_bytes()
                for folder, path in rows
                if not path.rsplit("/", 1)[-1].startswith(("run", "report.html"))
            }

        assert stored(places["hit"]) == stored(places["quiet"])
        for place in places.values():  # launches are recorded by the command line, which is not part of this
            assert set(Location.parse(place).names()) <= {"segments", "predictions", "runs"}
        ours = {place.rsplit("/", 1)[-1] for place in places.values()} | {"layers-of-the-rehearsal"}
        assert set(Location.parse("s3://bucket").names()) - there_before <= ours, "something was written outside ROOT"
