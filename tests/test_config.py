"""Configuration: precedence, clear refusals, digests that mean something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pytest

from inkbatch.config import JobConfig, digest, named_place, parse_bytes
from inkbatch.errors import ConfigError
from inkbatch.steps.prepare.settings import PrepareConfig


class Sub(JobConfig):
    limit: float = 1.0


class Example(JobConfig):
    segment: str
    stride_px: int = 16
    sub: Sub = Sub()


def test_options_win_over_set_over_file_over_defaults(tmp_path):
    (tmp_path / "a.yaml").write_text("segment: a\nstride_px: 1\nsub: {limit: 2}\n")
    loaded = Example.load(str(tmp_path / "a.yaml"), ["stride_px=2", "sub.limit=3"], {"segment": "b", "stride_px": None})
    assert (loaded.segment, loaded.stride_px, loaded.sub.limit) == ("b", 2, 3.0)


@pytest.mark.parametrize(
    ("text", "sets", "words"),
    [
        ("segment: a\nstride: 3", [], "unknown key 'stride'; did you mean 'stride_px'"),
        ("stride_px: 3", [], r"'segment' \(SEGMENT\) is required"),
        ("segment: a\nstride_px: wide", [], "stride_px: .*got 'wide'"),
        ("segment: [", [], "not YAML"),
        ("- a", [], r"expected keys with values, got \['a'\]"),
        ("segment: a", ["stride_px"], "expected key=value"),
        ("segment: a", ["segment.x=1"], "not a mapping"),
    ],
)
def test_refusals_name_place_and_finding(tmp_path, text, sets, words):
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        Example.load(str(tmp_path / "job.yaml"), sets)


def test_a_config_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Example(segment="a").segment = "b"


@pytest.mark.parametrize(
    ("text", "count"), [("2GiB", 2 << 30), ("500MB", 500_000_000), ("1.5 KiB", 1536), ("7", 7), ("4g", 4 << 30)]
)
def test_sizes_are_read_as_people_write_them(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "GiB", "2 parsecs", "-1", "2GiBB"])
def test_sizes_that_are_none_are_refused(text):
    with pytest.raises(ConfigError, match="2GiB"):
        parse_bytes(text)


def test_a_digest_depends_on_values_and_not_on_order():
    assert digest({"a": 1, "b": [2, 3]}) == digest({"b": [2, 3], "a": 1}) != digest({"a": 1, "b": [3, 2]})


def test_layers_may_be_written_as_on_the_command_line(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text("segment: a\nlayers: 1:4\n")
    config = PrepareConfig.load(str(file), (), {"root": "r"})
    assert config.layers == (1, 4)
    assert PrepareConfig.load(None, ["layers=17:43"], {"segment": "a", "root": "r"}).layers == (17, 43)


def test_keys_that_stand_twice_are_refused_by_line(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text("segment: a\nlayers: 1:4\nsegment: b\n")
    with pytest.raises(ConfigError, match=r"line 3: key 'segment' stands twice, first in line 1"):
        PrepareConfig.load(str(file), (), {"root": "r"})


@pytest.mark.parametrize(
    ("key", "value"),
    [("layers", "s3://user:s3cr3t@host/x"), ("clahe", {"api_key": "s3cr3t"}), ("level", "s3cr3t=1" * 999)],
)
def test_values_of_a_wrong_type_are_not_echoed_whole(key, value):
    with pytest.raises(ConfigError) as caught:
        PrepareConfig.load(None, (), {"segment": "a", "root": "r", key: value})
    assert "s3cr3t@" not in str(caught.value)
    assert "'s3cr3t'" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_secret_behind_the_option_of_bundles_is_refused_without_its_value():
    assert named_place("letters=runs/a/bundle") == ("letters", "runs/a/bundle")
    with pytest.raises(ConfigError, match="got WANDB_API_KEY=…, which looks like a secret") as found:
        named_place("WANDB_API_KEY=hidden")
    assert "hidden" not in str(found.value)


class Reading(JobConfig):
    job: ClassVar[str] = "reading"
    root: str = "root"
    bundle: str = ""
    maps: tuple[str, ...] = ()
    parts: Mapping[str, str] | None = None


def test_what_begins_with_root_counts_from_root_wherever_it_is_stated(tmp_path):
    (tmp_path / "job.yaml").write_text("bundle: ROOT/runs/r/bundle\nmaps: [ROOT/a, b/c]\n")
    preset = {"parts": {"x": "ROOT/x"}}
    found = Reading.load(str(tmp_path / "job.yaml"), ["parts.y=ROOT/y"], {"root": "s3://bucket/ink/"}, preset)
    assert found.bundle == "s3://bucket/ink/runs/r/bundle"
    assert found.maps == ("s3://bucket/ink/a", str(tmp_path / "b/c"))
    assert found.parts == {"x": "s3://bucket/ink/x", "y": "s3://bucket/ink/y"}
    assert Reading.load(None, ["bundle=ROOT/b"]).bundle == "root/b"


@pytest.mark.parametrize("text", ["p ", "p q  "])
def test_blanks_at_the_end_of_a_text_are_refused_and_not_stripped(text):
    with pytest.raises(ConfigError, match="--set bundle: expected text without blanks at its end"):
        Reading.load(None, [f"bundle={text}"])
    assert Reading.load(None, [f"bundle='{text}'"]).bundle == text
    assert Reading.load(None, ["parts={x: a} "]).parts == {"x": "a"}
