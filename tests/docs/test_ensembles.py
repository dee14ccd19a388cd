"""The worked example of docs/ensembles.md and docs/evaluate.md: its weights, scores and intervals come out."""

import json
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
MEMBERS = ("--set stride_px=64", "--set stride_px=96", "--override divisor=110")


def command_of(page, words):
    """The first command of a page that holds these words, its lines joined."""
    text = (DOCS / page).read_text(encoding="utf-8").replace("\\\n", " ")
    found = next(line for line in text.splitlines() if line.startswith("inkbatch") and words in line)
    return found.split("  #")[0]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_worked_example_ends_with_the_figures_of_the_pages(workshop):
    workshop.must("inkbatch prepare demo")
    for name, how in zip("abc", MEMBERS, strict=True):
        workshop.must(f"inkbatch infer demo --bundle demo --name {name} {how}")
    workshop.must("inkbatch ensemble demo --prediction a --prediction b --prediction c")
    workshop.must(command_of("ensembles.md", "--fit-weights"))
    weights = json.loads((workshop.folder / "root/predictions/demo/fitted/weights.json").read_text())
    page = (DOCS / "ensembles.md").read_text(encoding="utf-8")
    shares = [f"{weights['weights'][name]:.2f}" for name in "abc"]
    assert f"are {shares[0]}, {shares[1]} and {shares[2]}" in page
    assert f"F0.5 is {weights['score']:.3f} there" in page
    assert f"equal weights {weights['equal_weights']['score']:.3f}" in page
    workshop.must(command_of("evaluate.md", "--versus fitted"))
    page = (DOCS / "evaluate.md").read_text(encoding="utf-8")
    for line in re.search(r"```text\n(ensemble-mean minus fitted.*?)```", page, flags=re.DOTALL)[1].splitlines():
        assert line in workshop.said
