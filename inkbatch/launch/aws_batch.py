"""AWS Batch: array jobs through boto3, with retry rules by exit code and by spot reclaim."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from inkbatch.config import digest
from inkbatch.errors import ConfigError
from inkbatch.launch import aws_client
from inkbatch.launch.aws_settings import AwsBatchSettings
from inkbatch.launch.base import EngineSettings, Feature, JobState, Launcher, Submitted, register_launcher, split_array
from inkbatch.launch.plan import ArraySpec, Chain

MOST_CHILDREN = 10_000
MOST_DEPENDENCIES = 20
MOST_OVERRIDE_BYTES = 8192
LOG_GROUP = "/inkbatch/jobs"
DEFINITION = "inkbatch-launch-"  # the stack has definitions of its own, which schedules use

# The first match wins; a job that matches no rule would be retried, hence the last one. A time-out is never retried.
RETRY_RULES: tuple[Mapping[str, str], ...] = (
    {"onStatusReason": "Host EC2*", "action": "RETRY"},
    {"onExitCode": "75", "action": "RETRY"},
    {"onReason": "CannotPullContainerError:*", "action": "RETRY"},
    {"onReason": "DockerTimeoutError*", "action": "RETRY"},
    {"onReason": "*", "action": "EXIT"},
)
STATES = {
    "SUBMITTED": "waiting",
    "PENDING": "waiting",
    "RUNNABLE": "waiting",
    "STARTING": "running",
    "RUNNING": "running",
    "SUCCEEDED": "done",
    "FAILED": "failed",
}
CURES = {
    "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY": "no spot machine of these types is available; wait, add instance types "
    "or zones to the compute environment, or use the on-demand queue",
    "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT": "no instance type of the queue is that large; ask for less memory, "
    "fewer cores or fewer GPUs",
    "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE": "the environment's largest number of cores is too small",
}


@register_launcher
class AwsBatchLauncher(Launcher):
    """Job definitions and submissions of array jobs."""

    name: ClassVar[str] = "aws-batch"
    settings_class: ClassVar[type[EngineSettings]] = AwsBatchSettings
    supports: ClassVar[frozenset[Feature]] = frozenset({Feature.ARRAY, Feature.CHAIN, Feature.SUBMIT})
    settings: AwsBatchSettings

    def render(self, chain: Chain) -> dict[str, str]:
        """Render the requests of ``RegisterJobDefinition`` and ``SubmitJob``; ``{job}`` stands for a later id."""
        self.check(chain)
        files = {}
        for spec in chain.jobs:
            files[f"{spec.kind}.job-definition.json"] = _json(self.definition(spec, chain))
            waits = [f"{{{_part_name(job, part)}}}" for job in spec.after for part in range(len(_parts(chain, job)))]
            for part, request in enumerate(self.submissions(spec, chain, waits)):
                files[f"{_part_name(spec.job, part)}.submit-job.json"] = _json(request)
        return files

    def definition(self, spec: ArraySpec, chain: Chain) -> dict[str, Any]:
        """Build the request of ``RegisterJobDefinition``: all that launches have in common."""
        settings = self.settings
        container: dict[str, Any] = {
            "image": settings.image or "IMAGE",
            "command": ["--help"],
            "user": settings.user,
            "privileged": False,
            "readonlyRootFilesystem": True,
            "resourceRequirements": _requirements(spec),
            "linuxParameters": {
                "initProcessEnabled": True,
                "sharedMemorySize": spec.resources.shared_memory >> 20,
                "tmpfs": [{"containerPath": "/tmp", "size": 1024, "mountOptions": ["nosuid", "nodev"]}],
            },
            "volumes": [{"name": "scratch", "host": {}}],
            "mountPoints": [{"sourceVolume": "scratch", "containerPath": "/scratch", "readOnly": False}],
            "logConfiguration": {
                "logDriver": "awslogs",
                "options": {
                    "awslogs-group": settings.log_group or LOG_GROUP,
                    "awslogs-stream-prefix": f"inkbatch-{spec.kind}",
                },
            },
        }
        roles = {"jobRoleArn": settings.job_role, "executionRoleArn": settings.execution_role}
        container |= {key: role for key, role in roles.items() if role}
        return {
            "jobDefinitionName": f"{DEFINITION}{spec.kind}",
            "type": "container",
            "platformCapabilities": ["EC2"],
            "propagateTags": True,
            "retryStrategy": {"attempts": spec.attempts, "evaluateOnExit": [dict(rule) for rule in RETRY_RULES]},
            "timeout": {"attemptDurationSeconds": spec.time_limit_s},
            "containerProperties": container,
        }

    def submissions(self, spec: ArraySpec, chain: Chain, waits: list[str]) -> list[dict[str, Any]]:
        """Build the requests of ``SubmitJob``: one, or several if the array has more children than Batch allows.

        Args:
            spec: The array job.
            chain: Its chain.
            waits: Ids of the jobs that must succeed first.

        Raises:
            ConfigError: More dependencies, or a longer command, than Batch takes.
        """
        if len(waits) > MOST_DEPENDENCIES:
            raise ConfigError(
                f"{spec.job}: expected at most {MOST_DEPENDENCIES} dependencies, got {len(waits)}; use fewer shards"
            )
        queue = self.settings.gpu_queue if spec.resources.gpus else self.settings.cpu_queue
        requests = []
        for part, (first, count) in enumerate(_parts(chain, spec.job)):
            variables = {**self.variables(spec, chain), "INKBATCH_ARRAY_TOTAL": str(spec.shards)}
            if first:
                variables["INKBATCH_ARRAY_OFFSET"] = str(first)
            request: dict[str, Any] = {
                "jobName": _part_name(spec.name, part).replace("+", "-"),
                "jobQueue": queue or ("GPU-QUEUE" if spec.resources.gpus else "CPU-QUEUE"),
                "jobDefinition": f"{DEFINITION}{spec.kind}",
                "containerOverrides": {
                    "command": list(spec.command),
                    "environment": [{"name": key, "value": value} for key, value in variables.items()],
                    "resourceRequirements": _requirements(spec),
                },
                "retryStrategy": {"attempts": spec.attempts, "evaluateOnExit": [dict(rule) for rule in RETRY_RULES]},
                "timeout": {"attemptDurationSeconds": spec.time_limit_s},
                "propagateTags": True,
                "tags": self._tags(spec, chain),
            }
            if count > 1:
                request["arrayProperties"] = {"size": count}
            if waits:
                request["dependsOn"] = [{"jobId": wait} for wait in waits]
            if len(json.dumps(request["containerOverrides"])) > MOST_OVERRIDE_BYTES:
                raise ConfigError(
                    f"{spec.job}: command and variables are longer than the {MOST_OVERRIDE_BYTES} bytes that AWS "
                    "Batch takes; shorten the settings, or read the list of the dataset from a file under ROOT"
                )
            requests.append(request)
        return requests

    def submit(self, chain: Chain, folder: Path) -> Submitted:
        """Register new job definitions, and submit the chain.

        Raises:
            ConfigError: No queue, image or credentials.
            StorageError: AWS did not answer; jobs that were already submitted are terminated.
        """
        self.check(chain)
        self.settings = aws_client.filled(self.settings, chain)
        self.write(chain, folder)
        batch = aws_client.client("batch", self.settings.region)
        ids: dict[str, list[str]] = {}
        try:
            for spec in chain.jobs:
                definition = self._registered(batch, self.definition(spec, chain))
                waits = [job_id for job in spec.after for job_id in ids[job]]
                for request in self.submissions(spec, chain, waits):
                    answer = aws_client.asked("batch", batch.submit_job, **{**request, "jobDefinition": definition})
                    ids.setdefault(spec.job, []).append(answer["jobId"])
        except Exception:
            for job_id in (job_id for found in ids.values() for job_id in found):
                batch.terminate_job(jobId=job_id, reason="the rest of the chain could not be submitted")
            raise
        shards = {spec.job: spec.shards for spec in chain.jobs}
        place = batch.meta.region_name
        return Submitted(self.name, chain.launch, ids, shards, str(folder.resolve()), place, said=_links(ids, place))

    def status(self, submitted: Submitted) -> list[JobState]:
        """Count the children of each array; jobs that Batch forgot, some days after their end, are ``lost``."""
        batch = aws_client.client("batch", submitted.place or self.settings.region)
        states = []
        for job, ids in submitted.jobs.items():
            counts: dict[str, int] = dict.fromkeys(("waiting", "running", "done", "failed", "lost"), 0)
            notes: list[str] = []
            for row in aws_client.asked("batch", batch.describe_jobs, jobs=list(ids))["jobs"]:
                for state, number in _children(row).items():
                    counts[STATES[state]] += number
                notes += _reasons(row)
            counts["lost"] = max(0, submitted.shards[job] - sum(counts.values()))
            notes += _links({job: ids}, submitted.place)
            states.append(JobState(job, counts, notes))
        return states

    def cancel(self, submitted: Submitted) -> list[str]:
        """Terminate every job that has not ended; an array's children end with it."""
        batch = aws_client.client("batch", submitted.place or self.settings.region)
        said = []
        for job, ids in reversed(list(submitted.jobs.items())):
            for job_id in ids:
                aws_client.asked("batch", batch.terminate_job, jobId=job_id, reason="cancelled by inkbatch cancel")
                said.append(f"{job}: {job_id} is being cancelled")
        return said

    def logs(self, submitted: Submitted, job: str, shard: int) -> Iterable[str]:
        """Return the link to a task's log stream, and its last lines."""
        region = submitted.place or self.settings.region
        part, index = divmod(shard, MOST_CHILDREN)
        job_id = submitted.jobs[job][part]
        if _part_size(submitted.shards[job], part) > 1:
            job_id = f"{job_id}:{index}"
        return aws_client.log_lines(job_id, region)

    def _registered(self, batch: Any, request: dict[str, Any]) -> str:
        """Find the ARN of the revision that equals `request`; register one if there is none."""
        mark = digest(request)[:32]
        name = request["jobDefinitionName"]
        answer = aws_client.asked(
            "batch", batch.describe_job_definitions, jobDefinitionName=name, status="ACTIVE", maxResults=100
        )
        for found in sorted(answer["jobDefinitions"], key=lambda row: -int(row["revision"])):
            if found.get("tags", {}).get("inkbatch:definition") == mark:
                return str(found["jobDefinitionArn"])
        tags = {"inkbatch:definition": mark, **self.settings.tags}
        made = aws_client.asked("batch", batch.register_job_definition, **request, tags=tags)
        return str(made["jobDefinitionArn"])

    def _tags(self, spec: ArraySpec, chain: Chain) -> dict[str, str]:
        own = {"inkbatch:launch": chain.launch, "inkbatch:job": spec.job, "inkbatch:subject": spec.subject}
        return {**own, **self.settings.tags}


def _requirements(spec: ArraySpec) -> list[dict[str, str]]:
    rows = [("VCPU", spec.resources.cpus), ("MEMORY", spec.resources.memory >> 20), ("GPU", spec.resources.gpus)]
    return [{"type": kind, "value": str(value)} for kind, value in rows if value]


def _parts(chain: Chain, job: str) -> list[tuple[int, int]]:
    return split_array(next(spec.shards for spec in chain.jobs if spec.job == job), MOST_CHILDREN)


def _part_name(name: str, part: int) -> str:
    """Name a part of an array that was split; ``+`` is in no prediction's name."""
    return name if part == 0 else f"{name}+{part + 1}"


def _part_size(shards: int, part: int) -> int:
    return split_array(shards, MOST_CHILDREN)[part][1]


def _children(row: Mapping[str, Any]) -> dict[str, int]:
    """Count the children of an array by Batch's state; a plain job is its only child."""
    array = row.get("arrayProperties") or {}
    if not array.get("size"):
        return {row["status"]: 1}
    summary = {state: int(number) for state, number in (array.get("statusSummary") or {}).items() if state in STATES}
    summary[row["status"]] = summary.get(row["status"], 0) + max(0, array["size"] - sum(summary.values()))
    return summary


def _reasons(row: Mapping[str, Any]) -> list[str]:
    reason = row.get("statusReason") or ""
    if row["status"] not in ("RUNNABLE", "FAILED") or not reason:
        return []
    cure = next((cure for key, cure in CURES.items() if reason.startswith(key)), "")
    return [f"{reason}: {cure}" if cure else reason]


def _links(jobs: Mapping[str, Iterable[str]], region: str) -> list[str]:
    console = f"https://{region}.console.aws.amazon.com/batch/home?region={region}#jobs/detail/"
    return [f"{job}: {console}{job_id}" for job, ids in jobs.items() for job_id in ids]


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
