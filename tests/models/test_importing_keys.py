"""Keys of published files are brought under ours, whole or not at all."""

import importlib

import pytest
import torch
from torch import Tensor, nn

from inkbatch.errors import DataError, MismatchError
from inkbatch.models.base import InkModel, ModelConfig, build_model
from inkbatch.models.identity import Identity
from inkbatch.models.matching import infer_config, match_keys, matched
from inkbatch.models.timesformer import Timesformer

TINY = {"depth_layers": 3, "tile_px": 32, "dim": 24, "blocks": 1, "heads": 2, "head_dim": 8}


def weights() -> dict[str, Tensor]:
    return {
        "encoder.weight": torch.arange(6.0).view(2, 3),
        "encoder.steps": torch.tensor(7),
        "logit.bias": torch.ones(1),
    }


class TwoParts(InkModel):
    """A network whose keys start with `encoder.` and `logit.`."""

    architecture = "two-parts"
    output_scale = 1

    def __init__(self) -> None:
        super().__init__(ModelConfig(depth_layers=1))
        self.encoder = nn.Linear(3, 2, bias=False)
        self.encoder.register_buffer("steps", torch.tensor(0))
        self.logit = nn.Linear(1, 1)
        del self.logit.weight

    def forward(self, subvolume: Tensor) -> Tensor:
        return subvolume


class Renamed(TwoParts):
    """The same, published under an older name."""

    @classmethod
    def published_key(cls, key: str) -> str:
        return key.replace("old_encoder.", "encoder.")


def require_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert list(found) == list(wanted)
    for key, value in wanted.items():
        assert torch.equal(found[key], value)
        assert found[key].dtype == value.dtype


@pytest.mark.parametrize("kind", [torch.int8, torch.bool, torch.complex64])
def test_numbers_of_another_kind_are_refused_and_not_cast(kind):
    quantised = {**weights(), "encoder.weight": weights()["encoder.weight"].to(kind)}
    with pytest.raises(MismatchError, match=rf"1 of another kind of number: encoder\.weight .*float32, file {kind}"):
        match_keys(TwoParts(), quantised)


def test_floats_of_another_precision_are_the_same_weights():
    half = {key: value.half() if value.is_floating_point() else value for key, value in weights().items()}
    assert match_keys(TwoParts(), half)["encoder.weight"].dtype == torch.float16


PREFIXES = ["", "model.", "module.", "_orig_mod.", "backbone.", "model.module.", "module._orig_mod.", "net.", "a.b."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_of_wrappers_are_stripped(prefix):
    model = TwoParts()
    matched = match_keys(model, {f"{prefix}{key}": value for key, value in weights().items()})
    model.load_state_dict(matched, strict=True)
    require_equal(dict(sorted(model.state_dict().items())), dict(sorted(weights().items())))


@pytest.mark.parametrize("section", ["state_dict", "model_state_dict", None])
def test_weights_are_found_inside_a_checkpoint(section):
    whole = {"epoch": 1, section: weights()} if section else weights()
    require_equal(match_keys(TwoParts(), whole), {key: weights()[key] for key in TwoParts().state_dict()})


@pytest.mark.parametrize("prefix", ["", "model.", "backbone.", "model.backbone.", "module.model."])
def test_backbone_stays_where_the_network_has_it(prefix):
    """All keys of a TimeSformer start with `backbone.`; that is its own, wrapped or not."""
    model = build_model("timesformer", TINY)
    wrapped = {f"{prefix}{key}": value for key, value in model.state_dict().items()}
    require_equal(match_keys(model, wrapped), model.state_dict())


@pytest.mark.parametrize(
    "keys",
    [
        ("model.module.encoder.weight", "model.module.encoder.steps", "model.logit.bias"),
        ("encoder._orig_mod.weight", "encoder._orig_mod.steps", "logit._orig_mod.bias"),
        ("model.encoder._orig_mod.weight", "model.encoder._orig_mod.steps", "model.logit.bias"),
        ("backbone.encoder.weight", "backbone.encoder.steps", "logit.bias"),
    ],
)
def test_parts_that_were_wrapped_by_themselves_are_found(keys):
    matched = match_keys(TwoParts(), dict(zip(keys, weights().values(), strict=True)))
    require_equal(dict(sorted(matched.items())), dict(sorted(weights().items())))


@pytest.mark.parametrize("prefix", ["", "model."])
def test_older_names_are_translated_by_the_network(prefix):
    old = {f"{prefix}{key.replace('encoder.', 'old_encoder.')}": value for key, value in weights().items()}
    require_equal(match_keys(Renamed(), old), {key: weights()[key] for key in TwoParts().state_dict()})
    with pytest.raises(MismatchError):
        match_keys(TwoParts(), old)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logit.bias": None}, r"1 missing: logit\.bias\. Nothing"),
        ({"aux.weight": torch.ones(1)}, r"1 unexpected: aux\.weight\. Nothing"),
        (
            {"encoder.weight": torch.ones(3, 2)},
            r"1 misshapen: encoder\.weight \(model \(2, 3\), file \(3, 2\)\)\. Nothing",
        ),
    ],
)
@pytest.mark.parametrize("prefix", ["", "model."])
def test_keys_that_do_not_fit_are_listed(prefix, change, message):
    changed = {prefix + key: value for key, value in (weights() | change).items() if value is not None}
    with pytest.raises(MismatchError, match=rf"^x\.ckpt: does not fit model two-parts: {message}"):
        match_keys(TwoParts(), changed, "x.ckpt")


def test_averaged_weights_among_raw_ones_are_named():
    both = {copy + key: value for copy in ("model.", "ema.") for key, value in weights().items()}
    with pytest.raises(
        DataError, match=r"x\.ckpt: .* under model and also holds ema; their predictions differ; choose one of them"
    ):
        match_keys(TwoParts(), both, "x.ckpt")


@pytest.mark.parametrize("copies", [("copy.", "other."), ("", "model."), ("module.", "model.")])
def test_two_copies_of_the_weights_are_not_chosen_between(copies):
    both = {copy + key: value for copy in copies for key, value in weights().items()}
    with pytest.raises(MismatchError, match="unexpected"):
        match_keys(TwoParts(), both)


LEFTOVERS = ["n_averaged", "criterion.pos_weight", "model.loss_fn.weight", "train_metrics.dice.tp", "val_iou.confmat"]


@pytest.mark.parametrize("prefix", ["", "model.", "module."])
def test_what_training_left_beside_the_weights_is_left_out_and_said(prefix):
    beside = {key: torch.ones(1) for key in LEFTOVERS}
    found = matched(TwoParts(), beside | {prefix + key: value for key, value in weights().items()})
    require_equal(found.tensors, {key: weights()[key] for key in TwoParts().state_dict()})
    assert found.left_out == tuple(LEFTOVERS)
    assert found.notes == [f"note: left out, since no network has them: {', '.join(LEFTOVERS)}"]


def test_a_loss_that_is_part_of_the_network_stays():
    class WithLoss(TwoParts):
        def __init__(self) -> None:
            super().__init__()
            self.loss = nn.Linear(1, 1, bias=False)

    own = weights() | {"loss.weight": torch.ones(1, 1)}
    assert "loss.weight" in match_keys(WithLoss(), {f"model.{key}": value for key, value in own.items()})


def test_further_keys_are_left_out_where_the_user_names_them():
    extra = weights() | {"stats.mean": torch.ones(3), "stats.std": torch.ones(3)}
    with pytest.raises(MismatchError, match=r"2 unexpected: stats\.mean, stats\.std"):
        matched(TwoParts(), extra)
    assert matched(TwoParts(), extra, leave_out=("stats.*",)).left_out == ("stats.mean", "stats.std")


@pytest.mark.parametrize("prefix", ["", "model.", "module.model."])
def test_a_network_s_own_prefix_is_added(prefix):
    model = build_model("timesformer", TINY)
    bare = {prefix + key.removeprefix("backbone."): value for key, value in model.state_dict().items()}
    require_equal(match_keys(model, bare), model.state_dict())
    assert infer_config(Timesformer, bare).model_copy(update={"depth_layers": 3}) == model.config


class TwoNames(TwoParts):
    """Files hold its encoder again, under `copy.`."""

    @classmethod
    def published_key(cls, key: str) -> str:
        return key.replace("copy.", "encoder.")


@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_tensor_under_two_names_is_proved_equal_and_taken_once(prefix):
    twice = {f"{prefix}{key}": value for key, value in weights().items()}
    twice[f"{prefix}copy.weight"] = weights()["encoder.weight"]
    found = matched(TwoNames(), twice)
    require_equal(found.tensors, {key: weights()[key] for key in TwoParts().state_dict()})
    assert found.notes == ["note: 1 tensor stored under two names in the file, with equal values; one was taken"]
    twice[f"{prefix}copy.weight"] = weights()["encoder.weight"] + 1
    with pytest.raises(DataError, match=r"1 tensor .* differ: .*encoder\.weight and .*copy\.weight; the file is"):
        matched(TwoNames(), twice)


def test_long_lists_are_cut_and_counted():
    many = weights() | {f"extra.{number}": torch.ones(1) for number in range(25)}
    with pytest.raises(MismatchError, match=r"25 unexpected: extra\.0, .*extra\.19, and 5 more\.") as caught:
        match_keys(TwoParts(), many)
    assert "extra.20" not in str(caught.value)


def test_nothing_is_loaded_when_keys_do_not_fit():
    model = TwoParts()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(MismatchError):
        match_keys(model, {key: value for key, value in weights().items() if key != "logit.bias"})
    require_equal(dict(model.state_dict()), before)


@pytest.mark.parametrize("prefix", ["", "model.", "module.model."])
def test_config_is_inferred_through_prefixes(prefix):
    model = build_model("timesformer", TINY)
    wrapped = {prefix + key: value for key, value in model.state_dict().items()}
    assert infer_config(Timesformer, wrapped).model_copy(update={"depth_layers": 3}) == model.config


PUBLISHED = {
    "timesformer-26": "timesformer",
    "i3d": "i3d",
    "i3d-nonlocal": "i3d_nonlocal",
    "resnet3d-50": "resnet3d",
    "resnet3d-152-3d-decoder": "resnet3d_3d_decoder",
    "unetr-segformer-b3-mini": "unetr_segformer",
    "ink-9um": "stem3d_unet",
    "hecate-2.4um": "hecate",
    "hecate-9.6um": "hecate",
    "ink-8um-v8in": "resnet3d_upsampled",
    "timesformer-large-26": "timesformer",
}


@pytest.mark.parametrize("prefix", ["", "model.", "model._orig_mod."])
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_network_is_rebuilt_from_its_keys(golden, name, prefix):
    importlib.import_module(f"inkbatch.models.{PUBLISHED[name]}")
    architecture = PUBLISHED[name].replace("_", "-")
    manifest = golden(name).manifest
    tensors = {prefix + key: torch.empty(shape, dtype=dtype, device="meta") for key, (shape, dtype) in manifest.items()}
    with torch.device("meta"):
        model_class = type(build_model(architecture, {}))
        model = build_model(architecture, infer_config(model_class, tensors).model_dump())
    assert match_keys(model, tensors).keys() == manifest.keys()


def test_config_that_cannot_be_inferred_is_refused():
    with pytest.raises(MismatchError, match=r"x\.ckpt: timesformer: the checkpoint has no TimeSformer's keys"):
        infer_config(Timesformer, weights(), "x.ckpt")
    with pytest.raises(MismatchError, match="identity needs its config written out"):
        infer_config(Identity, weights())
