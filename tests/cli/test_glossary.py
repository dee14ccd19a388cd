"""Help texts and glossary share their words: ours and the field's are explained, all others are plain English."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from inkbatch.cli.app import app

REPOSITORY = Path(__file__).parents[2]
GLOSSARY = (REPOSITORY / "docs/glossary.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \|$", GLOSSARY, re.MULTILINE))
PLAIN = set(Path(__file__).with_name("plain_words.txt").read_text(encoding="utf-8").split())
# A word in running text: no option, path, setting or value of one, and no NAME in capitals.
WORD = re.compile(r"(?<![\w./=:-])[A-Za-z][a-z]{2,}(?![\w/=:(-]|\.\w)")
NOT_OURS = {"recipe": "preset", "launcher": "engine", "back-end": "engine", "checkup": "doctor", "settled": "plan"}
NOT_OURS |= {"the model": "the bundle", "patch": "tile", "ink map": "prediction", "wanted": "expected"}
NOT_OURS |= {"anew": "again", "-> ": "a sentence", "slice": "layer", "fed": "input"}


def help_texts(command) -> Iterator[tuple[str, str]]:
    """The command's own texts and those of its options, each with the place where it stands."""
    yield command.name, command.help or ""
    for parameter in command.params:
        yield f"{command.name} {parameter.opts[-1]}", getattr(parameter, "help", None) or ""
    for inner in getattr(command, "commands", {}).values():
        yield from help_texts(inner)


COMMAND = typer.main.get_command(app)
TEXTS = list(help_texts(COMMAND))


def is_explained(word: str, words: set[str]) -> bool:
    return any(form in words for form in (word, word.removesuffix("s"), word.removesuffix("es")))


def test_every_word_of_the_help_is_plain_or_in_the_glossary():
    explained = {word for term in ROWS for word in term.lower().split()}
    unknown = {
        f"{place}: {word}"
        for place, text in TEXTS
        for word in WORD.findall(text)
        if word.lower() not in PLAIN and not is_explained(word.lower(), explained)
    }
    assert not unknown, "explain these words in docs/glossary.md, or list them in tests/cli/plain_words.txt"


def test_no_plain_word_is_listed_that_no_help_text_uses():
    used = {word.lower() for _, text in TEXTS for word in WORD.findall(text)}
    assert used >= PLAIN


@pytest.mark.parametrize("word", NOT_OURS)
def test_the_help_has_one_word_for_one_thing(word):
    places = [place for place, text in TEXTS if re.search(rf"(?<![\w.=/]){re.escape(word)}s?(?![\w=:])", text.lower())]
    assert not places, f"say {NOT_OURS[word]} instead of {word.strip()}"


def test_the_glossary_is_sorted_and_its_terms_are_used():
    assert list(ROWS) == sorted(ROWS, key=str.lower)
    said = " ".join([text for _, text in TEXTS] + [GLOSSARY.split("|---|---|")[1]]).lower()
    assert [term for term in ROWS if said.count(term.lower()) < 2] == []  # once in its own row
    assert 40 <= len(ROWS) <= 60


def test_every_command_fits_on_its_line_of_the_help():
    commands = COMMAND.commands
    width = 80 - 6 - max(map(len, commands))
    assert [name for name, command in commands.items() if command.get_short_help_str(width).endswith("...")] == []
