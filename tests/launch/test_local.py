"""The engine of this machine: who runs where, who is started again, and how it stops."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from inkbatch.launch.base import Submitted
from inkbatch.launch.events import read_events
from inkbatch.launch.jobfile import Resources
from inkbatch.launch.local import LocalLauncher, LocalSettings
from inkbatch.launch.plan import ArraySpec, Chain
from inkbatch.run.signals import StopFlag
from inkbatch.testing.launchers import LauncherContract


class TestLocal(LauncherContract):
    launcher_class = LocalLauncher
    golden = Path(__file__).parent / "golden"
    options: ClassVar = {"retry_wait": 0}

    @pytest.fixture
    def submitted(self, launcher, script, tmp_path):
        chain, program = script("")
        launcher.settings = LocalSettings(program=program)
        return launcher.run_chain(chain, tmp_path, StopFlag())

    def test_a_program_that_ran_is_done(self, launcher, submitted):
        assert submitted.exit_code == 0
        assert launcher.status(submitted)[0].counts["done"] == 1


def run(chain, program, folder, stop=None, **settings):
    launcher = LocalLauncher(LocalSettings(program=program, retry_wait=0, **settings))
    return launcher.run_chain(chain, folder, stop or StopFlag()), read_events(folder / "events.jsonl")


def told(events, name):
    return [(row["shard"], row["attempt"]) for row in events if row["event"] == name]


def test_a_task_that_says_75_is_started_again_and_knows_its_attempt(script, tmp_path):
    chain, program = script("sys.exit(0 if os.environ['INKBATCH_ATTEMPT'] == '3' else 75)", attempts=3)
    ended, events = run(chain, program, tmp_path)
    assert ended.exit_code == 0
    assert told(events, "again") == [(0, 1), (0, 2)]
    assert told(events, "done") == [(0, 3)]


def test_attempts_are_bounded(script, tmp_path):
    chain, program = script("print('storage gave up'); sys.exit(75)", attempts=2)
    ended, events = run(chain, program, tmp_path)
    assert ended.exit_code == 75
    assert len(told(events, "start")) == 2
    assert events[-1]["said"] == "storage gave up"


@pytest.mark.parametrize("code", [64, 65, 1])
def test_what_a_retry_cannot_cure_is_not_retried_and_ends_the_chain(script, tmp_path, code):
    chain, program = script(f"Path(sys.argv[1]).touch(); sys.exit({code})")
    later = ArraySpec("report", "demo", ("report", "demo"), after=("infer",))
    ended, events = run(replace(chain, jobs=(*chain.jobs, later)), program, tmp_path)
    assert ended.exit_code == code
    assert told(events, "start") == [(0, 1)]
    assert not (tmp_path / "report").exists()


def test_a_killed_task_is_called_one(script, tmp_path):
    chain, program = script("os.kill(os.getpid(), signal.SIGKILL)")
    ended, events = run(chain, program, tmp_path)
    assert ended.exit_code == 137
    assert "memory" in events[-1]["why"]


def test_every_gpu_has_one_worker_at_a_time(script, tmp_path):
    text = """
gpu = os.environ['CUDA_VISIBLE_DEVICES']
Path(f'lock-{gpu}').touch(exist_ok=False)   # fails while another worker has this GPU
time.sleep(0.2)
Path(f'lock-{gpu}').unlink()
Path(f"shard-{os.environ['INKBATCH_ARRAY_INDEX']}-of-{os.environ['INKBATCH_ARRAY_COUNT']}").write_text(gpu)
"""
    chain, program = script(text, shards=5)
    spec = replace(chain.jobs[0], resources=Resources(gpus=1))
    ended, _ = run(replace(chain, jobs=(spec,)), program, tmp_path, gpus=("a", "b"))
    assert ended.exit_code == 0
    used = [(tmp_path / f"shard-{index}-of-5").read_text() for index in range(5)]
    assert set(used) == {"a", "b"}


def test_no_more_workers_than_were_asked_for(script, tmp_path):
    text = "me = Path(f'on-{os.getpid()}'); me.touch(); most = 0; end = time.time() + 5\n"
    text += "while most < 2 and time.time() < end: most = len(list(Path('.').glob('on-*'))); time.sleep(0.02)\n"
    text += "time.sleep(0.2); print(max(most, len(list(Path('.').glob('on-*'))))); me.unlink()"
    chain, program = script(text, shards=4)
    run(chain, program, tmp_path, workers=2)
    seen = [int((tmp_path / "logs" / f"infer-{index}.log").read_text()) for index in range(4)]
    assert max(seen) == 2


def test_a_stop_ends_the_workers_and_is_75(script, tmp_path):
    text = "signal.signal(signal.SIGTERM, lambda *_: (Path('told').touch(), sys.exit(75)))\n"
    text += "Path('up').touch(); time.sleep(60)"
    chain, program = script(text)
    stop = StopFlag()

    def stop_when_up():
        while not (tmp_path / "up").exists():
            time.sleep(0.02)
        stop.set("SIGTERM")

    threading.Thread(target=stop_when_up).start()
    ended, events = run(chain, program, tmp_path, stop)
    assert ended.exit_code == 75
    assert stop.watched
    assert (tmp_path / "told").exists()
    assert [row["event"] for row in events][-1] == "stopped"
    assert len(told(events, "start")) == 1


def test_cancel_reaches_a_launcher_in_another_process(script, tmp_path):
    text = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\nPath('up').touch(); time.sleep(60)"
    chain, program = script(text)
    code = (
        "import pickle, sys; from pathlib import Path; from inkbatch.launch.local import *\n"
        f"launcher = LocalLauncher(LocalSettings(program={program!r}))\n"
        "chain, folder = pickle.load(sys.stdin.buffer), Path(sys.argv[1])\n"
        "print(launcher.submit(chain, folder).exit_code)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    process.stdin.write(pickle.dumps(chain))
    process.stdin.close()
    while not (tmp_path / "up").exists():
        time.sleep(0.02)
    launcher = LocalLauncher()
    submitted = replace(_of(chain, tmp_path), folder=str(tmp_path))
    assert launcher.status(submitted)[0].counts["running"] == 1
    assert "asked to stop" in launcher.cancel(submitted)[0]
    assert process.wait(timeout=20) == 0
    assert process.stdout.read().strip() == b"75"
    process.stdout.close()
    assert "ended already" in launcher.cancel(submitted)[0]


def _of(chain: Chain, folder):
    return Submitted("local", chain.launch, {"infer": ["0"]}, {"infer": 1}, str(folder), socket.gethostname())


def test_without_a_gpu_the_cpu_computes_unless_one_was_asked_for(script, tmp_path):
    chain, program = script("print(os.environ.get('INKBATCH_REQUIRE_GPU'))")
    chain = replace(chain, jobs=(replace(chain.jobs[0], resources=Resources(gpus=1)),))
    log = tmp_path / "logs" / "infer-0.log"
    run(chain, program, tmp_path)
    assert log.read_text().split() == ["None"]
    run(chain, program, tmp_path, require_gpu=True)
    assert log.read_text().split() == ["None", "1"]


def test_ctrl_c_reaches_workers_once_through_the_launcher(script, tmp_path):
    """Workers are no members of the terminal's foreground group."""
    chain, program = script("print(os.getpgid(0) == os.getpid())")
    run(chain, program, tmp_path)
    assert (tmp_path / "logs" / "infer-0.log").read_text().strip() == "True"
