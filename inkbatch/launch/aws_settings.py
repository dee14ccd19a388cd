"""Settings of the AWS Batch engine."""

from __future__ import annotations

from pydantic import Field

from inkbatch.launch.base import EngineSettings


class AwsBatchSettings(EngineSettings):
    """Settings of the AWS Batch engine; what is None comes from the stack that ``make infra-deploy`` made.

    Attributes:
        region: AWS region; None is the environment's.
        stack: CloudFormation stack whose outputs fill what is None here.
        gpu_queue: Queue for jobs that want a GPU.
        cpu_queue: Queue for the others.
        image: The image with its digest; a tag is looked up once and replaced by its digest.
        job_role: ARN of the role that the job has: it may touch only its prefix of the bucket.
        execution_role: ARN of the role that pulls the image and writes the log.
        log_group: Log group of the jobs; without a stack ``/inkbatch/jobs``.
        user: ``uid:gid`` inside the container.
        tags: More tags for everything that is made.
    """

    region: str | None = None
    stack: str = "inkbatch"
    gpu_queue: str | None = None
    cpu_queue: str | None = None
    image: str | None = None
    job_role: str | None = None
    execution_role: str | None = None
    log_group: str | None = None
    user: str = Field("1000:1000", pattern=r"^\d+(:\d+)?$")
    tags: dict[str, str] = Field(default_factory=dict)
