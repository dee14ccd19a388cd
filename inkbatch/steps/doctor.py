"""`inkbatch doctor`: the first job to send anywhere. It checks what later jobs rely on, and writes what it found."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Sequence
from typing import Any

from pydantic import Field, field_validator

from inkbatch import __version__
from inkbatch.config import JobConfig, parse_bytes
from inkbatch.errors import ConfigError, DataError, InkbatchError
from inkbatch.predict.device import REQUIRE_GPU, DeviceName
from inkbatch.predict.doctor import check_device, cuda_version
from inkbatch.run import doctor as checkup
from inkbatch.run.doctor import Finding
from inkbatch.run.identity import ShardSpec, TaskIdentity, task_identity


class DoctorConfig(JobConfig):
    """Settings of `inkbatch doctor`. What is asked for and cannot be had fails; the rest is only told.

    Attributes:
        name: Of the check-up; its report is ``ROOT/doctor/{name}-{index}-of-{count}.json``.
        root: ROOT, read and written.
        device: ``cuda`` asks for a usable GPU; ``auto`` takes what is there.
        gpus: So many GPUs must be usable.
        shm: Room that ``/dev/shm`` must have, for example ``4GiB``.
        disk: Free room that the folder for temporary files must have.
        memory: Main memory that there must be.
    """

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
    """Make all checks, whatever each one finds; the report stays under ``ROOT/doctor``."""
    identity = checkup.check_identity()
    findings = [
        Finding("version", "good", _version()),
        identity,
        checkup.check_spot_watch(),
        checkup.check_driver(_wants_gpu(config), cuda_version()),
        *check_device(config.device, config.gpus),
        checkup.check_memory(_bytes(config.memory)),
        checkup.check_shared_memory(_bytes(config.shm)),
        checkup.check_disk(_bytes(config.disk), tempfile.gettempdir()),
    ]
    task = TaskIdentity("single", ShardSpec()) if identity.error else task_identity()
    return [*findings, checkup.check_root(config.root, config.name, task, report(findings))]


def report(findings: Sequence[Finding]) -> dict[str, Any]:
    """The check-up as JSON."""
    return {"inkbatch": __version__, "checks": [finding.row() for finding in findings]}


def verdict(findings: Sequence[Finding]) -> None:
    """Raise what is bad.

    Raises:
        InkbatchError: Of the kind of the gravest finding (an unusable GPU is a `DataError`, exit 65).
    """
    failed = {finding.what: finding.error for finding in findings if finding.error is not None}
    if failed:
        gravest = min(failed.values(), key=_gravity)
        names = ", ".join(failed)
        raise type(gravest)(f"doctor: {len(failed)} of {len(findings)} checks failed ({names}); gravest: {gravest}")


def _gravity(error: InkbatchError) -> int:
    """What no retry and no setting cures comes first."""
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
