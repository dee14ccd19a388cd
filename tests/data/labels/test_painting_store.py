"""Label versions on a disk and on S3: strokes are whole or not there, whoever dies."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from inkbatch.data.labels.painting import Marks, count_marks
from inkbatch.data.labels.painting_journal import ENDING, Journal, TakenOverError
from inkbatch.data.labels.painting_lease import LASTS_S, Lease
from inkbatch.data.labels.painting_session import PaintSession, RefusedStrokeError, Sent
from inkbatch.data.labels.painting_tiles import PaintedTiles
from inkbatch.data.labels.painting_version import PaintedVersion, create_version, version_names
from inkbatch.errors import CorruptDataError, DataError, StorageError
from inkbatch.geometry import Box
from inkbatch.io.store.location import Location

SHAPE = (600, 700)


@pytest.fixture
def folder(tmp_path):
    return create_version(
        Location.parse(tmp_path / "labels/seg"), "seg", SHAPE, 8.0, author="ada", started_from="nothing"
    )


def boxed(session, seq, box, layer="ink", tab="tab", base=1 << 30):
    sent = Sent(tab, seq, str(box), base, "rectangle")
    return session.paint(sent, lambda: [Marks(box, np.ones(box.shape, bool), layer)])


def whole(version):
    return version.tiles.read(Box(0, 0, *SHAPE))


def test_a_stroke_that_was_stored_but_not_written_into_its_tiles_is_there_at_the_next_start(folder):
    session = PaintSession(folder)
    boxed(session, 1, Box(0, 0, 300, 300))
    session.flush()
    boxed(session, 2, Box(200, 200, 400, 700), "ignore")
    expected = whole(session.version)
    assert whole(PaintedVersion.open(folder)).tobytes() == expected.tobytes()  # as a reader sees it meanwhile
    session.close()
    again = PaintedVersion.open(folder)
    assert again.tiles.waiting == 0
    np.testing.assert_array_equal(whole(again), expected)
    assert again.counts == count_marks(expected)


def test_the_arrays_are_plain_zarr(folder):
    import zarr

    session = PaintSession(folder)
    boxed(session, 1, Box(250, 0, 270, 300))
    boxed(session, 2, Box(599, 699, 600, 700), "ignore")
    session.close()
    ink = zarr.open(str(folder / "ink_labels.zarr"), mode="r")["0"]
    assert ink.shape == SHAPE
    assert np.count_nonzero(ink[:] == 255) == 20 * 300 == np.count_nonzero(ink[:])
    assert np.argwhere(zarr.open(str(folder / "ignore_mask.zarr"), mode="r")["0"][:]).tolist() == [[599, 699]]


def test_a_torn_or_edited_stroke_is_refused_by_name(folder):
    session = PaintSession(folder)
    boxed(session, 1, Box(0, 0, 3, 3))
    session.close()
    place = folder / "journal" / f"00000001{ENDING}"
    data = place.read_bytes()
    for damaged in (data[:-1], data[:20] + b"x" + data[21:], data[:10], b""):
        place.write_bytes(damaged)
        with pytest.raises(CorruptDataError, match="00000001"):
            Journal(folder)


@pytest.mark.parametrize("missing", [2, 3])
def test_a_stroke_that_is_missing_is_not_passed_over(folder, missing):
    session = PaintSession(folder)
    for seq in (1, 2, 3):
        boxed(session, seq, Box(0, 200 * seq, 9, 200 * seq + 9))
    session.close()
    if missing == 2:
        (folder / "journal/state").delete()  # as if no stroke had been written into the tiles yet
    (folder / "journal" / f"{missing:08d}{ENDING}").delete()
    with pytest.raises(CorruptDataError, match=r"journal: expected strokes without gaps, got (3 beside 1|2 beside 3)"):
        PaintedVersion.open(folder)


def test_two_programs_never_store_the_same_stroke(folder, monkeypatch):
    monkeypatch.setattr(Lease, "take", lambda self: None)  # as if both had found it free
    monkeypatch.setattr(Lease, "renew", lambda self: None)
    one, other = PaintSession(folder), PaintSession(folder)
    boxed(one, 1, Box(0, 0, 3, 3))
    for seq in (1, 2):
        with pytest.raises(TakenOverError, match="strokes of another one"):
            boxed(other, seq, Box(5, 5, 9, 9))
    one.close()
    other.close()
    assert np.count_nonzero(whole(PaintedVersion.open(folder))) == 9


def test_a_lease_is_held_by_the_living_and_taken_from_the_dead(folder):
    now = [1000.0]
    place = folder / "journal/lease.json"
    Lease(place, lambda: now[0]).take()
    with pytest.raises(DataError, match=f"process {os.getpid()}"):
        Lease(place, lambda: now[0] + LASTS_S).take()
    late = Lease(place, lambda: now[0] + LASTS_S + 1)
    late.take()
    first = Lease(place, lambda: now[0])
    with pytest.raises(TakenOverError, match="has taken"):
        first.renew()
    place.write_json({**place.read_json(), "pid": 2**22 + 1, "renewed": now[0]})  # more than Linux gives out
    Lease(place, lambda: now[0] + 1).take()


def test_undo_has_no_limit_and_tiles_stay_within_their_memory(folder, monkeypatch):
    monkeypatch.setattr("inkbatch.data.labels.painting_tiles.KEPT_TILES", 2)
    monkeypatch.setattr("inkbatch.data.labels.painting_session.MOST_WAITING", 1)
    session = PaintSession(folder)
    states = [whole(session.version)]
    for number in range(1, 31):
        boxed(session, number, Box(17 * number, 20 * number, 17 * number + 90, 20 * number + 90), "ignore")
        states.append(whole(session.version))
    assert session.version.tiles.kept <= 2
    assert session.version.tiles.waiting <= 4 + 1
    for number in range(31, 61):
        session.undo(Sent("tab", number, "", 1 << 30, "undo"))
        np.testing.assert_array_equal(whole(session.version), states[60 - number])
    session.close()


def test_own_strokes_never_clash_and_those_of_others_are_not_forgotten(folder, monkeypatch):
    monkeypatch.setattr("inkbatch.data.labels.painting_version.KEPT_CHANGES", 2)
    session = PaintSession(folder)
    for seq in range(1, 6):
        boxed(session, seq, Box(seq, 0, seq + 1, 9), base=0)
    session.close()
    session = PaintSession(folder)
    with pytest.raises(RefusedStrokeError):
        boxed(session, 1, Box(0, 0, 3, 3), tab="other", base=2)
    boxed(session, 1, Box(0, 0, 3, 3), "ignore", tab="other", base=5)
    boxed(session, 6, Box(400, 400, 403, 403), base=0)
    with pytest.raises(RefusedStrokeError, match="another tab painted on 1"):
        boxed(session, 7, Box(5, 5, 6, 6), "ignore", base=0)
    session.close()


def test_a_large_stroke_is_one_stroke(folder):
    session = PaintSession(folder)
    assert len(boxed(session, 1, Box(0, 0, *SHAPE), "supervision").tiles) == 9
    assert session.version.counts["supervision"] == SHAPE[0] * SHAPE[1]
    session.close()
    assert (folder / "journal" / f"00000001{ENDING}").size() < 9 * 1500


@pytest.mark.parametrize("damage", [b"", b'{"host": "a", "pid"', b"[]", b'{"pid": "x", "renewed": "y", "key": "k"}'])
def test_a_lease_that_a_power_cut_damaged_is_nobody_s(folder, damage):
    place = folder / "journal/lease.json"
    place.write_bytes(damage)
    session = PaintSession(folder)
    boxed(session, 1, Box(0, 0, 3, 3))
    session.close()
    assert not place.exists()


@pytest.mark.parametrize(("key", "value"), [("voxel_size_um", "8"), ("author", None), ("time", 3), ("segment", [])])
def test_a_version_that_does_not_say_what_every_one_says_is_refused_by_name(folder, key, value):
    place = folder / "version.json"
    place.write_json({**place.read_json(), key: value})
    with pytest.raises(CorruptDataError, match=rf"version\.json: expected {key}, a (text|number), got"):
        PaintedVersion.open(folder)


def test_a_stroke_and_its_name_are_on_the_disk_before_it_is_answered(folder, monkeypatch):
    forced, fsync = [], os.fsync

    def noted(handle):
        forced.append(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    session = PaintSession(folder)
    monkeypatch.setattr(os, "fsync", noted)
    boxed(session, 1, Box(0, 0, 3, 3))
    assert str(folder / "journal") in forced
    session.flush()
    assert str(folder / "journal/state") in forced
    session.close()
    monkeypatch.undo()


PAINTER = """
import sys
import numpy as np
from inkbatch.data.labels.painting import Marks
from inkbatch.data.labels.painting_session import PaintSession, RefusedStrokeError, Sent
from inkbatch.geometry import Box
from inkbatch.io.store.location import Location

session = PaintSession(Location.parse(sys.argv[1]))
box = Box(0, 0, 600, 700)
for seq in range(1, 100_000):
    layer = "ink" if seq % 2 else "not_ink"
    session.paint(Sent("tab", seq, "", seq, "rectangle"), lambda: [Marks(box, np.ones(box.shape, bool), layer)])
    print(seq, flush=True)
"""


def test_killed_in_mid_stroke_each_stroke_is_there_whole_or_not_at_all(folder):
    command = [sys.executable, "-c", PAINTER, folder.uri]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as painter:
        answered = 0
        while answered < 12:
            answered = int(painter.stdout.readline())
        painter.kill()
        answered = max([answered, *map(int, painter.stdout.read().split())])
    found = PaintedVersion.open(folder)
    assert found.revision in (answered, answered + 1)  # the last one may have been stored and not answered
    codes = whole(found)
    assert np.unique(codes).tolist() == [1 if found.revision % 2 else 2]
    PaintSession(folder).close()  # the dead one's lease is taken over at once


def test_a_version_whose_first_tiles_were_not_all_stored_is_none(folder):
    def killed():
        yield (0, 0), np.ones((256, 256), np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        create_version(folder.parent, "seg", SHAPE, 8.0, author="ada", started_from="a picture", tiles=killed())
    assert version_names(folder.parent) == ["v001"]
    again = create_version(folder.parent, "seg", SHAPE, 8.0, author="ada", started_from="nothing")
    assert version_names(folder.parent) == ["v001", again.name] == ["v001", "v003"]


@pytest.mark.parametrize(
    ("owner", "step"), [(PaintedTiles, "create"), (PaintedTiles, "write"), (PaintedVersion, "state")]
)
def test_a_version_of_a_round_that_was_killed_is_finished_under_its_name(folder, monkeypatch, owner, step):
    def begun(started_from="proposals of r"):
        tiles = [((0, 0), np.ones((256, 256), np.uint8)), ((1, 1), np.full((256, 256), 2, np.uint8))]
        made = {"author": "a", "started_from": started_from, "tiles": tiles, "goes_on": True}
        return create_version(folder.parent, "seg", SHAPE, 8.0, **made)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(owner, step, killed)
        with pytest.raises(KeyboardInterrupt):
            begun()
    assert version_names(folder.parent) == ["v001"]
    assert begun("another round").name == "v003"
    (folder.parent / "v003").delete_folder()
    found = PaintedVersion.open(begun())
    assert (found.name, found.counts["ink"], found.counts["not_ink"]) == ("v002", 256 * 256, 256 * 256)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("journal/state", b"", "expected one state of the tiles, got 0"),
        ("journal/state", None, "expected the labels that it starts with, got none"),
        ("version.json", b'{"name": "v002", "shape_yx": "x"}', "expected shape_yx, a height and a width"),
    ],
)
def test_a_damaged_version_is_refused_and_never_taken_for_an_empty_one(folder, file, content, words):
    first = [((0, 0), np.ones((256, 256), np.uint8))]
    place = create_version(folder.parent, "seg", SHAPE, 8.0, author="ada", started_from="a picture", tiles=first)
    if content is None:
        (place / file).delete()
    else:
        (place / file).write_bytes(content)
    with pytest.raises(CorruptDataError, match=words):
        PaintedVersion.open(place)


# ---- object stores ---------------------------------------------------------------------------------------------------


def test_on_a_store_strokes_are_put_within_a_second_and_wait_while_it_is_away(s3_root, monkeypatch):
    folder = create_version(s3_root / "labels/seg", "seg", SHAPE, 8.0, author="ada", started_from="nothing")
    session = PaintSession(folder)
    append, away = Journal.append, [True]

    def unsteady(self, records):
        if away[0]:
            raise StorageError("s3: no answer")
        append(self, records)

    monkeypatch.setattr(Journal, "append", unsteady)
    told = boxed(session, 1, Box(0, 0, 300, 300))
    assert (told.revision, told.saved) == (1, 0)
    boxed(session, 2, Box(250, 0, 300, 300), "not_ink")
    told = session.undo(Sent("tab", 3, "", 2, "undo"))  # of a stroke that is not stored yet
    with pytest.raises(StorageError):
        session.flush()
    away[0] = False
    until = time.monotonic() + 5
    while session.saved < 3 and time.monotonic() < until:
        time.sleep(0.05)
    assert session.saved == 3
    expected = whole(session.version)
    assert (expected == 1).sum() == 90_000 == np.count_nonzero(expected)
    np.testing.assert_array_equal(whole(PaintedVersion.open(folder)), expected)
    with pytest.raises(DataError, match="open for painting"):
        PaintSession(folder)
    session.close()
    found = PaintedVersion.open(folder)
    assert found.tiles.waiting == 0
    np.testing.assert_array_equal(whole(found), expected)
