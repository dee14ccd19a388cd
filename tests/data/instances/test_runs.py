import numpy as np
import pytest

from inkbatch.data.instances.runs import LabelRuns
from inkbatch.errors import CorruptDataError
from inkbatch.io.store.location import Location


@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (40, 3)])
def test_runs_give_back_every_pixel(tmp_path, shape):
    labels = np.random.default_rng(1).integers(0, 3, shape).astype(np.int32)
    place = Location.parse(str(tmp_path / "labels.npz"))
    LabelRuns.of(labels).store(place)
    runs = LabelRuns.read(place)
    numbers = np.array([70, 80, 90], np.uint32)
    np.testing.assert_array_equal(runs.mapped(numbers), numbers[labels])
    pixels = [(int(y), int(x)) for y, x in np.argwhere(labels >= 0)]
    assert runs.at(pixels).tolist() == labels.ravel().tolist()
    assert runs.at([]).tolist() == []


def test_damaged_runs_are_refused(tmp_path):
    place = Location.parse(str(tmp_path / "labels.npz"))
    LabelRuns((2, 3), np.array([1], np.int32), np.array([5], np.int32)).store(place)
    with pytest.raises(CorruptDataError, match=r"labels\.npz: .* fill the 6 px of their unit, got 5 px"):
        LabelRuns.read(place)
    place.write_bytes(b"PK")
    with pytest.raises(CorruptDataError, match=r"labels\.npz: expected labels of a unit, got damaged bytes"):
        LabelRuns.read(place)
