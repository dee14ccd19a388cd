"""What docs/trust.md says is so: every command of the page runs, and ends as the page says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = (REPOSITORY / "docs" / "trust.md").read_text(encoding="utf-8")


def blocks() -> list[tuple[str, int]]:
    """The page's shell blocks in order, each with the exit code that it ends with."""
    found = re.findall(r"(<!-- ends with (\d+) -->\n)?```bash\n(.*?)```", PAGE, flags=re.DOTALL)
    return [(text, int(code or 0)) for _, code, text in found]


def test_links_and_files_that_are_named_are_there():
    links = re.findall(r"\]\(([\w./-]+)\)", PAGE)
    paths = re.findall(r"`((?:tests|scripts|inkbatch)/[\w./-]+)`", PAGE)
    assert len(links) >= 2
    assert all((REPOSITORY / "docs" / link).exists() for link in links)
    assert all((REPOSITORY / path).exists() for path in paths)


def test_the_four_verdicts_of_the_table_are_the_probes_own():
    from typing import get_args

    from inkbatch.data.probe_verdict import Word

    named = re.findall(r"^\| `([a-z ]+?)(?: by N layers)?` \|", PAGE, flags=re.MULTILINE)
    assert sorted(named) == sorted(get_args(Word))


@pytest.fixture
def shell(tmp_path):
    """Runs a block of the page in an empty folder, with this tree's `inkbatch` and `python` on the PATH."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, command in (("inkbatch", f"'{sys.executable}' -m inkbatch"), ("python", f"'{sys.executable}'")):
        (tools / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (tools / name).chmod(0o755)
    folder = tmp_path / "work"
    folder.mkdir()
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}

    def run(text: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", "-euo", "pipefail", "-c", text]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)

    run.folder = folder
    return run


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_command_of_the_page_runs_and_ends_as_it_says(shell):
    said = ""
    for text, code in blocks():
        ended = shell(text)
        assert ended.returncode == code, text + ended.stdout[-2000:] + ended.stderr[-2000:]
        said += ended.stdout + ended.stderr
    probes = shell.folder / "trust" / "probes"
    found = {place.parent.relative_to(probes).as_posix(): place for place in probes.rglob("verdict.json")}
    verdicts = {name: json.loads(place.read_text()) for name, place in found.items()}
    assert {name: verdict["verdict"] for name, verdict in verdicts.items()} == {
        "demo/demo": "clear",
        "demo-early/demo": "false positives",
        "demo/wrong-divisor": "false positives",
    }
    for words in ("AUC 0.985", "AUC 0.589", "AUC 0.925", "F0.5 0.920", "F0.5 0.485", "It is not used"):
        assert words in said
    manifest = json.loads((shell.folder / "trust/predictions/demo/probed/manifest.json").read_text())
    assert manifest["config"]["probe"]["verdict"] == "clear"
    images = shell.folder / "images"
    images.mkdir()
    drawn = shell(f"python {REPOSITORY / 'scripts/make_trust_pictures.py'} trust images")
    assert drawn.returncode == 0, drawn.stderr
    assert {path.name for path in images.iterdir()} == {"trust-maps.png", "trust-probe.png"}
