"""`inkbatch vessels`: drawings of one settings at a place, never a mixture."""

from __future__ import annotations

from pathlib import Path

import pytest

from inkbatch.errors import ConfigError, MismatchError
from inkbatch.steps.synthetic.vessels import VesselsConfig, run


def settings(folder: Path, **values: object) -> VesselsConfig:
    return VesselsConfig.checked({"output": str(folder), "count": 4, "shape_yx": [64, 64], **values}, "test")


def pictures(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def test_the_same_drawings_stay_and_others_are_refused_until_they_may_be_replaced(tmp_path):
    assert run(settings(tmp_path)) == [f"vessels: 3 train, 1 val, 0 test · {tmp_path}"]
    first = pictures(tmp_path)
    assert run(settings(tmp_path)) == [f"vessels: already complete at {tmp_path}, nothing to do"]
    with pytest.raises(MismatchError, match=r"other settings.*count: there 4, here 2.*or give --replace"):
        run(settings(tmp_path, count=2))
    assert pictures(tmp_path) == first


def test_replace_leaves_none_of_the_old_drawings_and_all_that_is_not_ours(tmp_path):
    run(settings(tmp_path))
    (tmp_path / "train/real.png").write_bytes(b"a real drawing")
    assert "--replace: removed 8 pictures" in run(settings(tmp_path, count=2), replace=True)[0]
    found = pictures(tmp_path)
    assert found.pop("train/real.png") == b"a real drawing"
    left = ("test/00001.png", "test_annotations/00001.png", "train/00000.png", "train_annotations/00000.png")
    assert tuple(sorted(found)) == left


def test_a_lost_drawing_is_made_again(tmp_path):
    run(settings(tmp_path))
    before = pictures(tmp_path)
    (tmp_path / "train_annotations/00001.png").unlink()
    assert "must be completed again" in run(settings(tmp_path))[0]
    assert pictures(tmp_path) == before


def test_drawings_of_an_older_version_without_a_manifest_stay_what_they_are(tmp_path):
    run(settings(tmp_path))
    for name in ("manifest.json", "complete.json"):
        (tmp_path / name).unlink()
    assert "nothing to do" in run(settings(tmp_path))[0]
    with pytest.raises(ConfigError, match="another one is there already"):
        run(settings(tmp_path, seed=1))
    run(settings(tmp_path, count=1), replace=True)
    assert [name for name in pictures(tmp_path) if name.startswith("train/")] == ["train/00000.png"]
