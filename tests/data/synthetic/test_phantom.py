from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

import inkbatch
from inkbatch.data.segments.catalog import Catalog
from inkbatch.data.synthetic.phantom import (
    InkConfig,
    crackle_noise,
    depth_weight,
    ink_plane,
    label_mask,
    papyrus_of,
    plant,
    plant_layer,
    truth_of,
)
from inkbatch.errors import ConfigError, CorruptDataError, DataError, LayerRangeError, MismatchError
from inkbatch.geometry import Box, cut
from inkbatch.io.layers import open_layer_source
from inkbatch.io.layers.base import CheckedLayerSource
from inkbatch.io.store.location import Location
from inkbatch.run.record import RunFolder
from inkbatch.steps.synthetic.phantom import PhantomConfig, manifest_of, run

DEMO = Path(inkbatch.__file__).parent / "demo"
EVEN = {"crackle": 0.0, "edge_px": 0.0}
PINNED_NOISE = [[-0.119056, -0.319367, -0.530281, -0.667028], [-0.201862, -0.396472, -0.592634, -0.708791]]


class MemorySource(CheckedLayerSource):
    """Layers in memory that notes how many were read at once."""

    def __init__(self, stack: np.ndarray, first_layer: int = 0) -> None:
        self.uri = "memory"
        self.stack, self.first_layer = stack, first_layer
        self.shape_zyx, self.dtype = stack.shape, stack.dtype
        self.largest_read = 0

    def _fill(self, indices, box, out):
        self.largest_read = max(self.largest_read, len(indices))
        out[...] = self.stack[indices.start : indices.stop, *box.slices]


def papyrus_stack(dtype=np.uint8, shape=(5, 40, 56)) -> np.ndarray:
    grey = np.random.default_rng(0).integers(60, 180, shape)
    return (grey * (257 if dtype == np.uint16 else 1)).astype(dtype)


def letters(shape=(40, 56)) -> np.ndarray:
    mask = np.zeros(shape, np.float32)
    mask[8:30, 10:20] = 1
    return mask


def planted(stack: np.ndarray, mask: np.ndarray, ink: InkConfig, **options) -> np.ndarray:
    source = MemorySource(stack)
    box = Box(0, 0, *stack.shape[1:])
    return np.stack([plane for _, plane in plant(source, box, mask, ink, **options)])


# --- the signal -------------------------------------------------------------------------------------------------------


def test_even_ink_adds_amplitude_times_the_depth_profile_under_the_mask_and_nothing_beside_it():
    stack, mask = papyrus_stack(), letters()
    ink = InkConfig(amplitude=40, depth_layer=2, width_layers=1.0, **EVEN)
    added = planted(stack, mask, ink).astype(int) - stack
    assert [int(layer[10, 12]) for layer in added] == [5, 24, 40, 24, 5]  # 40 exp(-z^2 / 2), rounded
    assert not added[:, mask == 0].any()


def test_uint16_gets_257_steps_for_every_grey_value_of_255():
    mask, ink = letters(), InkConfig(amplitude=40, depth_layer=2, width_layers=1.0, **EVEN)
    stack = papyrus_stack(np.uint16)
    added = planted(stack, mask, ink).astype(int) - stack
    expected = [round(257 * 40 * depth_weight(layer, ink)) for layer in range(5)]
    assert [int(layer[10, 12]) for layer in added] == expected


@pytest.mark.parametrize(("dtype", "ceiling"), [(np.uint8, 255), (np.uint16, 65535)])
def test_ink_saturates_instead_of_wrapping_around(dtype, ceiling):
    mask = letters()
    bright = planted(papyrus_stack(dtype), mask, InkConfig(amplitude=255, depth_layer=2, **EVEN))
    dark = planted(papyrus_stack(dtype), mask, InkConfig(amplitude=-255, depth_layer=2, **EVEN))
    assert (bright[2][mask == 1] == ceiling).all()
    assert (dark[2][mask == 1] == 0).all()


def test_full_crackle_thins_ink_but_never_turns_its_sign():
    mask = np.ones((64, 64), np.float32)
    plane = ink_plane(mask, None, InkConfig(amplitude=50, depth_layer=0, crackle=1.0, crackle_px=6))
    assert plane.min() >= 0
    assert plane.max() <= 100
    assert plane.std() > 10


def test_no_ink_is_planted_outside_the_papyrus():
    stack = papyrus_stack()
    stack[:, :, 15:] = 0
    papyrus = papyrus_of(MemorySource(stack), Box(0, 0, 40, 56))
    result = planted(stack, letters(), InkConfig(amplitude=40, depth_layer=2), papyrus=papyrus)
    np.testing.assert_array_equal(papyrus, stack.any(axis=0))
    assert not result[:, :, 15:].any()
    assert not truth_of(letters(), papyrus)[:, 15:].any()
    assert truth_of(letters(), papyrus).any()


def test_layers_are_read_one_by_one_and_keep_their_stored_numbers():
    source = MemorySource(papyrus_stack(), first_layer=17)
    ink = InkConfig(amplitude=40, depth_layer=19, **EVEN)
    numbers = [number for number, _ in plant(source, Box(0, 0, 40, 56), letters(), ink)]
    assert numbers == [17, 18, 19, 20, 21]
    assert source.largest_read == 1


# --- noise and cutting ------------------------------------------------------------------------------------------------


@given(
    st.integers(0, 300),
    st.integers(0, 300),
    st.integers(1, 40),
    st.integers(1, 40),
    st.floats(2, 40),
    st.integers(0, 9),
)
def test_a_pixel_of_the_crackle_does_not_depend_on_the_box_it_is_asked_in(y, x, height, width, pitch, seed):
    box = Box(y, x, y + height, x + width)
    whole = Box(y // 2, x // 3, y + height + 5, x + width + 3)
    np.testing.assert_array_equal(crackle_noise(box, pitch, seed), crackle_noise(whole, pitch, seed)[box.within(whole)])


def test_crackle_is_band_limited_around_its_wavelength_without_bias():
    pitch, size = 8, 256
    noise = crackle_noise(Box(0, 0, size, size), pitch, seed=3)
    power = np.abs(np.fft.fft2(noise)) ** 2
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None, :])
    inside = (frequency > 1 / (4 * pitch)) & (frequency < 2 / pitch)
    assert power[inside].sum() > 0.9 * power.sum()
    assert abs(noise.mean()) < 0.01
    assert 0.2 < noise.std() < 0.5
    assert np.abs(noise).max() <= 1


def test_seeds_choose_the_crackle_and_nothing_else_does():
    box = Box(0, 0, 32, 32)
    np.testing.assert_array_equal(crackle_noise(box, 8, 1), crackle_noise(box, 8, 1))
    assert np.corrcoef(crackle_noise(box, 8, 1).ravel(), crackle_noise(box, 8, 2).ravel())[0, 1] < 0.5


def test_the_crackle_of_a_seed_stays_what_it_was_when_the_demo_was_made():
    noise = crackle_noise(Box(0, 0, 2, 4), 8, seed=7)
    np.testing.assert_allclose(noise, PINNED_NOISE, atol=1e-6)


def test_cutting_a_phantom_into_boxes_changes_no_pixel():
    stack, mask = papyrus_stack(shape=(3, 50, 70)), letters((50, 70))
    ink = InkConfig(amplitude=45, depth_layer=1, crackle=0.8, crackle_px=5, seed=4)
    whole = planted(stack, mask, ink)
    pieces = np.zeros_like(whole)
    for box in cut((50, 70), 17, 23):
        for layer, plane in plant(MemorySource(stack), box, mask[box.slices], ink, origin_yx=(0, 0)):
            pieces[layer, *box.slices] = plane
    np.testing.assert_array_equal(whole, pieces)


# --- letters ----------------------------------------------------------------------------------------------------------


def test_letters_are_thresholded_scaled_and_cut_to_the_phantom():
    picture = np.zeros((80, 120), np.uint8)
    picture[:40, :60] = 128
    mask = label_mask(picture, (30, 50), scale=0.5)
    assert mask.shape == (30, 50)
    assert mask[:20, :30].min() == 1
    assert mask[21:].max() == 0
    assert label_mask(picture, (30, 50), scale=0.5, threshold=128).max() == 0


def test_dark_letters_on_white_can_be_inverted():
    picture = np.full((20, 20), 255, np.uint8)
    picture[5:10] = 0
    mask = label_mask(picture, (20, 20), invert=True)
    assert mask[5:10].min() == 1
    assert mask[10:].max() == 0


def test_soft_edges_stay_within_zero_and_one_and_keep_the_truth_where_it_was():
    picture = (letters((40, 56)) * 255).astype(np.uint8)
    soft = label_mask(picture, (40, 56), edge_px=1.5)
    assert 0 <= soft.min() <= soft.max() <= 1
    assert ((soft > 0.05) & (soft < 0.95)).any()
    differs = truth_of(soft) != (picture > 0)
    assert differs.mean() < 0.01


def test_letters_smaller_than_the_phantom_are_refused_with_both_sizes():
    with pytest.raises(ConfigError, match=r"30 x 50 px.*20 x 30 px.*label_scale"):
        label_mask(np.zeros((40, 60), np.uint8), (30, 50), scale=0.5)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_amplitude_zero_is_a_configuration_error():
    with pytest.raises(ConfigError, match="amplitude 0 plants no ink"):
        PhantomConfig.checked({"source": "a", "labels": "b", "output": "c", "amplitude": 0, "depth_layer": 1}, "set")


@pytest.mark.parametrize("depth", [-0.5, 4.5])
def test_ink_centred_outside_the_stack_is_refused(depth):
    with pytest.raises(LayerRangeError, match="expected depth_layer among the stored layers 0 to 4"):
        planted(papyrus_stack(), letters(), InkConfig(amplitude=40, depth_layer=depth))


def test_float_layers_are_refused():
    with pytest.raises(DataError, match="float32"):
        planted(papyrus_stack().astype(np.float32), letters(), InkConfig(amplitude=40, depth_layer=2))
    with pytest.raises(DataError, match="int16"):
        plant_layer(np.zeros((2, 2), np.int16), np.zeros((2, 2), np.float32), 1.0)


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(DataError, match="cut the mask to the box"):
        planted(papyrus_stack(), letters((40, 55)), InkConfig(amplitude=40, depth_layer=2))


# --- the step ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def material(tmp_path):
    """Five layers from ``01.tif`` on, and a picture of letters, in a folder."""
    (tmp_path / "layers").mkdir()
    for number, layer in enumerate(papyrus_stack(), start=1):
        tifffile.imwrite(tmp_path / "layers" / f"{number:02d}.tif", layer)
    cv2.imwrite(str(tmp_path / "letters.png"), (letters((80, 112)) * 255).astype(np.uint8))
    return tmp_path


def phantom_config(material: Path, **values) -> PhantomConfig:
    settings = {
        "source": str(material / "layers"),
        "labels": str(material / "letters.png"),
        "output": str(material / "phantom"),
        "amplitude": 40,
        "depth_layer": 3,
    }
    return PhantomConfig.checked(settings | values, "test")


def test_a_phantom_is_layers_truth_and_its_parameters(material):
    run(phantom_config(material, source_note="from a test", seed=5))
    folder = material / "phantom"
    written = np.stack([tifffile.imread(folder / "layers" / f"{number:02d}.tif") for number in range(1, 6)])
    mask = label_mask((letters((80, 112)) * 255).astype(np.uint8), (40, 56), edge_px=1.5)
    source = MemorySource(papyrus_stack(), first_layer=1)
    expected = [plane for _, plane in plant(source, Box(0, 0, 40, 56), mask, phantom_config(material, seed=5))]
    np.testing.assert_array_equal(written, expected)
    np.testing.assert_array_equal(cv2.imread(str(folder / "truth.png"), -1), truth_of(mask) * np.uint8(255))
    document = json.loads((folder / "phantom.json").read_text())
    assert document["config"]["seed"] == 5
    assert document["config"]["source_note"] == "from a test"
    assert document["shape_zyx"] == [5, 40, 56]
    assert document["first_layer"] == 1


def test_crops_of_papyrus_and_letters_are_taken_where_they_are_asked(material):
    run(phantom_config(material, source_box=[10, 8, 30, 40], label_box=[8, 10, 48, 74], label_scale=0.5, **EVEN))
    layer = tifffile.imread(material / "phantom" / "layers" / "03.tif")
    truth = cv2.imread(str(material / "phantom" / "truth.png"), -1) > 0
    expected = np.zeros((20, 32), bool)
    expected[:11, :5] = True  # letters are 22 x 10 px from the corner of label_box, halved
    np.testing.assert_array_equal(truth, expected)
    np.testing.assert_array_equal(layer, papyrus_stack()[2, 10:30, 8:40] + 40 * expected)


def test_a_finished_phantom_is_left_alone_and_another_one_is_refused(material):
    run(phantom_config(material))
    before = {file: file.stat().st_mtime_ns for file in (material / "phantom").rglob("*.*")}
    assert "nothing to do" in run(phantom_config(material))[0]
    assert before == {file: file.stat().st_mtime_ns for file in (material / "phantom").rglob("*.*")}
    with pytest.raises(MismatchError, match=r"other settings.*seed.*choose another output, or give --replace"):
        run(phantom_config(material, seed=1))
    assert "--replace: removed the phantom that was" in run(phantom_config(material, seed=1), replace=True)[0]
    assert "nothing to do" in run(phantom_config(material, seed=1))[0]


def test_layers_or_letters_that_changed_since_are_noticed(material):
    run(phantom_config(material))
    cv2.imwrite(str(material / "letters.png"), np.full((80, 112), 255, np.uint8))
    with pytest.raises(MismatchError, match=r"changed since.*labels.*--replace"):
        run(phantom_config(material))
    run(phantom_config(material), replace=True)
    (material / "layers" / "03.tif").write_bytes((material / "layers" / "01.tif").read_bytes())
    with pytest.raises(MismatchError, match=r"changed since.*layers.*03\.tif"):
        run(phantom_config(material))


@pytest.mark.parametrize("name", ["layers/05.tif", "truth.png", "phantom.json"])
def test_a_phantom_whose_file_is_gone_or_cut_is_made_whole_again(material, name):
    run(phantom_config(material))
    place = material / "phantom" / name
    whole = place.read_bytes()
    for harm in (place.unlink, lambda: place.write_bytes(whole[:-1])):
        harm()
        assert "must be completed again" in run(phantom_config(material))[0]
        assert place.read_bytes() == whole


def test_a_phantom_that_another_process_began_with_other_settings_is_refused_and_left_alone(material):
    begun = phantom_config(material, seed=1)
    with open_layer_source(begun.source) as source:
        RunFolder(Location.parse(begun.output), manifest_of(begun, source)).begin()
    with pytest.raises(MismatchError, match="other settings"):
        run(phantom_config(material))
    assert [path.name for path in (material / "phantom").iterdir()] == ["manifest.json"]


def test_a_phantom_of_an_older_version_stays_what_it_is(material):
    run(phantom_config(material))
    for name in ("manifest.json", "complete.json"):
        (material / "phantom" / name).unlink()
    assert "nothing to do" in run(phantom_config(material))[0]
    with pytest.raises(ConfigError, match="phantom .* another one is there already"):
        run(phantom_config(material, seed=1))


def test_a_phantom_that_was_cut_off_is_not_taken_for_whole(material):
    run(phantom_config(material))
    whole = (material / "phantom" / "layers" / "05.tif").read_bytes()
    (material / "phantom" / "phantom.json").unlink()
    (material / "phantom" / "layers" / "05.tif").unlink()
    run(phantom_config(material))
    assert (material / "phantom" / "layers" / "05.tif").read_bytes() == whole


def test_a_stray_file_among_the_layers_is_refused(material):
    (material / "phantom" / "layers").mkdir(parents=True)
    (material / "phantom" / "layers" / "09.tif").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"09\.tif"):
        run(phantom_config(material))
    assert not (material / "phantom" / "phantom.json").exists()


def test_a_given_segment_mask_bounds_the_ink(material):
    papyrus = np.zeros((40, 56), np.uint8)
    papyrus[:, :15] = 1
    cv2.imwrite(str(material / "mask.png"), papyrus)
    run(phantom_config(material, segment_mask=str(material / "mask.png")))
    layer = tifffile.imread(material / "phantom" / "layers" / "03.tif")
    np.testing.assert_array_equal(layer[:, 15:], papyrus_stack()[2, :, 15:])
    assert (layer[:, :15] != papyrus_stack()[2, :, :15]).any()


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        ({"source_box": [0, 0, 41, 56]}, ConfigError, r"source_box.*40 × 56 px"),
        ({"source_box": [9, 0, 9, 56]}, ConfigError, r"source_box.*is empty or leaves"),
        ({"label_box": [0, 0, 81, 56]}, ConfigError, r"label_box.*80 × 112 px"),
        ({"label_box": [40, 40, 80, 96]}, DataError, "no ink would fall on papyrus"),
        ({"label_scale": 0.25}, ConfigError, "labels cover only 20 x 28 px"),
        ({"depth_layer": 0}, LayerRangeError, "expected depth_layer among the stored layers 1 to 5"),
        ({"labels": "nowhere.png"}, DataError, r"nowhere\.png: expected a picture, got nothing"),
        ({"labels": __file__}, CorruptDataError, "cannot be decoded as a picture"),
    ],
)
def test_what_cannot_be_planted_is_refused_before_anything_is_written(material, values, kind, words):
    with pytest.raises(kind, match=words):
        run(phantom_config(material, **values))
    assert not (material / "phantom").exists()


def test_a_segment_mask_of_another_size_is_refused(material):
    cv2.imwrite(str(material / "mask.png"), np.ones((4, 4), np.uint8))
    with pytest.raises(DataError, match="give the mask of this very surface"):
        run(phantom_config(material, segment_mask=str(material / "mask.png")))


# --- the demo that ships ----------------------------------------------------------------------------------------------


def test_the_shipped_demo_is_the_segment_that_its_papers_describe():
    document = json.loads((DEMO / "phantom.json").read_text())
    depth, *shape_yx = document["shape_zyx"]
    files = sorted((DEMO / "layers").iterdir())
    truth = cv2.imread(str(DEMO / "truth.png"), -1)
    assert [file.name for file in files] == [f"{number:02d}.tif" for number in range(depth)]
    assert all(tifffile.TiffFile(file).pages[0].shape == tuple(shape_yx) for file in files)
    assert set(np.unique(truth)) == {0, 255}
    assert (truth > 0).mean() == pytest.approx(document["ink_share"], abs=1e-6)


def test_ink_can_be_measured_in_the_demo_at_the_depth_it_was_planted():
    truth = cv2.imread(str(DEMO / "truth.png"), -1) > 0
    excess = [tifffile.imread(file)[truth].mean() - tifffile.imread(file)[~truth].mean() for file in _demo_layers()]
    ink = json.loads((DEMO / "phantom.json").read_text())["config"]
    assert int(np.argmax(excess)) == ink["depth_layer"]
    assert excess[int(ink["depth_layer"])] - excess[-1] == pytest.approx(ink["amplitude"], rel=0.25)


def test_the_catalog_finds_the_demo_with_all_that_prepare_needs():
    entry = Catalog.load(folder=str(DEMO / "layers")).entry("demo")
    assert Path(entry.source) == DEMO / "layers"
    assert Path(entry.ink_labels) == DEMO / "truth.png"
    assert entry.depth_order == "forward"
    assert entry.voxel_size_um == 7.91


def test_the_demo_ships_small_and_with_its_notice():
    files = [file for file in DEMO.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 12e6
    notice = (DEMO / "NOTICE.md").read_text()
    assert all(word in notice for word in ("planted", "CC BY-NC 4.0", "MIT License", "EduceLab", "Angelotti"))


def test_the_demo_bundle_reads_the_demo_letters_and_matches_its_files():
    import torch

    from inkbatch.data.maps.scoring import ScoreHistogram
    from inkbatch.io.store.location import Location
    from inkbatch.models.bundle import Bundle

    bundle = Bundle.open(Location.parse(DEMO / "bundle"))
    tile = bundle.contract.tile_px
    places = [(y, x) for y in (128, 256, 384) for x in (256, 512, 768)]
    stack = np.stack([tifffile.imread(file) for file in _demo_layers()])
    batch = np.stack([stack[None, :, y : y + tile, x : x + tile] for y, x in places]).astype(np.float32)
    truth = cv2.imread(str(DEMO / "truth.png"), -1) > 0
    with torch.inference_mode():
        probability = bundle.build()(torch.from_numpy(batch) / bundle.contract.divisor).sigmoid().numpy()[:, 0]
    histogram = ScoreHistogram()
    for (y, x), found in zip(places, probability, strict=True):
        histogram.add(found, truth[y : y + tile, x : x + tile], np.ones((tile, tile), bool))
    assert histogram.auc() > 0.95
    assert histogram.f_beta(bundle.contract.threshold) > 0.85


def _demo_layers() -> list[Path]:
    return sorted((DEMO / "layers").iterdir())
