"""Status of everything that is stored under a name."""

from __future__ import annotations

import subprocess
import sys

from inkbatch.io.store.location import Location
from inkbatch.launch.progress import progress_under
from inkbatch.run.record import RunFolder, RunManifest
from inkbatch.training.checkpoints import Entry, Pointer


def begun(root, place, job, units, **config) -> RunFolder:
    record = RunFolder(Location.parse(root / place), RunManifest(job, config, {}, units))
    record.begin()
    return record


def test_a_training_counts_epochs_and_a_dataset_units(tmp_path):
    dataset = begun(tmp_path, "datasets/letters", "build-dataset", 3)
    run = begun(tmp_path, "runs/letters", "train", 1, epochs=12)
    assert [str(row) for row in progress_under(str(tmp_path), "letters")] == [
        f"dataset: 0 of 3 units, not finished yet · {dataset.location}",
        f"training: 0 of 12 epochs, not finished yet · {run.location}",
    ]
    pointer = Pointer(last=(Entry(file="step-70.ckpt", sha256="", step=70, epoch=7),))
    (run.location / "checkpoints/pointer.json").write_json(pointer.model_dump(mode="json"))
    assert "training: 7 of 12 epochs" in str(progress_under(str(tmp_path), "letters")[1])
    run.complete({})
    assert str(progress_under(str(tmp_path), "letters")[1]) == f"training: complete · {run.location}"


def test_folds_have_a_line_each(tmp_path):
    for fold in range(2):
        begun(tmp_path, f"runs/letters/fold-{fold}", "train", 1, epochs=5)
    rows = progress_under(str(tmp_path), "letters")
    assert [row.what for row in rows] == ["training, fold-0", "training, fold-1"]


def test_the_command_shows_a_training_without_any_launch(tmp_path):
    begun(tmp_path, "runs/letters", "train", 1, epochs=5)
    words = [sys.executable, "-m", "inkbatch", "status", "letters", "--root", str(tmp_path)]
    answer = subprocess.run(words, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert "training: 0 of 5 epochs" in answer.stdout
