"""infer with views and windows: shards, stops and kills change no byte; what is stored says what was combined."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from inkbatch.errors import ConfigError, LayerRangeError, MismatchError, Preempted
from inkbatch.geometry import Box
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume
from inkbatch.models.bundle import TTA_AXES
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import RunContext
from inkbatch.run.record import require_complete
from inkbatch.steps.infer.job import InferConfig, run
from inkbatch.steps.infer.plan import make_plan
from inkbatch.testing.faults import KILLED_WHILE_STORING, preempted_context, stored_bytes
from inkbatch.testing.segments import identity_bundle, network_bundle

VARIANTS = {"tta": ("turn-90", "flip-x"), "layer_starts": (0, 3)}


def config_for(segment, bundle, **changes) -> InferConfig:
    values = {"segment": segment.segment, "root": str(segment.root), "bundle": str(bundle), "device": "cpu"}
    return InferConfig(**{**values, "unit_px": 64, **changes})


def read_map(location) -> np.ndarray:
    prediction = Prediction.open(Location.parse(str(location)))
    return prediction.read(Box(0, 0, *prediction.shape_yx)).astype(np.float32)


def predictions(segment) -> Path:
    return segment.root / "predictions" / segment.segment


def maps_stored(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in stored_bytes(folder).items() if "/c/" in name}


@pytest.fixture
def network(tmp_path):
    network_bundle(tmp_path / "network", tta_axes=TTA_AXES)
    return tmp_path / "network"


@pytest.fixture(params=["identity", "network"])
def any_bundle(request, tmp_path):
    make = identity_bundle if request.param == "identity" else network_bundle
    make(tmp_path / request.param, tta_axes=TTA_AXES)
    return tmp_path / request.param


@pytest.mark.parametrize("combine", ["mean", "max"])
def test_identity_with_every_view_stores_the_bytes_of_the_plain_map(tiny_segment, tmp_path, combine):
    identity_bundle(tmp_path / "b", tta_axes=TTA_AXES)
    run(config_for(tiny_segment, tmp_path / "b", name="plain"), RunContext())
    run(config_for(tiny_segment, tmp_path / "b", name="turned", tta=("allowed",), combine=combine), RunContext())
    plain, turned = (maps_stored(predictions(tiny_segment) / name) for name in ("plain", "turned"))
    assert plain == turned != {}


def test_cutting_and_sharding_change_no_pixel(tiny_segment, any_bundle):
    whole = run(config_for(tiny_segment, any_bundle, unit_px=256, name="whole", **VARIANTS), RunContext())
    config = config_for(tiny_segment, any_bundle, name="cut", **VARIANTS)
    reports = [run(config, RunContext(shard=ShardSpec(index, 3))) for index in (2, 0, 1)]
    assert [report.complete for report in reports] == [False, False, True]
    np.testing.assert_array_equal(read_map(whole.location), read_map(reports[0].location))


def results(stored, clocks):
    """Read what a run stored, but its clocks and the request, which lies outside the manifest's digest."""
    manifest = {key: value for key, value in json.loads(stored["manifest.json"]).items() if key != "request"}
    kept = {name: data for name, data in stored.items() if name not in clocks and name != "manifest.json"}
    return {**kept, "manifest.json": manifest}


def test_a_window_stored_with_others_is_the_prediction_of_a_job_of_its_own_to_the_byte(tiny_segment, network):
    config = config_for(tiny_segment, network, store_windows=True, name="net", tta=("turns",), layer_starts=(0, 3, 2))
    reports = [run(config, RunContext(shard=ShardSpec(index, 2))) for index in (1, 0)]
    assert [location.name for location in (reports[1].location, *reports[1].beside)] == [
        "net-layers0-3-tta-90-180-270",
        "net-layers2-5-tta-90-180-270",
    ]
    for start in (0, 2):
        folder = predictions(tiny_segment) / f"net-layers{start}-{start + 3}-tta-90-180-270"
        together = stored_bytes(folder)
        require_complete(Location.parse(str(folder)), "window", "run it")
        for path in sorted(folder.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        run(
            config_for(tiny_segment, network, layers=(start, start + 3), name=folder.name, tta=("turns",)), RunContext()
        )
        alone = stored_bytes(folder)
        clocks = {name for name in {*together, *alone} if name.split("/")[-1].startswith("run")}
        assert results(together, clocks) == results(alone, clocks)


@pytest.mark.parametrize("combine", ["mean", "max"])
def test_combined_windows_are_the_mean_or_maximum_of_the_stored_ones(tiny_segment, network, combine):
    each = run(config_for(tiny_segment, network, name="e", layer_starts=(0, 3), store_windows=True), RunContext())
    maps = [read_map(location) for location in (each.location, *each.beside)]
    assert len(maps) == 3
    assert np.abs(maps[0] - maps[1]).max() > 1e-3
    one = run(config_for(tiny_segment, network, name="o", layer_starts=(0, 3), combine=combine), RunContext())
    expected = np.max(maps, axis=0) if combine == "max" else np.mean(maps, axis=0)
    np.testing.assert_allclose(read_map(one.location), expected, atol=6e-4)  # float16, rounded twice


def test_windows_run_in_the_order_that_the_bundle_was_trained_on(tiny_segment, tmp_path):
    identity_bundle(tmp_path / "flipped", layer=0, depth_order="reversed")
    config = config_for(tiny_segment, tmp_path / "flipped", name="f", layer_groups=((0, 3), (2, 5)), store_windows=True)
    report = run(config, RunContext())
    for location, layer in zip((report.location, *report.beside), (2, 4), strict=True):
        np.testing.assert_allclose(read_map(location), tiny_segment.layers[layer] / 255, atol=5e-4)


def test_layers_are_read_once_for_all_variants_of_a_unit(tiny_segment, network, monkeypatch):
    reads = []
    read = SurfaceVolume.read

    def counted(self, layers, box):
        reads.append((layers, box))
        return read(self, layers, box)

    monkeypatch.setattr(SurfaceVolume, "read", counted)
    report = run(config_for(tiny_segment, network, layer_starts=(0, 3), tta=("allowed",)), RunContext())
    boxes = [box for _, box in reads]
    assert len(boxes) == len(set(boxes)) <= report.units
    assert {layers for layers, _ in reads} == {range(0, 5)}
    assert report.facts["tile_passes"] == report.facts["tiles"] * 3 * 6


@pytest.mark.parametrize(
    ("after", "stored"),
    [(0, True), (4, False), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((0, False), (4, True)))],
)
def test_a_stopped_job_resumes_with_exactly_what_is_missing(tiny_segment, any_bundle, after, stored):
    a = run(config_for(tiny_segment, any_bundle, name="a", store_windows=stored, **VARIANTS), RunContext())
    config = config_for(tiny_segment, any_bundle, name="b", store_windows=stored, **VARIANTS)
    with pytest.raises(Preempted, match="run the same command again"):
        run(config, preempted_context(after))
    b = run(config, RunContext())
    assert after <= b.skipped <= after + 2
    assert b.stored == b.units - b.skipped
    for first, second in zip((a.location, *a.beside), (b.location, *b.beside), strict=True):
        assert maps_stored(Path(first.path)) == maps_stored(Path(second.path)) != {}


def test_a_job_killed_between_two_windows_of_a_unit_and_started_again_gives_the_same_bytes(tiny_segment, network):
    arguments = ["infer", "tiny", "--root", str(tiny_segment.root), "--bundle", str(network), "--device", "cpu"]
    arguments += ["--set", "unit_px=64", "--layer-groups", "0:3,2:5", "--store-windows", "--tta", "turns", "--name"]
    main = [sys.executable, "-m", "inkbatch", *arguments]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_STORING.format(after=4), *arguments, "k"], capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL
    again = subprocess.run([*main, "k"], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "also · " in again.stdout
    config = config_for(tiny_segment, network, layer_groups=((0, 3), (2, 5)), store_windows=True, tta=("turns",))
    quiet = run(config.model_copy(update={"name": "q"}), RunContext())
    for location in (quiet.location, *quiet.beside):
        folder = Path(location.path)
        assert maps_stored(folder) == maps_stored(folder.with_name(folder.name.replace("q-", "k-"))) != {}


def test_manifest_and_name_say_what_was_combined(tiny_segment, network):
    plain = make_plan(config_for(tiny_segment, network))
    assert "variants" not in plain.manifest.config
    several = make_plan(config_for(tiny_segment, network, combine="max", **VARIANTS))
    assert several.manifest.config["variants"] == {
        "tta": ["flip-x", "turn-90"],
        "combine": "max",
        "layer_groups": [[0, 3], [1, 4], [2, 5]],
    }
    assert several.manifest.config["layers"] == [0, 5]
    name = plain.folder.name
    assert several.folder.name == f"{name}-layers0-3_1-4_2-5-tta-x-90-max"
    assert make_plan(config_for(tiny_segment, network, tta=("turns",))).folder.name == f"{name}-tta-90-180-270"
    each = make_plan(config_for(tiny_segment, network, layer_starts=(0, 3, 2), store_windows=True))
    assert [output.location.name for output in each.outputs] == [f"{name}-layers0-3", f"{name}-layers2-5"]
    with pytest.raises(ConfigError, match="128 are the most"):
        make_plan(config_for(tiny_segment, network, name="n" * 125, layer_starts=(0, 2), store_windows=True))


def test_other_variants_under_the_same_name_are_refused(tiny_segment, bundle_folder):
    run(config_for(tiny_segment, bundle_folder, name="n"), RunContext())
    with pytest.raises(MismatchError, match="variants"):
        run(config_for(tiny_segment, bundle_folder, name="n", layer_starts=(0, 2)), RunContext())


def test_a_view_that_the_bundle_does_not_allow_is_refused_or_recorded(tiny_segment, bundle_folder):
    with pytest.raises(ConfigError, match=r"does not allow turn-90.*--override"):
        make_plan(config_for(tiny_segment, bundle_folder, tta=("turn-90",)))
    allowed = config_for(tiny_segment, bundle_folder, tta=("turn-90",), override={"tta_axes": ["turn-90"]})
    assert make_plan(allowed).manifest.config["override"] == {"tta_axes": ["turn-90"]}


def test_windows_that_leave_the_surface_or_have_another_depth_are_refused(tiny_segment, bundle_folder):
    with pytest.raises(LayerRangeError, match="expected layers inside 0:5 .*, got 3:6"):
        make_plan(config_for(tiny_segment, bundle_folder, layer_starts=(0, 4)))
    with pytest.raises(LayerRangeError, match="the bundle expects 3"):
        make_plan(config_for(tiny_segment, bundle_folder, layer_groups=((0, 3), (1, 5))))
    with pytest.raises(ConfigError, match="0:3 is listed more than once"):
        make_plan(config_for(tiny_segment, bundle_folder, layer_groups=((0, 3), (1, 4), (0, 3))))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layers": [0, 3], "layer_starts": [0, 2]}, "layers and layer_starts"),
        ({"layer_groups": [[0, 3]], "layer_starts": [0, 2]}, "give one of them"),
        ({"layer_starts": [2, 2]}, "half-open"),
        ({"layer_starts": [0, 4, 0]}, "STEP of 1 or more"),
        ({"store_windows": True}, "no windows to store"),
        ({"store_windows": True, "layers": [0, 3]}, "no windows to store"),
        ({"tta": ["turn-45"]}, "turn-270"),
        ({"combine": "median"}, "'mean' or 'max'"),
    ],
)
def test_settings_that_cannot_be_carried_out_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        InferConfig.load(options={"segment": "s", "bundle": "b", **settings})


def cli(tiny_segment, bundle, *arguments):
    command = [sys.executable, "-m", "inkbatch", "infer", "tiny", "--root", str(tiny_segment.root), "--bundle"]
    return subprocess.run([*command, str(bundle), *arguments], capture_output=True, text=True)


def test_a_dry_run_states_what_each_variant_costs(tiny_segment, network):
    before = stored_bytes(tiny_segment.root)
    plain = cli(tiny_segment, network, "--dry-run")
    assert "variants" not in plain.stdout
    result = cli(tiny_segment, network, "--dry-run", "--tta", "turns", "--layer-starts", "0:3:2", "--store-windows")
    assert result.returncode == 0, result.stderr
    rows = [row.strip() for row in result.stdout.splitlines()]

    def row(start: str) -> str:
        return next(row for row in rows if row.startswith(start))

    tiles = int(row("tiles").split()[1].rstrip(","))
    assert "8 forward passes per tile, layers are read once" in row("variants")
    assert f"{4 * tiles} passes of a tile" in row("layers 2:5")
    assert f"{2 * tiles} passes of a tile" in row("view turn-90")
    assert "USD" in row("view as-is")
    assert stored_bytes(tiny_segment.root) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--layer-starts", "2"], "START:STOP:STEP"),
        (["--layer-groups", "0:3,4"], "START:STOP with commas"),
        (["--tta", "turn-90"], "does not allow turn-90"),
    ],
)
def test_the_command_line_refuses_with_64(tiny_segment, bundle_folder, arguments, words):
    result = cli(tiny_segment, bundle_folder, *arguments)
    assert (result.returncode, words in result.stderr) == (64, True), result.stderr


def test_run_json_of_windows_names_those_that_were_made_together(tiny_segment, bundle_folder):
    config = config_for(tiny_segment, bundle_folder, name="w", layer_starts=(0, 2), store_windows=True)
    report = run(config, RunContext())
    assert len(report.beside) == 1
    for location in (report.location, *report.beside):
        row = json.loads((Path(location.path) / "run.json").read_text())
        assert row["made_together"] == ["w-layers0-3", "w-layers1-4"]
        assert row["tile_passes"] == 2 * row["tiles"] > 0
    assert run(config, RunContext()).stored == 0


def test_directions_and_nulls_are_predictions_beside_the_map_from_one_reading(tiny_segment, network, monkeypatch):
    boxes, read_layers = [], SurfaceVolume.read

    def counted(self, layers, box):
        boxes.append(box)
        return read_layers(self, layers, box)

    plain = run(config_for(tiny_segment, network, name="plain"), RunContext())
    turned = run(config_for(tiny_segment, network, name="t", override={"depth_order": "reversed"}), RunContext())
    monkeypatch.setattr(SurfaceVolume, "read", counted)
    asked = config_for(tiny_segment, network, directions="both", nulls=("shuffled", "repeated"))
    report = run(asked, RunContext())
    assert len(boxes) == len(set(boxes))
    found = {place.name.removeprefix("tiny-smp-tile32-stride16"): place for place in (report.location, *report.beside)}
    assert list(found) == ["", "-reversed", "-shuffled", "-reversed-shuffled", "-repeated"]
    maps = {name: read_map(place) for name, place in found.items()}
    np.testing.assert_array_equal(maps[""], read_map(plain.location))
    np.testing.assert_array_equal(maps["-reversed"], read_map(turned.location))
    assert all((one != other).any() for one, other in itertools.combinations(maps.values(), 2))


def test_a_null_is_a_prediction_of_its_own_and_the_map_that_of_a_plain_run(tiny_segment, network):
    report = run(config_for(tiny_segment, network, nulls=("shuffled",), name="letters"), RunContext())
    assert [place.name for place in (report.location, *report.beside)] == ["letters", "letters-shuffled"]
    manifest = json.loads((report.beside[0] / "manifest.json").read_bytes())
    assert manifest["config"]["series"] == {"name": "forward-shuffled", "seed": 0}
    before = stored_bytes(predictions(tiny_segment) / "letters")
    again = run(config_for(tiny_segment, network, name="letters"), RunContext())
    assert again.skipped == again.units
    assert stored_bytes(predictions(tiny_segment) / "letters") == before
