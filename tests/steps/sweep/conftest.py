"""One sweep for all tests of the folder; none of them changes it."""

from __future__ import annotations

import pytest

from inkbatch.testing.swept import Swept, swept_segment


@pytest.fixture(scope="session")
def swept(tmp_path_factory) -> Swept:
    return swept_segment(tmp_path_factory.mktemp("sweep"))
