"""The words of the package: docstrings that name a thing or tell what to do, messages in plain English."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [path for room in ("inkbatch", "benchmarks", "scripts") for path in sorted((ROOT / room).rglob("*.py"))]
BESIDE = [path for room in ("tests", "infra", "docker") for path in sorted((ROOT / room).rglob("*.py"))]
CLAUSES = "What|Where|Who|How|Whether|That|When|Which|Why|If|As|Once|While"
OTHER_STARTS = (  # of functions: articles, determiners, shapes, plain nouns that once stood there
    "The|A|An|All|Any|Both|Each|Every|One|Our|Some|So|Names|Values|Numbers|Settings|Tables|Layers|Tiles|Pixels|Seconds|"
    "Windows|Vertices|Chunks|Indices|Bytes|Maps|Labels|Parameters|Statistics|Median|Largest|Smallest|First|Path|Memory|"
    r"Config|[0-9(`…].*"
)
DIALECT = re.compile(
    r"\b(is|are|was|were) wanted\b|\bwanted [a-z{]|\b(cannot|can) be had\b|\banew\b|\bdone before\b|\bput that right\b|"
    r"\bnobody (says|states)\b|\bas it lies\b|\bcomplete already\b|\bgive the job less\b|\bis not mine\b|"
    r"\b(bundle|network|model|segment) wants\b"
)
UNIT_COUNT = re.compile(r"(?<!of )\{[^{}]*\} (units|files|tensors|pictures|segments)\b")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def parsed() -> list[tuple[str, ast.AST]]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Constant, ast.JoinedStr)
    found: list[tuple[str, ast.AST]] = []
    for path in FILES:
        place = str(path.relative_to(ROOT))
        found += [(place, node) for node in ast.walk(tree_of(path)) if isinstance(node, kinds)]
    return found


def first_words() -> Iterator[tuple[str, ast.AST, str]]:
    for place, node in parsed():
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield f"{place}:{getattr(node, 'lineno', 1)}", node, text.splitlines()[0]


def is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("property" in ast.unparse(one) for one in node.decorator_list)


def text_of(node: ast.JoinedStr) -> str:
    parts = (one.value if isinstance(one, ast.Constant) else f"{{{ast.unparse(one.value)}}}" for one in node.values)
    return "".join(map(str, parts))


@pytest.fixture(scope="module")
def docstrings():
    return list(first_words())


def test_no_docstring_begins_with_a_clause():
    """Of modules, classes, functions and constants, in the package and in its tests."""
    start = re.compile(rf"({CLAUSES})\b")
    found = []
    for path in (*FILES, *BESIDE):
        for node in ast.walk(tree_of(path)):
            match node:
                case ast.Expr(ast.Constant(str(text))) if start.match(text.lstrip()):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {text.splitlines()[0]}")
    assert not found


def test_a_function_says_what_to_do(docstrings):
    start = re.compile(rf"({OTHER_STARTS})(?!\w)")
    found = [
        f"{place}: {line}"
        for place, node, line in docstrings
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("test_")  # contracts for other packages state promises, as all tests do
        and not is_property(node)
        and start.match(line)
    ]
    assert not found


def test_a_class_is_a_noun(docstrings):
    verbs = re.compile(r"(Return|Read|Write|Make|Build|Find|Compute|Run|Open|Describe|Draw|Tell|Give)\b")
    assert not [
        f"{place}: {line}" for place, node, line in docstrings if isinstance(node, ast.ClassDef) and verbs.match(line)
    ]


def test_texts_are_free_of_the_old_dialect():
    found = []
    for place, node in parsed():
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and (hit := DIALECT.search(node.value)):
            found.append(f"{place}:{node.lineno}: {node.value[max(0, hit.start() - 30) : hit.end() + 20]!r}")
    assert not found


def test_documents_are_free_of_the_old_dialect():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    assert not [
        f"{page.relative_to(ROOT)}:{number}: {line}"
        for page in pages
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
        if DIALECT.search(line)
    ]


def test_a_count_that_may_be_one_has_one_speller():
    """`count_text` says ``1 unit``; texts with a number before a plural, or plurals made on the spot, would not."""
    found = []
    for place, node in parsed():
        if isinstance(node, ast.JoinedStr) and place.startswith("inkbatch/"):
            text = text_of(node)
            if UNIT_COUNT.search(text) or re.search(r"== 1 else '?s'?", text):
                found.append(f"{place}:{node.lineno}: {text}")
    assert not found
