"""`inkbatch instances`: one result whatever the units, shards and stops; files that others read; refusals."""

from __future__ import annotations

import csv
import io
import json
import shutil

import cv2
import numpy as np
import pyarrow.parquet
import pytest
import shapely
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from skimage.measure import regionprops

from inkbatch.data.instances.fates import require_countable
from inkbatch.errors import ConfigError, DataError, MismatchError, Preempted
from inkbatch.geometry import Box
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.store.location import Location
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import RunContext
from inkbatch.run.verifying import verify
from inkbatch.steps.instances.job import describe, run, summary
from inkbatch.steps.instances.page import doubts
from inkbatch.steps.instances.settings import InstancesConfig
from inkbatch.testing.faults import Notes, preempted_context, stored_bytes
from inkbatch.testing.instances import grain_map, parted_map, write_maps
from inkbatch.testing.maps import store_map

SHAPES = {"a": (150, 170), "b": (100, 130)}
RULES = {"reach": 16, "boundary_min": 20}


@pytest.fixture
def configure(tmp_path):
    write_maps(tmp_path, SHAPES, grains=25)

    def configured(**values) -> InstancesConfig:
        asked = {"subject": "grains", "root": str(tmp_path / "root"), "maps": str(tmp_path / "maps"), "unit_px": 64}
        asked |= {"pictures": str(tmp_path / "pictures"), "pixel_um": 5.0, "proposals": RULES, **values}
        return InstancesConfig.checked(asked, "instances")

    return configured


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    write_maps(folder, SHAPES, grains=25)
    np.save(folder / "maps/b.npy", parted_map(SHAPES["b"], 60))
    return folder


@pytest.fixture(scope="module")
def finished(shared):
    return run(same_inputs(shared, shared / "root"), RunContext()).location


def same_inputs(shared, root, grow=None, **values) -> InstancesConfig:
    """The job on the module's own maps, with a ROOT of its own."""
    asked = {"subject": "grains", "root": str(root), "maps": str(shared / "maps"), "unit_px": 64, **values}
    asked |= {"pictures": str(shared / "pictures"), "pixel_um": 5.0, "proposals": {**RULES, "grow": grow}}
    return InstancesConfig.checked(asked, "instances")


def labels_of(place: Location, picture: str) -> np.ndarray:
    array = Multiscale.open(place / f"labels/{picture}/labels.zarr").levels[0]
    return array.read(Box(0, 0, *array.layout.shape).slices)


def rows_of(place: Location) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((place / "instances.csv").read_bytes().decode())))


def without_size_of_units(place: Location) -> dict[str, bytes]:
    names = ("instances.json", "instances.csv", "proposals.csv", "coco.json", "coco-rle.json", "outlines/a.geojson")
    found = {name: (place / name).read_bytes() for name in (*names, "npy/a.npy", "npy/b.npy", "overlays/a.png")}
    return {name: data.replace(b"true", b"false") if b"larger" in data else data for name, data in found.items()}


@pytest.mark.parametrize("unit_px", [pytest.param(32, marks=pytest.mark.slow), 128, 256])
def test_units_of_any_size_give_the_same_files(shared, finished, tmp_path, unit_px):
    found = run(same_inputs(shared, tmp_path, unit_px=unit_px), RunContext()).location
    got, expected = without_size_of_units(found), without_size_of_units(finished)
    for name in ("instances.json",):  # counts how many are larger than a unit
        got[name], expected[name] = (
            json.dumps({**json.loads(data), "larger_than_tile": 0}).encode() for data in (got[name], expected[name])
        )
    assert {name for name, data in got.items() if data != expected[name]} == set()


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_shards_give_the_same_bytes_and_the_last_one_finishes(shared, finished, tmp_path, count):
    expected = stored_bytes(finished.path)
    config = same_inputs(shared, tmp_path)
    reports = [run(config, RunContext(shard=ShardSpec(i, count))) for i in range(count)]
    assert [report.complete for report in reports] == [False] * (count - 1) + [True]
    assert stored_bytes(reports[-1].location.path) == expected


@pytest.mark.parametrize("after", [pytest.param(1, marks=pytest.mark.slow), 20, 35])
def test_a_stopped_job_goes_on_and_gives_the_same_bytes(shared, finished, tmp_path, after):
    with pytest.raises(Preempted):
        run(same_inputs(shared, tmp_path), preempted_context(after))
    report = run(same_inputs(shared, tmp_path), RunContext())
    assert report.complete
    assert stored_bytes(report.location.path) == stored_bytes(finished.path)


def test_a_picture_two_pixels_higher_has_the_same_objects_above(configure, finished, tmp_path):
    values = np.load(tmp_path / "maps/a.npy")
    np.save(tmp_path / "maps/a.npy", np.pad(values, ((0, 2), (0, 0))))
    picture = cv2.imread(str(tmp_path / "pictures/a.png"), 0)
    cv2.imwrite(str(tmp_path / "pictures/a.png"), np.pad(picture, ((0, 2), (0, 0))))
    higher = run(configure(), RunContext()).location
    far = SHAPES["a"][0] - 20  # beyond the reach, and beyond the picture's edge
    first, second = ([row for row in rows_of(place) if row["picture"] == "a"] for place in (finished, higher))
    assert [row for row in first if int(row["y1"]) < far] == [row for row in second if int(row["y1"]) < far]
    assert len(first) > 8


def test_every_proposal_and_region_is_accounted_for(finished):
    document = (finished / "instances.json").read_json()
    counts = document["counts"]
    assert counts["proposals"] == sum(counts[f"proposals_{end}"] for end in ("instance", "merged", "rejected"))
    rejected = [name for name in counts if name.startswith("proposals_rejected_")]
    assert counts["proposals_rejected"] == sum(counts[name] for name in rejected) > 0
    small = sum(count for name, count in counts.items() if name.startswith("regions_rejected_"))
    assert counts["regions"] == counts["regions_instance"] + small
    assert document["instances"] == counts["regions_instance"] == len(rows_of(finished))
    lines = (finished / "proposals.csv").read_bytes().decode().splitlines()
    assert len(lines) == counts["proposals"] + 1
    assert summary(finished) == [
        f"instances: {document['instances']} instances; of {counts['proposals']} proposals "
        f"{counts['proposals_instance']} are an instance, {counts['proposals_merged']} merged into one, "
        f"{counts['proposals_rejected']} rejected"
    ]


def test_rows_are_those_of_scikit_image_on_the_stored_labels(finished, shared):
    rows = [row for row in rows_of(finished) if row["picture"] == "a"]
    picture = cv2.imread(str(shared / "pictures/a.png"), 0)
    expected = regionprops(labels_of(finished, "a"), picture)
    assert [int(row["label"]) for row in rows] == [one.label for one in expected]
    for row, one in zip(rows, expected, strict=True):
        assert int(row["area_px"]) == one.area
        assert float(row["centroid_y_px"]) == pytest.approx(one.centroid[0], abs=1e-5)
        assert float(row["perimeter_px"]) == pytest.approx(one.perimeter, abs=1e-5)
        assert float(row["solidity"]) == pytest.approx(one.solidity, abs=1e-5)
        assert float(row["major_axis_mm"]) == pytest.approx(one.axis_major_length * 0.005, abs=1e-5)
        assert float(row["mean_intensity"]) == pytest.approx(one.intensity_mean, abs=1e-5)


def test_coco_is_read_by_its_own_tools_and_shows_the_same_pixels(finished, capsys):
    labels = labels_of(finished, "a")
    polygons, runs = (COCO((finished / name).path) for name in ("coco.json", "coco-rle.json"))
    capsys.readouterr()
    rows = rows_of(finished)
    assert len(polygons.anns) == len(runs.anns) == len(rows)
    for number, row in enumerate(rows, start=1):
        if row["picture"] != "a":
            continue
        one = labels == int(row["label"])
        segmentation = runs.anns[number]["segmentation"]
        np.testing.assert_array_equal(coco_mask.decode(segmentation), one)
        drawn = polygons.annToMask(polygons.anns[number]) > 0
        assert (drawn & one).sum() / (drawn | one).sum() > 0.9


def test_outlines_are_valid_polygons_of_nearly_the_area_with_all_properties(finished):
    document = json.loads((finished / "outlines/a.geojson").read_bytes())
    rows = [row for row in rows_of(finished) if row["picture"] == "a"]
    for feature, row in zip(document["features"], rows, strict=True):
        shape = shapely.geometry.shape(feature["geometry"])
        assert shape.is_valid
        assert shape.area == pytest.approx(int(row["area_px"]), rel=0.06)
        x0, y0, x1, y1 = shape.bounds
        assert (x0, y0, x1, y1) == tuple(float(row[name]) for name in ("x0", "y0", "x1", "y1"))
        assert feature["properties"]["label"] == int(row["label"])


def test_parquet_csv_and_npy_hold_the_same(finished):
    table = pyarrow.parquet.read_table(io.BytesIO((finished / "instances.parquet").read_bytes())).to_pylist()
    rows = rows_of(finished)
    assert [str(one["area_px"]) for one in table] == [row["area_px"] for row in rows]
    assert [one["circularity"] for one in table] == [float(row["circularity"]) for row in rows]
    np.testing.assert_array_equal(np.load((finished / "npy/a.npy").path), labels_of(finished, "a"))


def test_objects_larger_than_a_unit_are_whole_and_marked(configure, tmp_path):
    values = np.zeros((150, 170), np.float32)
    values[10:140, 20:150] = 1
    np.save(tmp_path / "maps/a.npy", values)
    found = run(configure(forms=["csv"], selection={"edge": 0}), RunContext()).location
    large = [row for row in rows_of(found) if row["picture"] == "a"]
    assert [(row["area_px"], row["larger_than_tile"], row["source"]) for row in large] == [
        (str(130 * 130), "true", "first-pass")
    ]


def test_a_segment_takes_its_prediction(tmp_path):
    store_map(tmp_path / "root", "page", "net", grain_map((96, 128), 20))
    config = InstancesConfig.checked({"subject": "page", "root": str(tmp_path / "root"), "unit_px": 64}, "instances")
    found = run(config, RunContext()).location
    assert found.uri.endswith("instances/page/net")
    assert len(rows_of(found)) > 3
    assert rows_of(found)[0]["area_mm2"] != ""
    assert not (found / "npy").is_folder()


def test_maps_of_three_classes_are_parted_along_their_boundaries(configure, tmp_path):
    values = np.zeros((3, 100, 130), np.float32)
    values[0] = 1
    values[:, 20:80, 20:110] = np.array([0, 1, 0], np.float32)[:, None, None]
    values[:, 20:80, 64:66] = np.array([0, 0, 1], np.float32)[:, None, None]
    np.save(tmp_path / "maps/b.npy", values)
    whole = run(configure(forms=["csv"]), RunContext()).location
    bare = run(configure(forms=["csv"], proposals={"grow": 0}, result="bare"), RunContext()).location
    for place, width in ((whole, 45), (bare, 44)):
        assert [row["area_px"] for row in rows_of(place) if row["picture"] == "b"] == [str(width * 60)] * 2


def test_objects_get_their_boundary_back_across_seams_and_keep_their_order(shared, finished, tmp_path):
    bare = run(same_inputs(shared, tmp_path, grow="0um"), RunContext()).location
    before, after = (labels_of(place, "b") for place in (bare, finished))
    boundary = np.load(shared / "maps/b.npy")[2] >= 0.5
    new = (after > 0) & (before == 0)
    assert boundary[new].all()
    assert new[:, 63:65].any()
    assert new[63:65].any()
    assert len(rows_of(bare)) >= len(rows_of(finished)) > 30, "those that reach the picture's edge now are rejected"
    first = [int(np.flatnonzero(after == number)[0]) for number in range(1, after.max() + 1)]
    assert first == sorted(first)
    np.testing.assert_array_equal(labels_of(bare, "a"), labels_of(finished, "a"))
    assert json.loads((finished / "manifest.json").read_bytes())["config"]["proposals"]["grow"] == 2
    assert "grow into pixels of boundary by at most 2." in (finished / "report.html").read_bytes().decode()


def test_nothing_to_propose_is_refused_with_the_statistics_of_the_maps(configure, tmp_path):
    for name, shape in SHAPES.items():
        np.save(tmp_path / f"maps/{name}.npy", np.full(shape, 0.3, np.float32))
    with pytest.raises(DataError, match=r"no pixel of object; mean probability 0\.300, maximum 0\.300\); lower"):
        run(configure(), RunContext())
    values = np.zeros(SHAPES["a"], np.float32)
    values[50:54, 50:54] = 1
    np.save(tmp_path / "maps/a.npy", values)
    with pytest.raises(DataError, match=r"largest of 1 components has 16 px.*lower proposals\.min_area"):
        run(configure(result="again"), RunContext())


def test_a_picture_whose_proposals_are_all_rejected_is_said_at_the_end(shared, tmp_path):
    notes = Notes()
    run(same_inputs(shared, tmp_path / "root", selection={"edge": 1000}), RunContext(reporter=notes))
    found = [note for note in notes.said if note.startswith("careful: No instance in ")]
    assert found
    assert "all proposals were rejected" in found[0]


def test_rejections_that_were_asked_for_raise_no_doubt(finished):
    facts = (finished / "instances.json").read_json()
    counts = {**facts["counts"], "proposals": 18, "proposals_rejected": 12}
    assert any("12 of 18 proposals were rejected" in doubt for doubt in doubts({**facts, "counts": counts}))
    counts["proposals_rejected_not largest"] = 11
    assert not any("were rejected;" in doubt for doubt in doubts({**facts, "counts": counts}))


def test_pictures_and_maps_that_do_not_belong_together_are_refused(configure, tmp_path):
    cv2.imwrite(str(tmp_path / "pictures/a.png"), np.zeros((20, 30), np.uint8))
    with pytest.raises(MismatchError, match=r"a\.png: expected 150 × 170 px .* got 20 × 30 px"):
        run(configure(), RunContext())
    (tmp_path / "pictures/a.png").unlink()
    with pytest.raises(DataError, match=r"expected a picture for the map a\.npy, got none"):
        run(configure(), RunContext())


def cut_short(picture: np.ndarray) -> bytes:
    data = cv2.imencode(".png", picture)[1].tobytes()
    return data[: len(data) // 2]


def transparent(picture: np.ndarray) -> bytes:
    return cv2.imencode(".png", np.dstack([picture] * 3 + [picture // 2]))[1].tobytes()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda picture: cv2.imencode(".png", picture[:-1])[1].tobytes(), "expected 100 × 130 px .* got 99 × 130 px"),
        (lambda picture: cv2.imencode(".png", picture.astype(np.uint16) << 8)[1].tobytes(), "of 8 bits, got uint16"),
        (transparent, "expected an opaque picture"),
        (cut_short, "promises"),
        (lambda picture: b"no picture", "cannot be decoded"),
    ],
)
def test_a_picture_of_the_wrong_kind_is_refused_before_any_map_is_searched(configure, tmp_path, damage, words):
    place = tmp_path / "pictures/b.png"
    picture = cv2.imread(str(place), cv2.IMREAD_GRAYSCALE)
    place.write_bytes(damage(picture))
    with pytest.raises(DataError, match=rf"b\.png: .*{words}"):
        run(configure(), RunContext())
    assert not (tmp_path / "root").exists()


def test_a_result_is_not_replaced_by_one_of_pictures_that_are_refused(configure, tmp_path):
    made = run(configure(), RunContext()).location
    (tmp_path / "pictures/b.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"b\.png: cannot be decoded"):
        run(configure(), RunContext(replace=True))
    assert (made / "complete.json").exists()


def test_a_shard_looks_at_the_pictures_that_it_searches(configure, tmp_path):
    (tmp_path / "pictures/b.png").write_bytes(b"no picture")
    config = configure(unit_px=256)  # one unit per picture
    assert run(config, RunContext(shard=ShardSpec(0, 2))).stored == 1
    with pytest.raises(DataError, match=r"b\.png: cannot be decoded"):
        run(config, RunContext(shard=ShardSpec(1, 2)))


def placed(value: float, y: int, x: int) -> np.ndarray:
    values = np.zeros((150, 170), np.float32)
    values[y, x] = value
    return values


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((4, 20, 20), np.float32), r"expected float32 \(height, width\)"),
        (np.zeros((20, 20), np.uint8), r"expected float32 \(height, width\)"),
        (np.full((150, 170), 2, np.float32), "expected .* from 0 to 1, got 2 at row 0, column 0; divide"),
        (placed(-3, 70, 90), "got -3 at row 70, column 90; these look like logits"),
        (np.stack([placed(0, 0, 0), placed(0, 0, 0), placed(9, 149, 169)]), "column 169 of class 2; divide"),
        (np.stack([placed(0, 0, 0), placed(np.nan, 149, 169), placed(0, 0, 0)]), "layer 1: expected finite"),
    ],
)
def test_arrays_that_are_no_maps_are_refused(configure, tmp_path, values, words):
    np.save(tmp_path / "maps/a.npy", values)
    with pytest.raises(DataError, match=words):
        run(configure(pictures=None), RunContext())


def test_settings_that_cannot_be_carried_out_are_refused(configure, tmp_path):
    with pytest.raises(ConfigError, match="needs the edge of a pixel"):
        run(configure(pixel_um=None, proposals={"min_area": "300um2"}), RunContext())
    with pytest.raises(ConfigError, match=r"reach: expected at most 2,000 px.* got 2,001 px"):
        run(configure(proposals={"reach": "10005um"}), RunContext())
    with pytest.raises(ConfigError, match="belong to maps"):
        configure(maps=None)
    with pytest.raises(DataError, match=r"expected maps \(NAME\.npy\), got none"):
        run(configure(maps=str(tmp_path / "pictures")), RunContext())
    with pytest.raises(DataError, match="at most 4,294,967,295 instances"):
        require_countable(2**32, "a")


def test_the_plan_is_described_and_nothing_is_written(configure, tmp_path):
    text = describe(configure())
    assert "2 pictures, 38,500 px" in text
    assert "each in three passes; 0 already searched, 0 labelled, 0 measured" in text
    assert "peak memory   about 15" in text
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    "lost",
    [
        "instances.csv",
        "outlines/a.geojson",
        "components/facts/y00000-x00000.npz",
        "labels/a/labels.zarr/0/c/0/1",
        "labels/a/labels.zarr/zarr.json",
        "rows/y00064-x00064.json",
    ],
)
def test_whatever_is_lost_of_any_pass_is_found_and_made_again(finished, shared, tmp_path, lost):
    shutil.copytree(finished.path, tmp_path / "root/instances/grains/maps")
    place = tmp_path / "root/instances/grains/maps"
    whole = (place / lost).read_bytes()
    (place / lost).write_bytes(b"")
    assert lost in "".join(verify(str(place)).faults)
    assert run(same_inputs(shared, tmp_path / "root"), RunContext()).complete
    assert (place / lost).read_bytes() == whole
    assert not verify(str(place)).faults


@pytest.mark.parametrize("name", ["complete.json", "done", "points"])
def test_a_picture_named_like_a_record_of_the_run_is_refused_before_anything_is_written(configure, tmp_path, name):
    (tmp_path / "maps/b.npy").rename(tmp_path / f"maps/{name}.npy")
    with pytest.raises(DataError, match=f"{name}.npy, whose labels .* rename it"):
        run(configure(pictures=None), RunContext())
    assert not (tmp_path / "root").exists()


def test_tables_quote_the_names_of_pictures(configure, tmp_path):
    (tmp_path / "maps/b.npy").rename(tmp_path / 'maps/b,"c.npy')
    found = run(configure(pictures=None, pixel_um=5.0), RunContext()).location
    for table in ("instances.csv", "proposals.csv"):
        rows = list(csv.DictReader(io.StringIO((found / table).read_bytes().decode())))
        assert {row["picture"] for row in rows} == {"a", 'b,"c'}
        assert all(None not in row for row in rows)
