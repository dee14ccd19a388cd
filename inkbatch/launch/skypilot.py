"""SkyPilot: managed jobs on spot machines that recover on exit code 75; ``sky jobs launch`` submits each."""

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


SUBMIT_SCRIPT = """\
#!/bin/sh
# Submits this chain: every shard is a managed job of its own, which is recovered alone, and a job waits for those
# before it. Run it in the folder of these files; it ends when the last job has ended.
set -eu
launched=""
all_of_them() { for one in $launched; do wait "$one"; done; launched=""; }
"""


@register_launcher
class SkyPilotLauncher(Launcher):
    """A managed job per shard, each on a machine of its own: a lost one is started again without the others."""

    name: ClassVar[str] = "skypilot"
    settings_class: ClassVar[type[EngineSettings]] = SkyPilotSettings
    supports: ClassVar[frozenset[Feature]] = frozenset({Feature.ARRAY, Feature.CHAIN})
    settings: SkyPilotSettings

    def render(self, chain: Chain) -> dict[str, str]:
        """Render a task per array and, for shards or a chain, ``submit.sh``, which launches a managed job per shard."""
        self.check(chain)
        files, rows = {}, [SUBMIT_SCRIPT]
        pending: list[str] = []
        for spec in chain.jobs:
            file, name = f"{spec.job}.sky.yaml", _job_name(spec)
            text = yaml.safe_dump(self._task(spec, chain), sort_keys=False, width=120)
            files[file] = f"# sky jobs launch {file}\n{text}"
            if any(job in pending for job in spec.after):
                rows.append("all_of_them\n")
                pending.clear()
            for index in range(spec.shards):
                words = ["sky", "jobs", "launch", "--yes", "--name", f"{name}-{index}"]
                words += ["--env", f"INKBATCH_ARRAY_INDEX={index}", file]
                rows.append(f'{shlex.join(words)} &\nlaunched="$launched $!"\n')
            pending.append(spec.job)
        rows.append("all_of_them\n")
        is_one = len(chain.jobs) == 1 and chain.jobs[0].shards == 1
        return files if is_one else {**files, "submit.sh": "".join(rows)}

    def submit(self, chain: Chain, folder: Path) -> Submitted:
        """Write the tasks and say how they are submitted."""
        names = list(self.write(chain, folder))
        one = f"sky jobs launch {folder / names[0]}"
        said = [f"(cd {shlex.quote(str(folder))} && sh submit.sh)" if len(names) > 1 else one]
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
        variables |= {"INKBATCH_ARRAY_INDEX": "0", "INKBATCH_ARRAY_COUNT": str(spec.shards)}
        rows = [
            "export INKBATCH_JOB_ID=$SKYPILOT_TASK_ID",
            f"exec inkbatch {shlex.join(spec.command)}",
        ]
        return {
            "name": _job_name(spec),
            "resources": resources,
            "envs": variables,
            "run": "\n".join(rows) + "\n",
        }


def _job_name(spec: ArraySpec) -> str:
    return spec.name.lower()[:56].rstrip("-")
