"""prepare: explicit rules, honest provenance, the same bytes however it is cut, refusals that leave nothing."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import zarr

from inkbatch.data.segments.reversed_segments import reversed_segments
from inkbatch.errors import ConfigError, CorruptDataError, DataError, InkbatchError, LayerRangeError, NonFiniteError
from inkbatch.geometry import Box
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import RunContext
from inkbatch.steps.prepare.job import run
from inkbatch.steps.prepare.page import sample_boxes
from inkbatch.testing.faults import stored_bytes
from inkbatch.testing.segments import random_papyrus, write_layers


def opened(config) -> SurfaceVolume:
    return SurfaceVolume.open(Location.parse(config.root) / "segments" / config.segment)


def whole(volume: SurfaceVolume) -> np.ndarray:
    return volume.read(range(volume.layer_count), Box(0, 0, *volume.shape_yx))


@pytest.fixture
def layers():
    return random_papyrus()


@pytest.fixture
def source(tmp_path, layers):
    return write_layers(tmp_path / "layers", layers)


def test_layers_arrive_unchanged_with_mask_and_provenance(prepare_config, source, layers):
    config = prepare_config(source)
    report = run(config, RunContext())
    volume = opened(config)
    assert report.complete
    np.testing.assert_array_equal(whole(volume), layers)
    np.testing.assert_array_equal(volume.read_mask(Box(0, 0, *volume.shape_yx)), layers.any(axis=0))
    assert volume.provenance.intensity == "keep"
    assert volume.provenance.source_layers == (0, 5)
    assert zarr.open_group(str(Path(config.root) / "segments/tiny/surface.zarr"), mode="r")["0"].shape == layers.shape


def test_a_range_and_reversed_order_are_applied_once_and_recorded(prepare_config, source, layers):
    config = prepare_config(source, layers=(1, 4), depth_order="reversed")
    run(config, RunContext())
    volume = opened(config)
    np.testing.assert_array_equal(whole(volume), layers[1:4][::-1])
    assert volume.provenance.index_range((1, 2)) == range(2, 3)
    with pytest.raises(LayerRangeError, match=r"inside 1:4 \(all of the surface\), got 0:2"):
        volume.provenance.index_range((0, 2))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (None, lambda v: v // 256),
        ("high-byte", lambda v: v // 256),
        ("keep", lambda v: v),
        ("window:1000:50000", lambda v: np.rint(np.clip((v - 1000.0) * 255 / 49000, 0, 255))),
    ],
)
def test_sixteen_bits_become_eight_by_the_stated_rule(tmp_path, prepare_config, rule, expected):
    layers = random_papyrus(dtype="uint16")
    config = prepare_config(write_layers(tmp_path / "deep", layers), intensity=rule)
    run(config, RunContext())
    np.testing.assert_array_equal(whole(opened(config)), expected(layers.astype(np.float64)))
    assert opened(config).provenance.intensity == (rule or "high-byte")


def test_percentiles_are_resolved_into_the_window_that_was_used(tmp_path, prepare_config):
    source = write_layers(tmp_path / "deep", random_papyrus(dtype="uint16"))
    config = prepare_config(source, intensity="percentile:1:99")
    run(config, RunContext())
    kind, low, high = opened(config).provenance.intensity.split(":")
    assert kind == "window"
    assert 0 < float(low) < 2000
    assert 63000 < float(high) < 65536


def test_a_lookup_table_maps_by_its_control_points(prepare_config, source, layers):
    config = prepare_config(source, lut=((0, 0), (128, 64), (255, 255)))
    run(config, RunContext())
    table = np.rint(np.interp(np.arange(256), [0, 128, 255], [0, 64, 255])).astype(np.uint8)
    np.testing.assert_array_equal(whole(opened(config)), table[layers])


@pytest.mark.parametrize("shape", [(2, 256, 320), (2, 250, 333), (2, 70, 90)])
@pytest.mark.parametrize("shard_px", [32, 64, 128])
def test_clahe_leaves_no_seam_between_units(tmp_path, prepare_config, shape, shard_px):
    layers = random_papyrus(shape)
    config = prepare_config(
        write_layers(tmp_path / "layers", layers), clahe={"clip_limit": 2.0, "cell_px": 32}, shard_px=shard_px
    )
    run(config, RunContext())
    bottom, right = -shape[1] % 32, -shape[2] % 32
    for layer, found in zip(layers, whole(opened(config)), strict=True):
        padded = cv2.copyMakeBorder(layer, 0, bottom, 0, right, cv2.BORDER_REFLECT_101)
        grid = (padded.shape[1] // 32, padded.shape[0] // 32)
        expected = cv2.createCLAHE(2.0, grid).apply(padded)[: shape[1], : shape[2]]
        np.testing.assert_array_equal(found, expected)


def test_a_given_mask_is_taken(tmp_path, prepare_config, source, layers):
    mask = np.zeros(layers.shape[1:], np.uint8)
    mask[10:60, 20:90] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    config = prepare_config(source, mask=str(tmp_path / "mask.png"))
    run(config, RunContext())
    np.testing.assert_array_equal(opened(config).read_mask(Box(0, 0, *mask.shape)), mask > 0)
    assert opened(config).provenance.mask.endswith("mask.png")


def test_shards_together_store_the_bytes_of_a_whole_run(prepare_config, source):
    one = prepare_config(source, segment="one")
    run(one, RunContext())
    cut = prepare_config(source, segment="cut", root=str(Path(one.root).parent / "cut"))
    for index in (2, 0, 1):
        report = run(cut.model_copy(update={"segment": "one"}), RunContext(shard=ShardSpec(index, 3)))
    assert report.complete
    assert stored_bytes(Path(one.root)) == stored_bytes(Path(cut.root))


def test_a_second_run_does_nothing_and_says_so(prepare_config, source):
    config = prepare_config(source)
    run(config, RunContext())
    report = run(config, RunContext())
    assert (report.stored, report.complete) == (0, True)


def test_other_settings_on_the_same_segment_are_refused_by_name(prepare_config, source):
    run(prepare_config(source), RunContext())
    with pytest.raises(DataError, match=r"config\.voxel_size_um: there 8\.0, here 7\.5"):
        run(prepare_config(source, voxel_size_um=7.5), RunContext())


def test_units_cut_otherwise_do_not_pass_for_each_other(prepare_config, source, monkeypatch):
    """Markers name a unit by its corner; a unit of another width must not count as done."""
    from inkbatch.steps.prepare import units as prepare_plan

    monkeypatch.setattr(prepare_plan, "UNIT_BYTES", 5 * 64 * 64 * 3)
    run(prepare_config(source), RunContext(shard=ShardSpec(0, 2)))
    monkeypatch.setattr(prepare_plan, "UNIT_BYTES", 5 * 64 * 64 * 2)
    with pytest.raises(DataError, match="unit_yx"):
        run(prepare_config(source), RunContext(shard=ShardSpec(1, 2)))


def test_a_source_that_was_exchanged_between_two_runs_is_noticed(tmp_path, prepare_config, source, layers):
    run(prepare_config(source), RunContext(shard=ShardSpec(0, 2)))
    tifffile.imwrite(source / "02.tif", layers[2], compression="lzw")
    with pytest.raises(DataError, match="source_fingerprint"):
        run(prepare_config(source), RunContext(shard=ShardSpec(1, 2)))


def test_published_tools_word_on_a_segment_is_passed_on_and_not_obeyed(prepare_config, source):
    known = next(iter(reversed_segments()))
    with pytest.raises(ConfigError, match="published tools read it reversed"):
        run(prepare_config(source, segment=known, depth_order=None), RunContext())


def test_a_png_with_three_channels_is_three_layers(tmp_path, prepare_config):
    picture = np.random.default_rng(0).integers(1, 256, (90, 70, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "rgb.png"), picture[..., ::-1])
    config = prepare_config(tmp_path / "rgb.png")
    run(config, RunContext())
    np.testing.assert_array_equal(whole(opened(config)), picture.transpose(2, 0, 1))


def test_an_ome_zarr_source_and_s3_root(s3_root, prepare_config, tiny_segment):
    config = prepare_config(tiny_segment.folder / "surface.zarr", root=s3_root.uri, voxel_size_um=None)
    run(config, RunContext())
    np.testing.assert_array_equal(whole(opened(config)), tiny_segment.layers)
    assert opened(config).provenance.voxel_size_um == 8.0


def refusals():
    """(name, how to spoil the source, settings, error, words that the message must hold)."""

    def missing(folder, layers):
        (folder / "02.tif").unlink()

    def twice(folder, layers):
        tifffile.imwrite(folder / "2.tif", layers[2])

    def other_shape(folder, layers):
        tifffile.imwrite(folder / "03.tif", layers[3][:-1])

    def other_dtype(folder, layers):
        tifffile.imwrite(folder / "03.tif", layers[3].astype(np.uint16))

    def truncated(folder, layers):
        data = (folder / "03.tif").read_bytes()
        (folder / "03.tif").write_bytes(data[: len(data) // 2])

    def no_image(folder, layers):
        (folder / "03.tif").write_text("hello")

    def black(folder, layers):
        write_layers(folder, np.zeros_like(layers))

    def nan(folder, layers):
        floats = layers.astype(np.float32)
        floats[2, 5, 6] = np.nan
        write_layers(folder, floats)

    def nothing(folder, layers):
        pass

    window = {"intensity": "window:0:255"}
    return [
        ("missing layer", missing, {}, DataError, "2"),
        ("two files for one layer", twice, {}, DataError, r"02\.tif"),
        ("differing shapes", other_shape, {}, DataError, r"03\.tif"),
        ("differing dtypes", other_dtype, {}, DataError, r"03\.tif"),
        ("truncated file", truncated, {}, CorruptDataError, r"03\.tif"),
        ("not an image", no_image, {}, DataError, r"03\.tif"),
        ("empty mask", black, {}, DataError, "mask is empty"),
        ("NaN", nan, window, NonFiniteError, "NaN"),
        ("range leaves the stack", nothing, {"layers": (2, 9)}, LayerRangeError, "0:5"),
        ("no depth order", nothing, {"depth_order": None}, ConfigError, "depth order"),
        ("no voxel size", nothing, {"voxel_size_um": None}, ConfigError, "voxel size"),
        ("high byte of 8 bits", nothing, {"intensity": "high-byte"}, ConfigError, "high-byte"),
        ("bad rule", nothing, {"intensity": "stretch"}, ConfigError, "stretch"),
        ("bad lookup table", nothing, {"lut": ((0, 0), (100, 20))}, ConfigError, "lut"),
        ("memory too small", nothing, {"memory": "1MiB"}, ConfigError, "allow at least"),
        ("bad shard edge", nothing, {"shard_px": 48}, ConfigError, "power of two"),
    ]


@pytest.mark.parametrize("case", refusals(), ids=lambda case: case[0])
def test_refused_with_place_and_cure_and_nothing_stored(prepare_config, source, layers, case):
    _, spoil, settings, error, words = case
    spoil(source, layers)
    config = prepare_config(source, **settings)
    with pytest.raises(error, match=words) as caught:
        run(config, RunContext())
    assert isinstance(caught.value, InkbatchError)
    assert not [path for path in Path(config.root).rglob("*") if path.is_file()]


def test_a_layer_that_breaks_later_leaves_whole_units_and_no_complete_run(prepare_config, source, layers):
    floats = layers.astype(np.float32)
    floats[2, 140, 6] = np.nan
    write_layers(source, floats)
    config = prepare_config(source, intensity="window:0:255", memory="400MiB")
    with pytest.raises(NonFiniteError, match="layer 2"):
        run(config, RunContext())
    folder = Path(config.root) / "segments" / "tiny" / "prepare"
    assert list((folder / "done").iterdir())
    assert not (folder / "complete.json").exists()
    write_layers(source, np.nan_to_num(floats))
    with pytest.raises(
        DataError, match=r"inputs that have changed since \(layers: 1 of 5 changed: 02.tif\).*--replace"
    ):
        run(config, RunContext())
    assert run(config, RunContext(replace=True)).complete


def test_a_refusal_leaves_the_run_of_other_settings_alone(prepare_config, source, layers):
    run(prepare_config(source), RunContext(shard=ShardSpec(0, 3)))
    before = stored_bytes(Path(prepare_config(source).root))
    floats = layers.astype(np.float32)
    floats[2, 5, 6] = np.nan
    write_layers(source, floats)
    with pytest.raises(DataError, match="other settings or inputs"):
        run(prepare_config(source, intensity="window:0:255"), RunContext())
    assert stored_bytes(Path(prepare_config(source).root)) == before


def test_an_array_that_is_read_along_other_axes_is_another_run(tmp_path, prepare_config):
    array = zarr.create_array(tmp_path / "cube.zarr", shape=(5, 64, 64), chunks=(5, 32, 32), dtype="uint8")
    array[:] = random_papyrus((5, 64, 64))
    run(prepare_config(tmp_path / "cube.zarr", axes="zyx"), RunContext())
    with pytest.raises(DataError, match="source_axes: there 'zyx', here 'zxy'"):
        run(prepare_config(tmp_path / "cube.zarr", axes="zxy"), RunContext())


def test_an_exchanged_mask_is_noticed(tmp_path, prepare_config, source):
    mask = np.zeros((150, 210), np.uint8)
    mask[10:60, 20:90] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    run(prepare_config(source, mask=str(tmp_path / "mask.png")), RunContext())
    cv2.imwrite(str(tmp_path / "mask.png"), np.random.default_rng(0).integers(0, 256, mask.shape, np.uint8))
    with pytest.raises(DataError, match="mask_fingerprint"):
        run(prepare_config(source, mask=str(tmp_path / "mask.png")), RunContext())


@pytest.mark.parametrize(
    ("mask", "words"),
    [(np.eye(150, 210)[..., None] * np.uint8([9, 99, 255]), "got colours"), (None, "mask cannot be opened")],
)
def test_a_mask_that_is_no_grey_picture_is_refused(tmp_path, prepare_config, source, mask, words):
    if mask is not None:
        cv2.imwrite(str(tmp_path / "mask.png"), mask)
    with pytest.raises(DataError, match=words):
        run(prepare_config(source, mask=str(tmp_path / "mask.png")), RunContext())


def test_a_mask_in_three_equal_channels_or_with_losses_is_that_of_the_grey_picture(tmp_path, prepare_config, source):
    mask = np.zeros((150, 210), np.uint8)
    cv2.circle(mask, (100, 70), 50, 255, -1)
    cv2.imwrite(str(tmp_path / "rgb.png"), np.stack([mask] * 3, axis=-1))
    cv2.imwrite(str(tmp_path / "lossy.jpg"), mask, [cv2.IMWRITE_JPEG_QUALITY, 75])
    for name in ("rgb.png", "lossy.jpg"):
        config = prepare_config(source, segment=name.split(".")[0], mask=str(tmp_path / name))
        run(config, RunContext())
        np.testing.assert_array_equal(opened(config).read_mask(Box(0, 0, *mask.shape)), mask > 0)


@pytest.mark.parametrize("rule", ["window:1.2.3:5", "window:.:5", "window:5:5", "percentile:1:101", "window:nan:5"])
def test_a_rule_that_is_none_is_a_bad_configuration(prepare_config, source, rule):
    with pytest.raises(ConfigError, match="intensity"):
        run(prepare_config(source, intensity=rule), RunContext())


def test_the_recorded_window_is_the_one_that_was_used(tmp_path, prepare_config):
    source = write_layers(tmp_path / "deep", random_papyrus(dtype="uint16"))
    config = prepare_config(source, intensity="window:12345.678:54321.25")
    run(config, RunContext())
    assert opened(config).provenance.intensity == "window:12345.678:54321.25"


@pytest.mark.parametrize("size", [float("inf"), float("nan"), 0.0])
def test_a_voxel_size_is_a_finite_number(prepare_config, source, size):
    with pytest.raises(ValueError, match="voxel_size_um"):
        prepare_config(source, voxel_size_um=size)


def test_a_mask_of_another_size_is_refused(tmp_path, prepare_config, source):
    cv2.imwrite(str(tmp_path / "mask.png"), np.full((10, 10), 255, np.uint8))
    with pytest.raises(DataError, match=r"mask.*size \(150, 210\), got \(10, 10\)"):
        run(prepare_config(source, mask=str(tmp_path / "mask.png")), RunContext())


def test_the_run_file_counts_what_was_done(prepare_config, source):
    config = prepare_config(source)
    run(config, RunContext())
    row = json.loads((Path(config.root) / "segments/tiny/prepare/run.json").read_text())
    assert row["ended"] == "done"
    assert row["units_stored"] >= 3
    assert row["bytes_written"] > 0
    assert row["mask_pixels"] == 150 * 168


@pytest.mark.parametrize(("shape", "count"), [((160, 192), 1), ((256, 4000), 3), ((5000, 3000), 9)])
def test_the_page_looks_at_each_square_once(shape, count):
    boxes = sample_boxes(*shape)
    assert len(set(boxes)) == len(boxes) == count
    assert all(0 <= box.y0 < box.y1 <= shape[0] and 0 <= box.x0 < box.x1 <= shape[1] for box in boxes)
