"""A standing stack is changed through a change set; the emulator cannot do that, so the API's answers are scripted."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from inkbatch.errors import ConfigError


class ScriptedCloud:
    """CloudFormation with one stack that stands; records what it is asked.

    Attributes:
        change_set: What describe_change_set answers.
        status: Of the stack; after an executed change set `after`.
    """

    def __init__(self, change_set, after="UPDATE_COMPLETE", status="CREATE_COMPLETE"):
        self.change_set, self.after, self.status = change_set, after, status
        self.asked = []

    def describe_stacks(self, **_):
        parameters = [{"ParameterKey": "RootPrefix", "ParameterValue": "ink"}]
        outputs = [{"OutputKey": "Root", "OutputValue": "s3://b/ink"}]
        return {"Stacks": [{"StackStatus": self.status, "Parameters": parameters, "Outputs": outputs}]}

    def describe_change_set(self, **_):
        return self.change_set

    def describe_stack_events(self, **_):
        failed = {"LogicalResourceId": "CpuQueue", "ResourceStatus": "UPDATE_FAILED", "ResourceStatusReason": "no such"}
        return {"StackEvents": [failed, {"LogicalResourceId": "Bucket", "ResourceStatus": "UPDATE_COMPLETE"}]}

    def execute_change_set(self, **request):
        self.asked.append(("execute_change_set", request))
        self.status = self.after

    def __getattr__(self, name):
        return lambda **request: self.asked.append((name, request))

    def requests(self, name):
        return [request for asked, request in self.asked if asked == name]


@pytest.fixture
def stack_on(stack_module, said):
    def make(cloud):
        session = SimpleNamespace(client=lambda service: cloud)
        return stack_module.Stack("inkbatch", session, said.append, poll_s=0.0)

    return make


CHANGE = {
    "ResourceChange": {
        "Action": "Modify",
        "LogicalResourceId": "CpuQueue",
        "ResourceType": "AWS::Batch::JobQueue",
        "Replacement": "True",
    }
}
CHANGED = {"Status": "CREATE_COMPLETE", "Changes": [CHANGE]}
SAME = {"Status": "FAILED", "StatusReason": "The submitted information didn't contain changes."}
REFUSED = {"Status": "FAILED", "StatusReason": "Parameter SpotBidPercentage must be at most 100"}


def test_a_second_deployment_of_the_same_changes_nothing(stack_on, said):
    cloud = ScriptedCloud(SAME)
    assert stack_on(cloud).deploy({}) == {"Root": "s3://b/ink"}
    assert "  nothing changes" in said
    assert cloud.requests("execute_change_set") == []


def test_a_change_is_said_and_made_and_parameters_that_are_not_named_stay(stack_on, said):
    cloud = ScriptedCloud(CHANGED)
    stack_on(cloud).deploy({"MaxCpuVcpus": "64"})
    (request,) = cloud.requests("create_change_set")
    assert request["ChangeSetType"] == "UPDATE"
    assert request["Parameters"] == [
        {"ParameterKey": "MaxCpuVcpus", "ParameterValue": "64"},
        {"ParameterKey": "RootPrefix", "UsePreviousValue": True},
    ]
    assert len(cloud.requests("execute_change_set")) == 1
    assert any("CpuQueue" in line and "REPLACED" in line for line in said)


def test_diff_says_what_would_change_and_changes_nothing(stack_on, said):
    cloud = ScriptedCloud(CHANGED)
    stack_on(cloud).diff({"MaxCpuVcpus": "64"})
    assert any("CpuQueue" in line for line in said)
    assert cloud.requests("execute_change_set") == []
    assert cloud.requests("delete_stack") == []
    assert len(cloud.requests("delete_change_set")) == 1


def test_a_refusal_is_told_in_cloudformations_words(stack_on):
    with pytest.raises(ConfigError, match="must be at most 100"):
        stack_on(ScriptedCloud(REFUSED)).deploy({"SpotBidPercentage": "170"})


def test_a_deployment_that_is_rolled_back_names_what_failed(stack_on):
    with pytest.raises(ConfigError, match="CpuQueue: no such"):
        stack_on(ScriptedCloud(CHANGED, after="UPDATE_ROLLBACK_COMPLETE")).deploy({"MaxCpuVcpus": "64"})


def test_a_stack_that_failed_to_be_made_is_not_changed(stack_on):
    with pytest.raises(ConfigError, match="it is ROLLBACK_COMPLETE"):
        stack_on(ScriptedCloud(CHANGED, status="ROLLBACK_COMPLETE")).deploy({})
