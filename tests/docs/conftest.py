"""A folder like a fresh checkout, in which the commands of a page are run word by word."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from inkbatch.testing.pages import Block, blocks_of

REPOSITORY = Path(__file__).resolve().parents[2]
CHECKOUT = (
    *("Makefile", "requirements.lock", "requirements-dev.lock", "pyproject.toml", "Dockerfile", "inkbatch"),
    *("docker", "infra", "scripts", "jobs", "benchmarks", "docs", "tests"),
)


class Workshop:
    """Runs shell text in `folder`, with this tree's ``inkbatch``, ``python`` and ``make``.

    Attributes:
        folder: Where commands run: links to the checkout's files, and what a page makes.
        environment: Variables of the commands.
        said: Output of all commands so far.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said = ""
        tools = folder / ".venv" / "bin"
        tools.mkdir(parents=True)
        for name, command in (("inkbatch", f"'{sys.executable}' -m inkbatch"), ("python", f"'{sys.executable}'")):
            (tools / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
            (tools / name).chmod(0o755)
        for made in (tools / "uv", tools.parent / ".runtime", tools.parent / ".dev"):  # make finds its set-up done
            made.touch()
        for name in CHECKOUT:
            (folder / name).symlink_to(REPOSITORY / name)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("INKBATCH_", "AWS_", "MAKE"))}
        paths = {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}
        self.environment = {**kept, **paths, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "200"}

    def __call__(self, text: str, program: str = "bash") -> subprocess.CompletedProcess[str]:
        options = ["-euo", "pipefail", "-c"] if program == "bash" else ["-c"]
        ended = subprocess.run(
            [program, *options, text],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=900,
            stdin=subprocess.DEVNULL,
        )
        self.said += ended.stdout + ended.stderr
        return ended

    def must(self, text: str, code: int = 0, program: str = "bash", place: str = "") -> str:
        """Run, insist on the exit code, and return what was printed."""
        ended = self(text, program)
        assert ended.returncode == code, f"{place}\n{text}\n{ended.stdout[-2000:]}\n{ended.stderr[-3000:]}"
        return ended.stdout + ended.stderr

    def run_page(self, page: str) -> list[Block]:
        """Write the files that a page shows, run its blocks in order, and return those that were run."""
        blocks = blocks_of(page, (REPOSITORY / page).read_text(encoding="utf-8"))
        for block in blocks:
            if block.file and block.language == "yaml" and "/" not in block.file:
                (self.folder / block.file).write_text(block.text)
        ran = [block for block in blocks if block.is_run]
        for block in ran:
            self.must(block.text, block.code, block.language, block.place)
        return ran


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    folder = tmp_path / "work"
    folder.mkdir()
    return Workshop(folder)


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ROOT after `inkbatch prepare demo` and `inkbatch infer demo`."""
    folder = tmp_path_factory.mktemp("demo")
    Workshop(folder).must("inkbatch prepare demo && inkbatch infer demo --bundle demo")
    return folder / "root"
