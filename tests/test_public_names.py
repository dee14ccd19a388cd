"""Tests use the public names of what they test: a private one can be renamed without a test knowing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOREIGN = {  # private names of other packages that have no public one, and public ones that look private
    "_asdict",
    "_call_impl",
    "_call_s3",
    "_compiled_call_impl",
    "_exit",
    "_get_s3_method_kwargs",
    "_replace",
}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in FOREIGN


def names_taken_from_elsewhere(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """List the names that a module imports, reads from an object that is not its own, or patches."""
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(names=names):
                yield from ((node.lineno, one.name) for one in names)
            case ast.Attribute(ast.Name("self" | "cls"), _):
                pass
            case ast.Attribute(_, name):
                yield node.lineno, name
            case ast.Call(ast.Attribute(attr="setattr" | "delattr") | ast.Name("setattr" | "getattr"), args):
                texts = [one.value for one in args[:2] if isinstance(one, ast.Constant) and isinstance(one.value, str)]
                yield from ((node.lineno, text.rsplit(".", 1)[-1]) for text in texts)


def own_names(tree: ast.Module) -> set[str]:
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    fields = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
    }
    return functions | fields


def private_names(source: str) -> list[tuple[int, str]]:
    tree = ast.parse(source)
    own = own_names(tree)
    return [(line, name) for line, name in names_taken_from_elsewhere(tree) if is_private(name) and name not in own]


def test_no_test_reaches_behind_a_public_name():
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for room in ("tests", "inkbatch/testing", "benchmarks", "scripts", "infra")
        for path in sorted((ROOT / room).rglob("*.py"))
        for line, name in private_names(path.read_text(encoding="utf-8"))
    ]
    assert not found


def test_every_way_to_a_private_name_is_seen():
    ways = [
        "from inkbatch.config import _explain",
        "module._name(1)",
        "monkeypatch.setattr(module, '_name', 1)",
        "monkeypatch.setattr('inkbatch.config._explain', 1)",
        "getattr(module, '_name')",
    ]
    assert [bool(private_names(way)) for way in ways] == [True] * len(ways)
    assert private_names("class A:\n  def f(self):\n    return self._own\nA()._own\nmodule.name") == []
