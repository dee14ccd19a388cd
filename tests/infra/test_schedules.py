"""Schedules in the emulated account, and the run that is due: started, skipped and said, resumed."""

from __future__ import annotations

import json

import pytest
import yaml

from inkbatch.cli.app import app
from inkbatch.cli.outcome import run_command
from inkbatch.data.segments.catalog import shipped_catalog
from inkbatch.errors import EXIT_CONFIG, EXIT_DATA, EXIT_DONE, ConfigError, DataError
from inkbatch.io.store.location import Location
from inkbatch.launch import aws_client, schedules
from inkbatch.launch.schedules import Schedules

DUE = "2026-11-22T03:00:00Z"
TRAINING = "dataset: scroll1\nmodel: {architecture: smp}\n"


@pytest.fixture
def root(tmp_path):
    return Location.parse(tmp_path / "root")


@pytest.fixture
def account(aws, outputs, root, monkeypatch):
    """A deployed stack whose ROOT is a folder, with the group that the emulator does not make from templates."""
    aws.client("scheduler").create_schedule_group(Name="inkbatch")
    monkeypatch.setattr(aws_client, "stack_outputs", lambda stack, region: {**outputs, "Root": str(root)})
    return aws


def command(*arguments):
    return run_command(lambda: app(args=["schedule", *map(str, arguments)], standalone_mode=False))


def test_a_schedule_is_made_listed_replaced_and_removed(account, root):
    made = Schedules("inkbatch")
    made.create("weekly", "train", "0 3 ? * SUN *", {"train.yaml": TRAINING})
    made.create("weekly", "train", "rate(7 days)", {"train.yaml": TRAINING})
    made.create("daily", "train", "rate(1 day)", {"train.yaml": TRAINING})
    assert [(row.name, row.expression, row.state) for row in made.standing()] == [
        ("daily", "rate(1 day)", "ENABLED"),
        ("weekly", "rate(7 days)", "ENABLED"),
    ]
    assert (root / "schedules" / "weekly" / "train.yaml").read_bytes() == TRAINING.encode()
    made.remove("weekly")
    assert [row.name for row in made.standing()] == ["daily"]
    with pytest.raises(ConfigError, match="not found \\(schedules: daily\\)"):
        made.remove("weekly")


def test_what_a_schedule_submits_is_what_batch_takes(account, outputs):
    Schedules("inkbatch").create("weekly", "train", "rate(7 days)", {"train.yaml": TRAINING})
    target = account.client("scheduler").get_schedule(Name="weekly", GroupName="inkbatch")["Target"]
    assert target["Arn"] == "arn:aws:scheduler:::aws-sdk:batch:submitJob"
    assert target["RoleArn"] == outputs["SchedulerRoleArn"]
    request = json.loads(target["Input"].replace("<aws.scheduler.scheduled-time>", DUE))
    lowered = {key[0].lower() + key[1:]: value for key, value in request.items()}
    lowered["containerOverrides"] = {"command": request["ContainerOverrides"]["Command"]}
    batch = account.client("batch")
    job = batch.describe_jobs(jobs=[batch.submit_job(**lowered)["jobId"]])["jobs"][0]
    assert job["jobName"] == "inkbatch-schedule-weekly"
    assert job["container"]["command"] == ["schedule", "run", "weekly", "--due", DUE]


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("0 3 ? * SUN *", "cron(0 3 ? * SUN *)"),
        ("cron(0 1 * * ? *)", "cron(0 1 * * ? *)"),
        ("rate(7 days)", "rate(7 days)"),
    ],
)
def test_cron_fields_get_their_brackets(text, expression):
    assert schedules.check_expression(text) == expression


@pytest.mark.parametrize("text", ["0 3 * * *", "0 3 * * SUN *", "", "sundays", "cron(0 3)"])
def test_a_cron_that_aws_would_refuse_is_refused_here_with_an_example(text):
    with pytest.raises(ConfigError, match=r"0 3 \? \* SUN \*"):
        schedules.check_expression(text)


def test_a_root_that_the_jobs_do_not_use_is_refused(account):
    with pytest.raises(ConfigError, match="leave ROOT out"):
        Schedules("inkbatch").create("weekly", "train", "rate(7 days)", {}, root="s3://other/ink")


def test_without_a_stack_it_says_how_to_make_one(aws):
    with pytest.raises(ConfigError, match="make infra-deploy"):
        Schedules("inkbatch").create("weekly", "train", "rate(7 days)", {})


class ListedJobs:
    """AWS Batch as far as list_jobs goes: ``(id, name, state, created)``; one job per page."""

    def __init__(self, *jobs):
        self.jobs = jobs

    def get_paginator(self, name):
        assert name == "list_jobs"
        return self

    def paginate(self, jobQueue, jobStatus):  # noqa: N803  # the API's words
        for job_id, name, state, created in self.jobs:
            if state == jobStatus:
                yield {"jobSummaryList": [{"jobId": job_id, "jobName": name, "createdAt": created}]}


def test_a_run_sees_the_older_one_whatever_state_it_is_in():
    for state in schedules.GOING:
        batch = ListedJobs(("old", "s", state, 1), ("mine", "s", "RUNNING", 2))
        assert schedules.older_run(batch, "queue", "mine") == "job old"


def test_only_older_jobs_of_the_same_schedule_that_have_not_ended_count():
    batch = ListedJobs(
        ("younger", "s", "RUNNABLE", 3),
        ("mine", "s", "RUNNING", 2),
        ("ended", "s", "FAILED", 1),
        ("b", "t", "RUNNING", 1),
    )
    assert schedules.older_run(batch, "queue", "mine") is None


def test_of_two_that_fired_at_once_exactly_one_goes():
    batch = ListedJobs(("a", "s", "RUNNING", 5), ("b", "s", "RUNNING", 5))
    assert [schedules.older_run(batch, "queue", job) for job in ("a", "b")] == [None, "job a"]


def test_a_queue_that_does_not_know_the_job_is_told():
    with pytest.raises(DataError, match="does not list this job"):
        schedules.older_run(ListedJobs(), "queue", "mine")


def test_a_run_that_is_due_while_one_is_going_is_skipped_and_said(root, monkeypatch, capsys):
    jobs = ListedJobs(("old", "s", "RUNNING", 1), ("mine", "s", "RUNNING", 2))
    monkeypatch.setattr(aws_client, "client", lambda service, region: jobs)
    for name, value in {"AWS_BATCH_JOB_ID": "mine", "AWS_BATCH_JQ_NAME": "q", "INKBATCH_SPOT_WATCH": "off"}.items():
        monkeypatch.setenv(name, value)
    assert command("run", "weekly", "--due", DUE, "--root", root) == EXIT_DONE
    said = capsys.readouterr().out
    assert "run weekly-20261122-0300 is skipped: job old of this schedule is still running" in said


def test_a_schedule_without_settings_is_told(root):
    assert command("run", "weekly", "--due", DUE, "--root", root) == EXIT_DATA


@pytest.mark.parametrize("by", ["option", "environment"])
def test_a_scheduled_run_stays_in_the_root_of_its_schedule(root, monkeypatch, capsys, by):
    (root / "schedules/weekly/train.yaml").write_bytes(f"root: elsewhere\n{TRAINING}".encode())
    monkeypatch.setenv("INKBATCH_ROOT", str(root) if by == "environment" else "nowhere")
    options = ["--root", root] if by == "option" else []
    assert command("run", "weekly", "--due", DUE, *options) == EXIT_DATA
    said = capsys.readouterr().err
    assert f"{root}/datasets/scroll1" in said
    assert "elsewhere" not in said


def test_a_bad_moment_is_refused(root):
    assert command("run", "weekly", "--due", "sunday", "--root", root) == EXIT_CONFIG


def test_a_training_config_that_does_not_validate_is_refused_when_the_schedule_is_made(account, tmp_path, capsys):
    preset = tmp_path / "bad.yaml"
    preset.write_text("datasett: x\n")
    assert command("train", "weekly", "--cron", "rate(7 days)", "--preset", preset) == EXIT_CONFIG
    assert "did you mean 'dataset'" in capsys.readouterr().err
    assert Schedules("inkbatch").standing() == []


def test_a_scheduled_catalog_reads_what_is_new_and_passes_over_the_rest(account, root, tmp_path, capsys):
    demo = yaml.safe_load(shipped_catalog().read_text())["segments"]["demo"]
    entry = {**demo, "source": str(shipped_catalog().parent / "layers")}
    missing = {**entry, "source": str(tmp_path / "nowhere")}
    for unwanted in ("ink_labels", "mask"):
        entry.pop(unwanted, None)
        missing.pop(unwanted, None)
    catalog = tmp_path / "segments.yaml"
    catalog.write_text(yaml.safe_dump({"segments": {"first": entry, "gone": missing}}))
    made = command("catalog", "nightly", "--cron", "rate(1 day)", "--catalog", catalog, "--bundle", "demo")
    assert made == EXIT_DONE
    assert command("run", "nightly", "--due", DUE, "--root", root) == EXIT_DATA
    out = capsys.readouterr().out
    assert "first: complete" in out
    assert "(1 unit stored, 0 already done)" in out
    assert "gone: FAILED" in out
    assert command("run", "nightly", "--due", DUE, "--root", root) == EXIT_DATA
    assert "(0 units stored, 1 already done)" in capsys.readouterr().out
