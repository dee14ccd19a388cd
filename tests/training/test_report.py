"""The report of a run: one page that carries its pictures and says what the files beside it say."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from inkbatch.io.storage import Location
from inkbatch.run.job import RunContext
from inkbatch.steps.train import TrainConfig, run
from inkbatch.testing.training import tiny_dataset, tiny_run
from inkbatch.training.report import report_html


class Page(HTMLParser):
    """Links, pictures, rows and texts of a page; complains about what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.sources: list[str] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.links += [found["href"]] if "href" in found else []
        self.sources += [found["src"]] if "src" in found else []
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data.strip())


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("report")
    tiny_dataset(place)
    run(TrainConfig.checked(tiny_run(place, epochs=3), "test"), RunContext())
    return place


@pytest.fixture(scope="module")
def folder(root) -> Path:
    return root / "runs" / "first"


@pytest.fixture(scope="module")
def text(folder) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_page_carries_its_pictures_and_asks_for_nothing_from_elsewhere(text, folder):
    page = Page(text)
    best = json.loads((folder / "complete.json").read_text())["best_epoch"]
    kept = [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in page.sources]
    assert kept == [
        (folder / "curves.png").read_bytes(),
        (folder / f"validation/epoch-{best:03d}-s1.png").read_bytes(),
    ]
    assert not re.search(r"(src|href)=\"?(https?:|//)", text)


def test_its_links_lead_to_files_that_are_there(text, root, folder):
    links = Page(text).links
    assert "../../datasets/tiny/README.md" in links
    for link in links:
        if not link.endswith("README.md"):  # the tiny dataset has no card
            assert (folder / link).exists(), link


def test_figures_are_those_of_the_bundle(text, folder):
    page = Page(text)
    document = json.loads((folder / "bundle/bundle.json").read_text())
    scores = document["metrics"]["validation"]["overall"]
    for name, words in (("f05", "F0.5"), ("auc", "AUC"), ("dice", "Dice")):
        place = page.texts.index(words)
        assert page.texts[place - 1] == f"{scores[name]:.4f}"
    assert f"ink from probability {document['contract']['threshold']:.4f}" in " ".join(text.split())
    assert "--bundle ROOT/runs/first/bundle" in text


def test_the_configuration_is_a_yaml_that_makes_the_run_again(text, root):
    shown = next(part for part in Page(text).texts if part.startswith("dataset: tiny"))
    again = TrainConfig.checked({**yaml.safe_load(shown), "root": str(root)}, "report")
    assert again.result_settings() == TrainConfig.checked(tiny_run(root, epochs=3), "test").result_settings()


def test_every_epoch_and_the_data_are_told(text):
    rows = re.findall(r"<tr[^>]*><td class=\"number\">(\d)</td>", text)
    assert rows == ["0", "1", "2"]
    assert text.count('<tr class="best"><td class="number">') == 1
    assert "25 from 1 segments" in text


def test_names_are_shown_and_not_obeyed(root):
    from inkbatch.steps import train
    from inkbatch.training.checkpoints import CheckpointStore
    from inkbatch.training.progress import Progress

    one = train.plan(TrainConfig.checked(tiny_run(root, epochs=3), "test"))[0]
    bundle = train.Bundle.open(one.folder / "bundle")
    progress = Progress.of(CheckpointStore(one.folder / "checkpoints").best()["progress"])
    index = one.index.model_copy(update={"name": "<script>alert(1)</script>"})
    split = {"training": one.train, "validation": one.validation}
    page = report_html(one.config, index, split, bundle, progress, {}, "card", "runs/first/bundle").decode()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "No picture is there." in page


def test_a_dataset_elsewhere_is_linked_by_its_place(root, tmp_path):
    (tmp_path / "moved").mkdir()
    for name in ("segments", "datasets"):
        (tmp_path / "moved" / name).symlink_to(root / name)
    place = tmp_path / "moved/datasets/tiny"
    config = TrainConfig.checked(tiny_run(tmp_path / "other", epochs=1, dataset=str(place)), "test")
    run(config, RunContext())
    page = Page((tmp_path / "other/runs/first/report.html").read_text(encoding="utf-8"))
    assert f"{Location.parse(place)}/README.md" in page.links
