"""The reference tile: asked once per device, and a device that answers otherwise gives no map."""

import hashlib

import pytest
import safetensors.torch
import torch

from inkbatch.errors import CorruptDataError, DataError
from inkbatch.io.store.location import Location
from inkbatch.models.base import build_model
from inkbatch.models.bundle import Bundle, BundleDocument, Contract, LayerRule
from inkbatch.predict.reference import REFERENCE_FILE, check_reference, keep_reference, made_up_tile, probe_px

CPU = torch.device("cpu")
MODEL = {"depth_layers": 3, "stem_channels": 2, "widths": [4, 6], "blocks": [1, 1]}
CONTRACT = Contract(layers=LayerRule(count=3), voxel_size_um=9.6, tile_px=128, stride_px=64)


@pytest.fixture
def bundle(tmp_path):
    """A bundle with a reference tile that this process has not asked yet."""
    torch.manual_seed(0)
    model, location = build_model("stem3d-unet", MODEL).eval(), Location.parse(tmp_path)
    facts = keep_reference(location, model, CONTRACT)
    document = BundleDocument(name="small", architecture="stem3d-unet", model=MODEL, contract=CONTRACT, reference=facts)
    return Bundle.save(location, model, document)


def test_the_same_network_passes_and_is_asked_once(bundle):
    assert bundle.document.reference["tile_px"] == 64
    assert check_reference(bundle.build(), bundle, CPU) == 0.0
    assert check_reference(bundle.build(), bundle, CPU) is None
    assert 0 < check_reference(bundle.build(), bundle, CPU, torch.bfloat16) < 0.5


def test_another_answer_is_refused_every_time(bundle):
    broken = bundle.build()
    torch.nn.init.normal_(broken.network.task_heads["ink"].weight)
    for _ in range(2):
        with pytest.raises(
            DataError, match=r"small on cpu: its reference tile .* within 0\.05 standard deviations, got"
        ):
            check_reference(broken, bundle, CPU)


def test_an_answer_that_is_no_number_is_refused(bundle):
    broken = bundle.build()
    torch.nn.init.constant_(broken.network.task_heads["ink"].bias, float("nan"))
    with pytest.raises(DataError, match="got nan"):
        check_reference(broken, bundle, CPU)


def test_overrides_of_the_contract_play_no_part(bundle):
    changed = Bundle(bundle.location, bundle.document, {"divisor": 10.0})
    assert check_reference(changed.build(), changed, CPU) == 0.0


def test_a_bundle_without_a_reference_is_not_asked(bundle):
    older = Bundle(bundle.location, bundle.document.model_copy(update={"reference": {}}))
    assert check_reference(older.build(), older, CPU) is None


@pytest.mark.parametrize("damage", ["absent", "exchanged"])
def test_a_damaged_reference_is_named(bundle, damage):
    place = bundle.location / REFERENCE_FILE
    if damage == "absent":
        place.delete()
    else:
        place.write_bytes(place.read_bytes()[:-1] + b"?")
    with pytest.raises(CorruptDataError, match=r"reference\.safetensors: .*copy the"):
        check_reference(bundle.build(), bundle, CPU)


def test_an_expected_answer_of_another_shape_is_refused(bundle):
    place = bundle.location / REFERENCE_FILE
    tensors = safetensors.torch.load(place.read_bytes())
    data = safetensors.torch.save({**tensors, "expected": tensors["expected"][..., :5].contiguous()})
    place.write_bytes(data)
    facts = {**bundle.document.reference, "sha256": hashlib.sha256(data).hexdigest()}
    edited = Bundle(bundle.location, bundle.document.model_copy(update={"reference": facts}))
    with pytest.raises(CorruptDataError, match=r"expected logits \[1, 1, 64, 64\], got \[1, 1, 64, 5\]"):
        check_reference(edited.build(), edited, CPU)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_the_tile_is_made_up_and_always_the_same(dtype):
    contract = CONTRACT.model_copy(update={"dtype": dtype})
    tile = made_up_tile(contract, 36)
    assert (tile.shape, tile.dtype.name) == ((3, 36, 36), dtype)
    assert (tile == made_up_tile(contract, 36)).all()
    assert tile.std() > 0


def test_a_small_tile_is_asked_where_the_network_takes_one():
    assert probe_px(build_model("stem3d-unet", MODEL), CONTRACT) == 64
    tiny = {"depth_layers": 3, "tile_px": 32, "dim": 24, "blocks": 1, "heads": 2, "head_dim": 8}
    assert probe_px(build_model("timesformer", tiny), CONTRACT) == 32
