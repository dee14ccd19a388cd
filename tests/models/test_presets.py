"""Presets: each validates, fits its network, and says in words what its numbers mean."""

import tomllib
from pathlib import Path

import pytest
import torch
import yaml

from inkbatch import presets as job_presets
from inkbatch.errors import ConfigError
from inkbatch.io.intensity import lut_table
from inkbatch.models import presets
from inkbatch.models.base import model_class
from inkbatch.models.describing import describe_preset, prepare_settings, preset_row
from inkbatch.models.fitting import require_contract
from inkbatch.models.presets import changed_contract, load_preset, merged, preset_names

REPOSITORY = Path(__file__).resolve().parent.parent.parent
NAMES = preset_names()
SMALLEST = {"segformer": "b0"}  # the size plays no part in what is checked here


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_fits_its_network(name):
    preset = load_preset(name)
    network = model_class(preset.architecture)
    with torch.device("meta"):
        model = network(
            network.config_class.model_validate(merged(preset.model, SMALLEST if "segformer" in preset.model else {}))
        )
    require_contract(model, preset.contract, preset)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_says_what_its_numbers_mean(name):
    preset = load_preset(name)
    contract = preset.contract
    assert preset.assumptions
    assert preset.published
    assert preset.licence
    assert "score on none" in " ".join(preset.seen.lower().split())
    if contract.normaliser.by_statistics:  # no divisor plays a part
        assert {"robust-mad": "robust MAD"}[contract.normaliser.kind] in preset.intensity
    else:
        assert str(contract.divisor).removesuffix(".0") in preset.training + preset.intensity
    if contract.layers.source_range:
        first, stop = contract.layers.source_range
        assert str(first) in preset.layers
        assert str(stop - 1) in preset.layers
    else:
        assert "centre" in preset.layers
    assert "voxel edge" in " ".join(preset.assumptions)


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("-by200")])
def test_the_two_divisors_are_two_presets_that_name_each_other(name):
    trained, fed = load_preset(name.removesuffix("-by200")), load_preset(name)
    assert (trained.contract.divisor, fed.contract.divisor) == (255, 200)
    assert trained.contract.clip == fed.contract.clip == (0, 200)
    assert (trained.architecture, trained.model, trained.published) == (fed.architecture, fed.model, fed.published)
    assert "trained with values divided by 255" in fed.training
    assert trained.name in fed.training
    assert "this preset is how the weights were trained" in trained.training


def test_the_published_divisors_differ_for_four_networks():
    assert len([name for name in NAMES if name.endswith("-by200")]) == 4


OF_2026 = {
    "ink-9um": ("stem3d-unet", 9.6, 17, 128, 64),
    "ink-9um-dense-native": ("stem3d-unet", 9.36, 17, 128, 64),
    "hecate-2.4um": ("hecate", 2.4, 64, 256, 128),
    "hecate-9.6um": ("hecate", 9.6, 16, 64, 32),
    "ink-8um-v8in": ("resnet3d-upsampled", 8.0, 24, 64, 21),
    "ink-8um-v8in-pherc1447": ("resnet3d-upsampled", 8.0, 24, 64, 21),
    "timesformer-large-scroll1": ("timesformer", 7.91, 26, 64, 16),
}


@pytest.mark.parametrize("name", OF_2026)
def test_the_networks_of_2026_say_scale_layers_tile_and_what_they_have_seen(name):
    preset = load_preset(name)
    contract = preset.contract
    found = (contract.voxel_size_um, contract.layers.count, contract.tile_px, contract.stride_px)
    assert (preset.architecture, *found) == OF_2026[name]
    assert "score on none" in preset.seen.lower()
    assert "all three axes" in " ".join(preset.assumptions)
    assert all(place.sha256 or "not written down" in (place.note or "") for place in preset.published)
    assert contract.depth_order == ("reversed" if name.endswith("pherc1447") else "forward")


def test_the_title_s_lookup_table_is_its_formula_for_every_value():
    lut = load_preset("unetr-segformer-title").contract.lut
    assert lut_table(lut).tolist() == [x * (x - 1) // 254 for x in range(256)]


def test_a_segment_is_prepared_for_a_bundle_with_these_settings():
    title = load_preset("unetr-segformer-title").contract
    stored = yaml.safe_load(yaml.safe_dump(prepare_settings(title)))
    assert stored.keys() == {"lut"}
    assert tuple(tuple(point) for point in stored["lut"]) == title.lut
    assert prepare_settings(load_preset("timesformer-gp").contract) == {}


def test_presets_are_shipped_where_an_installed_package_looks():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    shipped = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    for installed, checkout in (job_presets.FOLDERS, presets.FOLDERS):
        below = checkout.relative_to(REPOSITORY / "jobs")
        assert installed.relative_to(REPOSITORY) == Path(shipped["jobs"]) / below


def test_an_installed_package_finds_them(monkeypatch, tmp_path):
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "mine.yaml").write_text(
        (REPOSITORY / "jobs/presets/models/timesformer-gp.yaml").read_text()
    )
    monkeypatch.setattr(presets, "FOLDERS", (tmp_path / "installed", tmp_path / "absent"))
    assert preset_names() == ["mine"]
    assert load_preset("mine").architecture == "timesformer"
    monkeypatch.setattr(presets, "FOLDERS", (tmp_path / "absent",))
    with pytest.raises(ConfigError, match="install inkbatch again"):
        load_preset("timesformer-gp")


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_can_be_shown(name):
    text = "\n".join(describe_preset(load_preset(name)))
    assert load_preset(name).published[0].where.split()[0] in text
    assert preset_row(load_preset(name)).startswith(name)


class TestOwnPresets:
    @pytest.fixture
    def write(self, tmp_path):
        def write(name: str, /, **values) -> str:
            file = tmp_path / name
            file.write_text(yaml.safe_dump(values), encoding="utf-8")
            return str(file)

        return write

    def test_only_what_differs_is_stated(self, write):
        path = write(
            "mine.yaml", extends="timesformer-gp", contract={"divisor": 200, "layers": {"source_range": [0, 26]}}
        )
        mine, base = load_preset(path), load_preset("timesformer-gp")
        assert mine.name == "mine"
        assert mine.contract == changed_contract(
            base.contract, {"divisor": 200, "layers": {"source_range": (0, 26)}}, "x"
        )
        assert mine.contract.layers.count == 26
        assert mine.training == base.training

    def test_a_preset_may_extend_another_of_one_s_own(self, write):
        write("first.yaml", extends="i3d-first-letters", title="first")
        assert load_preset(write("second.yaml", extends="./first.yaml", by="me")).title == "first"

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"extends": "./mine.yaml"}, "extends itself"),
            ({"extends": "timesformer"}, "there is none of that name; did you mean"),
            ({"extends": "timesformer-gp", "divisor": 200}, r"mine\.yaml: unknown key 'divisor'"),
            (
                {"extends": "timesformer-gp", "contract": {"divisr": 200}},
                r"key 'contract.divisr'; did you mean 'divisor'",
            ),
            ({"extends": "timesformer-gp", "name": "x"}, "named by its file"),
            ({"title": "x"}, "'architecture', .* are required and not given"),
        ],
    )
    def test_what_does_not_validate_is_named(self, write, values, message):
        with pytest.raises(ConfigError, match=message):
            load_preset(write("mine.yaml", **values))

    def test_what_is_no_preset_is_named(self, tmp_path):
        with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read"):
            load_preset(str(tmp_path / "absent.yaml"))
        (tmp_path / "list.yaml").write_text("[1]", encoding="utf-8")
        with pytest.raises(ConfigError, match="expected a mapping"):
            load_preset(str(tmp_path / "list.yaml"))
        with pytest.raises(ConfigError, match=r"there is none of that name; known are hecate-2\.4um, .* \(or give"):
            load_preset("?")
