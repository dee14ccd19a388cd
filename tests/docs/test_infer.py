"""docs/infer.md: every command on the page is one that infer takes, and its YAML is a valid configuration."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from inkbatch.cli import app as cli
from inkbatch.cli.outcome import run_command
from inkbatch.steps.infer.job import InferConfig

PAGE = (Path(__file__).parents[2] / "docs" / "infer.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^inkbatch (infer .+)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_page_come_as_far_as_the_missing_segment(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("inkbatch.run.signals.install_handlers", lambda stop: None)
    arguments = [*shlex.split(command, comments=True), "--root", str(tmp_path)]
    code, words = run_command(lambda: cli.app(args=arguments, standalone_mode=False)), capsys.readouterr().err
    if "--dry-run" in arguments:  # answers from the source, which the catalog does not know
        assert (code, "not in the catalog" in words) == (64, True)
    else:
        assert (code, "run inkbatch prepare" in words) == (65, True)


def test_the_page_shows_commands_and_a_configuration():
    assert len(COMMANDS) >= 9
    settings = yaml.safe_load(re.search(r"```yaml\n(.+?)```", PAGE, re.DOTALL)[1])
    assert InferConfig(segment="s", bundle="b", **settings).layer_starts == (10, 20, 2)
