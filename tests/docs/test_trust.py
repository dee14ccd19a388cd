"""Statements of docs/trust.md are so: its commands end as it says, with the verdicts and figures that it names."""

import json
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "trust.md").read_text(encoding="utf-8")


def test_files_that_are_named_are_there():
    paths = re.findall(r"`((?:tests|scripts|inkbatch)/[\w./-]+)`", PAGE)
    assert paths
    assert all((REPOSITORY / path).exists() for path in paths)


def test_the_four_verdicts_of_the_table_are_the_probes_own():
    from typing import get_args

    from inkbatch.steps.probe.verdict import Word

    probe = PAGE.split("## What the verdict means")[1].split("\n## ")[0]
    named = re.findall(r"^\| `([a-z ]+?)(?: by N layers)?` \|", probe, flags=re.MULTILINE)
    assert sorted(named) == sorted(get_args(Word))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_command_of_the_page_runs_and_ends_as_it_says(workshop):
    workshop.run_page("docs/trust.md")
    probes = workshop.folder / "trust" / "probes"
    found = {place.parent.relative_to(probes).as_posix(): place for place in probes.rglob("verdict.json")}
    verdicts = {name: json.loads(place.read_text()) for name, place in found.items()}
    assert {name: verdict["verdict"] for name, verdict in verdicts.items()} == {
        "demo/demo": "clear",
        "demo-early/demo": "false positives",
        "demo/wrong-divisor": "false positives",
    }
    for words in ("AUC 0.985", "AUC 0.589", "AUC 0.925", "F0.5 0.920", "F0.5 0.485", "It is not used"):
        assert words in workshop.said
    manifest = json.loads((workshop.folder / "trust/predictions/demo/probed/manifest.json").read_text())
    assert manifest["config"]["probe"]["verdict"] == "clear"
    (workshop.folder / "images").mkdir()
    workshop.must(f"python {REPOSITORY / 'scripts/make_trust_pictures.py'} trust images")
    assert {path.name for path in (workshop.folder / "images").iterdir()} == {"trust-maps.png", "trust-probe.png"}
