"""sbatch scripts, their submission, and the wrapper that requeues: with programs that play Slurm's."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from inkbatch.errors import StorageError
from inkbatch.launch.base import Ended
from inkbatch.launch.slurm import SlurmLauncher, SlurmSettings
from inkbatch.testing.launchers import LauncherContract, example_chain, one_job


class FakeSlurm:
    """Answers sbatch, scontrol and scancel."""

    def __init__(self, fail_at: int = 0) -> None:
        self.calls: list[list[str]] = []
        self.fail_at = fail_at
        self.rows: dict[str, str] = {}

    def __call__(self, argv, stdin="") -> Ended:
        self.calls.append(list(argv))
        if argv[0] == "sbatch":
            number = sum(call[0] == "sbatch" for call in self.calls)
            if number == self.fail_at:
                return Ended(1, "", "sbatch: error: invalid partition specified: none")
            return Ended(0, f"{100 + number};cluster\n", "")
        if argv[0] == "scontrol":
            text = self.rows.get(argv[-1])
            return Ended(0, text, "") if text else Ended(1, "", "slurm_load_jobs error: Invalid job id specified")
        return Ended(0, "", "")


class TestSlurm(LauncherContract):
    launcher_class = SlurmLauncher
    golden = Path(__file__).parent / "golden"
    options: ClassVar = {"partition": "batch", "gpu_partition": "gpu"}

    @pytest.fixture
    def submitted(self, launcher, tmp_path):
        launcher.run = FakeSlurm()
        return launcher.submit(example_chain(), tmp_path)


def test_jobs_wait_for_the_whole_array_and_go_when_it_has_failed(tmp_path):
    slurm = FakeSlurm()
    SlurmLauncher(run=slurm).submit(example_chain(), tmp_path)
    assert [[word for word in call if "depend" in word or "kill" in word] for call in slurm.calls] == [
        [],
        ["--dependency=afterok:101", "--kill-on-invalid-dep=yes"],
        ["--dependency=afterok:101", "--kill-on-invalid-dep=yes"],  # a bundle's array does not wait for another's
        ["--dependency=afterok:102:103", "--kill-on-invalid-dep=yes"],
        ["--dependency=afterok:104", "--kill-on-invalid-dep=yes"],
    ]


def test_what_was_submitted_is_cancelled_when_the_rest_cannot_be(tmp_path):
    slurm = FakeSlurm(fail_at=2)
    with pytest.raises(StorageError, match="invalid partition"):
        SlurmLauncher(run=slurm).submit(example_chain(), tmp_path)
    assert slurm.calls[-1] == ["scancel", "101"]


def test_arrays_beyond_the_clusters_limit_are_split_and_know_their_shard(tmp_path):
    slurm = FakeSlurm()
    launcher = SlurmLauncher(SlurmSettings(max_array=4), slurm)
    files = launcher.render(one_job(shards=10))
    assert [name for name in files if name.endswith(".sbatch")] == ["infer.sbatch", "infer+2.sbatch", "infer+3.sbatch"]
    assert "--array=0-1" in files["infer+3.sbatch"]
    assert "INKBATCH_ARRAY_INDEX=$((8 + SLURM_ARRAY_TASK_ID))" in files["infer+3.sbatch"]
    assert "INKBATCH_ARRAY_COUNT=10" in files["infer+3.sbatch"]
    assert launcher.submit(one_job(shards=10), tmp_path).jobs == {"infer": ["101", "102", "103"]}


def test_the_script_for_doing_it_by_hand_is_sound(tmp_path):
    chain = example_chain(shards=10)
    launcher = SlurmLauncher(SlurmSettings(max_array=4))
    launcher.write(chain, tmp_path)
    sbatch = tmp_path / "sbatch"
    sbatch.write_text('#!/bin/bash\necho "$@" >> calls\necho "$(wc -l < calls);cluster"\n')
    sbatch.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["bash", "submit.sh"], cwd=tmp_path, env={**os.environ, "PATH": path}, check=True)
    script = (tmp_path / "infer.i3d.sbatch").read_text()
    assert "#SBATCH --output=infer.i3d-%a.log\n" in script  # Slurm makes no folder for logs
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[3].split()[1:] == ["--dependency=afterok:1:2:3", "--kill-on-invalid-dep=yes", "infer.letters.sbatch"]
    assert calls[9].split()[1:] == ["--dependency=afterok:4:5:6:7:8:9", "--kill-on-invalid-dep=yes", "ensemble.sbatch"]


def test_status_reads_one_line_per_array_task(tmp_path):
    slurm = FakeSlurm()
    launcher = SlurmLauncher(run=slurm)
    found = launcher.submit(one_job(shards=8), tmp_path)
    slurm.rows["101"] = (
        "JobId=101 ArrayJobId=101 ArrayTaskId=5-7 JobState=PENDING Reason=Resources ExitCode=0:0\n"
        "JobId=102 ArrayJobId=101 ArrayTaskId=0 JobState=COMPLETED Reason=None ExitCode=0:0\n"
        "JobId=103 ArrayJobId=101 ArrayTaskId=1 JobState=RUNNING Reason=None ExitCode=0:0 Restarts=1\n"
        "JobId=104 ArrayJobId=101 ArrayTaskId=2 JobState=FAILED Reason=NonZeroExitCode ExitCode=65:0\n"
    )
    (state,) = launcher.status(found)
    counts = {key: value for key, value in state.counts.items() if value}
    assert counts == {"waiting": 3, "done": 1, "running": 1, "failed": 1, "lost": 2}
    assert any("forgotten" in note for note in state.notes)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"container": "apptainer", "image": "ink.sif"}, "apptainer exec --no-privs --nv ink.sif inkbatch infer"),
        ({"container": "pyxis", "image": "ink.sqsh"}, "srun --ntasks=1 --container-image=ink.sqsh"),
        ({"gpu_request": "gpus-per-task", "gpu_type": "a100"}, "#SBATCH --gpus-per-task=a100:1"),
        ({"account": "scrolls", "options": ["--qos=long"]}, "#SBATCH --qos=long"),
        ({"setup": ["module load cuda"]}, "\nmodule load cuda\n"),
    ],
)
def test_the_clusters_ways_are_settings(settings, words):
    launcher = SlurmLauncher(SlurmSettings.checked(settings, "settings"))
    assert words in launcher.render(one_job())["infer.sbatch"]


def test_local_folders_are_seen_inside_containers(tmp_path):
    launcher = SlurmLauncher(SlurmSettings(container="apptainer", image="ink.sif"))
    assert "--bind /data/ink:/data/ink" in launcher.render(one_job(root="/data/ink"))["infer.sbatch"]


@pytest.fixture
def wrapped(tmp_path):
    """Starts a rendered script whose inkbatch is a shell text; scontrol notes that it was called."""
    processes = []

    def start(program: str, restarts: int = 0) -> subprocess.Popen:
        (tmp_path / "inkbatch").write_text(f"#!/bin/bash\n{program}\n")
        (tmp_path / "scontrol").write_text(f"#!/bin/bash\necho $@ >> {tmp_path}/requeued\nkill -KILL $PPID\n")
        for name in ("inkbatch", "scontrol"):
            (tmp_path / name).chmod(0o755)
        chain = replace(one_job(), jobs=(replace(one_job().jobs[0], attempts=3),))
        script = SlurmLauncher(SlurmSettings(program=(str(tmp_path / "inkbatch"),))).render(chain)["infer.sbatch"]
        environment = {
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SLURM_ARRAY_TASK_ID": "2",
            "SLURM_ARRAY_JOB_ID": "7",
            "SLURM_JOB_ID": "9",
            "SLURM_RESTART_COUNT": str(restarts),
        }
        (tmp_path / "script").write_text(script)
        processes.append(subprocess.Popen(["bash", "script"], cwd=tmp_path, env=environment))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)


SLEEPER = "trap 'sleep 0.1; exit 75' TERM\ntouch up\nwhile :; do sleep 0.05; done"


def test_the_wrapper_gives_the_tasks_own_code(wrapped):
    assert wrapped("exit 65").wait(timeout=60) == 65


def test_the_wrapper_tells_the_task_who_it_is(wrapped, tmp_path):
    wrapped("env | grep INKBATCH_ > said").wait(timeout=60)
    said = (tmp_path / "said").read_text()
    assert "INKBATCH_ARRAY_INDEX=2\n" in said
    assert "INKBATCH_ARRAY_COUNT=3\n" in said
    assert "INKBATCH_ATTEMPT=1\n" in said
    assert "INKBATCH_JOB_ID=7_2\n" in said


def test_near_the_limit_the_task_is_stopped_and_requeued(wrapped, tmp_path):
    process = wrapped(SLEEPER)
    wait_for(tmp_path / "up")
    process.send_signal(signal.SIGUSR1)
    process.wait(timeout=60)
    assert (tmp_path / "requeued").read_text() == "requeue 9\n"


def test_a_cancelled_task_ends_with_75_and_does_not_come_back_to_life(wrapped, tmp_path):
    process = wrapped(SLEEPER)
    wait_for(tmp_path / "up")
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # Slurm sends it twice
    assert process.wait(timeout=60) == 75
    assert not (tmp_path / "requeued").exists()


def test_storage_that_gave_up_is_requeued_but_not_for_ever(wrapped, tmp_path):
    wrapped("exit 75").wait(timeout=60)
    assert (tmp_path / "requeued").exists()
    (tmp_path / "requeued").unlink()
    assert wrapped("exit 75", restarts=2).wait(timeout=60) == 75  # the third attempt was the last
    assert not (tmp_path / "requeued").exists()
