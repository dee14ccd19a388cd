"""The stack's life in an emulated account: deployed, changed, described, removed without its data."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from inkbatch.errors import ConfigError


def test_a_deployment_makes_queues_that_take_jobs(aws, outputs):
    batch = aws.client("batch")
    for queue, definition in [("GpuQueue", "infer"), ("GpuOnDemandQueue", "train"), ("CpuQueue", "prepare")]:
        answer = batch.submit_job(jobName="try", jobQueue=outputs[queue], jobDefinition=f"inkbatch-{definition}")
        assert answer["jobId"]
    assert outputs["Root"] == f"s3://{outputs['BucketName']}/ink"
    assert outputs["Image"] == outputs["RepositoryUri"] + ":latest"


def test_the_environments_rest_at_zero_machines(aws, outputs):
    environments = aws.client("batch").describe_compute_environments()["computeEnvironments"]
    assert sorted(row["computeResources"]["type"] for row in environments) == ["EC2", "SPOT", "SPOT"]
    assert {row["computeResources"]["minvCpus"] for row in environments} == {0}


def test_the_bucket_is_encrypted(aws, outputs):
    s3, bucket = aws.client("s3"), outputs["BucketName"]
    assert s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]


def test_diff_of_a_new_stack_leaves_none_behind(stack, parameters, said):
    stack.diff(parameters)
    assert any("AWS::S3::Bucket" in line for line in said)
    assert stack.describe() is None


def test_an_unknown_parameter_is_refused_before_anything_is_made(stack):
    with pytest.raises(ConfigError, match="there is no parameter Bukket"):
        stack.deploy({"Bukket": "x"})
    assert stack.describe() is None


def test_destroy_keeps_the_data_and_says_where_they_are(aws, stack, own_network, said):
    bucket = stack.deploy(own_network)["BucketName"]
    s3 = aws.client("s3")
    s3.put_object(Bucket=bucket, Key="ink/map", Body=b"ink")
    stack.destroy()
    assert stack.describe() is None
    assert s3.get_object(Bucket=bucket, Key="ink/map")["Body"].read() == b"ink"
    assert any(f"kept: bucket {bucket}" in line for line in said)


def test_destroy_with_another_buckets_name_removes_nothing(stack, outputs):
    with pytest.raises(ConfigError, match="nothing was removed"):
        stack.destroy(delete_data="some-other-bucket")
    assert stack.describe() is not None


def test_destroy_deletes_the_data_where_the_bucket_is_spelt_out(aws, stack, own_network):
    bucket = stack.deploy(own_network)["BucketName"]
    s3 = aws.client("s3")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})  # the emulator forgets it
    for body in (b"old", b"new"):
        s3.put_object(Bucket=bucket, Key="ink/map", Body=body)
    s3.delete_object(Bucket=bucket, Key="ink/map")
    stack.destroy(delete_data=bucket)
    assert bucket not in [row["Name"] for row in s3.list_buckets()["Buckets"]]
    assert aws.client("ecr").describe_repositories()["repositories"] == []


def test_logging_in_hands_the_password_over_by_a_pipe_and_shows_it_nowhere(stack, outputs, stack_module, monkeypatch):
    calls = []

    def run(command, **options):
        calls.append((command, options["input"]))
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(stack_module.subprocess, "run", run)
    assert stack.log_in() == outputs["RepositoryUri"]
    ((command, password),) = calls
    assert "--password-stdin" in command
    assert password
    assert password not in " ".join(command)


def test_a_role_that_spot_needs_is_made_once(aws, stack, outputs):
    roles = aws.client("iam").list_roles(PathPrefix="/aws-service-role/spot.amazonaws.com/")["Roles"]
    assert len(roles) == 1
    stack.let_spot_begin()


def test_destroying_a_stack_that_is_not_there_says_so(stack):
    with pytest.raises(ConfigError, match="there is none"):
        stack.destroy()
