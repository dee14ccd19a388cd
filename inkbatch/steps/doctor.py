"""`inkbatch doctor`: the first job to send to a new engine; it checks what later jobs need, and writes a report."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field, field_validator

from inkbatch import __version__
from inkbatch.config import JobConfig, parse_bytes
from inkbatch.errors import ConfigError, DataError, InkbatchError
from inkbatch.predict.device import REQUIRE_GPU, DeviceName
from inkbatch.predict.doctor import check_device, cuda_version
from inkbatch.run import doctor as checks
from inkbatch.run.doctor import Finding
from inkbatch.run.identity import ShardSpec, TaskIdentity, task_identity


class DoctorConfig(JobConfig):
    """Settings of `inkbatch doctor`. A stated need that is not met fails; the rest is only reported.

    Attributes:
        name: Name of the report, ``ROOT/doctor/{name}-{index}-of-{count}.json``.
        root: ROOT, read and written.
        device: ``cuda`` asks for a usable GPU; ``auto`` takes the best device.
        gpus: Number of GPUs that must be usable.
        shm: Free space needed in ``/dev/shm``, for example ``4GiB``.
        disk: Free space needed in the folder for temporary files.
        memory: Main memory needed.
    """

    spelled: ClassVar[Mapping[str, str]] = {"name": "NAME"}

    name: str = Field("check", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    root: str = "root"
    device: DeviceName = "auto"
    gpus: int | None = Field(None, ge=0)
    shm: str | int | None = None
    disk: str | int | None = None
    memory: str | int | None = None

    @field_validator("shm", "disk", "memory")
    @classmethod
    def _is_size(cls, value: str | int | None) -> int | None:
        try:
            return None if value is None else parse_bytes(value)
        except ConfigError as error:
            raise ValueError(str(error)) from error


def run(config: DoctorConfig) -> list[Finding]:
    """Run all checks, even if one fails; the report stays under ``ROOT/doctor``."""
    identity = checks.check_identity()
    findings = [
        Finding("version", "good", _version()),
        identity,
        checks.check_spot_watch(),
        checks.check_driver(_wants_gpu(config), cuda_version()),
        *check_device(config.device, config.gpus),
        checks.check_memory(_bytes(config.memory)),
        checks.check_shared_memory(_bytes(config.shm)),
        checks.check_disk(_bytes(config.disk), tempfile.gettempdir()),
    ]
    task = TaskIdentity("single", ShardSpec()) if identity.error else task_identity()
    return [*findings, checks.check_root(config.root, config.name, task, report(findings))]


def report(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the findings as JSON."""
    return {"inkbatch": __version__, "checks": [finding.row() for finding in findings]}


def require_sound(findings: Sequence[Finding]) -> None:
    """Raise the gravest of the bad findings.

    Raises:
        InkbatchError: Of the kind of the gravest finding (an unusable GPU is a `DataError`, exit 65).
    """
    failed = {finding.what: finding.error for finding in findings if finding.error is not None}
    if failed:
        gravest = min(failed.values(), key=_gravity)
        names = ", ".join(failed)
        raise type(gravest)(f"doctor: {len(failed)} of {len(findings)} checks failed ({names}); gravest: {gravest}")


def _gravity(error: InkbatchError) -> int:
    """Order errors: first those that no retry and no setting cures."""
    order = (DataError, ConfigError)
    return next((place for place, kind in enumerate(order) if isinstance(error, kind)), len(order))


def _wants_gpu(config: DoctorConfig) -> bool:
    required = config.device == "auto" and bool(os.environ.get(REQUIRE_GPU))
    return config.device == "cuda" or bool(config.gpus) or required


def _bytes(value: str | int | None) -> int | None:
    return None if value is None else parse_bytes(value)


def _version() -> str:
    image = {name: os.environ.get(f"INKBATCH_{name.upper()}") for name in ("revision", "image")}
    told = [f"{name} {value}" for name, value in image.items() if value]
    return ", ".join([f"inkbatch {__version__}, Python {platform.python_version()}", *told])
