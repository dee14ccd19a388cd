"""Every shipped preset imports its published keys, and the bundle answers as the published network did."""

import tempfile
from pathlib import Path

import pytest
import torch
import yaml

from inkbatch.data.segments.prepared import segment_folder
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume
from inkbatch.models.bundle import Bundle
from inkbatch.models.describing import prepare_settings
from inkbatch.models.presets import load_preset, preset_names
from inkbatch.run.job import RunContext
from inkbatch.steps.import_checkpoint import ImportConfig, run
from inkbatch.steps.prepare.job import run as run_prepare
from inkbatch.testing.golden import Golden, fill_state_dict
from inkbatch.testing.segments import random_papyrus, write_layers

GOLDEN_FOLDER = Path(__file__).parent.parent / "models" / "golden"

slow = pytest.mark.slow
GOLDEN = [
    pytest.param("timesformer-gp", "timesformer-26", "", id="timesformer-gp"),
    pytest.param("timesformer-gp-by200", "timesformer-26", "", id="timesformer-gp-by200", marks=slow),
    pytest.param("timesformer-scroll5", "timesformer-26", "model.", id="timesformer-scroll5", marks=slow),
    pytest.param("timesformer-scroll5-by200", "timesformer-26", "", id="timesformer-scroll5-by200", marks=slow),
    pytest.param("i3d-first-letters", "i3d", "", id="i3d-first-letters"),
    pytest.param("i3d-nonlocal-gp", "i3d-nonlocal", "", id="i3d-nonlocal-gp", marks=slow),
    pytest.param("i3d-nonlocal-gp-33-layers", "i3d-nonlocal", "", id="i3d-nonlocal-gp-33-layers", marks=slow),
    pytest.param("resnet3d-101-gp", "resnet3d-101", "", id="resnet3d-101-gp", marks=slow),
    pytest.param("resnet3d-50-3um", "resnet3d-50", "", id="resnet3d-50-3um", marks=slow),
    pytest.param("resnet3d-50-7.9um", "resnet3d-50", "", id="resnet3d-50-7.9um", marks=slow),
    pytest.param("resnet3d-50-pherc1667", "resnet3d-50", "", id="resnet3d-50-pherc1667", marks=slow),
    pytest.param("resnet3d-152-3d-decoder", "resnet3d-152-3d-decoder", "", id="resnet3d-152-3d-decoder", marks=slow),
    pytest.param("resnet3d-152-3d-decoder-by200", "resnet3d-152-3d-decoder", "", id="152-by200", marks=slow),
    pytest.param("timesformer-large-scroll1", "timesformer-large-26", "", id="timesformer-large-scroll1", marks=slow),
    pytest.param("timesformer-large-scroll1-by200", "timesformer-large-26", "", id="large-by200", marks=slow),
    pytest.param("ink-9um", "ink-9um", "", id="ink-9um"),
    pytest.param("ink-9um-dense-native", "ink-9um", "module.", id="ink-9um-dense-native", marks=slow),
    pytest.param("hecate-2.4um", "hecate-2.4um", "", id="hecate-2.4um", marks=slow),
    pytest.param("hecate-9.6um", "hecate-9.6um", "", id="hecate-9.6um", marks=slow),
    pytest.param("ink-8um-v8in", "ink-8um-v8in", "", id="ink-8um-v8in", marks=slow),
    pytest.param("ink-8um-v8in-pherc1447", "ink-8um-v8in", "", id="ink-8um-v8in-pherc1447", marks=slow),
    pytest.param("unetr-segformer-title", "unetr-segformer-b3-mini", "model.", id="unetr-segformer-title", marks=slow),
]


@pytest.fixture
def scratch():
    """A folder for large files that does not outlive its test."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.parametrize(("name", "fixture_name", "prefix"), GOLDEN)
def test_every_preset_imports_its_published_keys_and_answers_as_published(scratch, name, fixture_name, prefix):
    """The golden weights under the published keys, through file and bundle; the golden logits come out.

    The reference runs had 30 layers where some presets take others; no weight depends on that number.
    """
    fixture = Golden.read(GOLDEN_FOLDER, fixture_name)
    weights = {prefix + key: value for key, value in fill_state_dict(fixture.manifest).items()}
    torch.save({"state_dict": weights, "hyper_parameters": {}}, scratch / "published.ckpt")
    layers = fixture.input_shape[2]
    changes = {"model": {"depth_layers": layers}, "contract": {"layers": {"count": layers, "source_range": None}}}
    run(
        ImportConfig(
            source=str(scratch / "published.ckpt"), dest=str(scratch / "bundle"), preset=name, check=False, **changes
        )
    )
    bundle = Bundle.open(Location.parse(scratch / "bundle"))
    assert bundle.document.name == name
    with torch.inference_mode():
        logits = bundle.build()(fixture.subvolume())[..., :: fixture.step, :: fixture.step]
    assert fixture.difference(logits.reshape(fixture.output.shape), fixture.output) < fixture.tolerance


def test_every_shipped_preset_is_imported_above():
    assert sorted(case.values[0] for case in GOLDEN) == preset_names()


def test_a_segment_prepared_with_a_contract_s_settings_has_its_grey_values(tmp_path, prepare_config):
    contract = load_preset("unetr-segformer-title").contract
    source = write_layers(tmp_path / "layers", random_papyrus())
    settings = yaml.safe_load(yaml.safe_dump(prepare_settings(contract)))
    for changes, refused in (({}, True), (settings, False)):
        config = prepare_config(source, root=str(tmp_path / str(refused)), voxel_size_um=7.91, **changes)
        run_prepare(config, RunContext())
        volume = SurfaceVolume.open(segment_folder(config.root, config.segment))
        found = contract.mismatches(volume.provenance, volume.dtype.name)
        assert [row.split(":")[0] for row in found] == (["lut"] if refused else [])
