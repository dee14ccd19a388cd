"""Answers of a process to a stop: before the work, in it, and after it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from inkbatch.errors import EXIT_TRY_AGAIN, Preempted
from inkbatch.run.signals import StopFlag

BEGIN = "import os, signal, sys, time\nfrom inkbatch.run.signals import *\nflag = StopFlag()\ninstall_handlers(flag)\n"


def answer(text: str, number: int) -> tuple[int, str]:
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN + text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_before_anybody_watches_the_flag_a_stop_ends_the_process_at_once(number):
    code, said = answer("print('up', flush=True)\ntime.sleep(60)", number)
    assert code == EXIT_TRY_AGAIN
    assert "before the work began" in said


def test_reading_the_flag_is_no_watching():
    """The thread that asks for reclaim notices reads it while torch is still being imported."""
    code, said = answer("assert not flag.is_set\nprint('up', flush=True)\ntime.sleep(60)", signal.SIGTERM)
    assert code == EXIT_TRY_AGAIN
    assert "before the work began" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_while_the_command_line_is_imported_a_stop_ends_the_process_at_once(number, tmp_path):
    """Something that is imported early waits in place of a slow disk."""
    (tmp_path / "typer.py").write_text("import time\nprint('up', flush=True)\ntime.sleep(60)\n")
    run = f"sys.path.insert(0, {str(tmp_path)!r})\nfrom inkbatch.__main__ import main\nmain()"
    code, said = answer(run, number)
    assert code == EXIT_TRY_AGAIN
    assert "before the work began" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_job_that_watches_the_flag_stops_at_its_own_safe_point(number):
    loop = "flag.watch()\nprint('up', flush=True)\nwhile not flag.is_set: time.sleep(0.01)\n"
    code, said = answer(loop + "sys.exit(7 if flag.reason.startswith('SIG') else 1)", number)
    assert code == 7
    assert "before the work began" not in said


def test_a_second_sigterm_is_harmless():
    text = "flag.watch()\nprint('up', flush=True)\nwhile not flag.is_set: time.sleep(0.01)\n"
    code, _ = answer(text + "os.kill(os.getpid(), signal.SIGTERM)\nsys.exit(7)", signal.SIGTERM)
    assert code == 7


STOPPED_WHILE_IT_WRITES = """
import io
class Raw(io.RawIOBase):
    def writable(self):
        return True
    def write(self, data):
        if not flag.is_set:
            os.kill(os.getpid(), signal.SIGUSR1)
        return len(data)
sys.stderr = io.TextIOWrapper(io.BufferedWriter(Raw()), line_buffering=True)
flag.watch()
while not flag.is_set:
    sys.stderr.write("a line of progress\\n")
sys.exit(7)
"""


def test_a_stop_while_a_line_is_being_written_is_a_stop():
    ended = subprocess.run([sys.executable, "-c", BEGIN + STOPPED_WHILE_IT_WRITES], capture_output=True, text=True)
    assert ended.returncode == 7
    assert "stopping; units in flight" in ended.stderr
    assert "reentrant" not in ended.stderr


def test_a_safe_point_watches_the_flag():
    flag = StopFlag()
    flag.check()
    assert flag.watched


def test_the_first_reason_stands():
    flag = StopFlag()
    flag.set("a reclaim notice")
    flag.set("SIGTERM")
    with pytest.raises(Preempted, match="a reclaim notice"):
        flag.check()
