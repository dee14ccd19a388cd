"""YAML and JSON from people and stores: ambiguous, damaged or hostile documents end by name, in no time."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inkbatch.documents import parse_json, parse_yaml
from inkbatch.errors import ConfigError, DataError, InkbatchError

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(12)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("layers: 1:4", {"layers": "1:4"}),
        ("a: 17", {"a": 17}),
        ("a: 010", {"a": 8}),
        ("a: -1.5e3", {"a": -1500.0}),
        ("a: .5", {"a": 0.5}),
        ("a: 0x1f", {"a": 31}),
        ("a: yes", {"a": True}),
        ("a: &x {b: 1}\nc: *x", {"a": {"b": 1}, "c": {"b": 1}}),
        ("base: &x {b: 1}\nc: {<<: *x, d: 2}", {"base": {"b": 1}, "c": {"b": 1, "d": 2}}),
        ("", None),
    ],
)
def test_plain_documents_read_as_they_are_meant(text, expected):
    assert parse_yaml(text.encode(), "f.yaml") == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a: 1\nb: 2\na: 3", r"f: line 3: key 'a' stands twice, first in line 1; keep one of them"),
        ("x:\n  - {k: 1, k: 2}", r"line 2: key 'k' stands twice"),
        (BOMB, "its aliases unpack to more than"),
        ("a: &a [*a]", "its aliases unpack to more than"),
        ("[" * 5000, "nested too deeply|not YAML"),
        (b"a: \xff\xfe", "expected UTF-8, got byte 0xff at 3; save it as UTF-8"),
        ("a: " + "9" * 5000, "holds a value that cannot be read"),
        ("a: 2023-99-99", "holds a value that cannot be read"),
        ("a: !!python/object/apply:os.system [ls]", "line 1: not YAML"),
        ("a: [1, 2", "line 1: not YAML"),
        ("a: 1\n---\nb: 2", "line 2: not YAML"),
        ("{[1]: 2}", "not YAML"),
        ("a: \x00", "not YAML"),
    ],
)
def test_yaml_faults_are_named(data, message):
    with pytest.raises(ConfigError, match=message):
        parse_yaml(data, "f")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('{"a": 1, "a": 2}', "f: key 'a' stands twice"),
        ("[" * 100_000, "nested too deeply"),
        ("{", "line 1: not JSON"),
        (b"\x80", "expected UTF-8"),
        ("1" * 5000, "a number that cannot be read"),
    ],
)
def test_json_faults_are_named(data, message):
    with pytest.raises(DataError, match=message):
        parse_json(data, "f", DataError)


@given(st.binary(max_size=200))
def test_no_bytes_end_with_anything_but_our_error(data):
    for parse in (parse_yaml, parse_json):
        with contextlib.suppress(InkbatchError):
            parse(data, "f")
