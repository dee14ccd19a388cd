"""Tasks for SkyPilot, checked against the keys that its documentation of the task YAML names."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import jsonschema
import pytest
import yaml

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


def documents(chain) -> list[dict]:
    launcher = SkyPilotLauncher(SkyPilotSettings(image=IMAGE))
    return list(yaml.safe_load_all(next(iter(launcher.render(chain).values()))))


@pytest.mark.parametrize("chain", [one_job(), one_job(shards=1)])
def test_a_task_passes_the_schema(chain):
    (task,) = documents(chain)
    jsonschema.validate(task, TASK)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**task, "use_spto": True}, TASK)


def test_a_chain_is_a_pipeline_whose_first_document_names_it():
    head, *tasks = documents(example_chain())
    assert list(head) == ["name"]
    for task in tasks:
        jsonschema.validate(task, TASK)
    assert [task["name"].split("-")[1] for task in tasks] == ["prepare", "infer", "infer", "ensemble", "report"]


def test_it_runs_on_spot_and_recovers_on_75_alone():
    resources = documents(one_job())[0]["resources"]
    assert resources["use_spot"]
    assert resources["job_recovery"]["recover_on_exit_codes"] == [75]
    assert resources["job_recovery"]["max_restarts_on_errors"] == 0


def test_shards_are_the_nodes_of_a_task():
    task = documents(one_job(shards=3))[0]
    assert task["num_nodes"] == 3
    assert "INKBATCH_ARRAY_INDEX=$SKYPILOT_NODE_RANK" in task["run"]
