"""Golden tensors for the tests of published networks."""

from collections.abc import Callable
from pathlib import Path

import pytest

from inkbatch.testing.golden import Golden

pytest.register_assert_rewrite("inkbatch.testing.models")

FOLDER = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Golden]:
    """Read a golden fixture by its name: ``golden("i3d").require_match(net)``."""
    return lambda name: Golden.read(FOLDER, name)
