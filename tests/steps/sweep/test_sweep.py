"""sweep: what NumPy makes of the single maps, to the bit, however it is cut; read once; refusals by name."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from inkbatch.data.maps.series import Series, series_of
from inkbatch.data.maps.sweep import (
    BEST,
    BEST_DEPTH,
    BLOCK_PX,
    DEPTHS,
    DEVIATION,
    MAXIMUM,
    MEAN,
    StoredSweep,
    Z,
    stretch_of,
)
from inkbatch.errors import ConfigError, DataError, LayerRangeError, MismatchError, Preempted
from inkbatch.geometry import Box
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.prediction import Prediction
from inkbatch.io.surface import SurfaceVolume
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import RunContext
from inkbatch.steps.infer import job as infer
from inkbatch.steps.prepare import job as prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.steps.stored_preflight import StoredPreflight
from inkbatch.steps.sweep.describe import describe
from inkbatch.steps.sweep.job import run
from inkbatch.steps.sweep.plan import make_plan
from inkbatch.steps.sweep.settings import SweepConfig
from inkbatch.testing.faults import preempted_context, stored_bytes
from inkbatch.testing.segments import identity_bundle, network_bundle, random_papyrus, write_layers
from inkbatch.view.scene import Scene
from inkbatch.view.viewer import Viewer

SHAPE = (7, 70, 100)
FIRST = 2  # layer that both bundles begin with at depth 0
DEPTHS_ASKED = (-1, 0, 1)
COUNT = 3  # layers of both bundles
UNIT_PX = 64
SERIES = series_of("both", ("shuffled", "repeated"))
BUNDLES = ("tiny-identity", "tiny-smp")


@dataclass(frozen=True)
class Swept:
    """A segment, two bundles, and the finished sweep of both."""

    folder: Path
    layers: np.ndarray
    sweep: StoredSweep
    report: object

    @property
    def root(self) -> str:
        return str(self.folder / "root")


def prepared(folder: Path, segment: str, layers: np.ndarray, voxel_size_um: float = 8.0) -> None:
    source = write_layers(folder / f"layers-{segment}", layers)
    stated = {"depth_order": "forward", "voxel_size_um": voxel_size_um, "shard_px": UNIT_PX}
    prepare.run(PrepareConfig(segment=segment, root=str(folder / "root"), source=str(source), **stated), RunContext())


def config_for(folder: Path, **changes) -> SweepConfig:
    values = {"segment": "page", "root": str(folder / "root"), "depths": "-1:2", "unit_px": UNIT_PX, "device": "cpu"}
    bundles = [str(folder / "identity"), str(folder / "network")]
    return SweepConfig.checked({**values, "bundles": bundles, **changes}, "test")


def opened(folder: Path, name: str = "sweep") -> StoredSweep:
    return StoredSweep.open(str(folder / "root"), "page", name)


def read(pyramid: Multiscale) -> np.ndarray:
    return pyramid.levels[0].read(tuple(slice(0, size) for size in pyramid.shape))


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Swept:
    folder = tmp_path_factory.mktemp("sweep")
    layers = random_papyrus(SHAPE)
    prepared(folder, "page", layers)
    identity_bundle(folder / "identity", COUNT)
    network_bundle(folder / "network", COUNT)
    report = run(config_for(folder, keep_depths=True), RunContext())
    return Swept(folder, layers, opened(folder), report)


@pytest.fixture(scope="module")
def single_maps(swept) -> dict[tuple[str, str], np.ndarray]:
    """The maps of `infer`, one by one, of a surface that holds every window of a series side by side."""
    orders = [series.order(COUNT, segment="page", seed=0) for series in SERIES]
    windows = [swept.layers[FIRST + depth :][order] for order in orders for depth in DEPTHS_ASKED]
    prepared(swept.folder, "windows", np.concatenate(windows))
    groups = tuple((COUNT * place, COUNT * (place + 1)) for place in range(len(windows)))
    found = {}
    for name, bundle in zip(BUNDLES, ("identity", "network"), strict=True):
        asked = {"segment": "windows", "root": swept.root, "bundle": str(swept.folder / bundle), "device": "cpu"}
        asked |= {"layer_groups": groups, "store_windows": True, "unit_px": 128}
        report = infer.run(infer.InferConfig(**asked), RunContext())
        maps = [Prediction.open(one).read(Box(0, 0, *SHAPE[1:])) for one in (report.location, *report.beside)]
        for place, series in enumerate(SERIES):
            found[name, series.name] = np.stack(maps[place * len(DEPTHS_ASKED) :][: len(DEPTHS_ASKED)])
    return found


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("series", [one.name for one in SERIES])
def test_statistics_are_those_of_the_maps_that_infer_stores(swept, single_maps, bundle, series):
    maps = single_maps[bundle, series].astype(np.float32)
    stored = {name: read(swept.sweep.bundle_map(bundle, series, name)) for name in (MEAN, DEVIATION, BEST, BEST_DEPTH)}
    steps, number = maps - maps[0], np.float32(len(maps))
    total, squares = np.zeros(SHAPE[1:], np.float32), np.zeros(SHAPE[1:], np.float32)
    for step in steps[1:]:
        total += step
        squares += step * step
    shift = total / number
    np.testing.assert_array_equal(stored[MEAN], (maps[0] + shift).astype(np.float16))
    spread = np.sqrt(np.maximum(squares / number - shift * shift, 0)).astype(np.float16)
    np.testing.assert_array_equal(stored[DEVIATION], spread)
    np.testing.assert_array_equal(stored[BEST], maps.max(axis=0).astype(np.float16))
    count = read(swept.sweep.count(bundle))
    np.testing.assert_array_equal(stored[BEST_DEPTH], np.where(count > 0, 1 + maps.argmax(axis=0), 0))
    exact = maps.astype(np.float64)
    np.testing.assert_allclose(stored[MEAN], exact.mean(axis=0), atol=2.0**-12)
    np.testing.assert_allclose(stored[DEVIATION], exact.std(axis=0), atol=2.0**-10)
    kept = read(swept.sweep.bundle_map(bundle, series, DEPTHS))
    np.testing.assert_array_equal(kept, np.rint(maps * 255).astype(np.uint8))


def test_pixels_on_papyrus_count_every_depth(swept):
    papyrus = swept.layers.any(axis=0)
    for bundle in BUNDLES:
        np.testing.assert_array_equal(read(swept.sweep.count(bundle)), papyrus * len(DEPTHS_ASKED))


@pytest.mark.parametrize("series", [one.name for one in SERIES])
def test_z_values_are_the_mean_over_depths_and_bundles_by_one_stretch_per_bundle(swept, single_maps, series):
    papyrus, z, loudest = swept.layers.any(axis=0), [], []
    for bundle in BUNDLES:
        real = np.stack([single_maps[bundle, name] for name in ("forward", "reversed")]).astype(np.float64)
        mean, deviation = real[..., papyrus].mean(), real[..., papyrus].std()
        stretch = swept.sweep.stretch(bundle)
        assert stretch.values == real[..., papyrus].size
        np.testing.assert_allclose((stretch.mean, stretch.deviation), (mean, deviation), rtol=1e-9)
        stored = read(swept.sweep.bundle_map(bundle, series, MEAN)).astype(np.float32)
        z.append((stored - np.float32(stretch.mean)) / np.float32(stretch.deviation))
        exact = ((single_maps[bundle, series] - mean) / deviation).mean(axis=0)
        np.testing.assert_allclose(z[-1][papyrus], exact[papyrus], atol=0.01)
        loudest.append((single_maps[bundle, series].max(axis=0) - mean) / deviation)
    wanted = np.where(papyrus, (z[0] + z[1]) / np.float32(2), 0).astype(np.float16)
    np.testing.assert_array_equal(read(swept.sweep.map(series, Z)), wanted)
    bests = [read(swept.sweep.bundle_map(bundle, series, BEST)) for bundle in BUNDLES]
    np.testing.assert_array_equal(read(swept.sweep.map(series, MAXIMUM)), np.maximum(*bests))
    places = [read(swept.sweep.bundle_map(bundle, series, BEST_DEPTH)) for bundle in BUNDLES]
    sure = papyrus & (np.abs(loudest[1] - loudest[0]) > 0.01)
    best = read(swept.sweep.map(series, BEST_DEPTH))
    np.testing.assert_array_equal(best[sure], np.where(loudest[1] > loudest[0], places[1], places[0])[sure])
    means = [read(swept.sweep.bundle_map(bundle, series, MEAN)).astype(np.float32) for bundle in BUNDLES]
    np.testing.assert_array_equal(
        read(swept.sweep.map(series, MEAN)), ((means[0] + means[1]) / np.float32(2)).astype(np.float16)
    )


def test_profiles_of_blocks_are_means_at_every_depth(swept, single_maps):
    papyrus = swept.layers.any(axis=0)
    for bundle, series in (("tiny-identity", "forward"), ("tiny-smp", "repeated")):
        found, pixels = swept.sweep.block_profiles(bundle, series)
        assert found.shape == (3, 2, 2)
        assert pixels.sum() == papyrus.sum()
        for y in range(2):
            for x in range(2):
                where = np.s_[y * BLOCK_PX : (y + 1) * BLOCK_PX, x * BLOCK_PX : (x + 1) * BLOCK_PX]
                inside = papyrus[where]
                block = single_maps[bundle, series][:, *where][:, inside].astype(np.float64)
                wanted = block.mean(axis=1) if inside.any() else np.zeros(3)
                np.testing.assert_allclose(found[:, y, x], wanted, atol=1e-12)
        row = swept.sweep.document["bundles"][BUNDLES.index(bundle)]["series"][series]
        whole = single_maps[bundle, series][:, papyrus].astype(np.float64)
        np.testing.assert_allclose(row["profile"], whole.mean(axis=1), atol=1e-12)
        assert swept.sweep.histogram(bundle, series).sum() == whole.size


def maps_of(sweep: StoredSweep) -> dict[str, np.ndarray]:
    places = {f"{one}/{name}": sweep.map(one, name) for one in sweep.series for name in (Z, MEAN, MAXIMUM, BEST_DEPTH)}
    for bundle in sweep.bundles:
        places |= {
            f"{bundle}/{one}/{name}": sweep.bundle_map(bundle, one, name)
            for one in sweep.series
            for name in (MEAN, DEVIATION, BEST, BEST_DEPTH)
        }
    return {key: read(place) for key, place in places.items()}


def test_cutting_into_units_changes_nothing(swept):
    run(config_for(swept.folder, unit_px=128, name="one-unit"), RunContext())
    cut = opened(swept.folder, "one-unit")
    for key in ("bundles", "agreement"):
        assert cut.document[key] == swept.sweep.document[key]
    one, other = maps_of(swept.sweep), maps_of(cut)
    for key, values in one.items():
        np.testing.assert_array_equal(values, other[key], err_msg=key)


def test_agreement_is_the_correlation_of_the_bundles_means(swept):
    papyrus = swept.layers.any(axis=0)
    for series in swept.sweep.series:
        means = [read(swept.sweep.bundle_map(one, series, MEAN))[papyrus].astype(np.float64) for one in BUNDLES]
        np.testing.assert_allclose(swept.sweep.document["agreement"][series], np.corrcoef(means), atol=2e-3)


def test_shards_in_any_order_store_the_bytes_of_a_whole_run(swept):
    asked = config_for(swept.folder, phases=2, name="whole")
    whole = stored_bytes(run(asked, RunContext()).location.path)
    sharded = config_for(swept.folder, phases=2, name="whole", output_root=str(swept.folder / "sharded"))
    reports = [run(sharded, RunContext(ShardSpec(index, 4))) for index in (2, 0, 3, 1)]
    assert [report.complete for report in reports] == [False, False, False, True]
    assert stored_bytes(reports[-1].location.path) == whole


@pytest.mark.parametrize("after", [1, 3, 6])
def test_a_stopped_sweep_goes_on_and_gives_the_same_bytes(swept, after, tmp_path, no_overlap):
    asked = config_for(swept.folder, keep_depths=True, output_root=str(tmp_path))
    with pytest.raises(Preempted):
        run(asked, preempted_context(after))
    report = run(asked, RunContext())
    assert report.complete
    assert stored_bytes(report.location.path) == stored_bytes(swept.report.location.path)


# A command line of inkbatch that kills itself right before one of its writes.
KILLED_AT_A_WRITE = """
import sys
from inkbatch.testing.killing import Blow, Writes
writes = Writes({root!r}, Blow({kind!r}, {number}))
from inkbatch.cli.app import main
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_process_killed_in_either_stage_goes_on_and_gives_the_same_bytes(swept, tmp_path):
    shutil.copytree(swept.folder / "root/segments", tmp_path / "segments")
    arguments = ["sweep", "page", "--root", str(tmp_path), "--depths=-1:2", "--keep-depths", "--device", "cpu"]
    arguments += ["--set", f"unit_px={UNIT_PX}"]
    arguments += [word for name in ("identity", "network") for word in ("--bundle", str(swept.folder / name))]
    folder = tmp_path / "sweeps/page/sweep"
    blows = {
        "link sweeps/page/sweep/maps/tiny-smp/reversed/deviation.zarr/#/c/#/#": 3,
        "link sweeps/page/sweep/reversed/z.zarr/#/c/#/#": 2,
        "link sweeps/page/sweep/sweep.json": 1,
    }
    finished = []
    for kind, number in blows.items():
        program = KILLED_AT_A_WRITE.format(root=str(tmp_path), kind=kind, number=number)
        killed = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        finished.append([len(list(folder.glob(f"{stage}done/*.json"))) for stage in ("maps/", "")])
    assert finished[0][0] < 4 == finished[1][0]  # units of the first stage: killed in it, and after it
    assert finished == sorted(finished)
    assert finished[-1] == [4, 4]
    assert not (folder / "complete.json").exists()
    again = subprocess.run([sys.executable, "-m", "inkbatch", *arguments], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert stored_bytes(folder) == stored_bytes(swept.report.location.path)


def test_layers_of_a_unit_are_read_once_for_everything(swept, monkeypatch, tmp_path):
    boxes, read_layers = [], SurfaceVolume.read

    def counted(self, layers, box):
        boxes.append((layers, box))
        return read_layers(self, layers, box)

    monkeypatch.setattr(SurfaceVolume, "read", counted)
    asked = config_for(swept.folder, phases=2, output_root=str(tmp_path))
    run(asked, RunContext())
    plan = make_plan(asked)
    (surface,) = plan.surfaces
    assert surface.layers == range(1, 6)
    wanted = [surface.read_box(unit.write_box) for unit in plan.units]
    papyrus = swept.layers.any(axis=0)
    wanted = [box for box in wanted if papyrus[box.intersect(Box(0, 0, *SHAPE[1:])).slices].any()]
    of_units = [(layers, box) for layers, box in boxes if box.area and len(layers) > 1]  # the page shows one layer
    assert sorted(box for _, box in of_units) == sorted(wanted)
    assert {layers for layers, _ in of_units} == {surface.layers}


def test_two_phases_are_all_tiles_of_both_grids_in_one_weighted_mean(swept):
    """A plain reading: every tile by itself, added up in float64."""
    import torch

    from inkbatch.models.bundle import Bundle, bundle_location
    from inkbatch.predict.normalise import normalise
    from inkbatch.predict.windows import window_of

    run(config_for(swept.folder, phases=2, name="phases", directions="forward", nulls=()), RunContext())
    stored = read(opened(swept.folder, "phases").bundle_map("tiny-smp", "forward", MEAN))
    bundle = Bundle.open(bundle_location(str(swept.folder / "network")))
    contract, model = bundle.contract, bundle.build()
    papyrus, weights = swept.layers.any(axis=0), window_of(contract).full.astype(np.float64)
    tile, stride, maps = contract.tile_px, contract.stride_px, []
    for depth in DEPTHS_ASKED:
        total, divisor = np.zeros(SHAPE[1:]), np.zeros(SHAPE[1:])
        for shift in (0, stride // 2):
            rows, columns = (sorted({*range(shift, length - tile + 1, stride), length - tile}) for length in SHAPE[1:])
            for y in rows:
                for x in columns:
                    where = np.s_[y : y + tile, x : x + tile]
                    if papyrus[where].any():
                        layers = torch.from_numpy(swept.layers[FIRST + depth : FIRST + depth + COUNT, *where].copy())
                        with torch.inference_mode():
                            found = model(normalise(layers, contract)[None, None]).sigmoid()
                        found = torch.nn.functional.interpolate(found, size=(tile, tile), mode="bilinear")
                        total[where] += weights * found[0, 0].numpy()
                        divisor[where] += weights
        maps.append(np.where(papyrus, total / np.maximum(divisor, 1e-30), 0))
    np.testing.assert_allclose(stored, np.mean(maps, axis=0), atol=1e-3)
    plain = read(swept.sweep.bundle_map("tiny-smp", "forward", MEAN))
    assert np.abs(stored.astype(np.float32) - plain)[papyrus].max() > 5e-3  # another phase says something else


def test_the_plan_counts_what_the_sweep_does(swept):
    asked = config_for(swept.folder, phases=2, name="counted")
    text = describe(asked)
    report = run(asked, RunContext())
    plan = make_plan(asked)
    passes = sum(plan.maps_record.marker(unit)["tile_passes"] for unit in plan.units)
    assert f"{passes:,} passes of a tile to do" in text
    assert "60 readings" in text  # two bundles, three depths, five series, two phases
    assert report.complete
    assert "nothing left to do" in describe(asked)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"depths": "-3:2"}, LayerRangeError, r"expected depths inside -2:3 .* got -3:2; pass --depths=-2:3"),
        ({"depths": "0:5"}, LayerRangeError, "got 0:5"),
        ({"depths": "3:1"}, ConfigError, "expected START:STOP"),
        ({"depths": "0:300"}, ConfigError, "at most 255 depths"),
        ({"phases": 6}, ConfigError, "at most the stride's 5"),
        ({"unit_px": 32}, ConfigError, "power of two of at least 64"),
        ({"nulls": ["mirrored"]}, ConfigError, "shuffled"),
    ],
)
def test_what_cannot_be_swept_is_refused_in_words(swept, changes, error, words):
    with pytest.raises(error, match=words):
        make_plan(config_for(swept.folder, **changes))


def test_bundles_of_one_name_need_names(swept):
    twice = [str(swept.folder / "identity")] * 2
    with pytest.raises(ConfigError, match="two of them are named tiny-identity"):
        make_plan(config_for(swept.folder, bundles=twice))
    named = [{"bundle": twice[0], "name": name} for name in ("a", "b")]
    assert [member.name for member in make_plan(config_for(swept.folder, bundles=named)).members] == ["a", "b"]
    with pytest.raises(ConfigError, match="done is the name of another folder"):
        make_plan(config_for(swept.folder, bundles=[{"bundle": twice[0], "name": "done"}]))


def test_a_stretch_is_exact_whatever_the_order():
    values = np.random.default_rng(0).random(10_000).astype(np.float16)
    histogram = np.bincount(values.view(np.uint16), minlength=15361)
    found = stretch_of(histogram)
    wanted = values.astype(np.float64)
    np.testing.assert_allclose((found.mean, found.deviation), (wanted.mean(), wanted.std()), rtol=1e-12)
    assert found.values == 10_000
    assert stretch_of(np.bincount([0x3800], minlength=15361)).deviation == 0
    assert stretch_of(np.zeros(15361, np.int64)).values == 0


def test_sweep_json_holds_what_was_asked(swept):
    document = json.loads((Path(swept.report.location.path) / "sweep.json").read_text())
    assert document["depths"] == list(DEPTHS_ASKED)
    assert document["series"][2] == {"name": "forward-shuffled", "direction": "forward", "null": "shuffled"}
    assert swept.sweep.null_of("reversed", "shuffled") == "reversed-shuffled"
    assert swept.sweep.null_of("reversed", "repeated") == Series(null="repeated").name


@pytest.fixture(scope="module")
def finer(swept) -> str:
    """The same sheet at half the voxel size, each voxel as eight."""
    layers = swept.layers.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    prepared(swept.folder, "finer", layers, voxel_size_um=4.0)
    identity_bundle(swept.folder / "fine", COUNT, voxel_size_um=4.0)
    return "finer"


def both_scales(swept, finer, **changes) -> SweepConfig:
    bundles = [str(swept.folder / "identity"), {"bundle": str(swept.folder / "fine"), "name": "fine", "segment": finer}]
    return config_for(swept.folder, bundles=bundles, nulls=["shuffled"], **changes)


def test_a_bundle_of_another_scale_reads_its_own_surface_and_is_brought_here(swept, finer, monkeypatch):
    boxes, read_layers = [], SurfaceVolume.read

    def counted(self, layers, box):
        boxes.append((self.provenance.segment, box))
        return read_layers(self, layers, box)

    monkeypatch.setattr(SurfaceVolume, "read", counted)
    run(both_scales(swept, finer, name="scales"), RunContext())
    assert len([box for _, box in boxes if box.area]) == len({box for box in boxes if box[1].area})
    assert {segment for segment, _ in boxes} == {"page", "finer"}
    found = opened(swept.folder, "scales")
    for series in ("forward", "reversed"):
        here, there = (read(found.bundle_map(name, series, MEAN)) for name in ("tiny-identity", "fine"))
        np.testing.assert_allclose(there.astype(np.float32), here.astype(np.float32), atol=2e-3)
        best = [read(found.bundle_map(name, series, BEST_DEPTH)) for name in ("tiny-identity", "fine")]
        assert (best[0] != best[1]).mean() < 0.02  # values that differ by rounding alone
    run(both_scales(swept, finer, name="scales-cut", unit_px=128), RunContext())
    one, other = maps_of(found), maps_of(opened(swept.folder, "scales-cut"))
    for key, values in one.items():
        np.testing.assert_array_equal(values, other[key], err_msg=key)
    assert "of segment finer" in describe(both_scales(swept, finer))


def test_a_surface_of_another_sheet_is_refused(swept, finer):
    prepared(swept.folder, "other", random_papyrus((7, 60, 90)), voxel_size_um=4.0)
    with pytest.raises(MismatchError, match=r"expected the sheet of page at 4 µm, 140 × 200 px .* got 60 × 90 px"):
        make_plan(both_scales(swept, "other"))


def test_a_preflight_leaves_out_what_cannot_be_read_and_warns_of_the_rest(swept, monkeypatch, tmp_path):
    words = ("fine", "outside", "blank", "no sheet")
    document = {"tiles": {**dict.fromkeys(words, 0), "blank": 1}}
    found = StoredPreflight(words, np.array([[2]], np.uint8), document, {"name": "p"})
    monkeypatch.setattr("inkbatch.steps.sweep.plan.stored_preflight", lambda *_: found)
    masked = config_for(swept.folder, preflight="mask", output_root=str(tmp_path))
    assert "preflight     of 1 tiles 1 blank" in describe(masked)
    assert make_plan(masked).manifest.config["preflight"] == {"name": "p"}
    with pytest.raises(DataError, match="no tile holds papyrus"):
        run(masked, RunContext())
    warned = make_plan(config_for(swept.folder, preflight="warn", name="warned"))
    assert warned.read_mask(Box(0, 0, 10, 10)).all()
    assert "preflight" not in warned.manifest.config


def test_the_viewer_shows_z_values_and_best_depths_as_maps_of_the_segment(swept):
    viewer = Viewer(Scene(["page"], swept.root))
    (group,) = json.loads(viewer.scene().body)["groups"]
    names = [one["name"] for one in group["maps"] if one["name"].startswith("sweep-")]
    ways, kinds = ("forward", "reversed"), ("z", "best-depth", "shuffled-z")
    assert {f"sweep-{way}-{kind}" for way in ways for kind in kinds} | {"sweep-repeated-z"} == set(names)
    scales = {one["name"]: one["scale"] for one in group["maps"]}
    assert scales["sweep-forward-shuffled-z"] == {"low": -1.0, "high": 4.0, "unit": "z"}
    assert scales["sweep-forward-best-depth"] == {"low": -1, "high": 1, "unit": "layers"}
    stored = read(swept.sweep.map("forward", Z)), read(swept.sweep.map("forward", BEST_DEPTH))
    assert viewer.tile(0, "map", 0, 0, 0, "maps=sweep-forward-z").kind == "image/png"
    for y, x in ((10, 12), (60, 70)):
        asked = f"y={y}&x={x}&maps=sweep-forward-z,sweep-forward-best-depth"
        found = json.loads(viewer.about("value", 0, asked).body)["maps"]
        assert found["sweep-forward-z"] == pytest.approx(float(stored[0][y, x]), abs=0.006)
        assert found["sweep-forward-best-depth"] == DEPTHS_ASKED[stored[1][y, x] - 1]
    outside = json.loads(viewer.about("value", 0, "y=10&x=95&maps=sweep-forward-z,sweep-forward-best-depth").body)
    assert set(outside["maps"].values()) == {None}


def test_maps_that_vanished_are_made_again_and_the_rest_is_kept(swept, tmp_path):
    asked = config_for(swept.folder, keep_depths=True, output_root=str(tmp_path))
    folder = tmp_path / "sweeps/page/sweep"
    shutil.copytree(swept.report.location.path, folder)
    lost = folder / "maps/tiny-smp/reversed/mean.zarr/0/c/1/1"
    before = lost.stat().st_mtime_ns
    lost.unlink()
    assert run(asked, RunContext()).complete
    assert lost.stat().st_mtime_ns != before
    assert stored_bytes(folder) == stored_bytes(swept.report.location.path)
