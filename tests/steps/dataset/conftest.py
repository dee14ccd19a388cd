"""A root with the segments of the dataset `letters`."""

from __future__ import annotations

import pytest

from inkbatch.testing.letters_dataset import two_segments


@pytest.fixture
def root(tmp_path):
    two_segments(tmp_path / "root")
    return tmp_path / "root"
