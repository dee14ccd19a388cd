"""Troubleshooting is complete: every message of the package's errors stands on the page, by its words or its kind."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import inkbatch.errors
from inkbatch.testing.troubles import ENTRIES, PAGE

PACKAGE = Path(inkbatch.errors.__file__).parent
ERRORS = {name for name, kind in vars(inkbatch.errors).items() if isinstance(kind, type)}
LEAST_LETTERS = 8  # a message with fewer of its own hands on another one


def words_of(node: ast.expr) -> str | None:
    """Text of a message, ``…`` for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(words_of(part) or "…" if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp):
        return f"{words_of(node.left) or '…'}{words_of(node.right) or '…'}"
    return None


def messages() -> Iterator[tuple[str, str]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        if "testing" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS and node.args:
                said = words_of(node.args[0])
                if said is not None and len(re.sub(r"[^a-z]", "", said)) >= LEAST_LETTERS:
                    yield f"{file.relative_to(PACKAGE)}:{node.lineno}", said


def kinds() -> list[str]:
    table = PAGE.split("## Every other message, by its kind")[1]
    rows = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    return [words for row in rows for words in re.findall(r"`([^`]+)`", row)]


def pattern(words: str) -> re.Pattern[str]:
    return re.compile(".*?".join(map(re.escape, words.rstrip("…").split("…"))), re.DOTALL)


def test_every_message_is_explained():
    known = [pattern(words) for words in (*ENTRIES, *kinds())]
    found = list(messages())
    assert len(found) > 400  # the reader of messages works
    lost = [f"{place}: {said}" for place, said in found if not any(one.search(said) for one in known)]
    assert not lost, "\n".join(lost)


def test_every_kind_of_the_page_is_the_kind_of_a_message():
    said = [text for _, text in messages()]
    assert len(kinds()) > 50
    idle = [words for words in kinds() if not any(pattern(words).search(text) for text in said)]
    assert not idle


def test_what_was_expected_and_what_came_instead_are_said_in_the_same_words():
    other = [f"{place}: {said}" for place, said in messages() if re.search(r"expected.*, found\b|is wanted", said)]
    assert not other, "\n".join(other)
