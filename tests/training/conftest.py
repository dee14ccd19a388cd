"""A tiny labelled dataset, made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from inkbatch.testing.training import tiny_dataset


@pytest.fixture(scope="session")
def dataset_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template")
    tiny_dataset(root)
    tiny_dataset(root, folds=2, name="folded")
    return root


@pytest.fixture
def root(dataset_template: Path, tmp_path: Path) -> Path:
    """A ROOT of its own with the datasets ``tiny`` and ``folded``."""
    shutil.copytree(dataset_template, tmp_path / "root")
    return tmp_path / "root"
