"""Networks of segmentation-models-pytorch; all with fresh weights and without a network."""

from typing import ClassVar

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from inkbatch.errors import ConfigError, DataError, MismatchError
from inkbatch.models.base import build_model
from inkbatch.models.encoder_weights import load_encoder_weights, spread_rgb
from inkbatch.models.smp_nets import SmpConfig, SmpNet, build_net, mean_probability_logit
from inkbatch.testing.models import ModelContract


class TestUnet(ModelContract):
    architecture = "smp"
    config: ClassVar = {"depth_layers": 5, "family": "Unet", "encoder": "resnet18"}
    bfloat16_tolerance = 0.3  # fresh weights: the logits hardly differ, and so their spread is small


class TestSegformer(ModelContract):
    architecture = "smp"
    config: ClassVar = {
        "depth_layers": 3,
        "family": "Segformer",
        "encoder": "mit_b0",
        "decoder": {"decoder_segmentation_channels": 64},
    }


class TestDpt(ModelContract):
    architecture = "smp"
    dead_parameters = ("net.encoder.model.norm.", "net.encoder.model.head.")
    config: ClassVar = {
        "depth_layers": 4,
        "family": "DPT",
        "encoder": "tu-vit_tiny_patch16_224",
        "encoder_options": {"img_size": 64},
        "decoder": {"decoder_fusion_channels": 32, "decoder_intermediate_channels": [16, 16, 16, 16]},
    }


class TestLayerGroups(ModelContract):
    architecture = "smp"
    dead_parameters = ("net.encoder._conv_head", "net.encoder._bn1")
    config: ClassVar = {
        "depth_layers": 6,
        "family": "FPN",
        "encoder": "efficientnet-b0",
        "layer_groups": [[0, 1, 2], [2, 3, 4], [3, 4, 5]],
    }


def net(**config) -> SmpNet:
    return build_model("smp", {"depth_layers": 4, "encoder": "resnet18", **config}).eval()


@pytest.mark.parametrize(
    "family", ["UnetPlusPlus", "MAnet", "Linknet", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "UPerNet"]
)
def test_every_family_gives_one_logit_per_pixel(family):
    model = net(family=family)
    with torch.inference_mode():
        assert model(torch.rand(1, 1, 4, 64, 96)).shape == (1, 1, 64, 96)


@pytest.mark.parametrize(
    "encoder", ["vgg11", "timm-regnetx_002", "timm-resnest14d", "tu-convnext_atto", "mobileone_s0"]
)
def test_encoders_of_many_kinds_take_layers_as_channels(encoder):
    model = net(family="FPN", encoder=encoder)
    with torch.inference_mode():
        assert model(torch.rand(1, 1, 4, 64, 64)).shape == (1, 1, 64, 64)


@pytest.mark.parametrize(("spelled", "family"), [("deeplabv3+", "DeepLabV3Plus"), ("Unet++", "UnetPlusPlus")])
def test_families_may_be_spelled_as_their_papers_do(spelled, family):
    assert SmpConfig(depth_layers=3, family=spelled).family == family


def test_a_family_that_ends_coarser_is_enlarged_inside():
    model = net(family="PSPNet", decoder={"encoder_depth": 4})
    with torch.inference_mode():
        assert model.net(torch.rand(1, 4, 64, 64)).shape[-1] == 32
        assert model(torch.rand(1, 1, 4, 64, 64)).shape == (1, 1, 64, 64)


def test_unet_takes_any_tile():
    model = net()
    assert model.tile_multiple == 1
    with torch.inference_mode():
        assert model(torch.rand(1, 1, 4, 70, 75)).shape == (1, 1, 70, 75)


def test_the_tile_multiple_follows_the_encoder():
    assert net(family="FPN").tile_multiple == 32
    assert net(family="DeepLabV3Plus", decoder={"encoder_output_stride": 8}).tile_multiple == 8


def test_a_refused_tile_names_the_multiple_and_sizes_that_fit():
    with pytest.raises(ConfigError, match=r"100 x 100 px is not a multiple of 32 px.*96 or 128"):
        net(family="FPN")(torch.rand(1, 1, 4, 100, 100))


def test_a_transformer_with_a_position_table_takes_only_its_own_tile():
    model = net(family="DPT", encoder="tu-vit_tiny_patch16_224", encoder_options={"img_size": 64})
    assert model.tile_multiple == 64
    with pytest.raises(ConfigError, match="tiles of 64 px, got 128 x 128 px"):
        model(torch.rand(1, 1, 4, 128, 128))


def test_layers_enter_as_channels_in_depth_order():
    model = net()
    subvolume = torch.rand(2, 1, 4, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model(subvolume), model.net(subvolume.squeeze(1)))


def test_groups_average_probabilities_of_one_network():
    groups = [[0, 1], [3, 2]]
    model = net(layer_groups=groups)
    subvolume = torch.rand(2, 1, 4, 64, 64)
    with torch.inference_mode():
        probability = torch.stack([model.net(subvolume[:, 0, group]).sigmoid() for group in groups]).mean(dim=0)
        torch.testing.assert_close(model(subvolume).sigmoid(), probability, rtol=1e-5, atol=1e-6)


def test_the_mean_logit_is_exact_where_probabilities_saturate():
    logits = torch.tensor([[60.0, 60.0], [-80.0, -80.0], [-90.0, 90.0], [-40.0, -1000.0]])
    expected = torch.tensor([60.0, -80.0, 0.0, -40.0 - torch.log(torch.tensor(2.0))])
    torch.testing.assert_close(mean_probability_logit(logits, dim=1), expected, rtol=1e-6, atol=1e-5)


def test_the_mean_logit_is_the_logit_of_the_mean():
    logits = torch.randn(5, 7, dtype=torch.float64)
    expected = torch.logit(logits.sigmoid().mean(dim=0)).float()
    torch.testing.assert_close(mean_probability_logit(logits, dim=0), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"family": "Unett"}, "unknown family 'Unett'.*UnetPlusPlus"),
        ({"encoder": "resnet19"}, "resnet19.*similar encoders.*resnet18"),
        ({"encoder": "tu-nothing"}, "tu-nothing.*cannot be built"),
        ({"family": "UnetPlusPlus", "encoder": "mit_b0"}, "UnetPlusPlus with encoder 'mit_b0'"),
        ({"decoder": {"decoder_chanels": [8]}}, "decoder_chanels.*decoder_channels"),
        ({"decoder": {"classes": 2}}, "takes no .'classes'"),
        ({"decoder": {"encoder_weights": "imagenet"}}, "takes no .'encoder_weights'"),
        ({"encoder_options": {"img_size": 64}}, "only timm encoders"),
        ({"encoder": "tu-resnet18", "encoder_options": {"encoder_depth": 4}}, "no options of the encoder"),
        ({"layer_groups": [[0, 1], [2]]}, "equal length"),
        ({"layer_groups": []}, "one or more groups"),
        ({"layer_groups": [[2, 4]]}, r"expected layers 0 to 3, got \[4\]"),
    ],
)
def test_a_config_that_cannot_be_built_is_refused_by_name(config, message):
    with pytest.raises(ConfigError, match=message):
        net(**config)


def test_the_family_is_stored_under_its_own_spelling():
    assert SmpConfig(depth_layers=3, family="deeplabv3plus").family == "DeepLabV3Plus"


class TestFrozenEncoder:
    def test_it_neither_learns_nor_counts_batches(self):
        model = net()
        model.freeze_encoder()
        model.train()
        before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
        model(torch.rand(2, 1, 4, 64, 64)).sum().backward()
        assert all(parameter.grad is None for parameter in model.encoder.parameters())
        assert all(torch.equal(value, before[name]) for name, value in model.encoder.state_dict().items())
        assert model.net.decoder.training
        assert all(parameter.grad is not None for parameter in model.net.decoder.parameters())

    def test_it_learns_again_when_thawed(self):
        model = net(encoder="efficientnet-b0").train()
        model.ask_for_gradients()
        asked = [parameter.requires_grad for parameter in model.parameters()]
        model.freeze_encoder()
        assert not any(parameter.requires_grad for parameter in model.encoder.parameters())
        model.freeze_encoder(frozen=False)
        assert model.encoder.training
        assert [parameter.requires_grad for parameter in model.parameters()] == asked


class TestEncoderWeights:
    @pytest.fixture
    def rgb(self) -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        return net(depth_layers=3).encoder.state_dict()

    @pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
    @pytest.mark.parametrize("prefix", ["", "encoder."])
    def test_a_file_fills_the_encoder_and_nothing_else(self, rgb, tmp_path, suffix, prefix):
        path = str(tmp_path / f"weights{suffix}")
        state = {prefix + name: value for name, value in rgb.items()}
        if suffix == ".pth":
            torch.save({"state_dict": state}, path)
        else:
            save_file(state, path)
        model = net(depth_layers=3)
        decoder = {name: value.clone() for name, value in model.net.decoder.state_dict().items()}
        load_encoder_weights(model, path)
        assert all(torch.equal(value, rgb[name]) for name, value in model.encoder.state_dict().items())
        assert all(torch.equal(value, decoder[name]) for name, value in model.net.decoder.state_dict().items())

    def test_rgb_kernels_are_spread_over_the_layers(self, rgb, tmp_path):
        path = str(tmp_path / "weights.safetensors")
        save_file(rgb, path)
        model = net(depth_layers=5)
        load_encoder_weights(model, path)
        kernels = model.encoder.state_dict()["conv1.weight"]
        torch.testing.assert_close(kernels[:, 4], rgb["conv1.weight"][:, 1] * 0.6)

    @pytest.mark.parametrize("channels", [1, 6, 12])
    def test_a_grey_picture_keeps_its_answer_when_kernels_are_spread(self, channels):
        conv = nn.Conv2d(3, 4, 3, bias=False)
        grey = torch.rand(1, 1, 8, 8)
        spread = nn.functional.conv2d(grey.repeat(1, channels, 1, 1), spread_rgb(conv.weight, channels))
        torch.testing.assert_close(spread, conv(grey.repeat(1, 3, 1, 1)), rtol=1e-5, atol=1e-6)

    def test_kernels_are_spread_as_smp_spreads_them(self, rgb):
        model = net(depth_layers=3)
        model.encoder.load_state_dict(rgb)
        model.encoder.set_in_channels(5, pretrained=True)
        torch.testing.assert_close(model.encoder.state_dict()["conv1.weight"], spread_rgb(rgb["conv1.weight"], 5))

    @pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "mobilenetv3_small_050"])
    def test_a_file_of_timm_s_own_fills_a_timm_encoder(self, tmp_path, name):
        """With a classifier, without smp's prefix, and with dots where timm's feature extractors have underscores."""
        torch.manual_seed(4)
        published = timm.create_model(name).state_dict()
        save_file(published, tmp_path / "model.safetensors")
        model = net(depth_layers=3, family="FPN", encoder=f"tu-{name}")
        load_encoder_weights(model, str(tmp_path / "model.safetensors"))
        values = {key.replace("_", "."): value for key, value in published.items()}
        for key, value in model.encoder.state_dict().items():
            assert torch.equal(value, values[key.removeprefix("model.").replace("_", ".")]), key

    def test_a_deeper_network_of_timm_is_another_network(self, tmp_path):
        save_file(timm.create_model("resnet34").state_dict(), tmp_path / "model.safetensors")
        with pytest.raises(MismatchError, match=r"encoder 'tu-resnet18'.*unexpected \['layer1\.2"):
            load_encoder_weights(net(encoder="tu-resnet18"), str(tmp_path / "model.safetensors"))

    def test_weights_of_another_encoder_are_refused(self, rgb, tmp_path):
        path = str(tmp_path / "weights.safetensors")
        save_file(rgb, path)
        with pytest.raises(MismatchError, match=r"weights.safetensors: does not hold the encoder 'resnet34'.*missing"):
            load_encoder_weights(net(encoder="resnet34"), path)

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(DataError, match=r"none\.safetensors"):
            load_encoder_weights(net(), str(tmp_path / "none.safetensors"))

    def test_a_file_that_would_run_code_is_refused(self, tmp_path):
        path = tmp_path / "evil.pth"
        torch.save({"state_dict": {"x": torch.zeros(1)}, "callback": print}, path)
        with pytest.raises(DataError, match=r"evil.pth: cannot be read as plain weights"):
            load_encoder_weights(net(), str(path))

    def test_an_unknown_name_lists_the_known_ones(self):
        with pytest.raises(ConfigError, match=r"'imagnet'.*imagenet"):
            load_encoder_weights(net(), "imagnet")

    @pytest.mark.parametrize("fault", [OSError("no route to host"), RuntimeError("client has been closed")])
    def test_without_a_network_the_cure_is_named(self, monkeypatch, fault):
        def unreachable(*_args, **_kwargs):
            raise fault

        monkeypatch.setattr(smp.encoders, "hf_hub_download", unreachable)
        with pytest.raises(ConfigError, match=f"'imagenet'.*'resnet18'.*{fault}.*give the file"):
            load_encoder_weights(net(), "imagenet")

    def test_fetched_weights_reach_the_network(self, rgb, monkeypatch, tmp_path):
        path = str(tmp_path / "model.safetensors")
        save_file(rgb, path)
        monkeypatch.setattr(smp.encoders, "hf_hub_download", lambda *_args, **_kwargs: path)
        model = net(depth_layers=5)
        load_encoder_weights(model, "imagenet")
        torch.testing.assert_close(model.encoder.state_dict()["conv1.weight"], spread_rgb(rgb["conv1.weight"], 5))
        assert torch.equal(model.encoder.state_dict()["layer4.1.conv2.weight"], rgb["layer4.1.conv2.weight"])

    def test_none_keeps_the_fresh_weights(self):
        model = net()
        before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
        load_encoder_weights(model, None)
        assert all(torch.equal(value, before[name]) for name, value in model.encoder.state_dict().items())


def test_building_fetches_nothing(monkeypatch):
    monkeypatch.setattr(smp.encoders, "hf_hub_download", lambda *_args, **_kwargs: pytest.fail("went to the network"))
    assert isinstance(build_net(SmpConfig(depth_layers=3)), nn.Module)
