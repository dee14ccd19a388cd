"""The commands around models, through the real command line."""

import json

import pytest
import torch
import typer
import yaml

from inkbatch.cli import models as cli_models
from inkbatch.cli.outcome import run_command
from inkbatch.errors import EXIT_CONFIG
from inkbatch.models.base import build_model
from inkbatch.models.presets import preset_names

MODEL = {"depth_layers": 3, "tile_px": 32, "dim": 24, "blocks": 1, "heads": 2, "head_dim": 8}


@pytest.fixture
def command(capsys):
    """Run a command; its exit code and what it printed."""
    app = typer.Typer()
    cli_models.register(app)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = run_command(lambda: app(args=list(arguments), standalone_mode=False))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def preset(tmp_path):
    changes = {
        "extends": "timesformer-gp",
        "model": {"depth_layers": 3, "tile_px": 32},
        "contract": {"layers": {"count": 3, "source_range": [5, 8]}, "tile_px": 32, "stride_px": 16},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(changes), encoding="utf-8")
    return str(tmp_path / "tiny.yaml")


@pytest.fixture
def imported(tmp_path, command, preset):
    torch.save(build_model("timesformer", MODEL).state_dict(), tmp_path / "net.pth")
    arguments = (str(tmp_path / "net.pth"), str(tmp_path / "bundle"), "--as", preset)
    code, out, _ = command("import-checkpoint", *arguments, "--set", "contract.divisor=200", "--name", "mine")
    assert code == 0, out
    return tmp_path / "bundle"


def test_a_checkpoint_is_imported_with_its_settings(imported):
    document = json.loads((imported / "bundle.json").read_text(encoding="utf-8"))
    assert (document["name"], document["contract"]["divisor"]) == ("mine", 200)


def test_a_bundle_is_shown_in_words_and_as_json(imported, command):
    code, out, _ = command("bundle", str(imported))
    assert code == 0
    assert "bundle mine" in out
    assert "3, numbers 5:8 of the source" in out
    assert "clipped to 0 .. 200, divided by 200" in out
    assert "net.pth" in out
    shown = json.loads(command("bundle", str(imported), "--json")[1])
    assert shown == json.loads((imported / "bundle.json").read_text(encoding="utf-8"))


def test_settings_for_prepare_are_printed_as_yaml(imported, command):
    assert yaml.safe_load(command("bundle", str(imported), "--prepare")[1]) == {}


def test_networks_and_presets_are_listed(command):
    code, out, _ = command("models")
    assert code == 0
    assert "unetr-segformer" in out.splitlines()[0]
    listed = [line for line in out.splitlines()[2:] if line.startswith("  ")]
    assert sorted(line.split()[0] for line in listed) == preset_names()


def test_presets_stand_under_the_voxel_edge_that_they_were_trained_at(command):
    lines = command("models")[1].splitlines()[2:]
    scales = [float(line.removesuffix(" µm")) for line in lines if not line.startswith("  ")]
    assert scales == sorted(scales)
    assert len(scales) == len(set(scales))
    under = {}
    for line in lines:
        scale = line if not line.startswith("  ") else scale  # noqa: F821  # the first line is a scale
        under[line.split()[0]] = scale
    assert (under["hecate-2.4um"], under["ink-9um"], under["ink-8um-v8in"]) == ("2.4 µm", "9.6 µm", "8 µm")


def test_a_preset_is_shown(command):
    code, out, _ = command("models", "resnet3d-152-3d-decoder-by200")
    assert code == 0
    assert "hf://scrollprize/ink_canonical_2um" in out
    assert "divided by 200" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("import-checkpoint", "a.ckpt", "b", "--as", "timesformr-gp"), "did you mean 'timesformer-gp'"),
        (("models", "no"), "none of that name"),
    ],
)
def test_wrong_commands_are_refused(command, arguments, message):
    code, _, err = command(*arguments)
    assert code == EXIT_CONFIG
    assert message in err
