"""Series of rounds that tests of rounds share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from inkbatch.run.job import RunContext
from inkbatch.steps.round.job import run
from inkbatch.testing.rounds import BY_BLOCKS, SEGMENTS, SHAPE, label_part, round_settings, rounds_root


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rounds")
    rounds_root(folder / "root", folder / "sources")
    return folder / "root"


@pytest.fixture(scope="session")
def two_rounds(prepared, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("two") / "root"
    shutil.copytree(prepared, root)
    run(round_settings(root), RunContext())
    label_part(root, "r0", 160)
    label_part(root, "r2", 32)  # the yardstick's labels were fixed before
    own = [{"id": name, "version": "own"} for name in SEGMENTS]  # not the first labels that the round made
    run(round_settings(root, segments=own), RunContext())
    return root


@pytest.fixture(scope="session")
def by_blocks(prepared, tmp_path_factory) -> Path:
    """Make a round whose folds and yardstick are blocks of two segments."""
    root = tmp_path_factory.mktemp("blocks") / "root"
    shutil.copytree(prepared, root)
    for segment in SEGMENTS[:2]:
        label_part(root, segment, SHAPE[1])
    run(round_settings(root, **BY_BLOCKS), RunContext())
    return root
