"""`inkbatch build-dataset` as a person calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from inkbatch.cli.outcome import run_command
from inkbatch.cli.training import register
from inkbatch.errors import EXIT_CONFIG, EXIT_DATA
from inkbatch.testing.datasets import inked, labelled_segment

REPOSITORY = Path(__file__).parent.parent.parent
SMALL = ["sample_px=32", "sampling.stride_px=16", "splits.block_px=64", "segments=[s]"]


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)
    return app


@pytest.fixture
def build(app, tmp_path):
    def call(*arguments, code=0) -> None:
        values = ["build-dataset", *arguments, "--root", str(tmp_path), "--log", "plain"]
        assert run_command(lambda: app(args=values, standalone_mode=False)) == code

    return call


def sets(*items: str) -> list[str]:
    return [word for item in items for word in ("--set", item)]


def test_the_shipped_yaml_builds_a_dataset(build, tmp_path, capsys):
    labelled_segment(tmp_path, "s", inked((256, 256), (20, 20, 230, 230)))
    shipped = ["--config", str(REPOSITORY / "jobs/build-dataset.yaml")]
    build("letters", *shipped, *sets(*SMALL), "--dry-run")
    assert "blocks" not in capsys.readouterr().err
    assert not (tmp_path / "datasets").exists()
    build("letters", *shipped, *sets(*SMALL))
    assert "build-dataset: complete" in capsys.readouterr().out
    splits = json.loads((tmp_path / "datasets/letters/splits.json").read_text())
    assert splits["train"]
    assert splits["validation"]
    build("letters", *shipped, *sets(*SMALL))
    assert "already complete" in "".join(capsys.readouterr())


def test_two_shards_complete_a_pack(build, tmp_path, capsys):
    labelled_segment(tmp_path, "s", inked((128, 128), (20, 20, 100, 100)))
    rules = sets(*SMALL[:2], SMALL[3], "splits={kind: lists, train: [s]}", "form=pack", "unit_samples=9")
    build("letters", *rules, "--shard", "0/2")
    assert "still missing" in capsys.readouterr().out
    assert not (tmp_path / "datasets/letters/index.json").exists()
    build("letters", *rules, "--shard", "1/2")
    assert "complete" in capsys.readouterr().out


def test_refusals_have_a_code_and_name_the_cure(build, tmp_path, capsys):
    build("letters", *sets(*SMALL[:2], "splits={kind: kfold}"), code=EXIT_CONFIG)
    assert "give segments" in capsys.readouterr().err
    build("letters", *sets(*SMALL, "splits.kind=blocks"), code=EXIT_DATA)
    assert "run inkbatch prepare" in capsys.readouterr().err
    labelled_segment(tmp_path, "s", inked((128, 128)))
    build("letters", *sets(*SMALL[:2], SMALL[3], "splits={kind: lists, train: [s]}"), code=EXIT_DATA)
    assert "no training sample holds any ink" in capsys.readouterr().err
