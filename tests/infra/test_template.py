"""Rules of the template that linters do not see: retry rules, sizes, the prefix that a job may touch, nothing idle."""

from __future__ import annotations

import json
import re
from pathlib import Path

import botocore.loaders
import pytest
from cfnlint.decode import cfn_yaml

from inkbatch.launch.aws_batch import DEFINITION, AwsBatchLauncher
from inkbatch.launch.aws_settings import AwsBatchSettings
from inkbatch.launch.jobfile import JobFile
from inkbatch.launch.plan import ArraySpec, Chain
from inkbatch.launch.schedules import target_input

TEMPLATE = Path(__file__).resolve().parents[2] / "infra" / "aws" / "inkbatch.yaml"
JOBS = ("DoctorDefinition", "PrepareDefinition", "InferDefinition", "TrainDefinition")


@pytest.fixture(scope="module")
def template():
    return cfn_yaml.load(str(TEMPLATE))


@pytest.fixture(scope="module")
def resources(template):
    return template["Resources"]


def of_type(resources, kind):
    return {name: row["Properties"] for name, row in resources.items() if row["Type"] == kind}


def statements(resources, role):
    for policy in resources[role]["Properties"]["Policies"]:
        yield from policy["PolicyDocument"]["Statement"]


def test_the_template_fits_into_one_request_and_has_no_aliases():
    text = TEMPLATE.read_text()
    assert len(text.encode()) < 51_200
    assert not re.search(r"^\s*[\w:.-]+:\s+[*&]\w+\s*$", text, re.MULTILINE)  # CloudFormation does not take them


def test_the_job_definitions_are_these(resources):
    assert set(of_type(resources, "AWS::Batch::JobDefinition")) == set(JOBS)


@pytest.mark.parametrize("job", JOBS)
def test_what_no_rule_matches_is_not_retried(resources, job):
    rules = resources[job]["Properties"]["RetryStrategy"]["EvaluateOnExit"]
    assert len(rules) <= 5  # AWS Batch takes no more
    assert rules[-1] == {"OnReason": "*", "Action": "EXIT"}
    assert {"OnExitCode": "75", "Action": "RETRY"} in rules
    assert {"OnStatusReason": "Host EC2*", "Action": "RETRY"} in rules
    assert 1 <= resources[job]["Properties"]["RetryStrategy"]["Attempts"] <= 10
    assert resources[job]["Properties"]["Timeout"]["AttemptDurationSeconds"] >= 60


@pytest.mark.parametrize("job", JOBS)
def test_containers_hold_no_privilege_and_write_only_to_scratch(resources, job):
    container = resources[job]["Properties"]["ContainerProperties"]
    assert container["User"] == "1000:1000"
    assert container["Privileged"] is False
    assert container["ReadonlyRootFilesystem"] is True
    assert container["LinuxParameters"]["InitProcessEnabled"] is True
    assert [mount["ContainerPath"] for mount in container["MountPoints"]] == ["/scratch"]
    names = [row["Name"] for row in container["Environment"]]
    assert not [name for name in names if re.search("TOKEN|SECRET|KEY|PASSWORD", name)]


@pytest.mark.parametrize("job", JOBS)
def test_a_gpu_job_fits_the_smallest_default_machine_with_room_for_its_agent(template, resources, job):
    container = resources[job]["Properties"]["ContainerProperties"]
    wants = {row["Type"]: int(row["Value"]) for row in container["ResourceRequirements"]}
    machines = [(4, 16), (8, 32)]  # vCPU and GiB of xlarge and 2xlarge in g5 and g6
    assert any(wants["VCPU"] <= cpus and wants["MEMORY"] <= (gib - 2) * 1024 for cpus, gib in machines)
    if wants.get("GPU"):
        assert container["LinuxParameters"]["SharedMemorySize"] >= 4096


@pytest.mark.parametrize("job", ["doctor", "prepare", "infer", "train"])
def test_a_job_definition_is_what_a_launch_would_register(resources, job):
    block = JobFile.load(job).launch
    spec = ArraySpec(job, "x", (), 1, block.resources, block.time_limit, block.attempts)
    registered = AwsBatchLauncher(AwsBatchSettings()).definition(spec, Chain("x", "s3://bucket/ink", (spec,)))
    made = lowered(resources[f"{job.capitalize()}Definition"]["Properties"])
    own = {"command", "image", "environment", "jobRoleArn", "executionRoleArn", "logConfiguration"}
    containers = [row.pop("containerProperties") for row in (made, registered)]
    stated, wanted = ({key: row[key] for key in row if key not in own} for row in containers)
    assert stated == wanted
    del made["jobDefinitionName"], registered["jobDefinitionName"]
    assert made == registered
    environment = {row["name"]: row["value"] for row in containers[0]["environment"]}
    assert environment.pop("INKBATCH_ROOT")
    assert environment == {key: spec.environment[key] for key in spec.environment if key.startswith("INKBATCH_")}


def lowered(value):
    """The template's words as the API spells them."""
    if isinstance(value, dict):
        return {key[0].lower() + key[1:]: lowered(item) for key, item in value.items()}
    return [lowered(item) for item in value] if isinstance(value, list) else value


def test_no_machine_and_nothing_else_that_costs_while_idle(resources):
    environments = of_type(resources, "AWS::Batch::ComputeEnvironment")
    assert {row["ComputeResources"]["MinvCpus"] for row in environments.values()} == {0}
    costly = re.compile("NatGateway|LoadBalancer|EC2::Instance$|EC2::EIP|KMS::Key|Route53|VPCEndpointService")
    assert [row["Type"] for row in resources.values() if costly.search(row["Type"])] == []
    endpoints = of_type(resources, "AWS::EC2::VPCEndpoint").values()
    assert {row["VpcEndpointType"] for row in endpoints} == {"Gateway"}


def test_instance_types_are_real(template):
    model = botocore.loaders.Loader().load_service_model("ec2", "service-2")
    real = set(model["shapes"]["InstanceType"]["enum"])
    for name in ("GpuInstanceTypes", "CpuInstanceTypes"):
        assert set(template["Parameters"][name]["Default"].split(",")) <= real


def test_a_job_touches_only_its_prefix_of_the_bucket(resources):
    for row in statements(resources, "JobRole"):
        actions = row["Action"] if isinstance(row["Action"], list) else [row["Action"]]
        if row.get("Sid") == "ListOwnPrefix":
            assert row["Condition"]["StringLike"]["s3:prefix"][0] == {"Ref": "RootPrefix"}
        elif row.get("Sid") == "SeeJobs":
            assert actions == ["batch:ListJobs"]
        else:
            assert row["Resource"] == {"Fn::Sub": "${Bucket.Arn}/${RootPrefix}/*"}
        assert not [action for action in actions if "Version" in action or action.endswith("*") or "iam:" in action]


def test_those_who_may_submit_may_register_what_a_launch_registers(resources):
    (submit,) = [
        row
        for row in resources["SubmitterPolicy"]["Properties"]["PolicyDocument"]["Statement"]
        if row["Sid"] == "Submit"
    ]
    assert any(str(row.get("Fn::Sub", "")).endswith(f":job-definition/{DEFINITION}*") for row in submit["Resource"])


def test_the_machines_role_cannot_reach_the_bucket(resources):
    role = resources["InstanceRole"]["Properties"]
    assert "Policies" not in role
    assert len(role["ManagedPolicyArns"]) == 1


def test_the_data_outlive_the_stack_and_their_old_versions_do_not(resources):
    bucket = resources["Bucket"]["Properties"]
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    rules = {rule["Id"]: rule for rule in bucket["LifecycleConfiguration"]["Rules"]}
    assert rules["scratch"]["ExpirationInDays"] == {"Ref": "ScratchDays"}
    assert rules["abort-uploads"]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 3}
    assert rules["old-versions"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": {"Ref": "ScratchDays"}}
    for name in ("Bucket", "Repository"):
        assert resources[name]["DeletionPolicy"] == "Retain"
        assert resources[name]["UpdateReplacePolicy"] == "Retain"


def test_the_reclaim_notice_can_be_asked_for_from_a_container(resources):
    options = resources["LaunchTemplate"]["Properties"]["LaunchTemplateData"]["MetadataOptions"]
    assert options == {"HttpTokens": "required", "HttpPutResponseHopLimit": 2, "HttpEndpoint": "enabled"}


def test_schedules_ship_switched_off_and_submit_what_the_api_takes(template, resources):
    for state in ("TrainingState", "NightlyCatalogState"):
        assert template["Parameters"][state]["Default"] == "DISABLED"
    for row in of_type(resources, "AWS::Scheduler::Schedule").values():
        text = row["Target"]["Input"]["Fn::Sub"]
        values = json.loads(text.replace("${AWS::StackName}", "inkbatch").replace("${GpuSpotQueue}", "queue"))
        kind = "train" if row["Name"] == "weekly" else "catalog"
        assert values == json.loads(target_input("inkbatch", row["Name"], kind, "queue"))


def test_every_suppressed_finding_is_argued(resources):
    for row in resources.values():
        for skip in row.get("Metadata", {}).get("checkov", {}).get("skip", []):
            assert len(skip["comment"]) > 40
