"""A settings check runs a job's own command up to its validated settings, and nothing is done."""

from __future__ import annotations

import os

import pytest

from inkbatch.cli.app import app
from inkbatch.config import JobConfig, is_checking, settings_check
from inkbatch.errors import ConfigError
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
