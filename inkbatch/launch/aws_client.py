"""AWS through boto3: clients from the environment's own credential chain, errors in our words, the stack's outputs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from inkbatch.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from inkbatch.launch.aws_settings import AwsBatchSettings
    from inkbatch.launch.plan import Chain

# Outputs of infra/aws by the setting that they fill.
OUTPUTS = {
    "gpu_queue": "GpuQueue",
    "cpu_queue": "CpuQueue",
    "job_role": "JobRoleArn",
    "execution_role": "ExecutionRoleArn",
    "log_group": "LogGroup",
    "image": "Image",
}
PASSING = ("Throttl", "TooManyRequests", "RequestLimit", "ServerException", "InternalError", "ServiceUnavailable")
LOG_LINES = 200
_ECR = re.compile(r"^(\d+)\.dkr\.ecr\.([a-z0-9-]+)\.[^/]+/([^:@]+)(?::([^@]+))?$")


def client(service: str, region: str | None) -> Any:
    """Build a client; credentials, endpoint and profile come from the environment as AWS documents it.

    Raises:
        ConfigError: No region.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    retries = Config(retries={"mode": "standard", "max_attempts": 5})
    try:
        return boto3.Session().client(service, region_name=region, config=retries)
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"aws {service}: {error}; set AWS_REGION, or region in the engine's settings") from error


def asked(service: str, call: Callable[..., Any], **request: Any) -> Any:
    """Call the API.

    Raises:
        ConfigError: AWS refuses the request or the credentials.
        StorageError: It does not answer, or asks to try again later.
    """
    from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError, ParamValidationError

    try:
        return call(**request)
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if any(word in code for word in PASSING):
            raise StorageError(f"aws {service}: {error}") from error
        raise ConfigError(f"aws {service}: {error}") from error
    except (ConnectionError, HTTPClientError) as error:
        raise StorageError(f"aws {service}: {error}") from error
    except (BotoCoreError, ParamValidationError) as error:
        raise ConfigError(f"aws {service}: {error}") from error


def filled(settings: AwsBatchSettings, chain: Chain) -> AwsBatchSettings:
    """Fill missing settings from the stack's outputs, and name the image by its digest.

    Raises:
        ConfigError: Something is still missing.
    """
    needed = {"image"} | {"gpu_queue" if spec.resources.gpus else "cpu_queue" for spec in chain.jobs}
    open_ones = [key for key in OUTPUTS if getattr(settings, key) is None]
    outputs = stack_outputs(settings.stack, settings.region) if open_ones else {}
    found = {key: outputs[OUTPUTS[key]] for key in open_ones if OUTPUTS[key] in outputs}
    settings = settings.model_copy(update=found)
    missing = [key for key in sorted(needed) if getattr(settings, key) is None]
    if missing:
        raise ConfigError(
            f"engine aws-batch: expected {', '.join(missing)}, and stack {settings.stack!r} has no such outputs; "
            "run make infra-deploy, or set them in engines.yaml"
        )
    return settings.model_copy(update={"image": _by_digest(str(settings.image), settings.region)})


def stack_outputs(stack: str, region: str | None) -> dict[str, str]:
    """Read the outputs of a CloudFormation stack; empty if there is no such stack."""
    from botocore.exceptions import ClientError

    stacks = client("cloudformation", region)
    try:
        found = asked("cloudformation", stacks.describe_stacks, StackName=stack)["Stacks"]
    except ConfigError as error:
        if isinstance(error.__cause__, ClientError) and "does not exist" in str(error):
            return {}
        raise
    return {row["OutputKey"]: row["OutputValue"] for row in found[0].get("Outputs", [])}


def log_lines(job_id: str, region: str | None) -> Iterator[str]:
    """Return the link to a job's log and its last lines.

    Raises:
        ConfigError: Batch does not know the job.
    """
    jobs = asked("batch", client("batch", region).describe_jobs, jobs=[job_id])["jobs"]
    if not jobs:
        raise ConfigError(f"aws batch: knows no job {job_id} (any more); the log group may still hold its log")
    container = jobs[0].get("container", {})
    stream = container.get("logStreamName")
    if not stream:
        yield f"{job_id}: {jobs[0]['status']}, no log yet"
        return
    options = container.get("logConfiguration", {}).get("options", {})
    group = options.get("awslogs-group", "/aws/batch/job")
    logs = client("logs", region)
    place = logs.meta.region_name
    escaped = f"{group.replace('/', '$252F')}/log-events/{stream.replace('/', '$252F')}"
    yield f"https://{place}.console.aws.amazon.com/cloudwatch/home?region={place}#logsV2:log-groups/log-group/{escaped}"
    answer = asked(
        "logs", logs.get_log_events, logGroupName=group, logStreamName=stream, limit=LOG_LINES, startFromHead=False
    )
    for event in answer["events"]:
        yield str(event["message"])


def _by_digest(image: str, region: str | None) -> str:
    """Name the image by digest: a tag can move under a running array."""
    if "@sha256:" in image:
        return image
    match = _ECR.match(image)
    if match is None:
        raise ConfigError(
            f"image {image}: name it with its digest, NAME@sha256:…; a tag can move under a running array"
        )
    account, place, repository, tag = match.groups()
    asked_for = {"repositoryName": repository, "registryId": account, "imageIds": [{"imageTag": tag or "latest"}]}
    found = asked("ecr", client("ecr", place or region).describe_images, **asked_for)["imageDetails"]
    return f"{image.rpartition(':')[0] if tag else image}@{found[0]['imageDigest']}"
