"""`make rounds-demo` does what it says."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from inkbatch.data.labels.painting import IGNORE, INK, NOT_INK, SUPERVISION
from inkbatch.data.maps.stored import open_map
from inkbatch.geometry import Box

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("rounds_demo", REPOSITORY / "scripts" / "rounds_demo.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["rounds_demo"] = module
    spec.loader.exec_module(module)
    return module


def test_the_scripted_labeller_accepts_and_rejects_by_the_truth(demo):
    first = np.full((12, 12), SUPERVISION | NOT_INK, np.uint8)
    truth = np.zeros((12, 12), bool)
    first[1:4, 1:4] = SUPERVISION | INK  # a letter that is ink but for one row
    truth[2:4, 1:4] = True
    first[6:9, 1:4] = SUPERVISION | INK  # a false one
    truth[8, 3] = True
    first[1:4, 8:10] = SUPERVISION | IGNORE  # unsure, and bare
    truth[7:9, 8:10] = True  # missed
    wanted = np.full((12, 12), NOT_INK, np.uint8)
    wanted[1:4, 1:4] = INK
    wanted[1:4, 8:10] = wanted[7:9, 8:10] = IGNORE
    np.testing.assert_array_equal(demo.judged(first, truth), wanted | SUPERVISION)


@pytest.mark.slow
@pytest.mark.timeout(2000)  # seven minutes on two busy cores
def test_two_rounds_of_the_demo_leave_a_page_a_verdict_and_a_comparison(demo, tmp_path):
    command = [sys.executable, "scripts/rounds_demo.py", "--root", str(tmp_path), "--compare"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    root = tmp_path / "seed-0"
    rows = json.loads((root / "table.json").read_text())
    assert [row["way"] for row in rows] == ["round 1", "round 2", "train once", "leaking, round 2"]
    assert [row["said"] for row in rows[::2]] == ["first", ""]
    assert rows[1]["said"] in ("better", "no difference that can be shown", "worse")
    assert rows[1]["labelled_cm2"] > rows[0]["labelled_cm2"] == rows[2]["labelled_cm2"]
    assert rows[3]["labelled_cm2"] > 2 * rows[1]["labelled_cm2"]  # networks labelled all of it
    assert all(0.5 < row["scores"]["auc"] <= 1 for row in rows)
    assert (root / "rounds/demo/round-002/report.html").stat().st_size > 10_000
    assert "| round 2 |" in done.stdout
    for segment in ("patch-0", "patch-1", "patch-2"):
        maps = [open_map(str(root), segment, f"leak2-r001-fold-{fold}") for fold in range(3)]
        trained = [one for one in maps if len(one.trained_on.train)]
        assert len(trained) == 2  # of three; those that must not speak here are those that the leaking loop asks
        said = [one.prediction.read(Box(0, 0, *one.shape_yx)).astype(np.float32) for one in trained]
        np.testing.assert_allclose(demo.word_of_the_trained(root, "leak2", segment), np.mean(said, axis=0), atol=1e-6)
