"""`inkbatch import-promptable` on folders in the hub's layout, as `save_pretrained` writes them."""

import json

import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

from inkbatch.cli.app import app
from inkbatch.errors import ConfigError, DataError, MismatchError
from inkbatch.io.store.location import Location
from inkbatch.models.prompting import PromptableBundle, build_promptable
from inkbatch.steps.import_promptable import ImportPromptableConfig, run
from inkbatch.testing.prompting import tiny_sam, tiny_sam2


@pytest.fixture(scope="module", params=["sam2", "sam"])
def published(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "Tiny Net"
    torch.manual_seed(0)
    document = tiny_sam2() if request.param == "sam2" else tiny_sam()
    build_promptable(document.kind, document.config).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\ntags: [a]\n---\n# Words\n")
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5, 0.4, 0.3]}))
    return folder


def test_a_folder_in_the_hub_s_layout_becomes_a_bundle(published, tmp_path):
    result = CliRunner().invoke(app, ["import-promptable", str(published), str(tmp_path / "bundle")])
    assert result.exit_code == 0, result.output
    bundle = PromptableBundle.open(Location.parse(str(tmp_path / "bundle")))
    document = bundle.document
    assert (document.name, document.licence, document.mean) == ("tiny-net", "apache-2.0", (0.5, 0.4, 0.3))
    assert len(document.source["sha256"]) == 64
    stored = safetensors.torch.load_file(published / "model.safetensors")
    built = bundle.build().net.state_dict()
    assert all(torch.equal(built[name], tensor) for name, tensor in stored.items())


def test_an_equal_bundle_is_left_alone_and_another_refused(published, tmp_path):
    config = ImportPromptableConfig(source=str(published), dest=str(tmp_path / "bundle"))
    run(config)
    assert any("nothing to do" in line for line in run(config))
    with pytest.raises(ConfigError, match="it differs in licence"):
        run(config.model_copy(update={"licence": "MIT"}))
    run(config.model_copy(update={"licence": "MIT"}), replace=True)
    assert PromptableBundle.open(Location.parse(config.dest)).document.licence == "MIT"


@pytest.mark.parametrize("damage", [None, b"", b"other weights"])
def test_weights_that_are_lost_or_damaged_are_imported_again(published, tmp_path, damage):
    config = ImportPromptableConfig(source=str(published), dest=str(tmp_path / "bundle"))
    run(config)
    weights = tmp_path / "bundle/weights.safetensors"
    before = weights.read_bytes()
    weights.unlink() if damage is None else weights.write_bytes(damage)
    assert not any("nothing to do" in line for line in run(config))
    assert weights.read_bytes() == before


def copied(published, tmp_path, without=(), **config):
    folder = tmp_path / "changed"
    folder.mkdir()
    for file in published.iterdir():
        if file.name not in without:
            (folder / file.name).write_bytes(file.read_bytes())
    if config:
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | config))
    return ImportPromptableConfig(source=str(folder), dest=str(tmp_path / "bundle"))


class Program:
    """A weight that makes a file when it is unpickled."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return open, (self.place, "w")


def test_weights_that_want_to_run_a_program_are_refused_and_run_nothing(published, tmp_path):
    weights = safetensors.torch.load_file(published / "model.safetensors")
    (tmp_path / "config.json").write_bytes((published / "config.json").read_bytes())
    torch.save({**weights, "more": Program(str(tmp_path / "ran"))}, tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"would run whatever program .* or a plain state dict$"):
        run(ImportPromptableConfig(source=str(tmp_path), dest=str(tmp_path / "bundle"), licence="MIT"))
    assert not (tmp_path / "ran").exists()


def test_weights_without_a_licence_are_refused(published, tmp_path):
    config = copied(published, tmp_path, without=("README.md",))
    with pytest.raises(ConfigError, match="--licence"):
        run(config)
    run(config.model_copy(update={"licence": "MIT"}))
    assert PromptableBundle.open(Location.parse(config.dest)).document.licence == "MIT"


def test_weights_without_their_config_are_refused(published, tmp_path):
    with pytest.raises(DataError, match=r"expected config\.json"):
        run(copied(published, tmp_path, without=("config.json",)))


def test_another_architecture_is_refused_by_name(published, tmp_path):
    with pytest.raises(MismatchError, match="got model_type 'segformer'"):
        run(copied(published, tmp_path, model_type="segformer"))


def test_a_missing_key_is_refused_by_name(published, tmp_path):
    config = copied(published, tmp_path)
    weights = safetensors.torch.load_file(published / "model.safetensors")
    del weights["mask_decoder.iou_token.weight"]
    safetensors.torch.save_file(weights, tmp_path / "changed" / "model.safetensors")
    with pytest.raises(MismatchError, match=r"missing mask_decoder\.iou_token\.weight"):
        run(config)
    assert not (tmp_path / "bundle").exists()
