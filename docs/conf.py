"""Settings of the documentation site; `make docs` builds it with Sphinx, MyST and Furo.

The pages are plain Markdown that any Git host shows. Two things are added here while they are read: the tree of pages,
which follows the tables of the index pages, and the descriptions of the Python API under ``docs/api.md``.
"""

from __future__ import annotations

import re
from pathlib import Path

import inkbatch

REPOSITORY = Path(__file__).resolve().parent.parent
INDEXES = ("docs/index", "docs/decisions/index")
API_PAGE, API_MODULES = "docs/api", ("inkbatch",)

project = "inkbatch"
author = "the authors of inkbatch"
version = release = inkbatch.__version__

root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "docs/decisions/*.md",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "infra/*.md",
    "benchmarks/*.md",
]
include_patterns += ["inkbatch/demo/NOTICE.md"]
exclude_patterns = [".*", "root", "build", "dist", "**/__pycache__"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

myst_heading_anchors = 4
myst_all_links_external = False
nitpicky = True
nitpick_ignore_regex = [("py:.*", r".*")]  # types of other packages have no page here; links of our pages do

autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "inkbatch"
html_copy_source = html_show_sourcelink = False
html_static_path, html_css_files = ["static"], ["site.css"]
html_extra_path = ["site"]  # index.html of the site's root leads to docs/index.html

_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
_PAGE_LINK = re.compile(r"\[([^\]]+)\]\(([^)#:\s]+\.md)\)")


def page_tree(text: str) -> str:
    """Return hidden toctrees for an index page: one per section, with the pages that it links, in their order."""
    trees: list[str] = []
    seen = {"../index.md", "../design.md"}
    sections = ["", *_SECTION.split(text)]
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        entries = []
        for name, page in _PAGE_LINK.findall(body):
            if page not in seen:
                entries.append(f"{name if name == project else name[:1].upper() + name[1:]} <{page}>")
                seen.add(page)
        if entries:
            caption = f":caption: {title}\n" if title else ""
            trees.append("```{toctree}\n:hidden:\n" + caption + "\n".join(entries) + "\n```")
    return "\n\n".join(trees)


def api_text() -> str:
    """Return the directives that describe the public Python API from its docstrings."""
    described = "\n".join(f".. automodule:: {module}\n   :members:\n" for module in API_MODULES)
    return "```{eval-rst}\n" + described + "```"


def _add_to_page(_app: object, page: str, source: list[str]) -> None:
    if page in INDEXES:
        source[0] += "\n\n" + page_tree(source[0])
    if page == API_PAGE:
        source[0] += "\n\n" + api_text()


def setup(app: object) -> None:
    """Connect the additions; Sphinx calls this."""
    app.connect("source-read", _add_to_page)  # type: ignore[attr-defined]
