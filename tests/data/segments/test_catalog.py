"""The catalog: names, templates, and ids that cannot leave ROOT."""

from __future__ import annotations

import pytest

from inkbatch.data.segments.catalog import CATALOG_VARIABLE, Catalog, check_segment_id
from inkbatch.errors import ConfigError


@pytest.fixture
def write(tmp_path):
    def make(text, name="segments.yaml"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return make


def test_the_shipped_catalog_knows_the_demo(tmp_path):
    entry = Catalog.load(folder=str(tmp_path)).entry("demo")
    assert entry.depth_order == "forward"
    assert entry.voxel_size_um == 7.91


def test_paths_are_relative_to_the_catalog_and_hold_the_segment(write, tmp_path):
    catalog = Catalog.load(write("segments: {a1: {source: 'scans/{segment}', mask: 's3://b/{segment}.png'}}"))
    assert catalog.entry("a1").source == str(tmp_path / "scans/a1")
    assert catalog.entry("a1").mask == "s3://b/a1.png"


def test_a_template_serves_segments_that_are_not_listed(write):
    catalog = Catalog.load(write("defaults: {source: 's3://b/{segment}/layers', depth_order: reversed}"))
    assert catalog.entry("x7").source == "s3://b/x7/layers"
    assert catalog.entry("x7").depth_order == "reversed"


def test_a_source_on_the_command_line_wins_and_may_be_a_template(write):
    catalog = Catalog.load(write("segments: {a1: {source: x, depth_order: forward}}"))
    entry = catalog.entry("a1", source="/data/{segment}/layers")
    assert (entry.source, entry.depth_order) == ("/data/a1/layers", "forward")


def test_an_unknown_segment_lists_near_matches(write):
    catalog = Catalog.load(write("segments: {'20231005123336': {source: x}}"))
    with pytest.raises(ConfigError, match="20231005123336"):
        catalog.entry("20231005123363")


def test_the_environment_names_a_catalog(write, monkeypatch, tmp_path):
    monkeypatch.setenv(CATALOG_VARIABLE, write("segments: {b2: {source: x}}", "other.yaml"))
    assert "b2" in Catalog.load(folder=str(tmp_path)).entries
    monkeypatch.setenv(CATALOG_VARIABLE, str(tmp_path / "gone.yaml"))
    with pytest.raises(ConfigError, match="gone.yaml"):
        Catalog.load()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "segments:\n  a: {source: x}\n  b: {source: y}\n  a: {source: z}\n",
            "line 4: key 'a' stands twice, .* line 2",
        ),
        ("segments:\n  a:\n    source: x\n    source: y\n", "line 4: key 'source' stands twice, first in line 3"),
        ('{"segments":\n {"a": {"source": "x"},\n "a": {"source": "y"}}}', "line 3: key 'a' stands twice, .* line 2"),
    ],
)
def test_a_segment_or_key_that_stands_twice_is_refused_by_line(write, text, said):
    with pytest.raises(ConfigError, match=said):
        Catalog.load(write(text))


@pytest.mark.parametrize("text", ["[]", "- a", "0"])
def test_what_is_no_mapping_is_no_catalog(write, text):
    with pytest.raises(ConfigError, match="all of it: expected keys with values"):
        Catalog.load(write(text))


@pytest.mark.parametrize("segment", ["20231005123336", "a", "PHerc0332-w1_b.2"])
def test_plain_names_are_ids(segment):
    assert check_segment_id(segment) == segment


BAD_IDS = ["", ".", "..", "../a", "/a", "a/../b", "a\\b", "a b", "a\x00", "ä", "a" * 129, "-a"]


@pytest.mark.parametrize("segment", BAD_IDS)
def test_everything_else_is_refused(segment):
    with pytest.raises(ConfigError, match="an id is"):
        check_segment_id(segment)
