"""Workers in containers, with a program that plays docker: it runs what stands behind the image's name."""

from __future__ import annotations

import itertools
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from inkbatch.launch.docker import DockerLauncher, DockerSettings
from inkbatch.launch.jobfile import Resources
from inkbatch.run.signals import StopFlag
from inkbatch.testing.launchers import SECRET, LauncherContract, example_chain

FAKE = f"""#!{sys.executable}
import json, os, sys
words = sys.argv[1:]
image = words.index("image@sha256:0")
environment = {{}}
for flag, value in zip(words[:image], words[1:image]):
    if flag == "--env":
        name, given, text = value.partition("=")
        if given or name in os.environ:
            environment[name] = text if given else os.environ[name]
json.dump({{"words": words, "environment": environment}}, open(os.environ["FAKE_LOG"], "w"))
os.execvpe(words[image + 1], words[image + 1:], {{**os.environ, **environment}})
"""


class TestDocker(LauncherContract):
    launcher_class = DockerLauncher
    golden = Path(__file__).parent / "golden"
    options: ClassVar = {"image": "registry.example/inkbatch@sha256:0123"}


@pytest.fixture
def fake(tmp_path, monkeypatch) -> DockerSettings:
    path = tmp_path / "docker"
    path.write_text(FAKE)
    path.chmod(0o755)
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "docker.json"))
    return DockerSettings(image="image@sha256:0", engine=str(path), retry_wait=0, user="1000:1000")


def ran(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "docker.json").read_text())


def test_a_container_runs_with_its_identity_and_its_code_counts(fake, script, tmp_path):
    chain, program = script("sys.exit(0 if os.environ['INKBATCH_ATTEMPT'] == '2' else 75)")
    chain = replace(chain, jobs=(replace(chain.jobs[0], command=program),))
    make(tmp_path)
    ended = DockerLauncher(fake).run_chain(chain, tmp_path / "work", StopFlag())
    assert ended.exit_code == 0
    assert ran(tmp_path)["environment"]["INKBATCH_ARRAY_COUNT"] == "1"
    assert any(word.endswith("-infer-0-2") for word in ran(tmp_path)["words"])  # each attempt has a name of its own


def make(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()


def test_root_is_mounted_to_write_and_sources_to_read(fake, script, tmp_path):
    chain, program = script("")
    spec = replace(chain.jobs[0], command=(*program, "--root", chain.root, "--set", "source=/data/layers"))
    make(tmp_path)
    DockerLauncher(fake).run_chain(replace(chain, jobs=(spec,)), tmp_path / "work", StopFlag())
    mounts = [b for a, b in zip(ran(tmp_path)["words"], ran(tmp_path)["words"][1:], strict=False) if a == "--volume"]
    assert f"{chain.root}:{chain.root}" in mounts
    assert "/data/layers:/data/layers:ro" in mounts
    assert os.path.isdir(chain.root)  # made by the caller: an engine would make it for root


def test_credentials_are_passed_by_name_only(fake, script, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    chain, program = script("")
    chain = replace(chain, jobs=(replace(chain.jobs[0], command=program),))
    make(tmp_path)
    DockerLauncher(fake).run_chain(chain, tmp_path / "work", StopFlag())
    assert ran(tmp_path)["environment"]["AWS_SECRET_ACCESS_KEY"] == SECRET
    assert SECRET not in " ".join(ran(tmp_path)["words"])
    assert all(SECRET not in path.read_text() for path in (tmp_path / "work").rglob("*") if path.is_file())


def test_containers_have_no_capabilities_and_cannot_gain_any():
    text = DockerLauncher(DockerSettings()).render(example_chain())["docker.sh"]
    runs = [line for line in text.splitlines() if line.startswith("docker run")]
    assert len(runs) == 3 + 2 * 3 + 1 + 1
    for words in ("--cap-drop ALL", "--security-opt no-new-privileges", "--read-only", "--init", "--user"):
        assert all(words in line for line in runs)


def test_a_gpu_worker_gets_its_gpu_and_no_other(fake, script, tmp_path):
    chain, program = script("")
    spec = replace(chain.jobs[0], command=program, resources=Resources(gpus=1))
    make(tmp_path)
    settings = fake.model_copy(update={"gpus": ("1",)})
    DockerLauncher(settings).run_chain(replace(chain, jobs=(spec,)), tmp_path / "work", StopFlag())
    words = ran(tmp_path)["words"]
    assert words[words.index("--gpus") + 1] == "device=1"


def test_the_dry_run_names_the_environment_and_gives_each_shard_its_own_gpu(fake):
    chain = example_chain()
    spec = replace(chain.jobs[0], shards=3, resources=Resources(gpus=1))
    launcher = DockerLauncher(DockerSettings())
    text = launcher.render(replace(chain, jobs=(spec,)))["docker.sh"]
    runs = [line for line in text.splitlines() if line.startswith("docker run")]
    assert [line.partition("--gpus device=")[2].split()[0] for line in runs] == ["0", "1", "2"]
    launched = launcher.task_command(spec, chain, 0, 1, "0")
    named = [after for flag, after in itertools.pairwise(launched) if flag == "--env" and "=" not in after]
    assert "AWS_PROFILE" in named
    assert all(f"--env {name}" in line for line in runs for name in named)
