"""The pages on image and cloud name only what is there."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "infra/README.md", "docs/image.md", "docs/first-cloud-run.md")
TEMPLATE = (ROOT / "infra" / "aws" / "inkbatch.yaml").read_text()


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_of_a_page_is_there(page):
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^|\()make (?:-s )?([a-z]+(?:-[a-z]+)*)", (ROOT / page).read_text(), re.MULTILINE))
    assert named
    assert named <= targets


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page):
    for link in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / link).exists(), link


def test_every_output_and_parameter_that_the_page_names_is_in_the_template():
    page = (ROOT / "infra" / "README.md").read_text()
    names = re.findall(r"`([A-Z][a-z]+[A-Za-z]*)`", page)
    assert len(names) > 20
    for name in set(names):
        assert re.search(rf"^  {name}:", TEMPLATE, re.MULTILINE), name


def test_ten_commands_lead_from_an_account_to_an_array_job():
    page = (ROOT / "infra" / "README.md").read_text()
    block = page.split("```bash")[1].split("```")[0]
    assert [int(number) for number in re.findall(r"# (\d+)\b", block)] == list(range(1, 11))


def test_composed_jobs_hold_no_privilege():
    services = yaml.safe_load((ROOT / "docker" / "compose.cpu.yaml").read_text())["services"]
    for name in ("job", "job-s3"):
        assert services[name]["read_only"] is True
        assert services[name]["shm_size"] == "4gb"
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


# Keys of the Compose Specification (github.com/compose-spec/compose-spec) that the files may use.
SERVICE_KEYS = {
    "image", "user", "read_only", "cap_drop", "security_opt", "shm_size", "stop_grace_period", "tmpfs", "volumes",
    "environment", "depends_on", "entrypoint", "command", "deploy",
}  # fmt: skip
COMPOSE_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "patternProperties": {"^x-": {}},
    "required": ["services"],
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
        "volumes": {"type": "object", "additionalProperties": {"type": ["object", "null"]}},
        "services": {
            "type": "object",
            "additionalProperties": {"type": "object", "propertyNames": {"enum": sorted(SERVICE_KEYS)}},
        },
    },
}


@pytest.mark.parametrize("name", ["compose.cpu.yaml", "compose.gpu.yaml"])
def test_compose_files_have_the_specifications_shape_and_run_any_job(name):
    document = yaml.safe_load((ROOT / "docker" / name).read_text())
    jsonschema.validate(document, COMPOSE_SCHEMA)
    for service in ("job", "job-s3"):  # inkbatch is the image's entry point: what is run is any of its commands
        assert not {"command", "entrypoint"} & set(document["services"][service])
    mounted = {row["source"] for service in document["services"].values() for row in service.get("volumes", [])}
    assert {place for place in mounted if not place.startswith("$")} == set(document.get("volumes", {}))


def test_composed_jobs_name_credentials_and_hold_none():
    environment = yaml.safe_load((ROOT / "docker" / "compose.cpu.yaml").read_text())["services"]["job"]["environment"]
    assert [environment[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")] == [
        None
    ] * 3


def test_with_gpus_laid_over_every_job_asks_for_them():
    services = yaml.safe_load((ROOT / "docker" / "compose.gpu.yaml").read_text())["services"]
    for name in ("job", "job-s3"):
        assert services[name]["environment"]["INKBATCH_REQUIRE_GPU"] == "1"
        (device,) = services[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]
