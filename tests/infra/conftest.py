"""The stack in an emulated AWS account (moto): it proves shape, not permissions, capacity or networks."""

from __future__ import annotations

import importlib.util
import json
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest
from moto import mock_aws

STACK_FILE = Path(__file__).resolve().parents[2] / "infra" / "aws" / "stack.py"
REGION = "us-east-1"


def load_stack_module():
    spec = importlib.util.spec_from_file_location("inkbatch_infra_stack", STACK_FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def aws(monkeypatch):
    """An empty emulated account with the service role that the emulator asks for, which AWS makes by itself."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing-secret",
        "AWS_SESSION_TOKEN": "testing",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
    }.items():
        monkeypatch.setenv(name, value)
    with mock_aws(config={"batch": {"use_docker": False}}), warnings.catch_warnings():
        # The emulator makes no bucket policies, schedules and budgets from templates, and warns of it.
        warnings.filterwarnings("ignore", "Tried to parse")
        trust = {"Version": "2012-10-17", "Statement": []}
        role = boto3.client("iam").create_role(RoleName="batch-service", AssumeRolePolicyDocument=json.dumps(trust))
        yield SimpleNamespace(client=boto3.client, service_role=role["Role"]["Arn"])


@pytest.fixture
def stack_module():
    return load_stack_module()


@pytest.fixture
def said():
    return []


@pytest.fixture
def stack(aws, said):
    return load_stack_module().Stack("inkbatch", say=said.append, poll_s=0.01)


@pytest.fixture
def parameters(aws):
    """Spell out what the emulator needs: the service role, and lists, whose defaults it takes for text."""
    declared = load_stack_module().template_parameters()
    lists = {key: row["Default"] for key, row in declared.items() if row["Type"] == "CommaDelimitedList"}
    return {"BatchServiceRoleArn": aws.service_role, **lists}


@pytest.fixture
def own_network(aws, parameters):
    """Parameters with a VPC that is there already (the emulator cannot delete one that a stack made)."""
    ec2 = aws.client("ec2")
    subnets = ec2.describe_subnets()["Subnets"][:2]
    return {**parameters, "VpcId": subnets[0]["VpcId"], "SubnetIds": ",".join(row["SubnetId"] for row in subnets)}


@pytest.fixture
def outputs(stack, parameters):
    return stack.deploy(parameters)
