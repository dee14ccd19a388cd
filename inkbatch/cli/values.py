"""Values that stand as text in options: layers, boxes, windows, pairs."""

from __future__ import annotations

import re
from typing import Any

from inkbatch.documents import parse_yaml
from inkbatch.errors import ConfigError
from inkbatch.redaction import shown


def parse_layers(text: str | None) -> tuple[int, int] | None:
    """Read ``17:43``.

    Raises:
        ConfigError: Anything else.
    """
    if text is None:
        return None
    start, _, stop = text.partition(":")
    if not (start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
        raise ConfigError(f"--layers: expected START:STOP, half-open, for example 17:43, got {text!r}")
    return int(start), int(stop)


def parse_names(text: str | None) -> list[str] | None:
    """Read names with commas between."""
    return None if text is None else [name.strip() for name in text.split(",")]


def parse_box(text: str | None) -> tuple[int, int, int, int] | None:
    """Read ``Y0:Y1,X0:X1`` as (y0, x0, y1, x1).

    Raises:
        ConfigError: Anything else.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d+):(\d+),(\d+):(\d+)", text.replace(" ", ""))
    y0, y1, x0, x1 = map(int, found.groups()) if found else (0, 0, 0, 0)
    if not (y0 < y1 and x0 < x1):
        raise ConfigError(f"--box {text!r}: expected Y0:Y1,X0:X1, half-open, for example 0:2048,1024:4096")
    return y0, x0, y1, x1


def parse_pairs(items: list[str]) -> dict[str, Any]:
    """Read values of ``--override``, each ``key=value``.

    Raises:
        ConfigError: Anything else.
    """
    pairs = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals:
            raise ConfigError(f"--override: expected key=value, for example divisor=200, got {shown(item)}")
        pairs[key] = parse_yaml(text, f"--override {key}=…")
    return pairs


def parse_starts(text: str | None) -> tuple[int, ...] | None:
    """Read ``10:20`` or ``10:20:2``.

    Raises:
        ConfigError: Anything else.
    """
    if text is None:
        return None
    numbers = text.split(":")
    if len(numbers) not in (2, 3) or not all(number.strip().isdecimal() for number in numbers):
        raise ConfigError(f"--layer-starts: expected START:STOP:STEP, half-open, for example 10:20:2, got {text!r}")
    return tuple(int(number) for number in numbers)


def parse_groups(text: str | None) -> list[tuple[int, ...]] | None:
    """Read ``10:36,20:46``.

    Raises:
        ConfigError: Anything else.
    """
    if text is None:
        return None
    groups = [group.split(":") for group in text.split(",")]
    if not all(len(group) == 2 and all(number.strip().isdecimal() for number in group) for group in groups):
        raise ConfigError(
            f"--layer-groups: expected START:STOP with commas between, half-open, for example 10:36,20:46, got {text!r}"
        )
    return [tuple(int(number) for number in group) for group in groups]
