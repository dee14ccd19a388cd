"""Made thin sections: the answer is known, and the same on every machine."""

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from inkbatch.data.synthetic.grains import LEAST_PX, GrainConfig, make_section, write_sections
from inkbatch.io.store.location import Location

SMALL = GrainConfig(shape_yx=(120, 150), count=2, radius_px=(8, 20))


@pytest.fixture(scope="module")
def sections():
    return [make_section(SMALL, number) for number in range(2)]


def test_every_grain_is_one_piece_of_a_number_of_its_own(sections):
    for made in sections:
        numbers = np.unique(made.instances)
        assert numbers.tolist() == list(range(int(made.instances.max()) + 1))
        for number in numbers[1:]:
            pieces, labels = cv2.connectedComponents((made.instances == number).astype(np.uint8), connectivity=4)
            assert pieces == 2
            assert np.count_nonzero(labels) >= LEAST_PX


def test_some_grains_touch(sections):
    labels = sections[0].instances.astype(int)
    beside = (labels[:, 1:] != labels[:, :-1]) & (labels[:, 1:] > 0) & (labels[:, :-1] > 0)
    assert beside.any()


def test_the_same_seed_makes_the_same_section_however_many_are_made(sections):
    again = make_section(SMALL.model_copy(update={"count": 50}), 1)
    np.testing.assert_array_equal(again.picture, sections[1].picture)
    np.testing.assert_array_equal(again.instances, sections[1].instances)
    other = make_section(SMALL.model_copy(update={"seed": 1}), 1)
    assert not np.array_equal(other.instances, sections[1].instances)


def test_illuminations_take_turns_and_crossed_light_is_darker(sections):
    assert [made.illumination for made in sections] == ["plain", "crossed"]
    assert sections[0].picture.mean() > sections[1].picture.mean() + 40


def test_grains_tell_themselves_from_what_lies_between(sections):
    for made in sections:
        grey = made.picture.mean(axis=2)
        assert grey[made.instances > 0].mean() > grey[made.instances == 0].mean() + 5


def test_sections_are_written_as_pictures_and_label_images_of_16_bits(tmp_path, sections):
    assert write_sections(Location.parse(str(tmp_path)), SMALL) == 2
    labels = cv2.imread(str(tmp_path / "instances" / "section-001.png"), cv2.IMREAD_UNCHANGED)
    picture = cv2.imread(str(tmp_path / "images" / "section-001.png"))
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels, sections[1].instances)
    np.testing.assert_array_equal(picture[..., ::-1], sections[1].picture)


def test_sections_that_are_there_stay_untouched_and_damaged_ones_are_written_again(tmp_path):
    write_sections(Location.parse(str(tmp_path)), SMALL)
    kept, damaged = tmp_path / "images" / "section-000.png", tmp_path / "images" / "section-001.png"
    before, whole = kept.stat(), damaged.read_bytes()
    damaged.write_bytes(whole[:-1])
    write_sections(Location.parse(str(tmp_path)), SMALL)
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert damaged.read_bytes() == whole


@pytest.mark.parametrize(
    "wrong", [{"radius_px": (30, 20)}, {"shape_yx": (20, 300)}, {"blur_px": (2, 1)}, {"illuminations": ()}]
)
def test_settings_that_cannot_be_drawn_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        GrainConfig(**wrong)
