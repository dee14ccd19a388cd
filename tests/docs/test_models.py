"""Statements of the pages about models are so: the table of presets, and the steps for adding a network."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from inkbatch.models import known_architectures
from inkbatch.models.presets import Preset, load_preset, preset_names

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = (REPOSITORY / "docs" / "models.md").read_text(encoding="utf-8")
ADDING = (REPOSITORY / "docs" / "adding-a-model.md").read_text(encoding="utf-8")


def table_rows(text: str, columns: int) -> list[list[str]]:
    """Cells of all table rows with that many columns, without headings."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return [row for row in rows if len(row) == columns and row[0].startswith("`")]


def expected_cells(preset: Preset) -> list[str]:
    contract = preset.contract
    chosen = contract.layers.source_range
    layers = f"{contract.layers.count}: " + (f"{chosen[0]}:{chosen[1]}" if chosen else "centre")
    return [layers, f"{contract.tile_px} / {contract.stride_px}", f"{contract.divisor:g}"]


def test_the_table_lists_every_preset_with_its_layers_tile_and_divisor():
    rows = {row[0].strip("`"): [row[3], row[4], row[5].strip("*")] for row in table_rows(MODELS, 7)}
    assert rows == {name: expected_cells(load_preset(name)) for name in preset_names()}


def test_the_table_says_where_the_weights_are():
    places = {row[0].strip("`"): row[6] for row in table_rows(MODELS, 7)}
    for name in preset_names():
        hub = [place.where for place in load_preset(name).published if place.where.startswith("hf://")]
        assert places[name] == "as above" or all(where.rpartition("-")[0] in places[name] for where in hub), name


def test_every_network_is_described():
    assert {row[0].strip("`") for row in table_rows(MODELS, 5)} == set(known_architectures())


@pytest.mark.parametrize("page", [MODELS, ADDING], ids=["models", "adding-a-model"])
def test_links_and_files_that_are_named_are_there(page):
    named = re.findall(r"\]\(([\w./-]+)\)", page)
    assert all((REPOSITORY / "docs" / link).exists() for link in named)
    paths = re.findall(r"`((?:inkbatch|benchmarks|jobs|tests)/[\w./-]+)`", page)
    own = re.findall(r"^`([\w./-]+)`:$", page, flags=re.MULTILINE)
    assert all((REPOSITORY / path).exists() for path in paths if path not in own), paths


def blocks(page: str) -> dict[str, str]:
    """Code blocks by the file that the line before them names."""
    return dict(re.findall(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL))


@pytest.fixture
def checkout(tmp_path):
    """A copy of what a contributor changes, with the steps of the page applied."""
    unneeded = shutil.ignore_patterns("__pycache__", "*.pyc", "*.png", "weights.safetensors")
    shutil.copytree(REPOSITORY / "inkbatch", tmp_path / "inkbatch", ignore=unneeded)
    shutil.copytree(REPOSITORY / "jobs" / "presets", tmp_path / "jobs" / "presets")
    for path, content in blocks(ADDING).items():
        assert not (tmp_path / path).exists(), "the page must not overwrite anything"
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content, encoding="utf-8")
    line = re.search(r"^from inkbatch\.models import depth_mean.*$", ADDING, flags=re.MULTILINE)
    registry = tmp_path / "inkbatch" / "models" / "__init__.py"
    registry.write_text(f"{registry.read_text(encoding='utf-8')}{line[0]}\n", encoding="utf-8")
    return tmp_path


IMPORT = """
import sys
import safetensors.torch, torch
import inkbatch
assert inkbatch.__file__.startswith(sys.argv[1]), inkbatch.__file__
from inkbatch.io.store.location import Location
from inkbatch.models import build_model
from inkbatch.models.bundle import Bundle
from inkbatch.steps.import_checkpoint import ImportConfig, run
model = build_model("depth-mean", {"depth_layers": 5, "width": 3})
safetensors.torch.save_file(model.state_dict(), "net.safetensors")
run(ImportConfig(source="net.safetensors", dest="bundle", preset="depth-mean-example"))
subvolume = torch.rand(1, 1, 5, 32, 32)
assert torch.equal(Bundle.open(Location.parse("bundle")).build()(subvolume), model.eval()(subvolume))
"""


def run_there(folder: Path, *command: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]


def test_the_page_has_all_its_files():
    assert sorted(blocks(ADDING)) == [
        "inkbatch/models/depth_mean.py",
        "jobs/presets/models/depth-mean-example.yaml",
        "tests/models/test_depth_mean.py",
    ]


@pytest.mark.slow
def test_the_steps_for_adding_a_model_work(checkout):
    """The contract suite passes on the page's network, and its preset makes a bundle."""
    run_there(checkout, "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", "tests/models")
    run_there(checkout, "-c", IMPORT, str(checkout))
