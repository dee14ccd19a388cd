"""Tasks for SkyPilot, checked against the keys that its documentation of the task YAML names."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import ClassVar

import jsonschema
import pytest
import yaml

from inkbatch.launch.base import Feature
from inkbatch.launch.skypilot import SkyPilotLauncher, SkyPilotSettings
from inkbatch.testing.launchers import LauncherContract, example_chain, one_job

IMAGE = "registry.example/inkbatch@sha256:" + "0" * 64
TASK = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "resources", "run"],
    "properties": {
        "name": {"type": "string"},
        "num_nodes": {"type": "integer", "minimum": 1},
        "envs": {"type": "object", "additionalProperties": {"type": "string"}},
        "run": {"type": "string"},
        "resources": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "infra": {"type": "string"},
                "image_id": {"type": "string", "pattern": "^docker:"},
                "cpus": {"type": "string", "pattern": r"^\d+\+$"},
                "memory": {"type": "string", "pattern": r"^\d+\+$"},
                "disk_size": {"type": "integer"},
                "use_spot": {"type": "boolean"},
                "accelerators": {"type": "object", "additionalProperties": {"type": "integer"}},
                "job_recovery": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "strategy": {"enum": ["FAILOVER", "EAGER_NEXT_REGION"]},
                        "max_restarts_on_errors": {"type": "integer"},
                        "recover_on_exit_codes": {"type": "array", "items": {"type": "integer"}},
                    },
                },
            },
        },
    },
}


class TestSkyPilot(LauncherContract):
    launcher_class = SkyPilotLauncher
    golden = Path(__file__).parent / "golden"
    options: ClassVar = {"image": IMAGE}


def rendered(chain) -> dict[str, str]:
    return SkyPilotLauncher(SkyPilotSettings(image=IMAGE)).render(chain)


def documents(chain) -> list[dict]:
    return [yaml.safe_load(text) for name, text in rendered(chain).items() if name.endswith(".sky.yaml")]


@pytest.mark.parametrize("chain", [one_job(), one_job(shards=1)])
def test_a_task_passes_the_schema(chain):
    (task,) = documents(chain)
    jsonschema.validate(task, TASK)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**task, "use_spto": True}, TASK)


def test_every_job_of_a_chain_is_a_task_that_waits_for_those_before_it(tmp_path):
    chain = example_chain()
    files = rendered(chain)
    for task in documents(chain):
        jsonschema.validate(task, TASK)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "sky").write_text('#!/bin/sh\necho "$@" >> launched\n')
    (tmp_path / "sky").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["sh", "submit.sh"], cwd=tmp_path, env={**os.environ, "PATH": path}, check=True)
    launched = [line.split()[-1] for line in (tmp_path / "launched").read_text().splitlines()]
    assert len(launched) == sum(spec.shards for spec in chain.jobs)
    for spec in chain.jobs:
        first = launched.index(f"{spec.job}.sky.yaml")
        for before in spec.after:
            last = len(launched) - 1 - launched[::-1].index(f"{before}.sky.yaml")
            assert last < first


def test_it_runs_on_spot_and_recovers_on_75_alone():
    resources = documents(one_job())[0]["resources"]
    assert resources["use_spot"]
    assert resources["job_recovery"]["recover_on_exit_codes"] == [75]
    assert resources["job_recovery"]["max_restarts_on_errors"] == 0


def test_shards_are_managed_jobs_of_their_own_and_no_gang():
    files = rendered(one_job(shards=3))
    task = documents(one_job(shards=3))[0]
    assert "num_nodes" not in task
    assert task["envs"]["INKBATCH_ARRAY_COUNT"] == "3"
    for index in range(3):
        assert f"--env INKBATCH_ARRAY_INDEX={index} " in files["submit.sh"]


def test_it_says_that_nothing_was_submitted(tmp_path):
    launcher = SkyPilotLauncher(SkyPilotSettings(image=IMAGE))
    assert Feature.SUBMIT not in launcher.supports
    (said,) = launcher.submit(one_job(shards=2), tmp_path / "work").said
    assert said.endswith("&& sh submit.sh)")
