"""AWS Batch against an emulated API: requests, revisions, splitting, sums, cancelling, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import boto3
import pytest
from botocore.session import Session
from botocore.validate import validate_parameters
from moto import mock_aws

from inkbatch.errors import ConfigError
from inkbatch.launch import aws_batch
from inkbatch.launch.aws_batch import RETRY_RULES, AwsBatchLauncher
from inkbatch.launch.aws_settings import AwsBatchSettings
from inkbatch.testing.launchers import LauncherContract, example_chain, one_job

DIGEST = "registry.example/inkbatch@sha256:" + "0" * 64
SETTINGS = {"gpu_queue": "gpu", "cpu_queue": "cpu", "image": DIGEST}


@pytest.fixture
def cloud(monkeypatch):
    """The emulated API with a CPU and a GPU queue."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN"):
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
            order = [{"order": 1, "computeEnvironment": "all"}]
            batch.create_job_queue(jobQueueName=queue, state="ENABLED", priority=1, computeEnvironmentOrder=order)
        yield batch


def launcher(**settings: Any) -> AwsBatchLauncher:
    return AwsBatchLauncher(AwsBatchSettings(**{**SETTINGS, **settings}))


class TestAwsBatch(LauncherContract):
    launcher_class = AwsBatchLauncher
    golden = Path(__file__).parent / "golden"
    options: ClassVar = {**SETTINGS, "job_role": "arn:aws:iam::123456789012:role/inkbatch-job"}

    @pytest.fixture
    def submitted(self, launcher, cloud, tmp_path):
        return launcher.submit(example_chain(), tmp_path)


def test_every_payload_passes_botocores_own_validation():
    service = Session().get_service_model("batch")
    for name, text in launcher().render(example_chain()).items():
        operation = "RegisterJobDefinition" if "definition" in name else "SubmitJob"
        validate_parameters(json.loads(text), service.operation_model(operation).input_shape)


def test_the_chain_waits_in_batchs_own_terms(cloud, tmp_path):
    found = launcher().submit(example_chain(), tmp_path)
    rows = {row["jobId"]: row for ids in found.jobs.values() for row in cloud.describe_jobs(jobs=list(ids))["jobs"]}
    waits = {job: [w["jobId"] for w in rows[ids[0]].get("dependsOn", [])] for job, ids in found.jobs.items()}
    assert waits == {
        "prepare": [],
        "infer.letters": list(found.jobs["prepare"]),
        "infer.i3d": list(found.jobs["prepare"]),
        "ensemble": [*found.jobs["infer.letters"], *found.jobs["infer.i3d"]],
        "report": list(found.jobs["ensemble"]),
    }
    assert rows[found.jobs["infer.i3d"][0]]["arrayProperties"]["size"] == 3
    assert not rows[found.jobs["report"][0]].get("arrayProperties", {}).get("size")  # Batch has no arrays of one
    assert rows[found.jobs["infer.i3d"][0]]["jobDefinition"] == rows[found.jobs["infer.letters"][0]]["jobDefinition"]
    assert rows[found.jobs["infer.letters"][0]]["jobQueue"].endswith("/gpu")
    assert rows[found.jobs["prepare"][0]]["jobQueue"].endswith("/cpu")


def test_children_beyond_ten_thousand_are_split_and_know_their_shard():
    spec = replace(one_job().jobs[0], shards=25_000)
    requests = launcher().submissions(spec, replace(one_job(), jobs=(spec,)), [])
    assert [request["arrayProperties"]["size"] for request in requests] == [10_000, 10_000, 5_000]
    pairs = [{p["name"]: p["value"] for p in request["containerOverrides"]["environment"]} for request in requests]
    assert [row.get("INKBATCH_ARRAY_OFFSET") for row in pairs] == [None, "10000", "20000"]
    assert {row["INKBATCH_ARRAY_TOTAL"] for row in pairs} == {"25000"}


def test_a_last_part_of_one_child_is_a_plain_job():
    spec = replace(one_job().jobs[0], shards=10_001)
    last = launcher().submissions(spec, replace(one_job(), jobs=(spec,)), [])[-1]
    assert "arrayProperties" not in last


def test_more_parts_than_batch_lets_wait_for_are_refused():
    with pytest.raises(ConfigError, match="dependencies"):
        launcher().submissions(one_job().jobs[0], one_job(), ["id"] * 21)


def test_a_command_that_batch_would_not_take_is_refused():
    spec = one_job().jobs[0]
    spec = replace(spec, command=(*spec.command, "--set", "override=" + "x" * 9000))
    with pytest.raises(ConfigError, match="8192"):
        launcher().submissions(spec, replace(one_job(), jobs=(spec,)), [])


def test_a_definition_is_registered_once_per_content(cloud, tmp_path):
    def revisions() -> int:
        return len(cloud.describe_job_definitions(jobDefinitionName="inkbatch-launch-infer")["jobDefinitions"])

    launcher().submit(one_job(), tmp_path)
    launcher().submit(one_job(), tmp_path)
    assert revisions() == 1
    launcher(image=DIGEST[:-1] + "1").submit(one_job(), tmp_path)
    assert revisions() == 2


def test_the_last_rule_ends_what_no_other_rule_names():
    """Batch retries what matches nothing."""
    assert RETRY_RULES[-1] == {"onReason": "*", "action": "EXIT"}
    assert len(RETRY_RULES) <= 5
    definition = launcher().definition(one_job().jobs[0], one_job())
    assert definition["retryStrategy"]["attempts"] == 5
    assert definition["timeout"]["attemptDurationSeconds"] == 6 * 3600  # Batch has no limit of its own


def test_a_job_ends_itself_before_batch_does_which_would_not_retry():
    request = launcher().submissions(one_job().jobs[0], one_job(), [])[0]
    pairs = {p["name"]: p["value"] for p in request["containerOverrides"]["environment"]}
    assert int(pairs["INKBATCH_DEADLINE_S"]) < request["timeout"]["attemptDurationSeconds"]


def test_containers_are_locked_down():
    container = launcher().definition(one_job().jobs[0], one_job())["containerProperties"]
    assert container["readonlyRootFilesystem"]
    assert not container["privileged"]
    assert container["user"] == "1000:1000"
    assert container["linuxParameters"]["initProcessEnabled"]
    assert container["linuxParameters"]["sharedMemorySize"] == 4096


def test_status_sums_the_children_of_an_array(monkeypatch, cloud, tmp_path):
    found = launcher().submit(one_job(shards=5), tmp_path)
    row = {
        "status": "PENDING",
        "arrayProperties": {"size": 5, "statusSummary": {"SUCCEEDED": 2, "RUNNING": 1, "FAILED": 1}},
    }
    monkeypatch.setattr(aws_batch.aws_client, "asked", lambda *_, **__: {"jobs": [row]})
    counts = launcher().status(found)[0].counts
    assert {key: value for key, value in counts.items() if value} == {
        "done": 2,
        "running": 1,
        "failed": 1,
        "waiting": 1,
    }


def test_status_names_the_cure_of_a_job_that_cannot_start(monkeypatch, cloud, tmp_path):
    found = launcher().submit(one_job(shards=1), tmp_path)
    reason = "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - no instance is large enough"
    rows = {"jobs": [{"status": "RUNNABLE", "statusReason": reason}]}
    monkeypatch.setattr(aws_batch.aws_client, "asked", lambda *_, **__: rows)
    assert "less memory" in "\n".join(launcher().status(found)[0].notes)


def test_jobs_that_batch_has_forgotten_are_lost_not_done(cloud, tmp_path):
    found = launcher().submit(one_job(shards=3), tmp_path)
    forgotten = replace(found, jobs={"infer": ["00000000-0000-0000-0000-000000000000"]})
    assert launcher().status(forgotten)[0].counts["lost"] == 3


def test_cancel_ends_every_job_of_the_chain(cloud, tmp_path, monkeypatch):
    found = launcher().submit(example_chain(), tmp_path)
    ended = []
    real = aws_batch.aws_client.asked

    def asked(service, call, **request):
        if "reason" in request:
            ended.append(request["jobId"])
        return real(service, call, **request)

    monkeypatch.setattr(aws_batch.aws_client, "asked", asked)
    launcher().cancel(found)
    assert sorted(ended) == sorted(job for ids in found.jobs.values() for job in ids)


def test_what_was_submitted_is_ended_when_the_rest_cannot_be(cloud, tmp_path):
    with pytest.raises(ConfigError):
        launcher(gpu_queue="no-such-queue").submit(example_chain(), tmp_path)
    ids = [row["jobId"] for row in cloud.list_jobs(jobQueue="cpu", jobStatus="RUNNING")["jobSummaryList"]]
    assert ids == []


def test_a_folder_of_this_machine_is_no_root_for_the_cloud(tmp_path):
    with pytest.raises(ConfigError, match="s3://"):
        launcher().render(one_job(root=str(tmp_path)))


def test_an_image_without_digest_is_refused_unless_the_registry_tells_it(cloud, tmp_path):
    with pytest.raises(ConfigError, match="digest"):
        launcher(image="registry.example/inkbatch:latest").submit(one_job(), tmp_path)


def test_missing_settings_name_the_stack(cloud, tmp_path):
    with pytest.raises(ConfigError, match="infra-deploy"):
        AwsBatchLauncher(AwsBatchSettings(image=DIGEST)).submit(one_job(), tmp_path)


def test_the_stacks_outputs_fill_what_nobody_said(cloud, tmp_path):
    outputs = {
        "GpuQueue": "gpu",
        "CpuQueue": "cpu",
        "Image": DIGEST,
        "LogGroup": "/mine/jobs",
        "JobRoleArn": "arn:aws:iam::123456789012:role/j",
    }
    template = {
        "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
        "Outputs": {key: {"Value": value} for key, value in outputs.items()},
    }
    boto3.client("cloudformation").create_stack(StackName="inkbatch", TemplateBody=json.dumps(template))
    AwsBatchLauncher(AwsBatchSettings()).submit(one_job(), tmp_path)
    made = cloud.describe_job_definitions(jobDefinitionName="inkbatch-launch-infer")["jobDefinitions"][0]
    assert made["containerProperties"]["image"] == DIGEST
    assert made["containerProperties"]["jobRoleArn"].endswith("role/j")
    assert made["containerProperties"]["logConfiguration"]["options"]["awslogs-group"] == "/mine/jobs"


def test_logs_begin_with_a_link(cloud, tmp_path):
    found = launcher().submit(one_job(), tmp_path)
    assert any("console.aws.amazon.com" in line or "no log yet" in line for line in launcher().logs(found, "infer", 1))
