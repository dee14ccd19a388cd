"""Schedules: EventBridge submits a job when it is due; the job itself skips a run while the one before is going.

What a schedule runs lies under ROOT, where the job finds it: ``ROOT/schedules/{name}/train.yaml`` (the settings of
`inkbatch train`), or ``catalog.yaml`` and ``segments.yaml`` (a bundle, and the segments that it reads). A run is named
by the moment that it was due, so a retry resumes it, and EventBridge firing twice starts nothing twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from inkbatch.errors import ConfigError, DataError
from inkbatch.io.store.location import Location
from inkbatch.launch import aws_client

NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,39}$")
SUBMIT_JOB = "arn:aws:scheduler:::aws-sdk:batch:submitJob"
DUE = "<aws.scheduler.scheduled-time>"  # EventBridge writes the moment in its place
GOING = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
CRON_FIELDS = 6
# File that holds the settings, and job definition of the stack, by kind of schedule.
KINDS = {"train": ("train.yaml", "train"), "catalog": ("catalog.yaml", "infer")}


@dataclass(frozen=True)
class Schedule:
    """A schedule as EventBridge has it.

    Attributes:
        name: Unique in the stack.
        expression: ``cron(…)`` or ``rate(…)``, UTC.
        state: ``ENABLED`` or ``DISABLED``.
        job: Name of the jobs that it submits.
    """

    name: str
    expression: str
    state: str
    job: str


def check_name(name: str) -> str:
    """Refuse names that cannot be folders, schedules and parts of run names.

    Raises:
        ConfigError: Not 1 to 40 lower-case letters, digits and hyphens.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"schedule {name!r}: a name is 1 to 40 lower-case letters, digits and hyphens; set NAME=")
    return name


def check_expression(text: str) -> str:
    """Write the expression as EventBridge takes it; bare cron fields get their brackets.

    Raises:
        ConfigError: Neither six cron fields nor a rate.
    """
    text = text.strip()
    if re.fullmatch(r"(rate|at)\(.+\)", text):
        return text
    inner = re.fullmatch(r"cron\((.+)\)", text)
    fields = (inner.group(1) if inner else text).split()
    if len(fields) != CRON_FIELDS or "?" not in (fields[2], fields[4]):
        raise ConfigError(
            f"schedule: CRON={text!r}: expected six fields (minute hour day month weekday year, UTC), "
            "one of day and weekday a '?', for example CRON='0 3 ? * SUN *', or rate(7 days)"
        )
    return f"cron({' '.join(fields)})"


def folder_of(root: str, name: str) -> Location:
    """Return the folder of a schedule's settings."""
    return Location.parse(root) / "schedules" / check_name(name)


def target_input(stack: str, name: str, kind: str, queue: str) -> str:
    """Build the input that EventBridge hands to Batch's SubmitJob. Pure."""
    request = {
        "JobName": job_name(stack, name),
        "JobQueue": queue,
        "JobDefinition": f"{stack}-{KINDS[kind][1]}",
        "ContainerOverrides": {"Command": ["schedule", "run", name, "--due", DUE]},
    }
    return json.dumps(request, sort_keys=True)


def job_name(stack: str, name: str) -> str:
    """Return the name of the jobs that a schedule submits."""
    return f"{stack}-schedule-{name}"


class Schedules:
    """The schedules of one stack.

    Args:
        stack: Name of the CloudFormation stack.
        region: AWS region; None is the environment's.
    """

    def __init__(self, stack: str, region: str | None = None) -> None:
        self.stack, self._region = stack, region
        self._scheduler = aws_client.client("scheduler", region)

    def create(self, name: str, kind: str, expression: str, files: Mapping[str, str], root: str | None = None) -> str:
        """Store what it runs, then make or replace the schedule.

        Args:
            name: Of the schedule.
            kind: ``train`` or ``catalog``.
            expression: When it is due.
            files: Text by file name, for the schedule's folder.
            root: ROOT; None is the stack's. The jobs use the stack's, so another one is refused.

        Returns:
            The folder that holds the settings.

        Raises:
            ConfigError: A bad name or expression, no stack, or another ROOT.
        """
        check_name(name)
        expression = check_expression(expression)
        outputs = self._outputs()
        if root is not None and Location.parse(root) != Location.parse(outputs["Root"]):
            raise ConfigError(
                f"schedule {name}: ROOT={root}, but the jobs of stack {self.stack} use {outputs['Root']}; "
                "leave ROOT out"
            )
        folder = folder_of(outputs["Root"], name)
        for file, text in files.items():
            (folder / file).write_bytes(text.encode())
        request = {
            "Name": name,
            "GroupName": outputs["ScheduleGroup"],
            "Description": f"inkbatch {kind}, as {folder} says; skipped while the run before is going",
            "ScheduleExpression": expression,
            "ScheduleExpressionTimezone": "UTC",
            "FlexibleTimeWindow": {"Mode": "OFF"},
            "State": "ENABLED",
            "Target": {
                "Arn": SUBMIT_JOB,
                "RoleArn": outputs["SchedulerRoleArn"],
                "Input": target_input(self.stack, name, kind, outputs["GpuQueue"]),
                "RetryPolicy": {"MaximumRetryAttempts": 3, "MaximumEventAgeInSeconds": 3600},
            },
        }
        stands = name in {schedule.name for schedule in self.standing()}
        call = self._scheduler.update_schedule if stands else self._scheduler.create_schedule
        aws_client.asked("scheduler", call, **request)
        return str(folder)

    def standing(self) -> list[Schedule]:
        """List the schedules of the stack, by name."""
        found = []
        pages = self._scheduler.get_paginator("list_schedules").paginate(GroupName=self.stack)
        for page in aws_client.asked("scheduler", lambda: list(pages)):
            for row in page["Schedules"]:
                full = aws_client.asked(
                    "scheduler", self._scheduler.get_schedule, Name=row["Name"], GroupName=self.stack
                )
                job = str(json.loads(full["Target"].get("Input", "{}")).get("JobName", ""))
                found.append(Schedule(full["Name"], full["ScheduleExpression"], full["State"], job))
        return sorted(found, key=lambda schedule: schedule.name)

    def remove(self, name: str) -> None:
        """Remove a schedule; what it made, and the run that is going, stay.

        Raises:
            ConfigError: There is none of that name.
        """
        names = [schedule.name for schedule in self.standing()]
        if name not in names:
            raise ConfigError(f"schedule {name!r}: not found (schedules: {', '.join(names) or 'none'})")
        aws_client.asked("scheduler", self._scheduler.delete_schedule, Name=name, GroupName=self.stack)

    def _outputs(self) -> dict[str, str]:
        outputs = aws_client.stack_outputs(self.stack, self._region)
        missing = [key for key in ("Root", "GpuQueue", "SchedulerRoleArn", "ScheduleGroup") if key not in outputs]
        if missing:
            raise ConfigError(
                f"schedule: stack {self.stack!r} states no {', '.join(missing)}; run make infra-deploy, or set STACK="
            )
        return outputs


# ---- inside the job -------------------------------------------------------------------------------------------------


def older_run(batch: Any, queue: str, job_id: str) -> str | None:
    """Find a job of the same name that was submitted before this one and has not ended, in words; else None.

    Of two jobs that fired at once the younger one finds the older; never both each other.

    Args:
        batch: Client of AWS Batch.
        queue: Name of the queue.
        job_id: This job's id.

    Raises:
        DataError: Batch does not list this job itself.
    """
    rows = [row for state in GOING for row in _listed(batch, queue, state)]
    own = next((row for row in rows if row["jobId"] == job_id), None)
    if own is None:
        raise DataError(f"schedule: queue {queue} does not list this job, {job_id}; is it another queue's?")
    older = [row for row in rows if row["jobName"] == own["jobName"] and _age(row) < _age(own)]
    return f"job {min(older, key=_age)['jobId']}" if older else None


def _listed(batch: Any, queue: str, state: str) -> Iterable[dict[str, Any]]:
    pages = batch.get_paginator("list_jobs").paginate(jobQueue=queue, jobStatus=state)
    for page in aws_client.asked("batch", lambda: list(pages)):
        yield from page["jobSummaryList"]


def _age(row: Mapping[str, Any]) -> tuple[int, str]:
    return int(row.get("createdAt", 0)), str(row["jobId"])


def run_name(name: str, due: str) -> str:
    """Return the name of the run that was due at a moment, such as ``weekly-20261122-0300``.

    Raises:
        ConfigError: `due` is no moment such as 2026-11-22T03:00:00Z.
    """
    match = re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d)(?::\d\d(?:\.\d+)?)?Z?", due)
    if match is None:
        raise ConfigError(f"schedule {name}: --due {due!r} is no moment such as 2026-11-22T03:00:00Z")
    year, month, day, hour, minute = match.groups()
    return f"{check_name(name)}-{year}{month}{day}-{hour}{minute}"


def kind_of(folder: Location) -> str:
    """Tell schedules that train from those that infer a catalog, by the files in their folder.

    Raises:
        DataError: It holds neither.
    """
    names = folder.names()
    for kind, (file, _) in KINDS.items():
        if file in names:
            return kind
    raise DataError(
        f"{folder}: holds neither {' nor '.join(file for file, _ in KINDS.values())}; make the schedule with "
        "make schedule-train or make schedule-catalog"
    )
