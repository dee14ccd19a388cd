"""Checkpoints: a new object, then the pointer; the last two and the best; on every store."""

from __future__ import annotations

import pytest
import torch

from inkbatch.errors import CorruptDataError
from inkbatch.io.store.location import Location
from inkbatch.training.checkpoints import CheckpointStore


@pytest.fixture(params=["local", "memory", "s3"])
def store(request, tmp_path) -> CheckpointStore:
    if request.param == "local":
        return CheckpointStore(Location.parse(tmp_path / "checkpoints"))
    return CheckpointStore(request.getfixturevalue(f"{request.param}_root") / "checkpoints")


def state(number: int) -> dict:
    return {"net": {"w": torch.full((3,), float(number))}, "step": number, "losses": [0.1 * number]}


def names(store: CheckpointStore) -> list[str]:
    return [name for name in store.location.names() if name.endswith(".ckpt")]


def test_nothing_saved_is_no_checkpoint(store):
    assert store.newest() is None
    with pytest.raises(CorruptDataError, match="no best checkpoint is named"):
        store.best()


def test_the_last_two_and_the_best_are_kept(store):
    for number in range(1, 6):
        store.save(state(number), number, 0, best=number in (1, 2))
    assert [name[:14] for name in names(store)] == ["step-000000002", "step-000000004", "step-000000005"]
    assert store.newest()["step"] == 5
    best = store.best()
    assert best["step"] == 2
    assert torch.equal(best["net"]["w"], torch.full((3,), 2.0))


def test_an_object_that_nothing_points_to_is_not_picked_up(store):
    store.save(state(1), 1, 0)
    (store.location / "step-000000009-0123456789abcdef.ckpt").write_bytes(b"half")
    assert store.newest()["step"] == 1
    store.save(state(2), 2, 0)
    assert [name[:14] for name in names(store)] == ["step-000000001", "step-000000002"]


@pytest.mark.parametrize("moment", ["object", "pointer"])
def test_a_kill_while_saving_leaves_the_one_before(store, monkeypatch, moment):
    store.save(state(1), 1, 0)
    write = Location.write_bytes

    def dying(self: Location, data: bytes) -> None:
        if (self.name == "pointer.json") == (moment == "pointer"):
            raise KeyboardInterrupt
        write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Location, "write_bytes", dying)
        with pytest.raises(KeyboardInterrupt):
            store.save(state(2), 2, 0)
    assert CheckpointStore(store.location).newest()["step"] == 1


@pytest.mark.parametrize("harm", ["truncated", "flipped", "gone"])
def test_a_damaged_newest_checkpoint_is_passed_over(store, harm):
    notes: list[str] = []
    for number in (1, 2):
        entry = store.save(state(number), number, 0)
    place = store.location / entry.file
    data = place.read_bytes()
    if harm == "gone":
        place.delete()
    else:
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        place.write_bytes(data[:-7] if harm == "truncated" else flipped)
    assert CheckpointStore(store.location, notes.append).newest()["step"] == 1
    assert "using the checkpoint before it" in notes[0]


@pytest.mark.parametrize("edited", ['{"last": [{"file": 3}]}', '{"last": [', ""])
def test_an_edited_or_cut_pointer_is_refused(tmp_path, edited):
    store = CheckpointStore(Location.parse(tmp_path))
    (tmp_path / "pointer.json").write_text(edited)
    with pytest.raises(CorruptDataError, match="not a pointer to checkpoints; remove"):
        store.newest()


def test_a_state_that_was_partly_loaded_takes_the_bytes_of_one_that_never_was(store):
    def rows(count: int) -> list[dict]:
        return [{"step": number, "scores": {"overall": 0.5}} for number in range(count)]

    never = {"optimiser": {"step": 2}, "progress": {"rows": rows(2)}}
    loaded = store.load(store.save({"optimiser": {"step": 2}, "progress": {"rows": rows(1)}}, 1, 0))
    loaded["progress"]["rows"].append(rows(2)[1])
    assert store.save(loaded, 2, 0).sha256 == store.save(never, 2, 0).sha256
