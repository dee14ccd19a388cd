"""The pages are one site: every block is run or says what it needs, every command is known, every link leads on."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import typer

from inkbatch.cli import app as cli
from inkbatch.testing.pages import (
    RUN,
    Block,
    anchors_of,
    blocks_of,
    broken_links,
    inline_commands,
    links_of,
)

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted(path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "docs").rglob("*.md"))
PAGES += ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "infra/README.md", "benchmarks/README.md"]
TEXTS = {page: (REPOSITORY / page).read_text(encoding="utf-8") for page in PAGES}
MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z][a-z0-9-]*):", MAKEFILE, re.MULTILINE))
SETTINGS = set(re.findall(r"^([A-Z_]+)\s*\??=", MAKEFILE, re.MULTILINE))


def faults_of_inkbatch(arguments: list[str]) -> list[str]:
    """List what the command line refuses before it does anything: unknown commands or options, missing arguments."""
    command, rest = typer.main.get_command(cli.app), arguments
    if not rest or not re.fullmatch(r"[a-z-]+", rest[0]) or rest[0].startswith("-"):
        return []
    while hasattr(command, "get_command") and rest:
        found = command.get_command(typer.Context(command), rest[0])
        if found is None:
            return [f"there is no command {rest[0]!r}"]
        command, rest = found, rest[1:]
    return _unknown_options(command, rest)


def _unknown_options(command, arguments: list[str]) -> list[str]:
    known = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
    known |= {"--help"}
    named = [word.split("=")[0] for word in arguments if re.match(r"--?[a-z]", word)]
    return [f"inkbatch {command.name} has no option {option}" for option in named if option not in known]


def faults_of_make(arguments: list[str]) -> list[str]:
    """Targets and settings that the Makefile does not know."""
    found = []
    for word in arguments:
        setting, equals, _ = word.partition("=")
        if equals and setting not in SETTINGS:
            found.append(f"make has no setting {setting}")
        if not equals and not word.startswith("-") and word not in TARGETS:
            found.append(f"make has no target {word}")
    return found


def _is_run_there(block: Block) -> bool:
    test = REPOSITORY / block.elsewhere
    return not block.elsewhere or (test.is_file() and Path(block.page).name in test.read_text(encoding="utf-8"))


CHECKS = {"inkbatch": faults_of_inkbatch, "make": faults_of_make}


def faults_of(page: str, text: str) -> list[str]:
    """Everything that is wrong with a page's blocks and commands."""
    blocks = blocks_of(page, text)
    found = [fault for block in blocks for fault in block.faults()]
    found += [
        f"{block.place}: {block.elsewhere} does not run this page" for block in blocks if not _is_run_there(block)
    ]
    for program, check in CHECKS.items():
        calls = [(block.place, call) for block in blocks for call in block.commands(program)]
        calls += [(page, call) for call in inline_commands(text, program)]
        found += [f"{place}: {' '.join([program, *call])}: {fault}" for place, call in calls for fault in check(call)]
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_says_what_it_needs_and_every_command_is_known(page):
    assert faults_of(page, TEXTS[page]) == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_to_a_heading(page):
    assert broken_links(REPOSITORY, page, TEXTS[page]) == []


def linked_from(page: str) -> set[str]:
    """Pages of the repository that a page links."""
    links = {link.partition("#")[0] for link in links_of(TEXTS[page]) if ":" not in link}
    return {os.path.normpath(Path(page).parent / link) for link in links if link}


def test_an_index_leads_to_every_page_and_every_page_leads_back():
    indexed = linked_from("docs/index.md") | linked_from("docs/decisions/index.md")
    assert set(PAGES) - {"docs/index.md"} <= indexed
    assert [page for page in PAGES if "docs/index.md" not in linked_from(page)] == ["docs/index.md"]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_one_title_and_no_line_is_repeated_on_another_page(page):
    text = TEXTS[page]
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert len(re.findall(r"^# ", prose, re.MULTILINE)) == 1
    mine = {line for line in text.splitlines() if len(line) > 80 and not line.startswith("|")}
    others = {line for other, words in TEXTS.items() if other != page for line in words.splitlines()}
    assert mine & others == set()


FENCE = "```"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f"{FENCE}\ninkbatch segments\n{FENCE}\n", "no language"),
        (f"{FENCE}text\ninkbatch segments\n{FENCE}\n", "holds a command"),
        (f"<!-- needs patience -->\n{FENCE}bash\ninkbatch segments\n{FENCE}\n", "means nothing"),
        (f"<!-- run by tests/nobody.py -->\n{FENCE}bash\ninkbatch segments\n{FENCE}\n", "does not run this page"),
        (f"{FENCE}bash\ninkbatch segmnts\n{FENCE}\n", "no command 'segmnts'"),
        (f"<!-- needs a cloud -->\n{FENCE}bash\ninkbatch infer demo --budnle demo\n{FENCE}\n", "no option --budnle"),
        (f"{FENCE}bash\ncd here && make infre SEGMENT=demo  # 3\n{FENCE}\n", "no target infre"),
        (f"{FENCE}bash\nmake infer SEGMNT=demo\n{FENCE}\n", "no setting SEGMNT"),
        ("Run `make prepair SEGMENT=demo` first.\n", "no target prepair"),
    ],
)
def test_a_page_that_nobody_runs_is_found_out(text, fault):
    (found,) = faults_of("page.md", text)
    assert fault in found


def test_a_block_says_what_it_needs_how_it_ends_and_which_file_it_is():
    text = f"# A\n<!-- needs a GPU: any -->\n<!-- ends with 75 -->\n{FENCE}bash\nmake demo\n{FENCE}\n"
    text += f"`a/b.py`:\n\n{FENCE}python\nimport this\n{FENCE}\n{FENCE}yaml\n# letters.yaml\nfold: 2\n{FENCE}\n"
    shell, python, settings = blocks_of("page.md", text)
    assert (shell.needs, shell.code, shell.line, shell.is_run) == ("a GPU", 75, 4, False)
    assert (python.file, python.is_run) == ("a/b.py", False)
    assert settings.file == "letters.yaml"


def test_broken_links_and_headings_are_found(tmp_path):
    (tmp_path / "there.md").write_text("# One\n## What `it` does, and why\n")
    text = "[a](there.md#what-it-does-and-why) [b](there.md#two) [c](nowhere.md) [d](https://example.org/x)"
    assert len(broken_links(tmp_path, "page.md", text)) == 2
    assert anchors_of("## Twice\n## Twice\n") == {"twice", "twice-1"}
    assert {*RUN} == {"bash", "python"}
