"""`inkbatch instances --refine`: a network outlines objects, whatever units, shards and stops; refusals."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from inkbatch.data.instances.answers import read_answers, store_answers
from inkbatch.data.synthetic.grains import GrainConfig, make_section
from inkbatch.errors import ConfigError, CorruptDataError, DataError, Preempted
from inkbatch.geometry import Box
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.store.location import Location
from inkbatch.models.prompting import PromptableBundle
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import RunContext
from inkbatch.run.verifying import verify
from inkbatch.steps.instances.job import describe, run
from inkbatch.steps.instances.settings import InstancesConfig
from inkbatch.steps.prepare.job import run as run_prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.testing.faults import preempted_context, stored_bytes
from inkbatch.testing.instances import grain_map, three_classes
from inkbatch.testing.maps import store_map
from inkbatch.testing.oracles import Oracle, write_numbered
from inkbatch.testing.prompting import tiny_sam2
from inkbatch.testing.segments import write_layers

SECTION = make_section(GrainConfig(shape_yx=(150, 170), radius_px=(8, 16), seed=3), 0)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refinement")
    write_numbered(folder, "a", SECTION.instances)
    write_numbered(folder, "b", SECTION.instances[:70, :90])
    PromptableBundle.save(Location.parse(str(folder / "net")), tiny_sam2(), {})
    return folder


@pytest.fixture(autouse=True)
def oracle(monkeypatch):
    monkeypatch.setattr(PromptableBundle, "build", lambda bundle, device="cpu": Oracle())


def configured(shared, root, cell_px=32, halo_px=64, **values) -> InstancesConfig:
    asked = {"subject": "grains", "root": str(root), "maps": str(shared / "maps"), "unit_px": 64, "device": "cpu"}
    asked |= {"pictures": str(shared / "pictures"), "refine": str(shared / "net"), "proposals": {"boundary_min": 20}}
    asked |= {"refinement": {"cell_px": cell_px, "halo_px": halo_px}, **values}
    return InstancesConfig.checked(asked, "instances")


@pytest.fixture(scope="module")
def finished(shared):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PromptableBundle, "build", lambda bundle, device="cpu": Oracle())
        return run(configured(shared, shared / "root"), RunContext()).location


def labels_of(place: Location, picture: str) -> np.ndarray:
    array = Multiscale.open(place / f"labels/{picture}/labels.zarr").levels[0]
    return array.read(Box(0, 0, *array.layout.shape).slices)


def rows_of(place: Location) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((place / "instances.csv").read_bytes().decode())))


def test_labels_are_what_the_network_outlines(finished):
    labels, rows = labels_of(finished, "a"), [row for row in rows_of(finished) if row["picture"] == "a"]
    assert len(rows) > 10
    for row in rows:
        own = labels == int(row["label"])
        number = SECTION.instances[own][0]
        np.testing.assert_array_equal(own, SECTION.instances == number)
        assert (row["source"], row["predicted_iou"], row["larger_than_tile"]) == ("refined", "1.0", "false")
        assert int(row["area_px"]) == np.count_nonzero(own)


def test_every_proposal_is_accounted_for_and_instances_counted_by_source(finished):
    document = (finished / "instances.json").read_json()
    counts = document["counts"]
    assert counts["proposals"] == sum(counts[f"proposals_{end}"] for end in ("instance", "merged", "rejected"))
    reasons = [name for name in counts if name.startswith("proposals_rejected_")]
    assert counts["proposals_rejected"] == sum(counts[name] for name in reasons) > 0
    assert counts["instances_refined"] == document["instances"] == counts["proposals_instance"]
    assert counts["instances_first_pass"] == 0
    assert counts["proposals_merged"] > 0
    lines = list(csv.DictReader(io.StringIO((finished / "proposals.csv").read_bytes().decode())))
    assert len(lines) == counts["proposals"]
    assert all((line["label"] == "") == (line["fate"] == "rejected") for line in lines)


def test_the_manifest_names_the_network_and_the_page_shows_it(finished, shared):
    manifest = (finished / "manifest.json").read_json()
    network = PromptableBundle.open(Location.parse(str(shared / "net"))).document
    assert manifest["inputs"]["refine"]["weights_sha256"] == network.weights_sha256
    assert manifest["config"]["refine"] == "tiny-sam2"
    assert manifest["request"]["refine"].endswith("net")
    text = (finished / "report.html").read_bytes().decode()
    assert f"outlined by tiny-sam2 (sam2, weights {network.weights_sha256[:12]}" in text
    assert "instances outlined by the network" in text
    assert "no object is cut at a seam" in text


@pytest.mark.parametrize(
    "values",
    [pytest.param({"unit_px": 32}, marks=pytest.mark.slow), {"unit_px": 128}, {"unit_px": 256, "cell_px": 256}],
)
def test_units_and_cells_change_no_object(shared, finished, tmp_path, values):
    found = run(configured(shared, tmp_path, forms=["csv"], **values), RunContext()).location
    for name in ("instances.csv", "proposals.csv"):
        assert (found / name).read_bytes() == (finished / name).read_bytes()
    np.testing.assert_array_equal(labels_of(found, "a"), labels_of(finished, "a"))


def test_shards_give_the_same_bytes_and_the_last_one_finishes(shared, finished, tmp_path):
    reports = [run(configured(shared, tmp_path), RunContext(shard=ShardSpec(i, 2))) for i in range(2)]
    assert [report.complete for report in reports] == [False, True]
    assert stored_bytes(reports[-1].location.path) == stored_bytes(finished.path)


@pytest.mark.parametrize("after", [20, 40])
def test_a_stopped_job_goes_on_and_gives_the_same_bytes(shared, finished, tmp_path, after):
    with pytest.raises(Preempted):
        run(configured(shared, tmp_path), preempted_context(after))
    report = run(configured(shared, tmp_path), RunContext())
    assert stored_bytes(report.location.path) == stored_bytes(finished.path)


@pytest.mark.parametrize("part", ["regions", "answers"])
def test_lost_objects_of_any_pass_are_made_again(shared, finished, part):
    before = stored_bytes(finished.path)
    made = [path for path in sorted(before) if path.startswith(f"{part}/") and path.count("/") > 1]
    lost = next(path for path in made if "/done/" not in path and not path.endswith("zarr.json"))
    (finished / lost).delete()
    assert len(verify(finished.uri).faults) == 1
    run(configured(shared, shared / "root"), RunContext())
    assert stored_bytes(finished.path) == before


def test_objects_that_leave_their_tile_are_taken_from_the_first_pass_and_marked(shared, tmp_path):
    found = run(configured(shared, tmp_path, halo_px=4, forms=["csv"]), RunContext()).location
    counts = (found / "instances.json").read_json()["counts"]
    sources = [row["source"] for row in rows_of(found)]
    assert sources.count("first-pass") == counts["instances_first_pass"] > 0
    assert all((row["larger_than_tile"] == "true") == (row["source"] == "first-pass") for row in rows_of(found))
    assert all((row["predicted_iou"] == "") == (row["source"] == "first-pass") for row in rows_of(found))
    document = (found / "instances.json").read_json()
    assert document["larger_than_tile"] == counts["instances_first_pass"]


def test_a_network_that_doubts_everything_leaves_the_objects_of_the_first_pass(shared, tmp_path, monkeypatch):
    class Doubting(Oracle):
        def masks(self, features, points_yx, boxes=None):
            masks, scores = super().masks(features, points_yx, boxes)
            return masks, scores * np.float32(0.1)

    monkeypatch.setattr(PromptableBundle, "build", lambda bundle, device="cpu": Doubting())
    rules = {"cell_px": 32, "halo_px": 64, "doubt": 2}
    found = run(configured(shared, tmp_path, forms=["csv"], refinement=rules), RunContext()).location
    bare = run(configured(shared, tmp_path, forms=["csv"], refine="none"), RunContext()).location
    counts = (found / "instances.json").read_json()["counts"]
    assert counts["instances_kept"] == counts["instances_first_pass"] > 20
    assert counts["instances_refined"] == 0
    assert all((row["source"], row["larger_than_tile"]) == ("first-pass", "false") for row in rows_of(found))
    assert "because no mask was better for sure" in (found / "report.html").read_bytes().decode()
    for picture in "ab":
        kept, regions = labels_of(found, picture), labels_of(bare, picture)
        pairs = np.unique(np.stack([kept[kept > 0], regions[kept > 0]]), axis=1)
        assert len(pairs.T) == kept.max(), "each is one region …"
        assert all(np.array_equal(kept == one, regions == other) for one, other in pairs.T), "… and all of it"


def of_segment(shared, root, **values) -> InstancesConfig:
    asked = {"subject": "page", "root": str(root), "refine": str(shared / "net"), "device": "cpu", "unit_px": 64}
    asked |= {"refinement": {"cell_px": 32, "halo_px": 64}, "forms": ["csv"], **values}
    return InstancesConfig.checked(asked, "instances")


def test_a_segment_is_refined_on_its_middle_layer(tmp_path, shared):
    true = SECTION.instances[:100, :120]
    layers = np.zeros((5, *true.shape), np.uint8)
    layers[2] = true  # the oracle finds no object in any other layer
    source = {"segment": "page", "root": str(tmp_path), "source": str(write_layers(tmp_path / "layers", layers))}
    source |= {"depth_order": "forward", "voxel_size_um": 8.0, "shard_px": 64}
    run_prepare(PrepareConfig.checked(source, "prepare"), RunContext())
    store_map(tmp_path, "page", "net", three_classes(true)[1])
    found = run(of_segment(shared, tmp_path), RunContext()).location
    assert found.name == "net-tiny-sam2"
    labels, rows = labels_of(found, "page"), rows_of(found)
    assert len(rows) > 5
    for row in rows:
        own = labels == int(row["label"])
        number = true[own][0]
        np.testing.assert_array_equal(own, true == number)
        assert (row["source"], float(row["mean_intensity"])) == ("refined", number)
        assert float(row["area_mm2"]) == pytest.approx(np.count_nonzero(own) * 0.008**2, rel=1e-4)
    again = run(of_segment(shared, tmp_path, result="cells", unit_px=128, refinement={"cell_px": 128}), RunContext())
    np.testing.assert_array_equal(labels_of(again.location, "page"), labels)


def test_a_segment_without_layers_is_refused(tmp_path, shared):
    store_map(tmp_path / "root", "page", "net", grain_map((96, 128), 20))
    with pytest.raises(DataError, match=r"expected a picture, or the layers of a segment.* got none for page"):
        run(of_segment(shared, tmp_path / "root"), RunContext())


def test_what_cannot_refine_is_refused(shared, tmp_path):
    with pytest.raises(DataError, match=r"expected a promptable network, got no promptable\.json"):
        run(configured(shared, tmp_path, refine=str(shared / "maps")), RunContext())
    with pytest.raises(DataError, match=r"for every map, got none for a"):
        run(configured(shared, tmp_path, pictures=None), RunContext())
    with pytest.raises(ConfigError, match=r"unit_px=64: expected a multiple of refinement\.cell_px=96"):
        configured(shared, tmp_path, cell_px=96)


def test_the_plan_tells_network_and_passes(shared, tmp_path):
    text = describe(configured(shared, tmp_path))
    assert "tiny-sam2 (sam2), tiles of 32 px with 64 px around, by box" in text
    assert "each in five passes; 0 already searched, 0 refined, 0 labelled" in text


def test_answers_of_other_proposals_and_damaged_ones_are_refused(tmp_path, finished):
    place = Location.parse(str(tmp_path / "unit.npz"))
    source = next(iter(sorted((finished / "answers/masks").names())))
    place.write_bytes((finished / f"answers/masks/{source}").read_bytes())
    with pytest.raises(CorruptDataError, match="damaged, or belong to other proposals"):
        list(read_answers(place, []))
    assert store_answers(place, [], [], []) > 0
    assert list(read_answers(place, [])) == []
    place.write_bytes(b"no answers")
    with pytest.raises(CorruptDataError, match="damaged"):
        list(read_answers(place, []))
