"""The commands of the pages, run word by word in a folder with tiny data.

`STAGES` in conftest.py says what lies in the folder of a page. Blocks that say what else they need are not run here; of
every make command, theirs included, it is seen what it expands to.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from inkbatch.testing.pages import blocks_of
from inkbatch.testing.s3 import S3Server

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted(f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md")),
    "README.md",
    "CONTRIBUTING.md",
    "infra/README.md",
]
BLOCKS = {page: blocks_of(page, (REPOSITORY / page).read_text(encoding="utf-8")) for page in PAGES}
RUN_HERE = [page for page in PAGES if any(block.is_run for block in BLOCKS[page]) and page != "docs/trust.md"]
WITH_MAKE = [page for page in PAGES if any(block.commands("make") for block in BLOCKS[page])]


@pytest.fixture
def bucket(workshop, tmp_path):
    """``s3://my-bucket`` on a server of this machine, for the commands of the page."""
    with S3Server(tmp_path / "s3") as server:
        server.make_bucket("my-bucket")
        workshop.environment.update(server.environment)
        yield server


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", RUN_HERE)
def test_the_commands_of_the_page_run(page, workshop, bucket, set_stage):
    set_stage(page)
    assert workshop.run_page(page)


@pytest.mark.parametrize("page", WITH_MAKE)
def test_every_make_command_of_the_page_expands(page, workshop):
    calls = {shlex.join(call): block.place for block in BLOCKS[page] for call in block.commands("make")}
    tests = " && ".join(f"make -n {call} >/dev/null" for call in calls)
    workshop.must(f"set -x; {tests}", place=page)
