"""YAML and JSON from people and stores: read whole, and refused by line where they are ambiguous or hostile."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml

from inkbatch.errors import ConfigError, CorruptDataError, InkbatchError
from inkbatch.text import bytes_text

MOST_BYTES = 64 << 20
MOST_NODES = 2_000_000  # of a YAML document with its aliases written out


def parse_yaml(data: bytes | str, place: str, error: type[InkbatchError] = ConfigError) -> Any:
    """Read one YAML document. ``1:4`` is text, not 64 (YAML 1.1 counts in sixties).

    Args:
        data: UTF-8 bytes, or text.
        place: File or setting, for messages.
        error: Raised for every fault.

    Raises:
        InkbatchError: Of class `error`: not UTF-8, not YAML, a key that stands twice (with its line), aliases that
            unpack to millions of values, nesting without end, a value that cannot be read.
    """
    text = _text(data, place, error)
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _expanded(node) > MOST_NODES:
            raise error(f"{place}: its aliases unpack to more than {MOST_NODES:,} values; write them out, or split it")
        _require_unique_keys(node, place, error)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as fault:
        line = f"line {fault.problem_mark.line + 1}: " if fault.problem_mark else ""
        raise error(f"{place}: {line}not YAML ({fault.problem or fault.context}); correct it") from fault
    except yaml.YAMLError as fault:
        raise error(f"{place}: not YAML ({_short(fault)}); correct it") from fault
    except RecursionError as fault:
        raise error(f"{place}: nested too deeply to be read; flatten it") from fault
    except (ValueError, OverflowError) as fault:
        raise error(f"{place}: holds a value that cannot be read ({_short(fault)}); correct it, or quote it") from fault
    finally:
        if loader:
            loader.dispose()


def read_yaml_file(file: str | Path, error: type[InkbatchError] = ConfigError) -> Any:
    """Read one YAML document from a local file; see `parse_yaml`.

    Raises:
        InkbatchError: Of class `error`: as `parse_yaml`, or the file cannot be read.
    """
    try:
        data = Path(file).read_bytes()
    except (OSError, ValueError) as fault:
        raise error(f"{file}: cannot be read: {getattr(fault, 'strerror', None) or fault}; check its path") from fault
    return parse_yaml(data, str(file), error)


class Document(dict[str, Any]):
    """A mapping read from a store, whose missing keys are damage and no bug: ``document["digest"]`` names the file.

    Args:
        values: Content.
        place: Object that it was read from.
    """

    def __init__(self, values: Mapping[str, Any], place: str) -> None:
        super().__init__(values)
        self._place = place

    def __missing__(self, key: str) -> NoReturn:
        raise CorruptDataError(f"{self._place}: expected a key {key!r}, got none; it was damaged or is another file")


def parse_json(data: bytes | str, place: str, error: type[InkbatchError] = ConfigError) -> Any:
    """Read one JSON document.

    Args:
        data: UTF-8 bytes, or text.
        place: File or object, for messages.
        error: Raised for every fault.

    Raises:
        InkbatchError: Of class `error`: not UTF-8, not JSON, a key that stands twice, nesting without end, a number
            that cannot be read.
    """
    text = _text(data, place, error)
    if text.lstrip()[:1] == "<":
        raise error(
            f"{place}: expected JSON, got a web page (HTML or XML); correct the address, or copy the file again"
        )

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise error(f"{place}: key {_short(twice)!r} stands twice; keep one of them")
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as fault:
        raise error(f"{place}: line {fault.lineno}: not JSON ({fault.msg}); write it again") from fault
    except RecursionError as fault:
        raise error(f"{place}: nested too deeply to be read; write it again") from fault
    except ValueError as fault:
        raise error(f"{place}: holds a number that cannot be read ({_short(fault)}); write it again") from fault


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without numbers in base 60."""


def _without_base_60(resolvers: dict[str, list[tuple[str, Any]]]) -> dict[str, list[tuple[str, Any]]]:
    number = re.compile(r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0o?[0-7_]+|[1-9][0-9_]*|0)$")
    real = re.compile(
        r"([-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    )
    plain = {"tag:yaml.org,2002:int": number, "tag:yaml.org,2002:float": real}
    return {key: [(tag, plain.get(tag, rule)) for tag, rule in rules] for key, rules in resolvers.items()}


_Loader.yaml_implicit_resolvers = _without_base_60(yaml.SafeLoader.yaml_implicit_resolvers)


def _text(data: bytes | str, place: str, error: type[InkbatchError]) -> str:
    if len(data) > MOST_BYTES:
        size = f"expected at most {bytes_text(MOST_BYTES)}, got {bytes_text(len(data))}"
        raise error(f"{place}: {size}; is this the right file?")
    if isinstance(data, str):
        return data
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        found = f"expected UTF-8, got byte 0x{data[fault.start]:02x} at {fault.start}"
        raise error(f"{place}: {found}; save it as UTF-8") from fault


def _expanded(node: yaml.Node) -> int:
    """Count the nodes of a document with its aliases written out; recursive documents count as endless."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(part: yaml.Node) -> int:
        key = id(part)
        if key in sizes:
            return sizes[key]
        if key in open_nodes:
            return MOST_NODES + 1
        open_nodes.add(key)
        total = 1
        for child in _children(part):
            total = min(total + size(child), MOST_NODES + 1)
        open_nodes.discard(key)
        sizes[key] = total
        return total

    return size(node)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _require_unique_keys(node: yaml.Node, place: str, error: type[InkbatchError]) -> None:
    seen: set[int] = set()
    todo = [node]
    while todo:
        part = todo.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        todo += _children(part)
        if not isinstance(part, yaml.MappingNode):
            continue
        lines: dict[Hashable, int] = {}
        for key, _ in part.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
            if name is None or key.tag == "tag:yaml.org,2002:merge":
                continue
            if name in lines:
                _twice(place, error, key, lines[name])
            lines[name] = key.start_mark.line + 1


def _twice(place: str, error: type[InkbatchError], key: yaml.ScalarNode, first: int) -> NoReturn:
    raise error(
        f"{place}: line {key.start_mark.line + 1}: key {_short(key.value)!r} stands twice, first in line {first}; "
        "keep one of them"
    )


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else f"{text[:77]}…"
