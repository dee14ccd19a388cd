"""Documentation that is run: the fenced blocks, links and headings of Markdown pages.

A block of the language ``bash`` or ``python`` is a promise that it works. Tests run it, unless a comment above its
fence says what it needs instead, ``<!-- needs a cloud -->``, or which test runs it, ``<!-- run by tests/x.py -->``.
``<!-- ends with 65 -->`` states another exit code than 0. A block whose first line is ``# name.yaml`` is that file.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

RUN = frozenset({"bash", "python"})
SHOWN = frozenset({"yaml", "text"})
NEEDS = (
    "a cloud",
    "a cluster",
    "a GPU",
    "a browser",
    "a container engine",
    "a download",
    "a network",
    "maps of pictures",
)
ENDS_CALL = ("|", ">", "&&", "||")
PROGRAMS = ("inkbatch", "make")

_FENCE = re.compile(
    r"(?P<comments>(?:^<!--.*?-->\n)*)^```(?P<language>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_COMMENT = re.compile(r"<!--\s*(.*?)\s*-->")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: The page's path in the repository.
        line: Line of the fence, from 1.
        language: The word after the fence.
        text: Its lines.
        needs: Requirement that tests lack, for example ``a cloud``; empty if tests run it.
        elsewhere: The test file that runs it in its own way.
        code: Exit code that it ends with.
        unknown: Comments above it that mean nothing here.
        file: The file that the line before names (`` `path/to/file.py`: ``), or its first line (``# name.yaml``).
    """

    page: str
    line: int
    language: str
    text: str
    needs: str = ""
    elsewhere: str = ""
    code: int = 0
    unknown: tuple[str, ...] = ()
    file: str = ""

    @property
    def place(self) -> str:
        """File and line, for messages."""
        return f"{self.page}:{self.line}"

    @property
    def is_run(self) -> bool:
        """True if tests run it."""
        return self.language in RUN and not (self.needs or self.elsewhere or self.file)

    def faults(self) -> list[str]:
        """List the reasons why it is unclear whether this block is run; empty if it is, or if it says what it needs."""
        found = [f"{self.place}: the comment {text!r} means nothing" for text in self.unknown]
        if self.language not in RUN | SHOWN:
            found.append(
                f"{self.place}: a block of {self.language or 'no language'!r}; name one of {sorted(RUN | SHOWN)}"
            )
        if self.language in SHOWN and any(line.split(" ", 1)[0] in PROGRAMS for line in self.text.splitlines()):
            found.append(f"{self.place}: a {self.language} block holds a command; make it bash, so that it is run")
        return found

    def commands(self, program: str) -> list[list[str]]:
        """Return the arguments of every call of `program` in a bash block, without what shells take away."""
        return commands_in(self.text, program) if self.language == "bash" else []


def commands_in(text: str, program: str) -> list[list[str]]:
    """Return the arguments of every line of shell text that calls `program`; comments, pipes and ``)`` end a call."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        for called in re.finditer(rf"(?:^|\$\(|&& )\s*{program} ([^)]*)", line):
            words = _words(called[1] if called[0].startswith("$(") else line[called.start(1) :])
            stop = next((at for at, word in enumerate(words) if word in ENDS_CALL), len(words))
            found.append(words[:stop])
    return found


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text, comments=True)
    except ValueError:  # inline code that was cut within a quotation
        return text.split()


def blocks_of(page: str, text: str) -> list[Block]:
    """List the fenced blocks of a page, in order."""
    return [_block(page, text, match) for match in _FENCE.finditer(text)]


def _block(page: str, text: str, match: re.Match[str]) -> Block:
    needs, elsewhere, code, unknown = "", "", 0, []
    for comment in _COMMENT.findall(match["comments"]):
        words, _, _ = comment.partition(":")
        if words.startswith("needs ") and words[6:] in NEEDS:
            needs = words[6:]
        elif re.fullmatch(r"run by tests/[\w./]+", words):
            elsewhere = words.removeprefix("run by ")
        elif re.fullmatch(r"ends with \d+", words):
            code = int(words.rsplit(" ", 1)[1])
        else:
            unknown.append(comment)
    before = text[: match.start()].rstrip("\n").rsplit("\n", 1)[-1]
    named = re.fullmatch(r"`([\w./-]+)`:", before) or re.match(
        r"# ([\w./-]+\.ya?ml)\s*$", match["text"].split("\n", 1)[0]
    )
    line = text.count("\n", 0, match.start() + len(match["comments"])) + 1
    file = named[1] if named else ""
    return Block(page, line, match["language"].strip(), match["text"], needs, elsewhere, code, tuple(unknown), file)


def without_blocks(text: str) -> str:
    """Return a page's prose."""
    return _FENCE.sub("", text)


def inline_commands(text: str, program: str) -> list[list[str]]:
    """List calls of `program` in prose, as inline code; ``…`` ends one."""
    spans = re.findall(r"`([^`\n]+)`", without_blocks(text))
    return [words for span in spans for words in commands_in(span.split("…")[0], program) if words]


def links_of(text: str) -> list[str]:
    """List the targets of links and pictures that do not lead to another host."""
    targets = [link or picture for link, picture in _LINK.findall(without_blocks(text))]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors_of(text: str) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    anchors: dict[str, int] = {}
    found = set()
    for heading in re.findall(r"^#{1,6} (.+)$", without_blocks(text), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        again = anchors.get(anchor, 0)
        anchors[anchor] = again + 1
        found.add(f"{anchor}-{again}" if again else anchor)
    return found


def broken_links(repository: Path, page: str, text: str) -> list[str]:
    """List the links of a page that lead nowhere in the repository: missing files and missing headings."""
    found = []
    for link in links_of(text):
        path, _, anchor = link.partition("#")
        target = ((repository / page).parent / path).resolve() if path else repository / page
        if not target.exists():
            found.append(f"{page}: {link}: there is no such file")
        elif anchor and anchor not in anchors_of(target.read_text(encoding="utf-8") if path else text):
            found.append(f"{page}: {link}: there is no such heading")
    return found
