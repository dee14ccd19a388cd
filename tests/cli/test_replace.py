"""Every job that keeps a result can replace it, and says before it does what it removes."""

from __future__ import annotations

import pytest
import typer

from inkbatch.cli.app import app
from inkbatch.io.store.location import Location
from inkbatch.run.job import RunContext, begin
from inkbatch.run.record import RunFolder, RunManifest
from inkbatch.testing.faults import Notes

JOBS = (
    "prepare", "infer", "labels", "clean", "ensemble", "evaluate", "probe", "preflight", "sweep", "train", "soup",
    "build-dataset", "infer-pictures", "round", "instances",
)  # fmt: skip
OTHERS = (
    "evaluate-pictures", "evaluate-instances", "import-checkpoint", "import-promptable", "phantom", "phantoms",
    "vessels",
)  # fmt: skip


@pytest.mark.parametrize("job", [*JOBS, *OTHERS])
def test_every_job_takes_replace(job):
    command = typer.main.get_command(app).commands[job]
    assert "--replace" in {name for parameter in command.params for name in parameter.opts}


@pytest.mark.parametrize("job", JOBS)
def test_replace_says_what_it_removes_and_removes_it(job, tmp_path):
    place = Location.parse(tmp_path / "room" / "run")
    RunFolder(place, RunManifest(job, {"a": 1}, {}, 0)).begin()
    (place / "done" / "old.json").write_json({"objects": {}})
    notes = Notes()
    other = RunFolder(place, RunManifest(job, {"a": 2}, {}, 0))
    begin(other, RunContext(reporter=notes, replace=True))
    assert any(note.startswith("--replace: removing ") and str(place) in note for note in notes.said)
    assert (place / "done").names() == []
    assert other.is_begun()
