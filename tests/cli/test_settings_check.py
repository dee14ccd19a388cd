"""A settings check runs a job's own command up to its validated settings, and nothing is done."""

from __future__ import annotations

import os
import re

import pytest
import typer

from inkbatch.cli.app import app
from inkbatch.cli.outcome import run_command
from inkbatch.config import JobConfig, is_checking, settings_check
from inkbatch.errors import EXIT_CONFIG, EXIT_DATA, ConfigError
from inkbatch.launch.jobfile import job_names

WORDS = {
    "prepare": ["s"],
    "infer": ["s", "--bundle", "demo"],
    "preflight": ["s"],
    "probe": ["s", "--bundle", "demo"],
    "sweep": ["s", "--bundle", "demo", "--bundle", "other=demo", "--depths=-3:4"],
    "build-dataset": ["--preset", "first-letters-coco", "--set", "segments=[A, B, C]"],
    "train": ["--preset", "first-letters-synthetic", "--run", "r"],
    "soup": ["r"],
    "round": ["letters", "--set", "segments=[a, b]", "--set", "train={model: {architecture: smp}}"],
    "ensemble": ["s", "--prediction", "a", "--prediction", "b"],
    "evaluate": ["s"],
    "labels": ["s"],
    "clean": ["s"],
    "instances": ["s"],
    "report": ["s"],
    "doctor": [],
}


@pytest.mark.parametrize("job", job_names())
def test_every_job_that_can_be_launched_hands_over_its_settings_and_does_nothing(job, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with settings_check() as check:
        app(args=[job, *WORDS[job]], standalone_mode=False)
    assert isinstance(check.settings, JobConfig)
    assert os.listdir(tmp_path) == []
    assert not is_checking()


def test_a_wrong_setting_is_refused_within_the_check(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="stride_px"), settings_check() as check:
        app(args=["infer", "s", "--bundle", "demo", "--set", "stride_pxx=3"], standalone_mode=False)
    assert check.settings is None


BARE = {
    "infer": {"segment": "SEGMENT", "bundle": "--bundle"},
    "probe s": {"bundle": "--bundle"},
    "sweep s": {"bundles": "--bundle"},
    "ensemble s": {"predictions": "--prediction"},
    "evaluate": {"segment": "SEGMENT"},
    "build-dataset": {"name": "NAME"},
    "train": {"dataset": "--dataset", "run": "--run", "model": "--set model=…"},
    "soup": {"run": "RUN"},
    "round": {"name": "NAME", "segments": "--set segments=…", "train": "--set train=…"},
    "infer-pictures": {"bundle": "--bundle"},
    "estimate": {"bundle": "--bundle"},
}


@pytest.mark.parametrize("words", BARE)
def test_a_setting_that_is_missing_is_named_with_the_option_that_gives_it(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        app(args=words.split(), standalone_mode=False)
    assert re.search(r" (is|are) required and not given$", str(caught.value))
    assert dict(re.findall(r"'(\w+)' \(([^)]*)\)", str(caught.value))) == BARE[words]


@pytest.mark.parametrize("job", job_names())
def test_the_word_for_each_setting_is_an_option_or_argument_of_the_command(job, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = typer.main.get_command(app).commands[job]
    known = {word for parameter in command.params for word in (*parameter.opts, str(parameter.name).upper())}
    said: dict[str, str] = {}
    words_of = JobConfig.option_words.__func__

    def recorded(model, options):
        words = words_of(model, options)
        said.update({key: words[key] for key in {*options, *model.spelled} & words.keys()})
        return words

    monkeypatch.setattr(JobConfig, "option_words", classmethod(recorded))
    with settings_check():
        app(args=[job, *WORDS[job]], standalone_mode=False)
    assert said
    assert {key: word for key, word in said.items() if word not in known} == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("soup r --last two", "--last: expected a whole number, got 'two'"),
        ("ensemble s --weight heavy", "--weight: expected a number, got 'heavy'"),
        ("run prepar s", "job 'prepar': there is no such job; did you mean 'prepare'"),
        ("sweep s --bundle demo --depths 5", "depths: expected START:STOP"),
        ("preflight s --name a/b", "name: expected a name of letters, digits"),
        ("soup gone", "root/runs/gone: expected a training run, got none"),
        ("import-promptable ftp://host/a dest", "no file system for protocol 'ftp': it needs host"),
    ],
)
def test_wrong_words_are_refused_in_ours(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_command(lambda: app(args=arguments.split(), standalone_mode=False)) in (EXIT_CONFIG, EXIT_DATA)
    said = capsys.readouterr().err
    assert words in said
    assert "Input should" not in said
