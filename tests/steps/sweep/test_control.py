"""The control of a sweep: planted ink goes through the same search, and sweep.json says what would have been seen."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np
import pytest

from inkbatch import view
from inkbatch.data.maps.sweep import StoredSweep
from inkbatch.errors import Preempted
from inkbatch.io.store.location import Location
from inkbatch.reports.page import Element, Gallery, Picture, Table
from inkbatch.reports.viewer_links import VIEWER_PORT
from inkbatch.run.finished import open_run
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import RunContext
from inkbatch.run.verifying import verify
from inkbatch.steps.prepare import job as prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.steps.sweep.control import control_units, planted_layers
from inkbatch.steps.sweep.job import run
from inkbatch.steps.sweep.page import page
from inkbatch.steps.sweep.plan import make_plan
from inkbatch.steps.sweep.rough_layers import rough_layer
from inkbatch.steps.sweep.settings import SweepConfig
from inkbatch.steps.sweep.window_pictures import GAP_PX, PANEL_PX
from inkbatch.testing.faults import preempted_context
from inkbatch.testing.segments import identity_bundle, write_layers
from inkbatch.view.scene import Scene

SHAPE = (5, 128, 192)
CONTRASTS = (80.0, 5.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A grey segment, and two bundles that show its middle layer."""
    place = tmp_path_factory.mktemp("control")
    grey = np.random.default_rng(0).integers(90, 110, SHAPE).astype(np.uint8)
    source = write_layers(place / "layers", grey)
    stated = {"source": str(source), "depth_order": "forward", "voxel_size_um": 8.0, "shard_px": 64}
    prepare.run(PrepareConfig(segment="page", root=str(place / "root"), **stated), RunContext())
    for name, stride in (("a", 8), ("b", 16)):
        identity_bundle(place / name, 3, 1, stride_px=stride)
    return place


def config(folder: Path, name: str, **changes) -> SweepConfig:
    bundles = [{"bundle": str(folder / one), "name": one} for one in ("a", "b")]
    values = {"segment": "page", "root": str(folder / "root"), "bundles": bundles, "name": name, "unit_px": 64}
    values |= {"depths": "-1:2", "device": "cpu", "window_mm": 0.5, "control": CONTRASTS, "control_windows": 3}
    return SweepConfig.checked({**values, **changes}, "test")


def document(folder: Path, name: str) -> dict:
    return json.loads((folder / f"root/sweeps/page/{name}/sweep.json").read_text())


@pytest.fixture(scope="module")
def whole(folder) -> Location:
    """A sweep with all its parts."""
    report = run(config(folder, "whole"), RunContext())
    assert report.complete
    return report.location


def test_planted_ink_is_louder_the_more_contrast_it_has(folder, whole):
    evidence = document(folder, "whole")["evidence"]
    assert [row["contrast"] for row in evidence["control"]] == list(CONTRASTS)
    assert [row["windows"] for row in evidence["control"]] == [3, 3]
    places = (folder / "root/sweeps/page/whole/control/profiles").iterdir()
    profiles = [json.loads(place.read_text())["profiles"] for place in places]
    assert len(profiles) == 3
    for row in profiles:
        assert max(row["80"]["forward"]) > 4 * max(row["5"]["forward"]) > 0
    assert len(evidence["at"]) == len(evidence["q"]) == 6
    assert sorted(evidence["rank"]) == [1, 2, 3, 4, 5, 6]
    assert evidence["sentence"].startswith("Nothing can be called: ")


def test_shards_and_kills_change_nothing(folder, whole):
    asked = config(folder, "cut")
    with pytest.raises(Preempted):
        run(asked, preempted_context(7))
    for index in (1, 0, 1):
        report = run(asked, RunContext(ShardSpec(index, 2)))
    assert report.complete
    assert document(folder, "cut") == document(folder, "whole")


def test_lost_measures_of_the_control_are_made_again(folder, whole):
    place = whole / "control/profiles"
    lost = place.names()
    before = {name: (place / name).read_bytes() for name in lost}
    for name in lost[1:]:
        (place / name).delete()
    assert len(verify(whole.uri).faults) == len(lost) - 1
    assert run(config(folder, "whole"), RunContext()).complete
    assert {name: (place / name).read_bytes() for name in place.names()} == before
    assert verify(whole.uri).faults == []


def test_evidence_takes_the_counts_of_every_unit_whatever_a_listing_shows(folder, whole, monkeypatch):
    stored = sorted((whole / "maps/counts").names())
    monkeypatch.setattr(Location, "names", lambda self: [])
    sweep = StoredSweep.open(str(folder / "root"), "page", "whole")
    assert sorted(place.name for place in sweep.units.values()) == stored
    assert (128, 64) not in sweep.units
    assert len(stored) == 6


def test_without_a_control_the_sentence_says_so(folder):
    """With it a region that is known to be blank, end to end."""
    run(config(folder, "bare", control_windows=0, nulls=(), blank=[[0, 0, 64, 192]]), RunContext())
    evidence = document(folder, "bare")["evidence"]
    assert evidence["blank"]["series"] == "forward"
    assert evidence["blank"]["cm2"] == pytest.approx(64 * 192 * (8e-4) ** 2, rel=1e-2)
    assert len(evidence["blank"]["marks"]) == 3
    assert evidence["control"] == []
    assert evidence["called"] == 0
    (rows,) = (part.rows for part in parts_of(folder, "bare") if isinstance(part, Table) and "no ink" in part.caption)
    assert [row[1] for row in rows] == [str(marks) for marks in evidence["blank"]["marks"]]
    assert not (folder / "root/sweeps/page/bare/control").exists()


def test_ink_is_planted_in_half_of_the_windows_at_most(folder):
    assert len(control_units(make_plan(config(folder, "most", control_windows=16)))) == 3


def test_called_windows_in_a_rough_layer_have_a_warning(folder, whole):
    told = document(folder, "whole")
    assert told["layer_contrast"]["layers"] == [0, 5]
    assert told["layer_contrast"]["blocks"] == 6
    assert told["layer_contrast"]["contrast"] == pytest.approx([20 / 12**0.5] * 5, rel=0.05)
    evidence, flat = {**told["evidence"], "called": 6, "q": [0.0] * 6}, [5.0] * 9
    rough = {"layers": [-2, 7], "contrast": [*flat[:4], 10.0, *flat[5:]]}
    asked = {**told, "evidence": evidence}
    assert "2.0 times the contrast" in (rough_layer({**asked, "layer_contrast": rough}) or "")
    assert rough_layer({**asked, "layer_contrast": {**rough, "contrast": flat}}) is None
    assert rough_layer({**told, "layer_contrast": rough}) is None  # nothing is called


def parts_of(folder: Path, name: str) -> list[Element]:
    found = page(open_run(str(folder / "root/sweeps/page" / name)), Location.parse(folder / "root"))
    return [part for one in found.sections for part in one.parts]


def gallery_of(place: Location, root: Path) -> Gallery:
    found = page(open_run(place.uri), Location.parse(root))
    (gallery,) = (part for one in found.sections for part in one.parts if isinstance(part, Gallery))
    return gallery


def test_the_page_shows_every_window_as_papyrus_z_null_and_depth_with_a_link_into_the_viewer(folder, whole):
    gallery = gallery_of(whole, folder / "root")
    first = document(folder, "whole")["evidence"]["rank"].index(1)
    y0, x0, y1, x1 = document(folder, "whole")["evidence"]["at"][first]
    picture = gallery.parts[0]
    assert picture.pixels.shape == (PANEL_PX, 4 * PANEL_PX + 3 * GAP_PX, 3)
    series = document(folder, "whole")["evidence"]["direction"][first]
    for words in ("papyrus, layer ", f"z of {series}, z of ", "best depth"):
        assert words in picture.caption
    address, _, state = picture.link.href.partition("#")
    assert address == f"http://localhost:{VIEWER_PORT}/"
    said = dict(parse_qsl(state))
    assert (said["seg"], said["r"]) == ("page", f"{y0},{x0},{y1},{x1}")
    assert f"papyrus, layer {said['l']}, z of" in picture.caption
    assert (int(said["y"]), int(said["x"])) == ((y0 + y1) // 2, (x0 + x1) // 2)
    (group,) = Scene(["page"], str(folder / "root")).groups
    assert {said["maps"], said["with"]} < set(group.maps)
    known = (Path(view.__file__).parent / "page/state.js").read_text()
    assert all(f': "{key}"' in known for key in said)


def test_the_page_maps_the_ranks_of_several_windows(folder, whole):
    captions = [one.caption for one in parts_of(folder, "whole") if isinstance(one, Picture)]
    assert any(caption.startswith("Rank of every window of ") for caption in captions)


def test_without_its_surface_a_page_shows_the_maps_alone(whole, tmp_path):
    assert "papyrus" not in gallery_of(whole, tmp_path).parts[0].caption


def test_strokes_lie_in_the_same_place_and_layer_at_every_scale(folder):
    """The sheet at half the voxel size, each voxel as eight; strokes are drawn into grey layers of both surfaces."""
    grey = np.full(SHAPE, 100, np.uint8).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    source = write_layers(folder / "layers-finer", grey)
    stated = {"source": str(source), "depth_order": "forward", "voxel_size_um": 4.0, "shard_px": 64}
    prepare.run(PrepareConfig(segment="finer", root=str(folder / "root"), **stated), RunContext())
    identity_bundle(folder / "fine", 3, voxel_size_um=4.0)
    bundles = [{"bundle": str(folder / "a"), "name": "a"}, {"bundle": str(folder / "fine"), "segment": "finer"}]
    plan = make_plan(config(folder, "scales", bundles=bundles, depths="-1:2"))
    (window, *_), found = control_units(plan), []
    for place, surface in enumerate(plan.surfaces):
        read_box, box = surface.read_box(window.write_box), surface.frame.box(window.write_box)
        slab = np.full((len(surface.layers), *read_box.shape), 100, np.uint8)
        ink = planted_layers(plan, place, window.write_box, slab, 80.0).astype(float) - 100
        inside = ink[:, *box.within(read_box)]
        sums = inside.sum(axis=(1, 2))
        brightest = np.flatnonzero(sums == sums.max()) + surface.layers.start
        assert brightest.mean() == (surface.volume.layer_count - 1) / 2
        found.append(inside.max(axis=0))
    here, there = found
    halved = there[: 2 * len(here), : 2 * len(here)].reshape(len(here), 2, -1, 2).mean(axis=(1, 3))
    assert np.corrcoef(here.ravel(), halved.ravel())[0, 1] > 0.8
    assert 0.05 < (here > 20).mean() < 0.6
