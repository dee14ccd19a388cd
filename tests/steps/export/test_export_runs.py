"""The CSV of several segments: one row each, the masks come back, and it is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inkbatch.errors import ConfigError, CorruptDataError, DataError, MismatchError
from inkbatch.io.pictures.rle import decode
from inkbatch.steps.export.rle import ExportRunsConfig, run
from inkbatch.testing.maps import store_map

RNG = np.random.default_rng(0)
A, B = (RNG.random(shape).astype(np.float16) for shape in ((150, 90), (40, 333)))


@pytest.fixture
def configure(tmp_path):
    store_map(tmp_path / "root", "a", "map", A)
    store_map(tmp_path / "root", "b", "map", B, contract={"threshold": 0.8})

    def make(**changes) -> ExportRunsConfig:
        values = {"segments": ["a", "b"], "to": str(tmp_path / "out.csv"), "root": str(tmp_path / "root"), **changes}
        return ExportRunsConfig.checked(values, "test")

    return make


def rows(tmp_path) -> dict[str, str]:
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "Id,Predicted"
    return dict(line.split(",") for line in lines[1:])


def test_masks_come_back_from_the_file(configure, tmp_path):
    report = run(configure())
    found = rows(tmp_path)
    assert list(found) == ["a", "b"]
    masks = {"a": np.float16(0.5) <= A, "b": B.astype(np.float64) >= 0.8}
    for segment, mask in masks.items():
        np.testing.assert_array_equal(decode(found[segment], mask.shape), mask)
    assert report.ink_px == sum(mask.sum() for mask in masks.values())


def test_a_threshold_holds_for_all(configure, tmp_path):
    run(configure(threshold=0.25))
    np.testing.assert_array_equal(decode(rows(tmp_path)["b"], B.shape), np.float16(0.25) <= B)


def test_a_segment_without_ink_has_an_empty_row(configure, tmp_path):
    store_map(tmp_path / "root", "empty", "map", np.zeros((40, 40)))
    run(configure(segments=["empty", "a"]))
    assert rows(tmp_path)["empty"] == ""


def test_what_cannot_be_written_is_refused(configure, tmp_path):
    with pytest.raises(ConfigError, match="a is named twice"):
        configure(segments=["a", "a"])
    with pytest.raises(ConfigError, match=r"end its name in \.csv"):
        run(configure(to=str(tmp_path / "out.txt")))
    with pytest.raises(DataError, match="no prediction in"):
        run(configure(segments=["a", "nobody"]))
    store_map(tmp_path / "root", "r", "ranked", A, method="ranks")
    with pytest.raises(MismatchError, match="holds ranks"):
        run(configure(segments=["r"]))
    store_map(tmp_path / "root", "wrong", "map", A * 2)
    with pytest.raises(CorruptDataError, match="probability from 0 to 1"):
        run(configure(segments=["a", "wrong"]))
    assert not list(Path(tmp_path).glob("out*"))
