"""Bundles: strict, complete, and damaged ones are found."""

from __future__ import annotations

import json

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from inkbatch.config import digest
from inkbatch.errors import ConfigError, DataError, MismatchError
from inkbatch.io.store.location import Location
from inkbatch.models.bundle import Bundle, Contract, LayerRule, bundle_location, load_strictly
from inkbatch.models.rules import Stitching
from inkbatch.testing.segments import identity_bundle, network_bundle

DEMO_CONTRACT = "732b1d5912ddc768737fd9d8ca2ff6153c8f2120617de4ee79180e6ad1141e70"  # digest before 2026's rules


def test_a_bundle_comes_back_with_the_same_weights_and_contract(tmp_path):
    saved = network_bundle(tmp_path / "net")
    opened = Bundle.open(Location.parse(tmp_path / "net"))
    assert opened.document == saved.document
    x = torch.randn(2, 1, 3, 32, 32)
    first, second = opened.build(), Bundle.open(Location.parse(tmp_path / "net")).build()
    assert torch.equal(first(x), second(x))
    assert not first.training


def test_equal_models_are_equal_bytes(tmp_path):
    network_bundle(tmp_path / "a")
    network_bundle(tmp_path / "b")
    for name in ("bundle.json", "weights.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architecture": "unheard-of"}, "unknown architecture"),
        ({"model": {"depth_layers": 3, "size": 1}}, "size"),
        ({"model": {"depth_layers": 4}}, "takes 4 layers, its contract states 3"),
    ],
)
def test_a_document_that_does_not_fit_is_refused_on_building(tmp_path, change, words):
    identity_bundle(tmp_path / "b")
    document = json.loads((tmp_path / "b/bundle.json").read_text())
    (tmp_path / "b/bundle.json").write_text(json.dumps({**document, **change}))
    with pytest.raises((ConfigError, DataError), match=words):
        Bundle.open(Location.parse(tmp_path / "b")).build()


@pytest.mark.parametrize(
    "change", [{"format": 2}, {"surprise": 1}, {"name": "../x"}, {"contract": {"tile_px": 3}}, {"weights": "w"}]
)
def test_an_invalid_document_is_refused(tmp_path, change):
    identity_bundle(tmp_path / "b")
    document = json.loads((tmp_path / "b/bundle.json").read_text())
    (tmp_path / "b/bundle.json").write_text(json.dumps({**document, **change}))
    with pytest.raises(DataError, match="not a valid bundle"):
        Bundle.open(Location.parse(tmp_path / "b"))


def test_no_bundle_and_no_weights_are_told_apart(tmp_path):
    with pytest.raises(DataError, match="no bundle here"):
        Bundle.open(Location.parse(tmp_path / "nowhere"))
    identity_bundle(tmp_path / "b")
    (tmp_path / "b/weights.safetensors").unlink()
    with pytest.raises(DataError, match="no weights"):
        Bundle.open(Location.parse(tmp_path / "b")).build()


def test_missing_unexpected_and_misshapen_keys_are_all_listed(tmp_path):
    model = network_bundle(tmp_path / "net").build()
    tensors = dict(model.state_dict())
    names = list(tensors)
    del tensors[names[0]]
    tensors["surplus"] = torch.zeros(1)
    tensors[names[1]] = torch.zeros(7, 7)
    with pytest.raises(MismatchError) as caught:
        load_strictly(model, tensors, "file")
    for words in (f"missing {names[0]}", "unexpected surplus", f"{names[1]}: model", "(7, 7)"):
        assert words in str(caught.value)


def test_overrides_are_checked_like_the_contract_itself():
    contract = Contract(layers=LayerRule(count=3), voxel_size_um=8, tile_px=64, stride_px=16)
    assert contract.overridden({"divisor": 200}).divisor == 200
    with pytest.raises(ConfigError, match="did you mean 'divisor'"):
        contract.overridden({"divsor": 200})
    with pytest.raises(ConfigError, match="stride_px 65"):
        contract.overridden({"stride_px": 65})


def test_an_override_may_name_one_value_of_a_group():
    contract = Contract(layers=LayerRule(count=3), voxel_size_um=8, tile_px=64, stride_px=16)
    changed = contract.overridden({"stitching.divide_by": "count", "stitching.closing_px": 7, "layers.centre": "ceil"})
    assert changed.stitching == Stitching(divide_by="count", closing_px=7)
    assert changed.layers == LayerRule(count=3, centre="ceil")
    for key in ("stitching.divisor", "divisor.value", "stitch.divide_by"):
        with pytest.raises(ConfigError, match=r"--override"):
            contract.overridden({key: 1})


def test_rules_that_came_later_are_stored_only_where_they_are_stated():
    old = Contract(layers=LayerRule(count=3), voxel_size_um=8, tile_px=64, stride_px=16)
    assert not {"centre", "counted_in"} & set(old.model_dump()["layers"])
    assert not Contract.younger & set(old.model_dump(mode="json"))
    new = old.overridden({"normaliser": {"kind": "robust-mad"}, "layers.centre": "halves", "scaling": "divide"})
    assert set(new.model_dump()) - set(old.model_dump()) == {"normaliser"}
    assert Contract.model_validate(new.model_dump(mode="json")) == new


def test_the_shipped_bundle_is_what_it_was():
    place = bundle_location("demo")
    document = Bundle.open(place).document
    assert document.edited() == []
    assert document.model_dump(mode="json", exclude_none=True) == (place / "bundle.json").read_json()
    assert digest(document.contract.model_dump(mode="json")) == DEMO_CONTRACT


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"normaliser": {"kind": "robust-mad"}, "clip": (0, 200)}, "takes no clip"),
        ({"normaliser": {"kind": "percentile-range"}, "divisor": 200, "std": 2}, "takes no divisor and std"),
        ({"normaliser": {"kind": "fixed", "counts": "nonzero"}}, "takes no percentiles"),
        ({"normaliser": {"kind": "robust-mad", "percentiles": (99, 1)}}, "got 99 and 1"),
        ({"stitching": {"closing_px": 4}}, "odd closing_px"),
        ({"display_range": (0.5, 0.5)}, "display_range"),
    ],
)
def test_rules_that_contradict_each_other_are_refused(values, words):
    with pytest.raises(ValidationError, match=words):
        Contract(layers=LayerRule(count=3), voxel_size_um=8, tile_px=64, stride_px=16, **values)


def test_a_layer_rule_agrees_with_itself():
    with pytest.raises(ValueError, match="does not hold 3"):
        LayerRule(count=3, source_range=(4, 9))


def test_a_stored_network_is_built_without_drawing_weights_first(tmp_path):
    bundle = network_bundle(tmp_path / "bundle")
    torch.manual_seed(7)
    before = torch.get_rng_state()
    model = bundle.build()
    assert torch.equal(torch.get_rng_state(), before)
    stored = load_file(tmp_path / "bundle" / "weights.safetensors")
    assert all(torch.equal(value, stored[key]) for key, value in model.state_dict().items())
