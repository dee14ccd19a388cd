"""Letters of a stored map: every file says the same letters, and how the map is cut changes nothing."""

import csv
import json

import cv2
import numpy as np
import pytest

from inkbatch.cli.app import app
from inkbatch.data.instances.letters import LetterRules
from inkbatch.errors import ConfigError, DataError, Preempted
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import RunContext
from inkbatch.steps.letters import files
from inkbatch.steps.letters.job import LettersConfig, describe, run, summary
from inkbatch.testing.faults import preempted_context, stored_bytes
from inkbatch.testing.letters import write_column
from inkbatch.testing.maps import store_map

COLUMN = write_column(lines=4, letters=5, height_px=36, pitch_px=64)
PIXEL_UM = 60.0


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    place = tmp_path_factory.mktemp("root")
    store_map(place, "column", "net", COLUMN.ink * 0.9, voxel_size_um=PIXEL_UM, unit_px=128)
    return place


@pytest.fixture(scope="module")
def found(root):
    (line,) = summary(run(asked(root), RunContext()).location)
    return root / "instances" / "column" / "net-letters", line


def asked(root, **values):
    return LettersConfig(segment="column", root=str(root), rules=LetterRules(min_stroke=10), **values)


def rows(place):
    with place.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_tables_hold_every_letter_with_its_height_in_millimetres(found):
    folder, line = found
    assert line.startswith("letters: 20 letters in 4 lines")
    table = rows(folder / "letters.csv")
    assert [(int(row["line"]), int(row["y0"]), int(row["x1"])) for row in table] == [
        (number, box.y0, box.x1) for number, _, box in COLUMN.letters
    ]
    assert float(table[0]["height_mm"]) == pytest.approx(int(table[0]["height_px"]) * PIXEL_UM / 1000)
    assert [row["letters"] for row in rows(folder / "lines.csv")] == ["5"] * 4
    assert json.loads((folder / "letters.json").read_text())["pitch_px"] == pytest.approx(64, rel=0.02)


def test_boxes_and_cutouts_are_those_of_the_table(found):
    folder, _ = found
    document = json.loads((folder / "coco.json").read_text())
    boxes = [box for _, _, box in COLUMN.letters]
    assert [one["bbox"] for one in document["annotations"]] == [[b.x0, b.y0, b.width, b.height] for b in boxes]
    assert document["annotations"][0]["area"] == np.count_nonzero(COLUMN.ink[boxes[0].slices])
    margin = round(0.15 * json.loads((folder / "letters.json").read_text())["height_px"])
    cutout = cv2.imread(str(folder / "letters" / "line-02-003.png"), cv2.IMREAD_UNCHANGED)
    expected = COLUMN.ink[boxes[7].grow(margin).slices] * np.float32(0.9)
    np.testing.assert_array_equal(
        cutout, np.rint(expected.astype(np.float16).astype(np.float32) * 255).astype(np.uint8)
    )
    assert len(list((folder / "letters").iterdir())) == 20


def test_the_picture_numbers_rows_and_bears_a_bar_of_1_cm(found):
    picture = cv2.imread(str(found[0] / "rows.png"))[..., ::-1]
    assert picture.shape == (*COLUMN.ink.shape, 3)
    assert (picture == files.AMBER).all(axis=2).any(axis=1).sum() > 4
    bar = (picture == 255).all(axis=2)
    assert bar.sum(axis=1).max() == round(10_000 / PIXEL_UM)


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_column_on_its_side_is_read_once_it_is_turned_and_tables_say_the_places_as_stored(found, tmp_path, turn):
    ink = np.rot90(COLUMN.ink, -turn // 90)
    store_map(tmp_path, "column", "net", ink * 0.9, voxel_size_um=PIXEL_UM, unit_px=128)
    config = LettersConfig(segment="column", root=str(tmp_path), rules=LetterRules(min_stroke=10, turn=turn))
    assert f"in the map turned by {turn}°" in describe(config)
    run(config, RunContext())
    folder = tmp_path / "instances/column/net-letters"
    for name in ("rows.png", "lines.csv", "letters.json", "letters/line-02-003.png"):
        assert (folder / name).read_bytes() == (found[0] / name).read_bytes()
    annotations = json.loads((folder / "coco.json").read_text())["annotations"]
    for row, annotation, (line, _, box) in zip(rows(folder / "letters.csv"), annotations, COLUMN.letters, strict=True):
        y0, x0, y1, x1 = (int(row[key]) for key in ("y0", "x0", "y1", "x1"))
        assert (int(row["line"]), int(row["height_px"])) == (line, box.height)
        assert annotation["bbox"] == [x0, y0, x1 - x0, y1 - y0]
        np.testing.assert_array_equal(np.rot90(ink[y0:y1, x0:x1], turn // 90), COLUMN.ink[box.slices])
    assert f"turned by {turn}°" in (folder / "report.html").read_text()


FILES = ("letters.csv", "lines.csv", "coco.json", "letters.json", "rows.png", "letters/line-02-003.png")


def test_units_change_nothing(root, found, tmp_path):
    cut = run(asked(root, unit_px=64, output_root=str(tmp_path)), RunContext()).location
    for name in FILES:
        assert (cut / name).read_bytes() == (found[0] / name).read_bytes()


def test_shards_and_stops_give_the_same_bytes(root, tmp_path):
    whole = run(asked(root, unit_px=64, output_root=str(tmp_path / "whole")), RunContext()).location
    parted = asked(root, unit_px=64, output_root=str(tmp_path / "parted"))
    reports = [run(parted, RunContext(shard=ShardSpec(index, 3))) for index in range(3)]
    assert [report.complete for report in reports] == [False, False, True]
    stopped = asked(root, unit_px=64, output_root=str(tmp_path / "stopped"))
    with pytest.raises(Preempted):
        run(stopped, preempted_context(2))
    assert run(stopped, RunContext()).complete
    for other in ("parted", "stopped"):
        assert stored_bytes(tmp_path / other / "instances/column/net-letters") == stored_bytes(whole.path)


def test_the_plan_is_told_and_nothing_is_written(root, tmp_path):
    text = describe(asked(root, output_root=str(tmp_path / "new"), unit_px=64))
    assert "letters column: map net" in text
    assert "lines         found by periodicity" in text
    assert not (tmp_path / "new").exists()


def test_the_command_takes_shards_and_refuses_pictures(root, tmp_path, capsys):
    words = ["instances", "column", "--kind", "letters", "--root", str(root), "--set", f"output_root={tmp_path}"]
    app([*words, "--set", "rules.min_stroke=10", "--shard", "0/2", "--dry-run"], standalone_mode=False)
    assert "cut-out per letter" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="expected objects, or letters .* leave them out"):
        app([*words, "--maps", "maps"], standalone_mode=False)


def test_a_map_without_strokes_is_refused_with_what_to_change(tmp_path):
    store_map(tmp_path, "bare", "net", np.full((64, 64), 0.2, np.float32))
    with pytest.raises(DataError, match=r"got none; lower rules\.ink_from or rules\.min_stroke"):
        run(LettersConfig(segment="bare", root=str(tmp_path)), RunContext())
    with pytest.raises(ConfigError, match="join"):
        LettersConfig.checked({"segment": "bare", "rules": {"join": "far"}}, "letters")
