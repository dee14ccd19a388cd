"""Contract of every engine, as a suite: a new one adds a subclass of `LauncherContract` and its golden files.

class TestMyEngine(LauncherContract):
    launcher_class = MyLauncher
    golden = Path(__file__).parent / "golden"

The golden files are what `render` gives for `example_chain`; ``INKBATCH_WRITE_GOLDEN=1`` writes them again, for you to
read before you commit them.
"""

# ruff: noqa: D102  # a test's name says what it promises

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from inkbatch.errors import ConfigError
from inkbatch.launch.base import Feature, Launcher, Submitted, UnsupportedFeature, launcher_class
from inkbatch.launch.commands import Request
from inkbatch.launch.plan import ArraySpec, Chain, plan_chain
from inkbatch.launch.record import LaunchRecord

LAUNCH = "infer-20231005123336-20261121-120000-abcd"
ROOT = "s3://bucket/ink"
SUBJECT = "20231005123336"
BUNDLES = ("s3://bucket/ink/runs/letters/bundle", "s3://bucket/ink/runs/i3d/bundle")
SECRET = "never-to-be-seen-in-a-rendered-file"
WRITING = bool(os.environ.get("INKBATCH_WRITE_GOLDEN"))


def example_chain(root: str = ROOT, shards: int = 3) -> Chain:
    """Make the main chain: prepare (array), infer (an array per bundle), ensemble, report."""
    chain = _planned(("prepare", "infer", "ensemble"), BUNDLES, root, {"prepare": shards, "infer": shards})
    words = ("report", SUBJECT, "--root", root)
    return replace(chain, jobs=(*chain.jobs, ArraySpec("report", SUBJECT, words, after=("ensemble",))))


def one_job(shards: int = 3, root: str = ROOT) -> Chain:
    """Make a chain of infer alone."""
    return _planned(("infer",), BUNDLES[:1], root, {"infer": shards})


def _planned(jobs: tuple[str, ...], bundles: tuple[str, ...], root: str, shards: dict[str, int]) -> Chain:
    source = f"s3://scans/{SUBJECT}/layers"
    sets = {"prepare": ["depth_order=forward", "voxel_size_um=7.91"], "infer": ["stride_px=32"]}
    return plan_chain(Request(jobs, SUBJECT, root, shards, source, bundles, sets=sets), LAUNCH)


class LauncherContract:
    """Tests of one engine. Engines that submit give `submitted`: something that was really handed over.

    Attributes:
        launcher_class: The engine.
        options: Its settings.
        golden: Folder of the golden files.
    """

    launcher_class: ClassVar[type[Launcher]]
    options: ClassVar[dict[str, Any]] = {}
    golden: ClassVar[Path]

    @pytest.fixture
    def launcher(self) -> Launcher:
        """Return the engine under test."""
        settings = self.launcher_class.settings_class.checked(self.options, "options")
        return self.launcher_class(settings)

    @pytest.fixture
    def chain(self) -> Chain:
        """Return the longest chain that this engine says it can do."""
        return example_chain() if Feature.CHAIN in self.launcher_class.supports else one_job()

    @pytest.fixture
    def submitted(self, launcher: Launcher, tmp_path: Path) -> Submitted:
        """Return a launch that was handed over."""
        pytest.skip("this engine's suite hands nothing over")

    def test_it_is_known_by_its_name(self) -> None:
        assert launcher_class(self.launcher_class.name) is self.launcher_class

    def test_the_rendered_files_are_the_golden_ones(self, launcher: Launcher, chain: Chain) -> None:
        files = launcher.render(chain)
        folder = self.golden / self.launcher_class.name
        if WRITING:
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                (folder / name).write_text(text, encoding="utf-8")
        assert files == {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.iterdir())}

    def test_rendering_depends_on_nothing_but_the_chain_and_the_settings(
        self, launcher: Launcher, chain: Chain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        before = launcher.render(chain)

        def refused(*_: object, **__: object) -> None:
            raise AssertionError("render ran a program")

        monkeypatch.setattr(subprocess, "Popen", refused)
        monkeypatch.setattr(subprocess, "run", refused)
        monkeypatch.setattr("time.time", lambda: 0.0)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
        assert launcher.render(chain) == before

    def test_no_credential_of_this_machine_is_rendered(
        self, launcher: Launcher, chain: Chain, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "HF_TOKEN"):
            monkeypatch.setenv(name, SECRET)
        assert all(SECRET not in text for text in launcher.render(chain).values())

    def test_every_job_runs_inkbatch_with_all_its_words(self, launcher: Launcher, chain: Chain) -> None:
        text = "\n".join(launcher.render(chain).values())
        for spec in chain.jobs:
            assert all(word in text for word in spec.command), spec.job

    def test_a_gpu_that_was_asked_for_is_required(self, launcher: Launcher, chain: Chain) -> None:
        assert "INKBATCH_REQUIRE_GPU" in "\n".join(launcher.render(chain).values())

    def test_one_shard_renders_too(self, launcher: Launcher) -> None:
        assert launcher.render(one_job(shards=1))

    def test_what_it_cannot_do_is_refused_by_name(self, launcher: Launcher) -> None:
        cases = [(Feature.CHAIN, example_chain(shards=1)), (Feature.ARRAY, one_job()), (Feature.LOCAL_FILES, _local())]
        for feature, chain in cases:
            if feature in launcher.supports:
                launcher.render(chain)
                continue
            with pytest.raises(UnsupportedFeature, match=launcher.name):
                launcher.render(chain)

    def test_a_wrong_setting_and_a_credential_are_refused(self) -> None:
        settings_class = self.launcher_class.settings_class
        with pytest.raises(ConfigError, match="environment"):
            settings_class.checked({"enviroment": {}}, "options")
        with pytest.raises(ConfigError, match="credential"):
            settings_class.checked({"environment": {"AWS_SECRET_ACCESS_KEY": "x"}}, "options")

    def test_variables_of_the_settings_reach_every_job(self, chain: Chain) -> None:
        settings = self.launcher_class.settings_class.checked(
            {**self.options, "environment": {"AWS_REGION": "eu-somewhere-7"}}, "options"
        )
        text = "\n".join(self.launcher_class(settings).render(chain).values())
        assert text.count("eu-somewhere-7") >= len(chain.jobs)

    def test_status_tells_of_every_job(self, launcher: Launcher, submitted: Submitted) -> None:
        states = launcher.status(submitted)
        assert [state.job for state in states] == list(submitted.shards)
        assert all(sum(state.counts.values()) == submitted.shards[state.job] for state in states)

    def test_cancelling_twice_is_harmless(self, launcher: Launcher, submitted: Submitted) -> None:
        assert launcher.cancel(submitted)
        assert launcher.cancel(submitted)

    def test_a_stored_launch_is_read_back(self, submitted: Submitted, tmp_path: Path) -> None:
        chain = replace(one_job(), launch=submitted.launch, root=str(tmp_path / "root"))
        LaunchRecord.write(chain, submitted)
        found = LaunchRecord.read(chain.root, chain.launch).submitted
        assert (found.engine, found.launch, found.place) == (submitted.engine, submitted.launch, submitted.place)
        assert {job: list(ids) for job, ids in found.jobs.items()} == {
            job: list(ids) for job, ids in submitted.jobs.items() if job in found.jobs
        }


def _local() -> Chain:
    return one_job(shards=1, root="/data/ink")


__all__ = ["LauncherContract", "example_chain", "one_job"]
