"""`inkbatch view` as a process: it says where it is, serves, and ends on Ctrl-C."""

import json
import signal
import subprocess
import sys
import urllib.request

import pytest

from inkbatch.testing.datasets import inked, labelled_segment


@pytest.fixture
def root(tmp_path):
    labelled_segment(tmp_path / "root", "seg", inked((96, 160), (10, 10, 40, 60)))
    return str(tmp_path / "root")


def view(*arguments):
    line = [sys.executable, "-m", "inkbatch", "view", *arguments]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def address(process):
    return next(line.split()[1] for line in process.stdout if "http://" in line)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_serves_and_ends_cleanly(root, ending):
    with view("seg", "--root", root) as process:
        url = address(process).replace("localhost", "127.0.0.1")
        with urllib.request.urlopen(f"{url}scene") as answer:
            assert json.load(answer)["groups"][0]["segment"] == "seg"
        process.send_signal(ending)
        assert process.wait(20) == 0
        assert process.stdout.read() == "view: ended\n"


def test_a_port_that_is_taken_is_refused_when_named_and_passed_over_otherwise(root):
    with view("seg", "--root", root) as first:
        port = address(first).rstrip("/").rsplit(":", 1)[1]
        with view("seg", "--root", root, "--port", port) as second:
            assert second.wait(20) == 64
            assert f"cannot listen on 127.0.0.1 port {port}" in second.stderr.read()
        with view("seg", "--root", root) as third:
            assert address(third).rstrip("/").rsplit(":", 1)[1] != port
            third.send_signal(signal.SIGINT)
        first.send_signal(signal.SIGINT)


def test_what_is_not_there_ends_with_the_code_for_data(root):
    with view("other", "--root", root) as process:
        assert process.wait(20) == 65
        assert "run inkbatch prepare other and inkbatch infer other first" in process.stderr.read()
    with view("seg", "--root", root, "--memory", "1MiB") as process:
        assert process.wait(20) == 64


def test_without_a_segment_it_lists_them(root, tmp_path):
    with view("--root", root) as process:
        assert process.wait(20) == 0
        assert process.stdout.read().splitlines()[1:] == ["  seg  no predictions yet"]
    with view("--root", str(tmp_path / "empty")) as process:
        assert process.wait(20) == 65
        assert "expected segments under" in process.stderr.read()
