"""Files made with the names, shapes, payloads and quirks of published ones become bundles, small where they can be."""

import hashlib
import json
from pathlib import Path

import pytest
import safetensors.torch
import segmentation_models_pytorch as smp
import torch
import yaml

from inkbatch.errors import ConfigError, DataError, MismatchError
from inkbatch.io.store.location import Location
from inkbatch.models import presets
from inkbatch.models.base import build_model
from inkbatch.models.bundle import Bundle
from inkbatch.models.fitting import fitting_preset
from inkbatch.models.importing import read_state_dict
from inkbatch.predict import reference
from inkbatch.run.job import RunContext
from inkbatch.run.record import REPORT_NAME
from inkbatch.steps.import_checkpoint import ImportConfig, run
from inkbatch.steps.infer.job import InferConfig
from inkbatch.steps.infer.job import run as run_infer
from inkbatch.steps.labels import clean
from inkbatch.testing.golden import Golden

GOLDEN_FOLDER = Path(__file__).parent.parent / "models" / "golden"
SMALL = {"depth_layers": 3, "stem_channels": 2, "widths": [4, 6], "blocks": [1, 1]}
CONFIG = {"mode": "flat", "patch_size": [3, 32, 32], "image_normalization": {"mode": "robust_mad"}, "seed": 42}


@pytest.fixture
def preset(tmp_path):
    """The preset of `ink-9um`, for a network that is small."""
    contract = {"layers": {"count": 3}, "tile_px": 32, "stride_px": 16, "voxel_size_um": 8.0}
    values = {"extends": "ink-9um", "model": {"depth_layers": 3}, "contract": contract}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return str(tmp_path / "small.yaml")


@pytest.fixture
def network():
    torch.manual_seed(0)
    model = build_model("stem3d-unet", SMALL).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.InstanceNorm2d | torch.nn.InstanceNorm3d):
            torch.nn.init.normal_(module.weight, 1, 0.1)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    return model


def twice(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every convolution and norm under a second name as well, as the published files have it."""
    found = {}
    for key, value in state.items():
        found[key] = value
        found[key.replace(".conv.", ".all_modules.0.").replace(".norm.", ".all_modules.1.")] = value
    return found


def require_same_answer(dest: Path, network: torch.nn.Module) -> None:
    subvolume = torch.rand(1, 1, 3, 32, 32)
    with torch.inference_mode():
        found = Bundle.open(Location.parse(dest)).build()(subvolume)
        assert torch.equal(found, network(subvolume))


def imported(source: Path, dest: Path, preset: str | None, **changes) -> list[str]:
    return run(ImportConfig(source=str(source), dest=str(dest), preset=preset, **changes))


def test_a_payload_of_model_config_and_step(tmp_path, preset, network):
    payload = {"model": twice(network.state_dict()), "config": CONFIG, "step": 75000}
    torch.save(payload, tmp_path / "step-075000.pth")
    lines = imported(tmp_path / "step-075000.pth", tmp_path / "bundle", preset)
    assert "note: 27 tensors stored under two names in the file, with equal values; one was taken" in lines
    assert not [line for line in lines if line.startswith("warning") or "checkpoint's own" in line]
    source = Bundle.open(Location.parse(tmp_path / "bundle")).document.source
    assert source["hyper_parameters"] == {**CONFIG, "step": 75000}
    require_same_answer(tmp_path / "bundle", network)


def test_a_training_checkpoint_with_averaged_weights_needs_the_choice(tmp_path, preset, network):
    raw = {key: value + 1 for key, value in network.state_dict().items()}
    optimiser = torch.optim.AdamW(network.parameters()).state_dict()
    payload = {"model": twice(raw), "ema_model": twice(network.state_dict()), "optimizer": optimiser, "step": 9}
    torch.save(payload, tmp_path / "x.pth")
    with pytest.raises(DataError, match="it holds weights under model and also holds ema_model; .*--weights NAME"):
        imported(tmp_path / "x.pth", tmp_path / "bundle", preset)
    lines = imported(tmp_path / "x.pth", tmp_path / "bundle", preset, weights="ema_model")
    assert "note: these are the averaged weights, ema_model" in lines
    require_same_answer(tmp_path / "bundle", network)


def test_safetensors_with_the_settings_apart(tmp_path, preset, network):
    weights = {key: value.clone() for key, value in twice(network.state_dict()).items()}  # the data are there twice
    safetensors.torch.save_file(weights, tmp_path / "soup.safetensors")
    settings = {**CONFIG, "patch_size": [17, 128, 128]}
    (tmp_path / "train.json").write_text(json.dumps(settings), encoding="utf-8")
    lines = imported(tmp_path / "soup.safetensors", tmp_path / "bundle", preset, settings=str(tmp_path / "train.json"))
    assert [line for line in lines if "own patch_size" in line] == [
        "note: the checkpoint's own patch_size[-1] is 128, the bundle's tile is 32; check which one is right",
        "note: the checkpoint's own patch_size[0] is 17, the bundle's number of layers is 3; check which one is right",
    ]
    require_same_answer(tmp_path / "bundle", network)


def test_a_tensor_that_differs_from_its_copy_is_refused(tmp_path, preset, network):
    weights = {key: value.clone() for key, value in twice(network.state_dict()).items()}
    weights["network.shared_decoder.stages.0.convs.0.all_modules.1.bias"][0] += 1
    safetensors.torch.save_file(weights, tmp_path / "damaged.safetensors")
    with pytest.raises(DataError, match=r"1 tensor .* differ: .*convs\.0\.(norm|all_modules\.1)\.bias and"):
        imported(tmp_path / "damaged.safetensors", tmp_path / "bundle", preset)
    assert not (tmp_path / "bundle").exists()


SMP = {
    "depth_layers": 3,
    "family": "Unet",
    "encoder": "tu-mobilenetv3_small_050",
    "decoder": {"encoder_depth": 2, "decoder_channels": [8, 4]},
}


def save_bare(net: smp.Unet, place: Path) -> Path:
    torch.save(net.state_dict(), place / "net.pth")
    return place / "net.pth"


def save_lightning(net: smp.Unet, place: Path) -> Path:
    state = {f"model.{key}": value for key, value in net.state_dict().items()}
    state |= {"criterion.pos_weight": torch.ones(1), "train_metrics.tp": torch.zeros(1, dtype=torch.int64)}
    torch.save({"state_dict": state, "hyper_parameters": {}, "epoch": 3}, place / "last.ckpt")
    return place / "last.ckpt"


def save_averaged(net: smp.Unet, place: Path) -> Path:
    torch.save(torch.optim.swa_utils.AveragedModel(net).state_dict(), place / "swa.pth")
    return place / "swa.pth"


def save_folder(net: smp.Unet, place: Path) -> Path:
    net.save_pretrained(place / "pretrained")
    return place / "pretrained"


@pytest.mark.parametrize(
    ("save", "left_out"),
    [
        (save_bare, None),
        (save_lightning, "criterion.pos_weight, train_metrics.tp"),
        (save_averaged, "n_averaged"),
        (save_folder, None),
    ],
)
def test_networks_of_segmentation_models_pytorch_as_their_users_save_them(tmp_path, save, left_out):
    torch.manual_seed(0)
    net = smp.Unet(
        "tu-mobilenetv3_small_050", encoder_weights=None, in_channels=3, encoder_depth=2, decoder_channels=[8, 4]
    ).eval()
    contract = {"layers": {"count": 3}, "tile_px": 32, "stride_px": 16}
    base = presets.load_preset("resnet3d-50-7.9um").model_dump(mode="json", exclude={"name"})
    preset = base | {"architecture": "smp", "output_scale": 1, "model": SMP, "contract": base["contract"] | contract}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(preset), encoding="utf-8")
    lines = imported(save(net, tmp_path), tmp_path / "bundle", str(tmp_path / "own.yaml"))
    said = [line for line in lines if line.startswith("note: left out")]
    assert said == ([f"note: left out, since no network has them: {left_out}"] if left_out else [])
    subvolume = torch.rand(1, 1, 3, 32, 32)
    with torch.inference_mode():
        found = Bundle.open(Location.parse(tmp_path / "bundle")).build()(subvolume)
        assert torch.equal(found, net(subvolume[:, 0]))


def save_published(name: str, file: Path, **payload) -> Path:
    """All keys and shapes of a published file, one number each on the disk."""
    manifest = Golden.read(GOLDEN_FOLDER, name).manifest
    weights = {key: torch.zeros((), dtype=dtype).expand(shape) for key, (shape, dtype) in manifest.items()}
    torch.save({key: weights if value is None else value for key, value in payload.items()} or weights, file)
    return file


HECATE = {"format_version": 1, "architecture_family": "hecate", "weight_source": "ema_model"}


@pytest.mark.parametrize(
    ("name", "payload", "found"),
    [
        ("hecate-2.4um", {**HECATE, "sampling_um": 2.4, "config": {}, "ema_model": None}, ["hecate-2.4um"]),
        ("hecate-9.6um", {**HECATE, "sampling_um": 9.6, "config": {}, "ema_model": None}, ["hecate-9.6um"]),
        ("ink-9um", {"model": None, "config": {}, "step": 1}, ["ink-9um", "ink-9um-dense-native"]),
        ("ink-8um-v8in", {}, ["ink-8um-v8in", "ink-8um-v8in-pherc1447"]),
        ("timesformer-large-26", {}, ["timesformer-large-scroll1", "timesformer-large-scroll1-by200"]),
        ("resnet3d-50", {}, ["resnet3d-50-3um", "resnet3d-50-7.9um", "resnet3d-50-pherc1667"]),
        ("i3d", {}, ["i3d-first-letters"]),
    ],
)
def test_names_and_shapes_tell_the_network_and_what_is_unclear_is_listed(tmp_path, name, payload, found):
    read = read_state_dict(save_published(name, tmp_path / "x.pth", **payload))
    assert read.averaged == ("ema_model" in payload)
    if len(found) == 1:
        assert fitting_preset(read).name == found[0]
        return
    with pytest.raises(ConfigError, match=rf"x\.pth: {len(found)} presets fit .*choose one with --as PRESET") as caught:
        fitting_preset(read)
    assert all(f"{preset} (" in str(caught.value) for preset in found)


def test_a_known_digest_decides_between_presets(tmp_path, monkeypatch, preset, network):
    torch.save(network.state_dict(), tmp_path / "net.pth")
    folder = tmp_path / "presets"
    folder.mkdir()
    values = presets.preset_values(Path(preset), ())
    digest = hashlib.sha256((tmp_path / "net.pth").read_bytes()).hexdigest()
    for name, published in (("first", {"where": "a"}), ("second", {"where": "b", "sha256": digest})):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**values, "published": [published]}), encoding="utf-8")
    monkeypatch.setattr(presets, "FOLDERS", (folder,))
    lines = imported(tmp_path / "net.pth", tmp_path / "bundle", None)
    assert lines[0].startswith("second: ")


def test_weights_of_no_known_network_are_refused(tmp_path, network):
    state = network.state_dict()
    torch.save({key: value for key, value in state.items() if "task_heads" not in key}, tmp_path / "x.pth")
    with pytest.raises(MismatchError, match=r"x\.pth: no network known here has these names and shapes, whole"):
        imported(tmp_path / "x.pth", tmp_path / "bundle", None)


def test_a_folder_with_several_checkpoints_is_not_chosen_from(tmp_path, preset, network):
    for name in ("a.pth", "b.pth"):
        torch.save(network.state_dict(), tmp_path / name)
    with pytest.raises(DataError, match=r"the folder holds 2 checkpoints; name one of them: a\.pth, b\.pth"):
        imported(tmp_path, tmp_path / "bundle", preset)


def test_a_constant_network_is_imported_with_a_warning_that_infer_and_its_page_repeat(
    tmp_path, preset, network, tiny_segment
):
    torch.nn.init.zeros_(network.network.task_heads["ink"].weight)
    torch.save(network.state_dict(), tmp_path / "net.pth")
    lines = imported(tmp_path / "net.pth", tmp_path / "bundle", preset)
    (warning,) = [line for line in lines if line.startswith("warning: its answers do not move")]
    assert Bundle.open(Location.parse(tmp_path / "bundle")).document.warnings == (warning.removeprefix("warning: "),)
    notes, context = [], RunContext()
    context.reporter.note = notes.append
    where = {"segment": tiny_segment.segment, "root": str(tiny_segment.root), "bundle": str(tmp_path / "bundle")}
    report = run_infer(InferConfig(**where, device="cpu", unit_px=64), context)
    assert notes[0] == f"warning: bundle small: {warning.removeprefix('warning: ')}"
    assert (report.location / "manifest.json").read_json()["inputs"]["warnings"] == [warning.removeprefix("warning: ")]
    page = (report.location / REPORT_NAME).read_bytes().decode("utf-8")
    assert "The bundle was imported with a warning: its answers do not move" in page
    asked = {"segment": tiny_segment.segment, "root": str(tiny_segment.root), "threshold": 0.6}
    cleaned = clean.run(clean.CleanConfig.checked(asked, "test"), RunContext())
    (handed_on,) = (cleaned.location / "manifest.json").read_json()["inputs"]["warnings"]
    assert handed_on == f"{warning.removeprefix('warning: ')} (map {report.location.name})"


def test_a_bundle_that_answers_otherwise_here_gives_no_map(tmp_path, preset, network, tiny_segment, monkeypatch):
    torch.save(network.state_dict(), tmp_path / "net.pth")
    imported(tmp_path / "net.pth", tmp_path / "bundle", preset)
    # as a broken device would
    monkeypatch.setattr(reference, "normalise_tiles", lambda tiles, contract, statistics: -tiles.float())
    where = {"segment": tiny_segment.segment, "root": str(tiny_segment.root), "bundle": str(tmp_path / "bundle")}
    with pytest.raises(DataError, match="its reference tile gives other logits here than at import"):
        run_infer(InferConfig(**where, device="cpu", unit_px=64), RunContext())


def test_a_bundle_can_be_made_without_asking_the_network(tmp_path, preset, network):
    torch.save(network.state_dict(), tmp_path / "net.pth")
    imported(tmp_path / "net.pth", tmp_path / "bundle", preset, check=False)
    document = Bundle.open(Location.parse(tmp_path / "bundle")).document
    assert (document.warnings, document.reference) == ((), {})
