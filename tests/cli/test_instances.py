"""The commands for instances, with the shipped job file."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from inkbatch.cli.app import app
from inkbatch.cli.outcome import run_command
from inkbatch.data.instances.proposals import first_pass_of, limits_of
from inkbatch.data.instances.settings import ProposalRules
from inkbatch.errors import EXIT_CONFIG
from inkbatch.testing.instances import write_maps
from inkbatch.testing.letters import write_column
from inkbatch.testing.maps import store_map

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def says(tmp_path, monkeypatch, capsys):
    write_maps(tmp_path, {"a": (96, 128), "b": (80, 100)})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("inkbatch.run.signals.install_handlers", lambda stop: None)

    def said(*words: object) -> tuple[int, str]:
        code = run_command(lambda: app(args=[str(word) for word in words], standalone_mode=False))
        found = capsys.readouterr()
        return code, found.out + found.err

    return said


def test_the_shipped_file_of_instances_runs_and_its_result_is_evaluated(says, tmp_path):
    code, text = says("instances", "grains", "--maps", "maps", "--config", REPOSITORY / "jobs/instances.yaml")
    assert code == 0, text
    assert "merged" in text
    (tmp_path / "truth").mkdir()
    for name in "ab":
        regions = first_pass_of(np.load(f"maps/{name}.npy"), limits_of(ProposalRules(), None))[1]
        cv2.imwrite(f"truth/{name}.png", (regions + 1).astype(np.uint16))
    code, text = says("evaluate-instances", "root/instances/grains/maps", "--labels", "truth")
    assert code == 0, text
    assert "AP 0." in text
    assert "D50" in text
    place = tmp_path / "root/instances/grains/maps/evaluation"
    assert {one.name for one in place.iterdir()} == {"evaluation.json", "pictures.csv"}
    (tmp_path / "none").mkdir()
    for name, shape in (("a", (96, 128)), ("b", (80, 100))):
        np.save(f"none/{name}.npy", np.zeros(shape, np.int32))
    before = (place / "evaluation.json").read_bytes()
    code, text = says("evaluate-instances", "root/instances/grains/maps", "--labels", "none")
    assert (code, "labels: there" in text, "--replace" in text) == (65, True, True), text
    assert (place / "evaluation.json").read_bytes() == before
    code, text = says("evaluate-instances", "root/instances/grains/maps", "--labels", "none", "--replace")
    assert (code, "recall none" in text, "nan" in text) == (0, True, False), text
    assert f"--replace: removed the evaluation at {place}" in text


def test_an_evaluation_moves_with_its_result(says, tmp_path):
    assert says("instances", "grains", "--maps", "maps")[0] == 0
    (tmp_path / "truth").mkdir()
    for name, shape in (("a", (96, 128)), ("b", (80, 100))):
        np.save(f"truth/{name}.npy", np.ones(shape, np.int32))
    assert says("evaluate-instances", "root/instances/grains/maps", "--labels", "truth")[0] == 0
    (tmp_path / "root").rename(tmp_path / "moved")
    code, text = says("evaluate-instances", "moved/instances/grains/maps", "--labels", "truth")
    assert code == 0, text


def test_labels_that_do_not_belong_to_the_result_are_refused(says, tmp_path):
    says("instances", "grains", "--maps", "maps")
    (tmp_path / "truth").mkdir()
    code, text = says("evaluate-instances", "root/instances/grains/maps", "--labels", "truth")
    assert (code, "expected labels of the picture 'a'" in text) == (65, True)
    for name in "ab":
        np.save(f"truth/{name}.npy", np.ones((96, 128), np.int32))
    code, text = says("evaluate-instances", "root/instances/grains/maps", "--labels", "truth")
    assert (code, "b: expected true labels of (80, 100)" in text) == (65, True)
    for name in "ab":
        np.save(f"truth/{name}.npy", np.ones((2, 3, 4), np.float32))
    code, text = says("evaluate-instances", "root/instances/grains/maps", "--labels", "truth")
    assert (code, "expected whole numbers (height, width)" in text) == (65, True)
    code, text = says("evaluate-instances", "maps", "--labels", "truth")
    assert code == 65
    for values, words in (
        (np.full((96, 128), -2, np.int32), "got -2 to -2"),
        (np.full((96, 128), 2**64 - 1, np.uint64), "number the objects from 1"),
    ):
        np.save("truth/a.npy", values)
        code, text = says("evaluate-instances", "root/instances/grains/maps", "--labels", "truth")
        assert (code, words in text) == (65, True), text
    with open("truth/a.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": (10**7, 10**7)})
    code, text = says("evaluate-instances", "root/instances/grains/maps", "--labels", "truth")
    assert (code, "got a file that ends before" in text) == (65, True)
    np.savez("truth/a.npz", np.ones(3))
    os.replace("truth/a.npz", "truth/a.npy")
    code, text = says("evaluate-instances", "root/instances/grains/maps", "--labels", "truth")
    assert (code, "npy header cannot be read" in text) == (65, True)
    cv2.imwrite("truth/a.png", np.ones((96, 128), np.uint8))
    code, text = says("evaluate-instances", "root/instances/grains/maps", "--labels", "truth")
    assert (code, "got a.npy and a.png" in text) == (65, True)
    for edited in ('{"pictures": 3}', '{"pictures": ["a"]}', '{"pictures": [{"picture": 1}]}'):
        Path("root/instances/grains/maps/instances.json").write_text(edited)
        code, text = says("evaluate-instances", "root/instances/grains/maps", "--labels", "truth")
        assert (code, "expected a name for each of 1 picture, got 0" in text) == (65, True), text


@pytest.mark.slow
def test_the_shipped_network_refines_and_units_change_nothing(says):
    network = REPOSITORY / "scripts/data/grains-sam2"
    asked = (
        "instances",
        "grains",
        "--maps",
        "maps",
        "--pictures",
        "pictures",
        "--refine",
        network,
        "--set",
        "device=cpu",
    )
    cells = ("--set", "refinement.cell_px=32", "--set", "refinement.halo_px=32", "--set", "selection.parts=99")
    for unit_px in (64, 128):
        code, text = says(*asked, *cells, "--set", f"unit_px={unit_px}", "--result", f"by-{unit_px}")
        assert code == 0, text
    places = [Path("root/instances/grains") / f"by-{unit_px}" for unit_px in (64, 128)]
    for name in ("instances.csv", "proposals.csv", "coco-rle.json"):
        assert len({(place / name).read_bytes() for place in places}) == 1
    assert (places[0] / "instances.csv").read_text().count(",refined,") > 1


def test_letters_of_a_map_are_found_by_the_same_command(says, tmp_path):
    column = write_column(lines=4, letters=5)
    store_map("root", "column", "net", column.ink)
    code, text = says("instances", "column", "--kind", "letters", "--set", "rules.min_stroke=10")
    assert code == 0, text
    assert "letters: 20 letters in 4 lines" in text
    assert Path("root/instances/column/net-letters/coco.json").exists()
    code, text = says("instances", "column", "--kind", "letters", "--maps", "maps")
    assert code == EXIT_CONFIG
    assert "without --maps" in text
    code, text = says("instances", "column", "--kind", "words")
    assert code == EXIT_CONFIG
