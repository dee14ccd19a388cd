"""From a request to a chain: job files, shards, what is passed on and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from inkbatch.errors import ConfigError
from inkbatch.launch.aws_settings import AwsBatchSettings
from inkbatch.launch.base import launcher_class, launcher_names
from inkbatch.launch.checks import check_bundles
from inkbatch.launch.commands import Request
from inkbatch.launch.jobfile import JobFile, LaunchBlock, job_names, parse_duration
from inkbatch.launch.plan import ArraySpec, Chain, launch_name, plan_chain, refuse_secrets
from inkbatch.launch.settings import engine_settings
from inkbatch.launch.slurm import SlurmSettings
from inkbatch.redaction import redact
from inkbatch.testing.launchers import LAUNCH

REPOSITORY = Path(__file__).parent.parent.parent
INFER = Request(jobs=("infer",), subject="demo", bundles=("demo",), root="s3://bucket/ink")


@pytest.mark.parametrize("path", sorted((REPOSITORY / "jobs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_job_file_says_how_it_is_launched(path):
    assert JobFile.load(path.stem).launch == LaunchBlock.checked(
        yaml.safe_load(path.read_text()).get("launch", {}), str(path)
    )


def test_a_users_job_file_wins_key_by_key(tmp_path):
    (tmp_path / "own.yaml").write_text("device: cpu\nlaunch: {resources: {gpus: 0, memory: 2GiB}, attempts: 2}\n")
    shipped, own = JobFile.load("infer"), JobFile.load("infer", str(tmp_path / "own.yaml"))
    assert own.settings == {**shipped.settings, "device": "cpu"}
    assert (own.launch.resources.gpus, own.launch.resources.memory, own.launch.attempts) == (0, 2 << 30, 2)
    assert own.launch.resources.shared_memory == shipped.launch.resources.shared_memory
    assert own.launch.time_limit == shipped.launch.time_limit


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("launch: {resources: {gpu: 1}}", "did you mean 'gpus'"),
        ("launch: {resources: {memory: 14}}", "give a unit"),
        ("launch: {resources: {memory: much}}", "2GiB"),
        ("launch: {time_limit: 6 hours}", "6h"),
        ("launch: {time_limit: 30s}", "60"),
        ("launch: {attempts: 11}", "10"),
        ("launch: {shards: {default: 4, most: 2}}", "more than most"),
        ("launch: [1]", "mapping"),
    ],
)
def test_a_job_file_that_makes_no_sense_is_refused(tmp_path, text, words):
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        JobFile.load("infer", str(tmp_path / "own.yaml"))


def test_an_unknown_job_names_the_known_ones():
    with pytest.raises(ConfigError, match="did you mean 'infer'"):
        JobFile.load("infre")
    with pytest.raises(ConfigError, match="there is no such job"):
        JobFile.load("../pyproject")
    assert {"prepare", "infer", "build-dataset", "train"} <= set(job_names())


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("2d", 172800), (60, 60)])
def test_durations_are_read_as_people_write_them(text, seconds):
    assert parse_duration(text) == seconds


def test_jobs_of_a_chain_wait_for_the_one_before():
    chain = plan_chain(replace(INFER, jobs=("prepare", "infer")), LAUNCH)
    assert [(spec.job, spec.after) for spec in chain.jobs] == [("prepare", ()), ("infer", ("prepare",))]


def test_each_bundle_has_its_own_infer_array_and_ensemble_waits_for_all():
    bundles = ("s3://b/runs/letters/bundle", "i3d=s3://b/runs/i3d-44/bundle", "demo")
    wanted = replace(INFER, jobs=("prepare", "infer", "ensemble", "evaluate"), bundles=bundles, predictions=("old",))
    chain = plan_chain(wanted, LAUNCH)
    arrays = ("infer.letters", "infer.i3d", "infer.demo")
    assert [spec.job for spec in chain.jobs] == ["prepare", *arrays, "ensemble", "evaluate"]
    assert all(spec.after == ("prepare",) for spec in chain.jobs if spec.kind == "infer")
    ensemble = chain.jobs[-2]
    assert ensemble.after == arrays
    members = [ensemble.command[at + 1] for at, word in enumerate(ensemble.command) if word == "--prediction"]
    assert members == ["letters", "i3d", "demo", "old"]
    made = [spec.command[spec.command.index("--name") + 1] for spec in chain.jobs if "--name" in spec.command]
    assert made == ["letters", "i3d", "demo", "ensemble", "ensemble"]


def test_one_bundle_without_an_ensemble_leaves_its_predictions_name_to_infer():
    (spec,) = plan_chain(INFER, LAUNCH).jobs
    assert (spec.job, spec.kind) == ("infer", "infer")
    assert "--name" not in spec.command


def test_several_predictions_cannot_be_evaluated_as_one():
    with pytest.raises(ConfigError, match="put ensemble before it"):
        plan_chain(replace(INFER, jobs=("infer", "evaluate"), bundles=("demo", "other=demo")), LAUNCH)


def test_a_dataset_is_built_and_trained_on_in_one_chain():
    build, train = plan_chain(Request(("build-dataset", "train"), "letters"), LAUNCH).jobs
    assert train.after == (build.job,)
    assert train.command[train.command.index("--dataset") + 1] == "letters"


def test_every_job_that_engines_run_says_all_that_they_need():
    for job in job_names():
        block = yaml.safe_load((REPOSITORY / "jobs" / f"{job}.yaml").read_text())["launch"]
        assert {"resources", "time_limit", "attempts"} <= set(block), job
        assert {"gpus", "cpus", "memory"} <= set(block["resources"]), job


def test_a_chain_in_which_a_job_waits_for_a_later_one_is_refused():
    first = ArraySpec("infer", "demo", ("infer", "demo"), after=("prepare",))
    with pytest.raises(ConfigError, match="infer"):
        Chain(LAUNCH, "s3://bucket", (first, ArraySpec("prepare", "demo", ("prepare", "demo"))))


def test_the_command_holds_the_job_files_settings_and_then_the_users():
    (spec,) = plan_chain(replace(INFER, sets={"infer": ["device=cpu"]}, name="map"), LAUNCH).jobs
    words = list(spec.command)
    assert words[:6] == ["infer", "demo", "--root", "s3://bucket/ink", "--bundle", "demo"]
    assert words.index("device=auto") < words.index("device=cpu")
    assert words[words.index("--name") + 1] == "map"


def test_a_listed_segments_entry_travels_with_the_command(tmp_path):
    catalog = tmp_path / "segments.yaml"
    catalog.write_text(
        "segments: {'2023': {source: 's3://scans/2023', depth_order: reversed, voxel_size_um: 7.91, layers: [1, 9]}}"
    )
    request = replace(INFER, jobs=("prepare",), subject="2023", catalog=str(catalog))
    (spec,) = plan_chain(request, LAUNCH).jobs
    settings = [spec.command[i + 1] for i, word in enumerate(spec.command) if word == "--set"]
    assert {"source=s3://scans/2023", "depth_order=reversed", "voxel_size_um=7.91", "layers=[1, 9]"} <= set(settings)


def test_a_shipped_segment_is_known_wherever_inkbatch_is():
    (spec,) = plan_chain(replace(INFER, jobs=("prepare",)), LAUNCH).jobs
    assert not any(word.startswith("source=") for word in spec.command)


@pytest.mark.parametrize("shards", [0, 10_001])
def test_a_number_of_shards_beyond_the_policy_is_refused(shards):
    with pytest.raises(ConfigError, match="1 to 10000"):
        plan_chain(replace(INFER, shards={"infer": shards}), LAUNCH)


@pytest.mark.parametrize("subject", ["../x", "a b", "", "x;rm"])
def test_a_subject_that_is_no_plain_name_is_refused(subject):
    with pytest.raises(ConfigError, match="an id is"):
        plan_chain(replace(INFER, subject=subject), LAUNCH)


def test_credentials_in_root_are_refused_and_not_repeated():
    with pytest.raises(ConfigError) as caught:
        plan_chain(replace(INFER, root="s3://key:hidden@bucket/x"), LAUNCH)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "hf_token", "DB_PASS", "WANDB_API_KEY", "AUTHORIZATION"])
def test_variables_that_look_like_credentials_are_refused(name):
    with pytest.raises(ConfigError, match=name):
        refuse_secrets([name], "environment")


@pytest.mark.parametrize(
    "words",
    ["https://reader:hidden@host/mask", "s3://bucket/mask?token=hidden", "WANDB_API_KEY=hidden", "DB_PASS=hidden"],
)
@pytest.mark.parametrize("engine", launcher_names())
def test_no_engine_is_handed_a_word_or_a_variable_with_a_secret(engine, words):
    for request in (
        replace(INFER, sets={"infer": [f"name={words}"]}),
        replace(INFER, extra={"infer": ["--args", words]}),
    ):
        with pytest.raises(ConfigError) as caught:
            plan_chain(request, LAUNCH)
        assert "hidden" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        launcher_class(engine).settings_class.checked({"environment": {"PLACE": words}}, "engines.yaml")
    assert "hidden" not in redact(str(caught.value))


def test_names_for_schedulers_are_plain_and_short():
    spec = ArraySpec("infer", "2023.11_" + "x" * 120, ("infer",))
    assert len(spec.name) == 100
    assert "." not in spec.name


def test_two_launches_of_one_second_differ_if_they_ask_for_different_things():
    other = replace(INFER, shards={"infer": 2})
    assert launch_name(INFER, "20261121-120000") != launch_name(other, "20261121-120000")


def test_engine_settings_come_from_file_environment_and_options(tmp_path, monkeypatch):
    (tmp_path / "engines.yaml").write_text("slurm: {partition: cpu, account: ink, image: old.sif}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INKBATCH_IMAGE", "new.sif")
    settings = engine_settings("slurm", ["partition=gpu"])
    assert isinstance(settings, SlurmSettings)
    assert (settings.partition, settings.account, settings.image) == ("gpu", "ink", "new.sif")


@pytest.mark.parametrize(
    ("engine", "options", "words"),
    [("slrum", [], "did you mean 'slurm'"), ("slurm", ["partitoin=x"], "did you mean 'partition'")],
)
def test_unknown_engines_and_settings_are_refused(engine, options, words):
    with pytest.raises(ConfigError, match=words):
        engine_settings(engine, options)


def test_an_unknown_engine_in_the_file_is_refused(tmp_path):
    (tmp_path / "engines.yaml").write_text("slrum: {}\n")
    with pytest.raises(ConfigError, match="slrum"):
        engine_settings("slurm", file=str(tmp_path / "engines.yaml"))


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        AwsBatchSettings().region = "elsewhere"  # type: ignore[misc]


def test_a_sweep_takes_all_bundles_in_one_array():
    bundles = ("letters=s3://b/runs/letters/bundle", "demo")
    chain = plan_chain(
        replace(INFER, jobs=("prepare", "sweep"), bundles=bundles, shards={"sweep": 8}, name="wide"), LAUNCH
    )
    sweep = chain.jobs[-1]
    assert (sweep.job, sweep.after, sweep.shards, sweep.resources.gpus) == ("sweep", ("prepare",), 8, 1)
    words = list(sweep.command)
    assert [words[place + 1] for place, word in enumerate(words) if word == "--bundle"] == list(bundles)
    assert words[words.index("--name") + 1] == "wide"
    with pytest.raises(ConfigError, match="expected bundles, got none"):
        plan_chain(replace(INFER, jobs=("sweep",), bundles=()), LAUNCH)


def test_bundles_that_have_a_name_are_looked_for_at_their_places(tmp_path):
    (tmp_path / "bundle.json").write_text("{}")
    request = replace(INFER, jobs=("sweep",), bundles=(f"letters={tmp_path}", "demo"))
    assert check_bundles(plan_chain(request, LAUNCH)) == []
    with pytest.raises(ConfigError, match=f"bundle {tmp_path}/no: there is no bundle.json"):
        check_bundles(plan_chain(replace(request, bundles=(f"letters={tmp_path}/no",)), LAUNCH))


@pytest.mark.parametrize(
    ("more", "gpus"),
    [
        ({}, 0),
        ({"sets": {"instances": ("refine=none",)}}, 0),
        ({"sets": {"instances": ("refine=s3://bucket/sam",)}}, 1),
        ({"extra": {"instances": ("--refine", "s3://bucket/sam")}}, 1),
        ({"sets": {"instances": ("refine=s3://bucket/sam",)}, "resources": {"gpus": 2}}, 2),
    ],
)
def test_objects_that_a_network_outlines_ask_for_a_gpu(more, gpus):
    (spec,) = plan_chain(Request(jobs=("instances",), subject="demo", root="s3://bucket/ink", **more), "x").jobs
    assert spec.resources.gpus == gpus
