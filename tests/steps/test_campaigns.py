"""The campaigns of ``make test-kill`` and ``make test-storage``, in small: a few kills, a few bad connections."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from itertools import islice

import pytest

from inkbatch.testing import killing, spoiling
from inkbatch.testing.campaigns import Place, forked, objects_in, unequal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # every job runs once, then is killed


@pytest.mark.parametrize("store", ["local", "s3"])
def test_jobs_that_are_killed_at_their_writes_end_with_the_same_bytes(tmp_path, store):
    with Place(tmp_path, store) as place:
        scenes = killing.prepared_scenes(place, tmp_path)
        assert all(scene.facts for scene in scenes)
        found = list(islice(killing.trials(place, tmp_path, scenes, seed=0), len(scenes)))
    assert [trial.faults for trial in found] == [()] * len(scenes)
    assert sum(len(trial.blows) for trial in found) >= len(scenes)


def test_jobs_on_a_bad_connection_end_with_the_same_bytes_or_say_why_not(tmp_path):
    with Place(tmp_path, "s3") as place:
        scenes = spoiling.scenes_with_pull(place, tmp_path)
        found = list(islice(spoiling.trials(place, tmp_path, scenes, seed=0), len(scenes)))
    assert [trial.faults for trial in found] == [()] * len(scenes)
    assert sum(sum(trial.counts.values()) for trial in found) > 100


def test_a_job_that_waits_for_nothing_but_a_core_does_not_hang(tmp_path):
    assert forked(partial(time.sleep, 9), tmp_path, {}, limit_s=6).hung
    cores = sorted(os.sched_getaffinity(0))[:1]
    rivals = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(5)]
    try:
        for process in rivals:
            os.sched_setaffinity(process.pid, cores)
        ended = forked(partial(_compute, cores, 2.5), tmp_path, {}, limit_s=6)
    finally:
        for process in rivals:
            process.kill()
            process.wait()
    assert (ended.hung, ended.code) == (False, 0)
    assert ended.seconds > 6


def _compute(cores, seconds):
    os.sched_setaffinity(0, cores)
    while time.process_time() < seconds:
        pass


def test_a_campaign_finds_a_byte_that_differs(tmp_path):
    for name, content in (("same", b"x"), ("other", b"x"), ("gone", b"x"), ("run.json", b"clock")):
        (tmp_path / name).write_bytes(content)
    before = objects_in(tmp_path)
    (tmp_path / "other").write_bytes(b"y")
    (tmp_path / "gone").unlink()
    (tmp_path / "new").write_bytes(b"")
    (tmp_path / "run.json").write_bytes(b"later")
    assert unequal(objects_in(tmp_path), before) == ["gone", "new", "other"]
