"""The local engine with each worker in a container: docker, or podman with the same words."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from inkbatch.launch.base import EngineSettings, Submitted, register_launcher
from inkbatch.launch.local import GRACE_S, LocalLauncher, LocalSettings, task_variables
from inkbatch.launch.plan import ArraySpec, Chain
from inkbatch.run.signals import StopFlag

CALLER = "$(id -u):$(id -g)"  # in a script; a running launcher knows the numbers
# Passed by name, so that their values are in no command line, file or record.
PASSED_BY_NAME = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_NO_SIGN_REQUEST",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
)


class DockerSettings(LocalSettings):
    """Settings of the docker engine.

    Attributes:
        image: The image, best with its digest.
        engine: ``docker`` or ``podman``, or the path of one.
        user: ``uid:gid`` inside; None takes the caller's, who owns the mounted folders.
        network: The container's network; None is the engine's default.
        mounts: More folders to mount read-only.
        read_only: Mount the image's root file system read-only.
    """

    image: str = "inkbatch:latest"
    engine: str = "docker"
    user: str | None = Field(None, pattern=r"^\d+:\d+$")
    network: str | None = None
    mounts: tuple[str, ...] = ()
    read_only: bool = True


@register_launcher
class DockerLauncher(LocalLauncher):
    """Worker containers on this machine."""

    name: ClassVar[str] = "docker"
    settings_class: ClassVar[type[EngineSettings]] = DockerSettings
    settings: DockerSettings

    def render(self, chain: Chain) -> dict[str, str]:
        """Render a shell script that starts the same containers, without restarts: each shard on a GPU of its own."""
        self.check(chain)
        rows = ["#!/bin/sh", f"# {chain.launch}: what the docker engine runs, without its restarts.", "set -eu"]
        for spec in chain.jobs:
            rows += ["", f"# {spec.job}: {spec.shards} tasks of at most {spec.attempts} attempts, code 75 is retried"]
            for index in range(spec.shards):
                gpu = str(index) if spec.resources.gpus else None
                words = self._words(spec, chain, index, 1, gpu, self.settings.user or CALLER)
                rows.append(" ".join(_shell_word(word) for word in words) + (" &" if spec.shards > 1 else ""))
            if spec.shards > 1:
                rows.append("wait")
        return {"docker.sh": "\n".join(rows) + "\n"}

    def task_command(self, spec: ArraySpec, chain: Chain, index: int, attempt: int, gpu: str | None) -> list[str]:
        """Build ``docker run`` of one task: no capabilities, no new privileges, an init that forwards signals."""
        user = self.settings.user or f"{os.getuid()}:{os.getgid()}"
        return self._words(spec, chain, index, attempt, gpu, user)

    def task_environment(
        self, spec: ArraySpec, chain: Chain, index: int, attempt: int, gpu: str | None
    ) -> dict[str, str]:
        """Build the environment of the docker client, from which it takes variables that are passed by name."""
        return dict(os.environ)

    def run_chain(self, chain: Chain, folder: Path, stop: StopFlag) -> Submitted:
        """Make the folders that are mounted, so that they belong to the caller; then run."""
        if chain.root.startswith("/"):
            os.makedirs(chain.root, exist_ok=True)
        return super().run_chain(chain, folder, stop)

    def _words(
        self,
        spec: ArraySpec,
        chain: Chain,
        index: int,
        attempt: int,
        gpu: str | None,
        user: str,
    ) -> list[str]:
        settings, resources = self.settings, spec.resources
        words = [settings.engine, "run", "--rm", "--init", "--name", f"{chain.launch}-{spec.job}-{index}-{attempt}"]
        words += ["--user", user, "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
        words += ["--stop-timeout", str(int(GRACE_S)), "--shm-size", str(resources.shared_memory)]
        words += ["--memory", str(resources.memory), "--cpus", str(resources.cpus)]
        if settings.read_only:
            words += ["--read-only", "--tmpfs", "/tmp:rw,nosuid,nodev", "--tmpfs", "/scratch:rw,nosuid,nodev,mode=1777"]
        if settings.network:
            words += ["--network", settings.network]
        if gpu is not None:
            words += ["--gpus", f"device={gpu}"]
        for place in dict.fromkeys([*chain.local_places, *settings.mounts]):
            words += ["--volume", f"{place}:{place}" + ("" if place == chain.root else ":ro")]
        variables = {**self.variables(spec, chain), **task_variables(spec, chain, index, attempt), "HOME": "/tmp"}
        if gpu is None and not settings.require_gpu:
            variables.pop("INKBATCH_REQUIRE_GPU", None)
        for name, value in sorted(variables.items()):
            words += ["--env", f"{name}={value}"]
        for name in PASSED_BY_NAME:  # one that is not set in the client's environment is not set inside either
            words += ["--env", name]
        return [*words, settings.image, *spec.command]


def _shell_word(word: str) -> str:
    return f'"{CALLER}"' if word == CALLER else shlex.quote(word)
