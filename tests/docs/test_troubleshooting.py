"""docs/troubleshooting.md as a whole; its messages are provoked by the tests beside this one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from inkbatch.errors import EXIT_CONFIG, EXIT_DATA, EXIT_TRY_AGAIN
from inkbatch.testing.troubles import ENTRIES, PAGE


def provoked() -> list[str]:
    """Headings that the tests beside this one register."""
    files = Path(__file__).parent.glob("test_troubles_*.py")
    calls = [
        node for file in files for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Call)
    ]
    return [
        ast.literal_eval(call.args[0])
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "provokes"
    ]


def test_every_message_of_the_page_is_provoked_once():
    assert sorted(provoked()) == sorted(ENTRIES)


def test_the_table_of_exit_codes_is_that_of_the_program():
    codes = set(map(int, re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)))
    assert {EXIT_CONFIG, EXIT_DATA, EXIT_TRY_AGAIN, 0, 1, 130} == codes
