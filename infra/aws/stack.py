"""The stack's life: show what would change, deploy, destroy. The work of make infra-… and image-push.

Credentials, region and endpoint come from the usual AWS environment; none is printed. Data are deleted only where the
user spells out the bucket's name.
"""

from __future__ import annotations

import argparse
import base64
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import boto3
import yaml
from botocore.exceptions import BotoCoreError, ClientError

from inkbatch.errors import EXIT_CONFIG, EXIT_DONE, ConfigError, InkbatchError, StorageError

TEMPLATE = Path(__file__).parent / "inkbatch.yaml"
POLL_S = 5.0
ALIVE = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE")


def template_parameters() -> dict[str, Any]:
    """The parameters that the template declares."""

    class Loader(yaml.SafeLoader):
        """Takes CloudFormation's short functions for what they hold."""

    Loader.add_multi_constructor("!", lambda loader, suffix, node: None)
    return dict(yaml.load(TEMPLATE.read_text(encoding="utf-8"), Loader)["Parameters"])


class Stack:
    """One CloudFormation stack, by name."""

    def __init__(self, name: str, session: Any = None, say: Any = print, poll_s: float = POLL_S) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,63}", name):
            raise ConfigError(f"stack {name!r}: wanted lower-case letters, digits and hyphens, such as inkbatch-test")
        self.name, self._say, self._poll_s = name, say, poll_s
        self._session = session or boto3.Session()
        self._cloud = self._session.client("cloudformation")

    def describe(self) -> dict[str, Any] | None:
        """The stack as CloudFormation has it, or None."""
        try:
            found = self._cloud.describe_stacks(StackName=self.name)["Stacks"][0]
        except ClientError as error:
            if "does not exist" in str(error):
                return None
            raise
        return None if found["StackStatus"] in ("DELETE_COMPLETE", "REVIEW_IN_PROGRESS") else dict(found)

    def outputs(self) -> dict[str, str]:
        """Return the values that the stack states about itself."""
        found = self.describe() or {}
        return {row["OutputKey"]: row["OutputValue"] for row in found.get("Outputs", [])}

    def change(self, parameters: Mapping[str, str]) -> str | None:
        """Make a change set and say what it would do; None where nothing would change.

        Raises:
            ConfigError: CloudFormation refuses the template or a parameter, or the stack is in no state to change.
        """
        stands = self.describe()
        if stands is not None and stands["StackStatus"] not in ALIVE:
            raise ConfigError(
                f"stack {self.name}: it is {stands['StackStatus']}; wait, or remove it with make infra-destroy first"
            )
        name = f"inkbatch-{int(time.time())}"
        kind = "CREATE" if stands is None else "UPDATE"
        request = self._request(parameters, stands)
        self._cloud.create_change_set(ChangeSetName=name, ChangeSetType=kind, **request)
        found = self._settled(name)
        if found["Status"] == "FAILED":
            self._cloud.delete_change_set(StackName=self.name, ChangeSetName=name)
            reason = found.get("StatusReason", "")
            if "didn't contain changes" in reason or "No updates" in reason:
                return None
            raise ConfigError(f"stack {self.name}: CloudFormation refuses: {reason}")
        for change in found.get("Changes", []):
            row = change["ResourceChange"]
            replaced = " (REPLACED: the old one goes)" if row.get("Replacement") == "True" else ""
            self._say(f"  {row['Action']:<7} {row['LogicalResourceId']:<24} {row['ResourceType']}{replaced}")
        return name

    def _request(self, parameters: Mapping[str, str], stands: Mapping[str, Any] | None) -> dict[str, Any]:
        return {
            "StackName": self.name,
            "TemplateBody": TEMPLATE.read_text(encoding="utf-8"),
            "Parameters": self._parameters(parameters, stands),
            "Capabilities": ["CAPABILITY_IAM"],
            "Tags": [{"Key": "inkbatch:stack", "Value": self.name}],
        }

    def _settled(self, change_set: str) -> dict[str, Any]:
        while True:
            found = self._cloud.describe_change_set(StackName=self.name, ChangeSetName=change_set)
            if found["Status"] not in ("CREATE_PENDING", "CREATE_IN_PROGRESS"):
                return dict(found)
            time.sleep(self._poll_s)

    def _parameters(self, given: Mapping[str, str], stands: Mapping[str, Any] | None) -> list[dict[str, Any]]:
        declared = template_parameters()
        unknown = sorted(set(given) - set(declared))
        if unknown:
            raise ConfigError(
                f"stack {self.name}: there is no parameter {unknown[0]} (there are {', '.join(declared)})"
            )
        before = {row["ParameterKey"] for row in (stands or {}).get("Parameters", [])}
        rows: list[dict[str, Any]] = [{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()]
        kept = [key for key in declared if key in before and key not in given]
        return rows + [{"ParameterKey": key, "UsePreviousValue": True} for key in kept]

    def diff(self, parameters: Mapping[str, str]) -> None:
        """Say what a deployment would change, and change nothing."""
        self._say(f"stack {self.name}: a deployment would")
        new = self.describe() is None
        change_set = self.change(parameters)
        if change_set is None:
            self._say("  change nothing")
            return
        self._cloud.delete_change_set(StackName=self.name, ChangeSetName=change_set)
        if new:  # CloudFormation leaves an empty stack behind, in review
            self._cloud.delete_stack(StackName=self.name)

    def deploy(self, parameters: Mapping[str, str]) -> dict[str, str]:
        """Create or update the stack, and wait.

        Returns:
            The stack's outputs.

        Raises:
            ConfigError: A resource could not be made; CloudFormation rolled back.
        """
        if self.describe() is None:
            self._say(f"stack {self.name}: is made; this takes some minutes")
            self.let_spot_begin()
            self._cloud.create_stack(**self._request(parameters, None))
        else:
            self._say(f"stack {self.name}: is changed")
            change_set = self.change(parameters)
            if change_set is None:
                self._say("  nothing changes")
                return self.outputs()
            self._cloud.execute_change_set(StackName=self.name, ChangeSetName=change_set)
        status = self._wait()
        if status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            raise ConfigError(f"stack {self.name}: {status}:\n" + "\n".join(self._failures()))
        return self.outputs()

    def let_spot_begin(self) -> None:
        """Make the role under which EC2 serves spot machines; a new account lacks it, and its spot jobs would wait."""
        try:
            self._session.client("iam").create_service_linked_role(AWSServiceName="spot.amazonaws.com")
        except ClientError as error:
            if "taken" not in str(error) and "exist" not in str(error).lower():
                raise

    def log_in(self) -> str:
        """Log docker in to the stack's image repository; the password goes through a pipe and is never shown.

        Returns:
            URI of the repository.

        Raises:
            ConfigError: There is no stack, or docker refuses.
        """
        uri = self.outputs().get("RepositoryUri")
        if uri is None:
            raise ConfigError(f"stack {self.name}: there is none in this region; run make infra-deploy first")
        token = self._session.client("ecr").get_authorization_token()["authorizationData"][0]["authorizationToken"]
        user, _, password = base64.b64decode(token).decode().partition(":")
        command = ["docker", "login", "--username", user, "--password-stdin", uri.partition("/")[0]]
        try:
            ended = subprocess.run(command, input=password, text=True, capture_output=True)
        except FileNotFoundError as error:
            raise ConfigError("docker: it is not installed; push the image from a machine that has it") from error
        if ended.returncode:
            raise ConfigError(f"docker login: {ended.stderr.strip()[-500:]}")
        return uri

    def _wait(self) -> str:
        while True:
            found = self.describe()
            status = "DELETE_COMPLETE" if found is None else str(found["StackStatus"])
            if not status.endswith("_IN_PROGRESS"):
                return status
            time.sleep(self._poll_s)

    def _failures(self) -> list[str]:
        events = self._cloud.describe_stack_events(StackName=self.name)["StackEvents"]
        failed = [event for event in events if event.get("ResourceStatus", "").endswith("_FAILED")]
        return [f"  {event['LogicalResourceId']}: {event.get('ResourceStatusReason', '')}" for event in failed[:10]]

    def destroy(self, delete_data: str | None = None) -> None:
        """Remove the stack. Bucket and image repository stay, unless the bucket's name is spelt out.

        Args:
            delete_data: Name of the stack's bucket, to delete it with all it holds, and the image repository too.

        Raises:
            ConfigError: No such stack, or `delete_data` is not its bucket's name.
        """
        outputs = self.outputs()
        if self.describe() is None:
            raise ConfigError(f"stack {self.name}: there is none in this region; check STACK and AWS_REGION")
        bucket = outputs.get("BucketName", "")
        repository = outputs.get("RepositoryUri", "").partition("/")[2]
        if delete_data is not None and delete_data != bucket:
            raise ConfigError(
                f"stack {self.name}: its bucket is {bucket!r}, not {delete_data!r}; nothing was removed. To delete the "
                f"data, too: make infra-destroy DELETE_DATA={bucket}"
            )
        self._remove_own_schedules(outputs.get("ScheduleGroup"))
        self._cloud.delete_stack(StackName=self.name)
        status = self._wait()
        if status != "DELETE_COMPLETE":
            raise ConfigError(f"stack {self.name}: {status}:\n" + "\n".join(self._failures()))
        self._say(f"stack {self.name}: removed")
        if delete_data is None:
            self._say(f"  kept: bucket {bucket} and image repository {repository}; they cost storage only")
            return
        self._delete_bucket(bucket)
        self._session.client("ecr").delete_repository(repositoryName=repository, force=True)
        self._say(f"  deleted: bucket {bucket} with all its versions, image repository {repository}")

    def _remove_own_schedules(self, group: str | None) -> None:
        """Remove schedules that were made beside the stack: they would stop the group from going."""
        if group is None:
            return
        scheduler = self._session.client("scheduler")
        try:
            pages = scheduler.get_paginator("list_schedules").paginate(GroupName=group)
            names = [row["Name"] for page in pages for row in page["Schedules"]]
        except scheduler.exceptions.ResourceNotFoundException:
            return
        for name in names:
            scheduler.delete_schedule(Name=name, GroupName=group)
            self._say(f"  schedule {name} removed")

    def _delete_bucket(self, name: str) -> None:
        s3 = self._session.client("s3")
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=name):
            rows = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            keys = [{"Key": row["Key"], "VersionId": row["VersionId"]} for row in rows]
            if keys:
                answer = s3.delete_objects(Bucket=name, Delete={"Objects": keys, "Quiet": True})
                if answer.get("Errors"):
                    first = answer["Errors"][0]
                    raise StorageError(f"bucket {name}: {first['Key']} cannot be deleted: {first['Message']}")
        s3.delete_bucket(Bucket=name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; exit codes are those of inkbatch."""
    parser = argparse.ArgumentParser(prog="stack.py", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("verb", choices=["deploy", "diff", "destroy", "output", "log-in"])
    parser.add_argument("--stack", default="inkbatch", help="name of the stack; names of queues and jobs begin with it")
    parser.add_argument(
        "--delete-data", metavar="BUCKET", help="destroy: delete this bucket, which must be the stack's"
    )
    parser.add_argument(
        "parameters", nargs="*", metavar="Key=Value", help="parameters of the template; output: one name"
    )
    given = parser.parse_args(arguments)
    try:
        stack = Stack(given.stack)
        if given.verb == "log-in":
            print(stack.log_in())
        elif given.verb == "output":
            print(_output(stack, given.parameters))
        elif given.verb == "destroy":
            stack.destroy(given.delete_data)
        elif given.verb == "diff":
            stack.diff(_pairs(given.parameters))
        else:
            for key, value in sorted(stack.deploy(_pairs(given.parameters)).items()):
                print(f"  {key:<20} {value}")
    except InkbatchError as error:
        sys.stderr.write(f"infra: {error}\n")
        return error.exit_code
    except (ClientError, BotoCoreError) as error:
        sys.stderr.write(f"infra: AWS: {error}\n")
        return EXIT_CONFIG
    return EXIT_DONE


def _output(stack: Stack, names: Sequence[str]) -> str:
    outputs = stack.outputs()
    if len(names) != 1 or names[0] not in outputs:
        raise ConfigError(
            f"stack {stack.name}: no such output {' '.join(names)!r} (there are {', '.join(outputs) or 'none'})"
        )
    return outputs[names[0]]


def _pairs(items: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(f"parameter {item!r}: wanted Key=Value, for example BudgetEmail=me@example.org")
        pairs[key] = value
    return pairs


if __name__ == "__main__":
    sys.exit(main())
