"""A refusal of something missing names the job that makes it."""

import pytest

from inkbatch.errors import DataError
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.store.location import Location


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("surface.zarr", "run inkbatch prepare"),
        ("ignore_mask.zarr", "run inkbatch labels"),
        ("x.zarr", "check the address"),
    ],
)
def test_a_missing_array_names_the_job_that_makes_it(tmp_path, name, cure):
    with pytest.raises(DataError, match=cure):
        Multiscale.open(Location.parse(tmp_path / name))
