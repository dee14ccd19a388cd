"""A spot machine's reclaim notice stops the job in time, and a metadata service that is ill does no harm."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time

import pytest

from inkbatch.errors import EXIT_DONE, EXIT_TRY_AGAIN, ConfigError, Preempted
from inkbatch.run.signals import StopFlag
from inkbatch.run.spot import ENDPOINT, SpotWatch, watched_endpoint
from inkbatch.testing.metadata import NOTICE_PATH, MetadataServer


@pytest.fixture
def server():
    with MetadataServer() as running:
        yield running


@pytest.fixture
def flag():
    return StopFlag()


@pytest.fixture
def notes():
    return []


@pytest.fixture
def watch(server, flag, notes):
    running = SpotWatch(flag, notes.append, server.endpoint, poll_s=0.01).start()
    yield running
    running.stop()


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def notices_asked(server):
    return server.asked.count(f"GET {NOTICE_PATH}")


def test_nothing_stops_while_no_notice_stands(server, flag, notes, watch):
    wait_until(lambda: notices_asked(server) >= 5)
    assert not flag.is_set
    assert notes == []
    assert server.asked.count("PUT /latest/api/token") == 1


def test_the_notice_stops_the_job_and_says_why(server, flag, notes, watch):
    wait_until(lambda: notices_asked(server) >= 1)
    server.reclaim()
    wait_until(lambda: flag.is_set)
    with pytest.raises(Preempted, match=r"spot reclaim notice: terminate at 2026-11-21T10:00:00Z"):
        flag.check()
    assert ["stopping at the next safe point" in note for note in notes] == [True]


def test_an_expired_token_is_renewed(server, flag, notes, watch):
    wait_until(lambda: notices_asked(server) >= 1)
    server.token = "token-2"
    server.reclaim()
    wait_until(lambda: flag.is_set)
    assert server.asked.count("PUT /latest/api/token") == 2


def test_three_failures_in_a_row_switch_the_watch_off_with_one_line(server, flag, notes, watch):
    server.failures_left = math.inf
    wait_until(lambda: notes)
    watch.stop()
    assert not flag.is_set
    assert len(notes) == 1
    assert "off after 3 failures" in notes[0]


def test_a_service_that_recovers_is_still_watched(server, flag, notes, watch):
    for _ in range(3):
        server.failures_left = 2
        wait_until(lambda: server.failures_left == 0)
        asked = notices_asked(server)
        wait_until(lambda asked=asked: notices_asked(server) > asked + 1)
    server.reclaim()
    wait_until(lambda: flag.is_set)


def test_an_answer_that_is_no_notice_is_a_failure_and_no_stop(server, flag, notes, watch):
    server.notice = {"colour": "red"}
    wait_until(lambda: notes)
    assert not flag.is_set


@pytest.mark.parametrize(
    ("environment", "endpoint"),
    [
        ({}, None),
        ({"AWS_BATCH_JOB_ID": "a:0"}, ENDPOINT),
        ({"AWS_BATCH_JOB_ID": "a:0", "INKBATCH_SPOT_WATCH": "off"}, None),
        ({"AWS_BATCH_JOB_ID": "a:0", "AWS_EC2_METADATA_DISABLED": "true"}, None),
        ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1"}, "http://127.0.0.1:1"),
    ],
)
def test_only_machines_that_can_be_reclaimed_are_watched(environment, endpoint, tmp_path):
    assert watched_endpoint(environment, tmp_path / "no-such-vendor") == endpoint


def test_an_ec2_machine_is_known_by_its_vendor(tmp_path):
    vendor = tmp_path / "sys_vendor"
    vendor.write_text("Amazon EC2\n")
    assert watched_endpoint({}, vendor) == ENDPOINT


def test_an_unknown_mode_is_refused():
    with pytest.raises(ConfigError, match="expected auto or off"):
        watched_endpoint({"INKBATCH_SPOT_WATCH": "yes"})


def test_a_job_that_is_reclaimed_exits_75_and_the_next_attempt_finishes(server, tmp_path):
    def run(arguments):
        environment = {**os.environ, **server.environment}
        command = [sys.executable, "-m", "inkbatch", *arguments, "demo", "--root", str(tmp_path), "--log", "plain"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    server.reclaim()
    started = time.monotonic()
    stopped = run(["prepare", "--set", "shard_px=64"])
    assert stopped.returncode == EXIT_TRY_AGAIN, stopped.stderr
    assert time.monotonic() - started < 20
    assert "spot reclaim notice: terminate" in stopped.stderr
    server.notice = None
    resumed = run(["prepare", "--set", "shard_px=64"])
    assert resumed.returncode == EXIT_DONE, resumed.stderr
    assert "complete" in resumed.stdout
