"""A workspace is found from any folder in it; paths in a file count from the file; names take patterns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from inkbatch.cli.app import main
from inkbatch.cli.options import chosen_root, for_each, segments_asked
from inkbatch.config import located, matching
from inkbatch.data.maps.truth import TruthChoice
from inkbatch.data.segments.catalog import Catalog
from inkbatch.errors import ConfigError, DataError
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location
from inkbatch.run.job import RunContext
from inkbatch.steps.dataset.job import BuildDatasetConfig, with_named_segments
from inkbatch.steps.infer.job import InferConfig, run
from inkbatch.steps.infer.score import leave_score, stored_score
from inkbatch.testing.datasets import inked, labelled_segment
from inkbatch.testing.segments import identity_bundle, random_papyrus, write_layers
from inkbatch.workspace import find_workspace, make_workspace


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    for name in ("INKBATCH_ROOT", "INKBATCH_CATALOG"):
        monkeypatch.delenv(name, raising=False)
    make_workspace(tmp_path / "work")
    entries = {name: {"source": f"layers/{name}"} for name in ("a", "b")}
    (tmp_path / "work/segments.yaml").write_text(yaml.safe_dump({"segments": entries}))
    (tmp_path / "work/deep/down").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work/deep/down")
    return tmp_path / "work"


def test_root_and_catalog_are_found_from_any_folder_inside(workspace):
    assert chosen_root(None) == str(workspace / "root")
    assert chosen_root("other") == "other"
    catalog = Catalog.load()
    assert catalog.entry("a").source == str(workspace / "layers/a")
    assert catalog.own == ["a", "b"]


def test_a_root_that_a_file_or_set_states_goes_before_that_of_workspace_and_environment(workspace, monkeypatch):
    (workspace / "job.yaml").write_text("root: elsewhere\n")
    for _ in range(2):
        options = {"segment": "a", "bundle": "demo", "root": chosen_root(None)}
        assert InferConfig.load(str(workspace / "job.yaml"), (), options).root == str(workspace / "elsewhere")
        assert InferConfig.load(None, ["root=here"], options).root == "here"
        assert InferConfig.load(None, ["root=here"], {**options, "root": chosen_root("there")}).root == "there"
        found = InferConfig.load(None, (), options).root
        assert found == options["root"]
        assert type(found) is str
        monkeypatch.setenv("INKBATCH_ROOT", "s3://bucket/ink")


def test_making_a_workspace_again_keeps_what_is_there(workspace):
    before = (workspace / "segments.yaml").read_text()
    assert all(line.startswith("kept") for line in make_workspace(workspace))
    assert (workspace / "segments.yaml").read_text() == before
    assert "/root/" in (workspace / ".gitignore").read_text().splitlines()


def test_a_fresh_workspace_lists_no_segment_of_its_own_and_a_broken_one_is_named(tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(["init", str(tmp_path / "new")])
    assert ended.value.code == 0
    found = find_workspace(tmp_path / "new")
    assert found is not None
    assert found.catalogs == (tmp_path / "new/segments.yaml",)
    (tmp_path / "new/inkbatch.yaml").write_text("rooot: x\n")
    with pytest.raises(ConfigError, match=r"workspace .*inkbatch.yaml: unknown key 'rooot'; did you mean 'root'"):
        find_workspace(tmp_path / "new")
    assert find_workspace(tmp_path) is None


def test_several_catalogs_are_read_and_later_ones_win(workspace, tmp_path):
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"segments": {"b": {"source": "new"}, "c": {"source": "c"}}}))
    catalog = Catalog.load(f"{workspace / 'segments.yaml'},{tmp_path / 'more.yaml'}")
    assert catalog.own == ["a", "b", "c"]
    assert catalog.entry("b").source == str(tmp_path / "new")


def test_a_job_runs_from_any_folder_with_a_file_that_names_its_own_neighbours(workspace):
    write_layers(workspace / "layers/a", random_papyrus((3, 64, 64)))
    (workspace / "jobs").mkdir()
    stated = {"source": "../layers/a", "depth_order": "forward", "voxel_size_um": 8.0, "shard_px": 64}
    (workspace / "jobs/prepare.yaml").write_text(yaml.safe_dump(stated))
    words = [sys.executable, "-m", "inkbatch", "prepare", "a", "--config", "../../jobs/prepare.yaml"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (workspace / "root/segments/a/surface.zarr/zarr.json").exists()


def test_paths_count_from_their_file_and_names_and_addresses_stay(tmp_path):
    values = {
        "source": "layers",
        "bundle": "demo",
        "dataset": "letters",
        "labels": {"image": "truth.png", "clean": {"min_area_px": 3}},
        "predictions": ["a", "../maps/b"],
        "root": "s3://bucket/x",
        "images": {"folder": "pots", "train": {"images": "train", "annotations": "annot"}},
        "model": {"start_from": "/abs/bundle"},
    }
    found = located(values, tmp_path)
    assert found["source"] == str(tmp_path / "layers")
    assert (found["bundle"], found["dataset"], found["root"]) == ("demo", "letters", "s3://bucket/x")
    assert found["labels"] == {"image": str(tmp_path / "truth.png"), "clean": {"min_area_px": 3}}
    assert found["predictions"] == ["a", str(tmp_path.parent / "maps/b")]
    assert found["images"] == {"folder": str(tmp_path / "pots"), "train": {"images": "train", "annotations": "annot"}}
    assert found["model"] == {"start_from": "/abs/bundle"}


def test_patterns_name_prepared_segments(tmp_path):
    for name in ("train-1", "train-0", "other"):
        labelled_segment(tmp_path, name, inked((64, 64), (0, 0, 30, 30)))
    values = {"name": "d", "root": str(tmp_path), "segments": ["train-*"], "sample_px": 32, "splits": {"kind": "kfold"}}
    config = with_named_segments(BuildDatasetConfig.checked(values, "test"), Location.parse(tmp_path))
    assert [choice.id for choice in config.segments] == ["train-0", "train-1"]
    with pytest.raises(ConfigError, match="none matches 'test-\\*'; known are a, b"):
        matching("test-*", ["b", "a"], "here")


def test_all_segments_are_done_and_one_that_fails_does_not_stop_the_others(workspace):
    assert segments_asked(None, True, None) == ["a", "b"]
    with pytest.raises(ConfigError, match="expected it alone"):
        segments_asked("a", True, None)
    done = []

    def do(segment):
        done.append(segment)
        if segment == "a":
            raise DataError("broken")

    with pytest.raises(DataError, match="1 of 2 segments failed: a"):
        for_each(["a", "b"], do)
    assert done == ["a", "b"]


def test_every_engine_takes_the_whole_catalog(workspace, capsys):
    for name in ("a", "b"):
        write_layers(workspace / f"layers/{name}", random_papyrus((3, 64, 64)))
    catalog = {n: {"source": f"layers/{n}", "depth_order": "forward", "voxel_size_um": 8.0} for n in ("a", "b")}
    (workspace / "segments.yaml").write_text(yaml.safe_dump({"segments": catalog}))
    with pytest.raises(SystemExit) as ended:
        main(["run", "prepare", "--all", "--engine", "slurm", "--dry-run"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "inkbatch prepare a " in said
    assert "inkbatch prepare b " in said


@pytest.mark.parametrize("box", [(10, 20, 70, 61), (64, 64, 128, 128)])
def test_a_quick_look_equals_the_whole_map_inside_its_box(tmp_path, box):
    labelled_segment(tmp_path, "s", inked((128, 140), (0, 0, 50, 50), (80, 80, 99, 99)))
    identity_bundle(tmp_path / "bundle", stride_px=8, window="hann")
    values = {"segment": "s", "bundle": str(tmp_path / "bundle"), "root": str(tmp_path), "device": "cpu", "unit_px": 64}
    whole = run(InferConfig.checked(values, "test"), RunContext())
    quick = run(InferConfig.checked({**values, "box": box}, "test"), RunContext())
    assert quick.location.name == f"{whole.location.name}-box{'-'.join(map(str, box))}"
    maps = []
    for report in (whole, quick):
        stored = Prediction.open(report.location).pyramid.levels[0]
        maps.append(np.asarray(stored.read([slice(0, 128), slice(0, 140)])))
    inside = np.s_[box[0] : box[2], box[1] : box[3]]
    np.testing.assert_array_equal(maps[1][inside], maps[0][inside])
    maps[1][inside] = 0
    assert not maps[1].any()
    assert quick.facts["tiles"] < whole.facts["tiles"]
    leave_score(quick.location, str(tmp_path), "s", TruthChoice(), print)
    assert stored_score(quick.location)["counted_px"] == (box[2] - box[0]) * (box[3] - box[1])


def test_a_segment_outside_the_catalog_is_planned_from_its_source(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_layers(tmp_path / "layers", random_papyrus((3, 64, 64)))
    identity_bundle(tmp_path / "bundle")
    stated = "--prepare-args=--depth-order forward --voxel-size-um 8"
    words = ["run", "prepare,infer", "new", "--bundle", str(tmp_path / "bundle"), "--source", "layers", stated]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--dry-run"])
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    assert "not prepared yet" in said.out
    assert not (tmp_path / "root").exists()
