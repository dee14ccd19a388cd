"""SkyPilot: a task YAML on spot machines that recovers on exit code 75; ``sky jobs launch`` submits it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, ClassVar

import yaml

from inkbatch.errors import EXIT_TRY_AGAIN
from inkbatch.launch.base import EngineSettings, Feature, Launcher, Submitted, register_launcher
from inkbatch.launch.plan import ArraySpec, Chain
from inkbatch.run.deadline import DEADLINE_VARIABLE


class SkyPilotSettings(EngineSettings):
    """Settings of the SkyPilot engine.

    Attributes:
        image: The image, best with its digest.
        infra: Cloud, or cloud/region; None lets SkyPilot choose the cheapest.
        accelerators: GPUs by SkyPilot's names, any of which will do.
        spot: Use spot machines.
    """

    image: str = "inkbatch:latest"
    infra: str | None = None
    accelerators: tuple[str, ...] = ("L4", "A10G", "L40S")
    spot: bool = True


@register_launcher
class SkyPilotLauncher(Launcher):
    """One task; a chain is a pipeline of tasks, each document of which starts when the one before has ended well.

    The shards of an array are the nodes of a task: they start together, and a lost one starts them all again. Markers
    make that cheap.
    """

    name: ClassVar[str] = "skypilot"
    settings_class: ClassVar[type[EngineSettings]] = SkyPilotSettings
    supports: ClassVar[frozenset[Feature]] = frozenset({Feature.ARRAY, Feature.CHAIN})
    settings: SkyPilotSettings

    def render(self, chain: Chain) -> dict[str, str]:
        """Render one YAML file: a task, or a pipeline of tasks."""
        self.check(chain)
        documents = [self._task(spec, chain) for spec in chain.jobs]
        if len(documents) > 1:
            documents.insert(0, {"name": chain.launch})
        name = f"{chain.jobs[-1].job}.sky.yaml"
        text = yaml.safe_dump_all(documents, sort_keys=False, width=120)
        return {name: f"# sky jobs launch {name}\n{text}"}

    def submit(self, chain: Chain, folder: Path) -> Submitted:
        """Write the task and say how it is submitted."""
        names = self.write(chain, folder)
        said = [f"sky jobs launch {folder / name}" for name in names]
        shards = {spec.job: spec.shards for spec in chain.jobs}
        return Submitted(self.name, chain.launch, {}, shards, str(folder.resolve()), said=said)

    def _task(self, spec: ArraySpec, chain: Chain) -> dict[str, Any]:
        resources: dict[str, Any] = {
            "image_id": f"docker:{self.settings.image}",
            "cpus": f"{spec.resources.cpus}+",
            "memory": f"{-(-spec.resources.memory >> 30)}+",
            "disk_size": max(100, -(-spec.resources.scratch >> 30)),
            "use_spot": self.settings.spot,
            "job_recovery": {
                "strategy": "EAGER_NEXT_REGION",
                "max_restarts_on_errors": 0,
                "recover_on_exit_codes": [EXIT_TRY_AGAIN],
            },
        }
        if self.settings.infra:
            resources["infra"] = self.settings.infra
        if spec.resources.gpus:
            resources["accelerators"] = dict.fromkeys(self.settings.accelerators, spec.resources.gpus)
        variables = self.variables(spec, chain)
        del variables[DEADLINE_VARIABLE]  # nothing ends a task by the clock
        rows = [
            "export INKBATCH_ARRAY_INDEX=$SKYPILOT_NODE_RANK INKBATCH_ARRAY_COUNT=$SKYPILOT_NUM_NODES",
            "export INKBATCH_JOB_ID=$SKYPILOT_TASK_ID",
            f"exec inkbatch {shlex.join(spec.command)}",
        ]
        return {
            "name": spec.name.lower()[:60],
            "num_nodes": spec.shards,
            "resources": resources,
            "envs": variables,
            "run": "\n".join(rows) + "\n",
        }
