"""SAM 2 and SAM as promptable networks: the contract, and what their bundles refuse."""

import numpy as np
import pytest
import torch

from inkbatch.errors import ConfigError, CorruptDataError, DataError, MismatchError
from inkbatch.io.store.location import Location
from inkbatch.models.prompting import (
    PromptableBundle,
    PromptableDocument,
    TransformersSegmenter,
    build_promptable,
    enlarged,
    load_promptable,
)
from inkbatch.testing.prompting import PromptedSegmenterContract, tiny_sam, tiny_sam2


def segmenter(document: PromptableDocument) -> TransformersSegmenter:
    torch.manual_seed(0)
    return TransformersSegmenter(build_promptable(document.kind, document.config).eval(), document)


class TestSam2(PromptedSegmenterContract):
    @classmethod
    def make(cls) -> TransformersSegmenter:
        return segmenter(tiny_sam2())


class TestSam(PromptedSegmenterContract):
    @classmethod
    def make(cls) -> TransformersSegmenter:
        return segmenter(tiny_sam())


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return build_promptable("sam2", tiny_sam2().config)


@pytest.fixture(scope="module")
def stored(net, tmp_path_factory):
    place = Location.parse(str(tmp_path_factory.mktemp("promptable")))
    return PromptableBundle.save(place, tiny_sam2(), net.state_dict())


def test_a_bundle_answers_as_the_network_that_was_stored(net, stored):
    tile = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    asked = np.array([[20.0, 30.0]])
    own, again = TransformersSegmenter(net.eval(), stored.document), PromptableBundle.open(stored.location).build()
    for mine, theirs in zip(own.masks(own.embed(tile), asked), again.masks(again.embed(tile), asked), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_centre_of_a_pixel_stays_one_when_the_tile_is_resized(stored):
    points, corners = stored.build().prompts((32, 16), np.array([[0.0, 1.0]]), np.array([[0.0, 0.0, 32.0, 16.0]]))
    edge = stored.document.image_px
    torch.testing.assert_close(points[0, 0, 0], torch.tensor([1.5 * edge / 16 - 0.5, 0.5 * edge / 32 - 0.5]))
    torch.testing.assert_close(corners[0, 0], torch.tensor([-0.5, -0.5, edge - 0.5, edge - 0.5]))


def test_on_a_cpu_a_tile_of_few_prompts_is_not_filled_up_far(net, stored):
    own, passes = TransformersSegmenter(net.eval(), stored.document), []
    own.answer = lambda features, points, corners: passes.append(points.shape[1]) or answer(features, points, corners)
    answer = TransformersSegmenter.answer.__get__(own)
    own.masks(own.embed(np.zeros((64, 64, 3), np.uint8)), np.full((5, 2), 30.0))
    assert passes == [4, 4]


@pytest.mark.parametrize("shape", [(64, 96), (32, 24), (33, 24), (16, 12)])
def test_enlarging_around_positive_logits_gives_the_masks_of_enlarging_all(shape):
    random = torch.Generator().manual_seed(0)
    logits = torch.randn((6, 3, 16, 12), generator=random) - 1.5
    logits[0], logits[1, 0] = -1, 1
    expected = torch.nn.functional.interpolate(logits, shape, mode="bilinear", align_corners=False) > 0
    np.testing.assert_array_equal(enlarged(logits, shape), expected.numpy())
    assert expected.any()


def test_weights_of_another_network_are_refused_by_name(net):
    other = build_promptable("sam", tiny_sam().config).state_dict()
    with pytest.raises(MismatchError, match=r"expected the weights of Sam2Model.*missing .*vision_encoder"):
        load_promptable(net, other, "file")


def test_a_missing_key_is_refused_by_name(net):
    some = {key: value for key, value in net.state_dict().items() if key != "mask_decoder.iou_token.weight"}
    with pytest.raises(MismatchError, match=r"missing mask_decoder\.iou_token\.weight"):
        load_promptable(net, some, "file")


def test_weights_that_track_objects_through_films_are_left_aside(net):
    load_promptable(net, {**net.state_dict(), "memory_attention.layers.0.weight": torch.zeros(1)}, "file")


def test_exchanged_weights_are_refused(stored, tmp_path):
    for name in ("promptable.json", "weights.safetensors"):
        (Location.parse(str(tmp_path)) / name).write_bytes((stored.location / name).read_bytes())
    with (tmp_path / "weights.safetensors").open("ab") as file:
        file.write(b" ")
    with pytest.raises(CorruptDataError, match="sha256"):
        PromptableBundle.open(Location.parse(str(tmp_path))).build()


def test_a_folder_without_a_bundle_is_refused_with_the_way_to_make_one(tmp_path):
    with pytest.raises(DataError, match=r"got no promptable\.json; give the folder"):
        PromptableBundle.open(Location.parse(str(tmp_path)))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match="inkbatch import-promptable"):
        PromptableBundle.open(Location.parse(str(tmp_path)))


def test_a_config_that_cannot_be_built_is_refused():
    with pytest.raises(ConfigError, match="its config cannot be built"):
        build_promptable("sam2", {"mask_decoder_config": {"hidden_size": "wide"}})


@pytest.mark.parametrize("tile", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.uint16)])
def test_a_tile_that_is_no_picture_in_colours_is_refused(stored, tile):
    with pytest.raises(DataError, match=r"expected \(Y, X, 3\) of uint8"):
        stored.build().embed(tile)
