"""Contract of promptable networks, as a suite: a class of yours adds a subclass that makes one.

class TestMySegmenter(PromptedSegmenterContract):
    @classmethod
    def make(cls) -> PromptedSegmenter:
        return MySegmenter(…)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from inkbatch.models.prompting import MASKS, Kind, PromptableDocument, PromptedSegmenter


class PromptedSegmenterContract(ABC):
    """Tests of one class, on the CPU; its weights may be fresh ones from a fixed seed.

    Attributes:
        tile_yx: (height, width) of the tile; unequal, so that axes that are exchanged show.
    """

    tile_yx: tuple[int, int] = (72, 96)

    @classmethod
    @abstractmethod
    def make(cls) -> PromptedSegmenter:
        """Build the network."""

    @pytest.fixture(scope="class")
    @classmethod
    def segmenter(cls) -> PromptedSegmenter:
        """Return the network that all tests of the class ask."""
        return cls.make()

    @pytest.fixture(scope="class")
    @classmethod
    def tile(cls) -> NDArray[np.uint8]:
        """Return a tile of noise, RGB."""
        return np.random.default_rng(0).integers(0, 256, (*cls.tile_yx, 3), np.uint8)

    @pytest.fixture(scope="class")
    @classmethod
    def points(cls) -> NDArray[np.float64]:
        """Return more prompts than fit into one batch, (n, 2)."""
        return np.random.default_rng(1).uniform(0, cls.tile_yx, (37, 2))

    @pytest.fixture(scope="class")
    @classmethod
    def boxes(cls, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a box around each point, (n, 4)."""
        return np.concatenate([points - 8, points + 9], axis=1)

    def test_masks_have_the_tile_s_size(self, segmenter, tile, points):  # type: ignore[no-untyped-def]
        """Three boolean masks per prompt, each with a finite predicted IoU."""
        masks, scores = segmenter.masks(segmenter.embed(tile), points)
        assert masks.shape == (len(points), MASKS, *self.tile_yx)
        assert masks.dtype == bool
        assert scores.shape == (len(points), MASKS)
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()

    @pytest.mark.parametrize("at_once", [1, 5])
    def test_an_answer_does_not_depend_on_how_many_are_asked(self, segmenter, tile, points, boxes, at_once):  # type: ignore[no-untyped-def]
        """Prompts one by one, in fives, or all at once: the same bits."""
        features = segmenter.embed(tile)
        masks, scores = segmenter.masks(features, points, boxes)
        starts = range(0, 10, at_once)
        parts = [segmenter.masks(features, points[i : i + at_once], boxes[i : i + at_once]) for i in starts]
        np.testing.assert_array_equal(np.concatenate([part for part, _ in parts]), masks[:10])
        np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), scores[:10])

    def test_no_prompts_no_masks(self, segmenter, tile):  # type: ignore[no-untyped-def]
        """A tile without proposals costs nothing and is no error."""
        masks, scores = segmenter.masks(segmenter.embed(tile), np.zeros((0, 2)))
        assert masks.shape == (0, MASKS, *self.tile_yx)
        assert scores.shape == (0, MASKS)

    def test_the_prompt_is_heard(self, segmenter, tile, points, boxes):  # type: ignore[no-untyped-def]
        """Another point, or a box as well, changes what the network predicts."""
        features = segmenter.embed(tile)
        _, scores = segmenter.masks(features, points)
        _, boxed = segmenter.masks(features, points, boxes)
        assert len(np.unique(scores[:, 0])) > 1
        assert not np.array_equal(scores, boxed)

    def test_the_tile_is_seen(self, segmenter, tile, points):  # type: ignore[no-untyped-def]
        """Another tile gets another answer; the same tile the same one."""
        _, scores = segmenter.masks(segmenter.embed(tile), points)
        _, again = segmenter.masks(segmenter.embed(tile.copy()), points)
        _, other = segmenter.masks(segmenter.embed(np.zeros_like(tile)), points)
        np.testing.assert_array_equal(scores, again)
        assert not np.array_equal(scores, other)


def tiny_sam2() -> PromptableDocument:
    """Describe a SAM 2 of a hundred thousand weights, for tiles of 64 px."""
    widths, edge, size = [8, 16, 24, 32], 64, 16
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": widths[0],
        "image_size": [edge, edge],
        "window_positional_embedding_background_size": [2, 2],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": widths,
        "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [4, 4, 4, 4],
        "global_attention_blocks": [3],
    }
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": widths[::-1],
        "backbone_feature_sizes": [[size, size], [size // 2, size // 2], [size // 4, size // 4]],
        "fpn_hidden_size": 32,
    }
    return _document("sam2", edge, {"vision_config": vision})


def tiny_sam() -> PromptableDocument:
    """Describe a SAM of a hundred thousand weights, for tiles of 64 px."""
    vision: dict[str, Any] = {
        "hidden_size": 32,
        "output_channels": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    vision |= {"image_size": 64, "patch_size": 16, "window_size": 2, "global_attn_indexes": [1], "mlp_dim": 64}
    vision |= {"num_pos_feats": 16, "initializer_range": 0.1}
    return _document("sam", 64, {"vision_config": vision})


def _document(kind: Kind, edge: int, config: dict[str, Any]) -> PromptableDocument:
    decoder = {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32}
    encoder = {"hidden_size": 32, "image_size": edge, "patch_size": 16}
    shape = {**config, "prompt_encoder_config": encoder, "mask_decoder_config": decoder}
    return PromptableDocument(name=f"tiny-{kind}", kind=kind, config=shape, image_px=edge, licence="MIT")
