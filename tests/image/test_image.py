"""The image as a user runs it: non-root, no capabilities, read-only but for scratch, killed and resumed.

`make image-test` names the image and the engine; without them these tests are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from pathlib import Path

import pytest

from inkbatch.errors import EXIT_DATA, EXIT_DONE, EXIT_TRY_AGAIN

IMAGE = os.environ.get("INKBATCH_TEST_IMAGE", "")
ENGINE = os.environ.get("INKBATCH_TEST_ENGINE", "")
INFER = ("infer", "demo", "--bundle", "demo", "--set", "unit_px=128", "--log", "plain")

pytestmark = [
    pytest.mark.image,
    pytest.mark.skipif(not (IMAGE and ENGINE), reason="no image was named: make image, then make image-test"),
]


def arguments(*options, entrypoint=None, data=None, user="1000:1000", name=None):
    words = [ENGINE, "run", "--rm", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    words += ["--user", user, "--tmpfs", "/scratch:mode=1777", "--network", "none", "--shm-size", "256m"]
    words += ["--env", "OMP_NUM_THREADS=1", "--env", "INKBATCH_SPOT_WATCH=off"]
    if data is not None:
        words += ["--volume", f"{data}:/data"]
    if entrypoint:
        words += ["--entrypoint", entrypoint]
    if name:
        words += ["--name", name]
    return [*words, IMAGE, *options]


def run(*options, **settings):
    return subprocess.run(arguments(*options, **settings), capture_output=True, text=True, timeout=240)


def shell(script):
    answer = run("-c", script, entrypoint="/bin/sh")
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def inspected():
    answer = subprocess.run([ENGINE, "image", "inspect", IMAGE], capture_output=True, text=True, check=True)
    return json.loads(answer.stdout)[0]


@pytest.fixture
def data(tmp_path):
    """A folder of the host that the image's user may write."""
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


@pytest.fixture
def prepared(data):
    answer = run("prepare", "demo", data=data)
    assert answer.returncode == EXIT_DONE, answer.stderr
    return data


def markers(folder: Path):
    return sorted(folder.glob("root/predictions/demo/*/done/**/*.json"))


def contents(folder: Path):
    """Bytes of what a prediction is, by name; not the record of who computed it when."""
    (prediction,) = folder.glob("root/predictions/demo/*")
    clocks = ("run", "report.html")
    files = [file for file in prediction.rglob("*") if file.is_file() and not file.name.startswith(clocks)]
    return {str(file.relative_to(prediction)): file.read_bytes() for file in files}


def test_the_demo_job_runs_and_reads_the_ink(prepared):
    answer = run(*INFER, data=prepared)
    assert answer.returncode == EXIT_DONE, answer.stderr
    score = float(answer.stdout.split("F0.5 ")[1].split()[0])
    assert score > 0.9
    assert list(prepared.glob("root/predictions/demo/*/preview.png"))


@pytest.mark.parametrize(("signal", "code"), [("KILL", 137), ("TERM", EXIT_TRY_AGAIN)])
def test_a_job_that_is_stopped_resumes_to_the_same_bytes(prepared, tmp_path, signal, code):
    name = f"inkbatch-test-{uuid.uuid4().hex[:8]}"
    with subprocess.Popen(
        arguments(*INFER, data=prepared, name=name), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as job:
        deadline = time.monotonic() + 120
        while not markers(prepared):
            assert job.poll() is None, job.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        subprocess.run([ENGINE, "kill", "--signal", signal, name], check=True, capture_output=True)
        stopped = time.monotonic()
        _, errors = job.communicate(timeout=60)
    assert job.returncode == code, errors
    assert time.monotonic() - stopped < 20
    done = len(markers(prepared))
    assert 0 < done < 40
    resumed = run(*INFER, data=prepared)
    assert resumed.returncode == EXIT_DONE, resumed.stderr
    assert f"{40 - done} units stored, {done} already done" in resumed.stdout
    quiet = tmp_path / "quiet"
    quiet.mkdir()
    quiet.chmod(0o777)
    assert run("prepare", "demo", data=quiet).returncode == EXIT_DONE
    assert run(*INFER, data=quiet).returncode == EXIT_DONE
    assert contents(prepared) == contents(quiet)


def test_it_runs_as_nobody_special_on_a_read_only_root():
    said = shell(
        "id -u; grep CapEff /proc/self/status; touch /scratch/x && echo scratch; "
        "touch /opt/x || touch /x || touch /home/x || echo closed"
    )
    assert said.split() == ["1000", "CapEff:", "0000000000000000", "scratch", "closed"]


def test_any_user_id_may_run_it():
    answer = run("--version", user="4321:4321")
    assert answer.returncode == EXIT_DONE, answer.stderr
    assert answer.stdout.startswith("inkbatch ")


def test_a_gpu_that_was_asked_for_and_is_not_there_is_exit_65(data):
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a GPU")
    answer = run("doctor", "--device", "cuda", data=data)
    assert answer.returncode == EXIT_DATA
    assert "device: expected cuda, this machine has no usable cuda device" in answer.stdout
    assert run("doctor", data=data).returncode == EXIT_DONE


def test_nothing_for_tests_or_builds_stays_inside():
    programs = "gcc cc g++ make git uv pip pip3 pytest ruff mypy hatch buildah curl wget"
    assert shell(f"for name in {programs}; do command -v $name || true; done") == ""
    script = (
        "from importlib.util import find_spec as f\n"
        "names = 'pytest hypothesis moto mypy hatchling pip uv torch.include inkbatch.testing'.split()\n"
        "print([n for n in names if f(n)])"
    )
    answer = run("-c", script, entrypoint="/opt/inkbatch/bin/python")
    assert answer.stdout.strip() == "[]", answer.stderr
    assert shell("find /opt/inkbatch -type d -name tests; ls -d /build /root/.cache 2>/dev/null || true") == ""


def test_it_says_where_it_comes_from():
    labels = inspected()["Config"]["Labels"]
    for name in ("version", "revision", "created", "source", "licenses", "title", "base.name"):
        assert labels[f"org.opencontainers.image.{name}"], name
    assert labels["inkbatch.torch-flavour"]
    assert labels["inkbatch.oldest-nvidia-driver"]


def test_the_entry_point_is_inkbatch_below_an_init_and_the_gpu_variables_are_set():
    config = inspected()["Config"]
    assert config["Entrypoint"] == ["tini", "-s", "--", "inkbatch"]
    assert config["User"] == "1000:1000"
    environment = dict(row.split("=", 1) for row in config["Env"])
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert environment["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"


def test_no_credential_and_no_certificate_of_the_build_is_baked_in():
    environment = dict(row.split("=", 1) for row in inspected()["Config"]["Env"])
    suspicious = [name for name in environment if any(word in name for word in ("SECRET", "TOKEN", "PASSWORD", "AWS_"))]
    assert suspicious == []
    assert "CERT" not in " ".join(environment)
    found = shell(
        "ls -A /run/secrets /root/.aws /scratch/.aws /home 2>/dev/null; find / -xdev -name '*.env' 2>/dev/null || true"
    )
    assert [line for line in found.split() if not line.endswith(":")] == []


def test_size_and_import_time_are_stated(record_property, capsys):
    gigabytes = inspected()["Size"] / 1e9
    script = (
        "import time; start = time.perf_counter(); import inkbatch.cli.app; cli = time.perf_counter()\n"
        "import inkbatch.predict.predictor; print(cli - start, time.perf_counter() - cli)"
    )
    seconds = [
        [float(word) for word in run("-c", script, entrypoint="/opt/inkbatch/bin/python").stdout.split()]
        for _ in range(2)
    ][-1]
    with capsys.disabled():
        print(
            f"\nimage: {gigabytes:.2f} GB; import of the command line {seconds[0]:.2f} s, "
            f"with torch {seconds[1]:.2f} s more"
        )
    assert gigabytes < 7.5
