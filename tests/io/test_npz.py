"""Archives of arrays: read whole, or refused by name, whatever a damaged header asks for."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from inkbatch.errors import CorruptDataError
from inkbatch.io.npz import read_npz
from inkbatch.io.store.location import Location

ARRAYS = {
    "a": np.arange(12).reshape(3, 4),
    "f": np.asfortranarray(np.eye(3)),
    "none": np.zeros((0, 4)),
    "s": np.array(["x"]),
}


@pytest.fixture
def place(tmp_path) -> Location:
    return Location.parse(tmp_path) / "unit.npz"


def archive(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in members.items():
            zipped.writestr(f"{name}.npy", content)
    return file.getvalue()


def header(shape: str, dtype: str = "<f8") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def test_arrays_come_back_as_numpy_reads_them(place):
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, **ARRAYS)
        place.write_bytes(file.getvalue())
        found = read_npz(place, "a unit", "make it again", ["a", "f"])
        assert found.keys() == ARRAYS.keys()
        for name, values in ARRAYS.items():
            np.testing.assert_array_equal(found[name], values)
            assert found[name].dtype == values.dtype


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK",
        archive(a=b""),
        archive(a=b"no header"),
        archive(a=header("(10**12,)")),
        archive(a=header("(1000000000000,)")),
        archive(a=header("(-3,)")),
        archive(a=header("(2,)", "|O") + b"x" * 16),
        archive(a=header("(4,)") + b"x" * 8),
    ],
)
def test_damage_is_named_and_takes_no_memory(place, data):
    place.write_bytes(data)
    with pytest.raises(CorruptDataError, match=r"unit\.npz: expected a unit, got damaged bytes .*; make it again"):
        read_npz(place, "a unit", "make it again")


def test_an_array_that_is_not_there_is_named(place):
    place.write_bytes(archive())
    with pytest.raises(CorruptDataError, match="expected a unit, got no a, b; make it again"):
        read_npz(place, "a unit", "make it again", ("b", "a"))
