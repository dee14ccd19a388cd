"""Words for pictures: a photograph shows an object on a background, no ink on papyrus."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass, replace
from typing import Any

from inkbatch.reports.page import Chart, Code, Link, Page

WORDS = (
    ("ink labels", "annotations"),
    ("bare papyrus", "background"),
    ("papyrus", "background"),
    ("segments", "pictures"),
    ("segment", "picture"),
    ("ink", "object"),
)
_PATTERN = re.compile(rf"(?<![\w./{{-])({'|'.join(old for old, _ in WORDS)})(?![\w/-]|\.\w)", re.IGNORECASE)
_NEW = dict(WORDS)


def picture_text(text: str) -> str:
    """Replace the words for papyrus by those for pictures; names, paths and commands stay."""

    def new(found: re.Match[str]) -> str:
        word = _NEW[found[0].lower()]
        return word.capitalize() if found[0][0].isupper() else word

    return _PATTERN.sub(new, text)


def in_picture_words(page: Page) -> Page:
    """Say a whole page in the words for pictures; titles, commands, links and files stay."""
    said: Page = _said(replace(page, title="", repeat="", repeat_note=""))
    return replace(said, title=page.title, repeat=page.repeat, repeat_note=page.repeat_note, job=page.job)


def _said(part: Any) -> Any:
    if isinstance(part, str):
        return picture_text(part)
    if isinstance(part, Code | Link):
        return part
    if isinstance(part, tuple):
        return tuple(_said(one) for one in part)
    if isinstance(part, Chart):
        svg = re.sub(r">([^<]+)<", lambda found: f">{picture_text(found[1])}<", part.svg)
        return Chart(svg, picture_text(part.alt), picture_text(part.caption))
    if is_dataclass(part) and not isinstance(part, type):
        return replace(part, **{one.name: _said(getattr(part, one.name)) for one in fields(part) if one.init})
    return part
