"""Choices of one run are told from values of the bundle's contract that a user replaced by hand."""

from __future__ import annotations

import pytest

from inkbatch.errors import ConfigError
from inkbatch.models.bundle import Contract, LayerRule
from inkbatch.steps.infer.choices import RunChoices, chosen, replaced, stored_override

CONTRACT = Contract(layers=LayerRule(count=3), voxel_size_um=8, tile_px=64, stride_px=32)


def test_choices_change_the_contract_that_a_run_follows_and_nothing_else():
    found = RunChoices("reversed", 16, "uniform").applied(CONTRACT)
    assert (found.depth_order, found.stride_px, found.window) == ("reversed", 16, "uniform")
    assert found.model_copy(update={"depth_order": "forward", "stride_px": 32, "window": "hann"}) == CONTRACT
    assert RunChoices().applied(CONTRACT) == CONTRACT


def test_manifests_keep_the_form_of_older_runs():
    assert stored_override({}, RunChoices()) == {}
    stored = stored_override({"divisor": 200}, RunChoices("reversed", 16, "uniform"))
    assert stored == {"divisor": 200, "depth_order": "reversed", "stride_px": 16, "window": "uniform"}


@pytest.mark.parametrize(("probe", "by_hand"), [({}, {"divisor", "depth_order"}), ({"probe": {}}, {"divisor"})])
def test_a_stored_run_tells_its_choices_from_values_replaced_by_hand(probe, by_hand):
    config = {"override": stored_override({"divisor": 200}, RunChoices("reversed", 16)), **probe}
    assert chosen(config) == {"stride_px": 16}
    assert replaced(config).keys() == by_hand


def test_a_step_that_leaves_pixels_out_is_refused_by_the_setting_s_name():
    with pytest.raises(ConfigError, match="stride_px: expected at most the tile's 64 px, got 65"):
        RunChoices(stride_px=65).applied(CONTRACT)
