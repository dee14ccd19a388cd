"""The compose files, really run: the demo over a folder of the host and over the local S3 server.

`make image-test` names the image. These tests want `docker compose`, or podman with podman-compose and its network
(netavark, aardvark-dns), and the S3 server's program (rclone, as in the tests of storage); else they are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from inkbatch.errors import EXIT_DONE
from inkbatch.testing.s3 import find_rclone

IMAGE = os.environ.get("INKBATCH_TEST_IMAGE", "")
ENGINE = os.environ.get("INKBATCH_TEST_ENGINE", "")
FILE = Path(__file__).parents[2] / "docker" / "compose.cpu.yaml"
COMPOSE = {"docker": ["docker", "compose"], "podman": ["podman-compose"]}.get(ENGINE, [])
PROJECT = "inkbatch-compose-test"
INFER = ("infer", "demo", "--bundle", "demo", "--log", "plain")

pytestmark = [
    pytest.mark.image,
    pytest.mark.skipif(not (IMAGE and ENGINE), reason="no image was named: make image, then make image-test"),
    pytest.mark.skipif(
        not (COMPOSE and shutil.which(COMPOSE[0])),
        reason="this machine has neither docker (for docker compose) nor podman-compose",
    ),
]


@pytest.fixture(scope="module")
def s3_image(tmp_path_factory):
    """An image with the S3 server's program, so that none need be fetched."""
    program = find_rclone()
    if program is None:
        pytest.skip("this machine has no rclone, the program of the local S3 server")
    folder = tmp_path_factory.mktemp("s3-image")
    shutil.copy(program, folder / "rclone")
    (folder / "Dockerfile").write_text(f"FROM {IMAGE}\nUSER root\nCOPY rclone /usr/bin/rclone\n")
    builder = ["docker", "build"] if ENGINE == "docker" else ["buildah", "build", "--isolation", "chroot"]
    if shutil.which(builder[0]) is None:
        pytest.skip(f"this machine has no {builder[0]} to make the S3 server's image with")
    name = "inkbatch-compose-test-s3:latest"
    subprocess.run([*builder, "--tag", name, str(folder)], check=True, capture_output=True)
    return name


@pytest.fixture
def compose(tmp_path, request):
    """Runs `compose …` over a folder that the image's user may write; what it started ends with the test."""
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o777)
    settings = {**os.environ, "DATA": str(data), "UID": "1000", "GID": "1000", "IMAGE": IMAGE}
    settings |= {"INKBATCH_SPOT_WATCH": "off"}
    if "s3_image" in request.fixturenames:
        settings["S3_IMAGE"] = request.getfixturevalue("s3_image")

    def call(*words):
        command = [*COMPOSE, "--project-name", PROJECT, "--file", str(FILE), *words]
        return subprocess.run(command, env=settings, capture_output=True, text=True, timeout=280)

    call.data = data
    yield call
    call("down", "--volumes")


def job(compose, service, *words):
    answer = compose("run", "--rm", "-T", service, *words)
    assert answer.returncode == EXIT_DONE, answer.stdout + answer.stderr
    return answer.stdout + answer.stderr


def test_the_demo_runs_over_a_folder_of_the_host(compose):
    job(compose, "job", "prepare", "demo")
    assert "F0.5 0.9" in job(compose, "job", *INFER)
    assert list(compose.data.glob("root/predictions/demo/*/preview.png"))


def test_the_demo_runs_over_the_local_s3_server(s3_image, compose):
    job(compose, "job-s3", "prepare", "demo")
    assert "F0.5 0.9" in job(compose, "job-s3", *INFER)
    text = job(compose, "job-s3", "status", "demo")
    assert "complete" in text
    assert not list(compose.data.iterdir())  # nothing went to the host's folder
