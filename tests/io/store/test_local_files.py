"""Files that are whole or not there, with and without a file system that holds files without a name."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from inkbatch.io.store.local_files import Disks, NewFile, create_atomically, write_atomically


class NamingDisks(Disks):
    """Disks whose files have a name from the beginning."""

    def hold_nameless(self, folder: str) -> bool:
        return False


@pytest.fixture(params=[Disks, NamingDisks], ids=["nameless", "named"])
def disks(request, tmp_path) -> Disks:
    """Disks with and without files that get their name later; skips the half that this machine's disk cannot do."""
    found = request.param()
    if request.param is Disks and not found.hold_nameless(str(tmp_path)):
        pytest.skip(f"the file system of {tmp_path} holds no files without a name")
    return found


def test_nobody_sees_a_file_before_it_is_whole(tmp_path: Path, disks: Disks) -> None:
    place = tmp_path / "deep" / "er" / "file"
    new = NewFile(str(place), disks)
    new.write(memoryview(b"half"))
    assert not place.exists()
    assert len(list(place.parent.iterdir())) == (0 if disks.hold_nameless(str(tmp_path)) else 1)
    new.write(memoryview(b" and half"))
    new.publish()
    assert place.read_bytes() == b"half and half"
    assert [path.name for path in place.parent.iterdir()] == ["file"]
    assert place.stat().st_mode & 0o777 == 0o644


def test_what_lies_there_is_replaced_at_once(tmp_path: Path, disks: Disks) -> None:
    place = tmp_path / "file"
    place.write_bytes(b"old")
    write_atomically(str(place), [b"new ", bytearray(b"con"), memoryview(b"tent")], disks)
    assert place.read_bytes() == b"new content"
    assert os.listdir(tmp_path) == ["file"]


def test_what_is_abandoned_leaves_the_old_file_and_nothing_else(tmp_path: Path, disks: Disks) -> None:
    place = tmp_path / "file"
    place.write_bytes(b"old")
    new = NewFile(str(place), disks)
    new.write(memoryview(b"new"))
    new.abandon()
    new.abandon()
    assert place.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_in_its_place_stays_and_is_named(tmp_path: Path, disks: Disks) -> None:
    (tmp_path / "place").mkdir()
    with pytest.raises(OSError, match="place"):
        write_atomically(str(tmp_path / "place"), [b"x"], disks)
    assert os.listdir(tmp_path) == ["place"]


def test_of_two_writers_one_wins_and_neither_fails(tmp_path: Path, disks: Disks) -> None:
    place = tmp_path / "file"
    both = [NewFile(str(place), disks) for _ in range(8)]
    for number, new in enumerate(both):
        new.write(memoryview(b"%d" % number * 1000))
    threads = [threading.Thread(target=new.publish) for new in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert place.read_bytes() in [b"%d" % number * 1000 for number in range(8)]
    assert os.listdir(tmp_path) == ["file"]


KILLED = """
import os, signal, sys
from inkbatch.io.store.local_files import NewFile
new = NewFile(sys.argv[1])
new.write(memoryview(b"half"))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_killed_while_it_writes_leaves_nothing(tmp_path: Path) -> None:
    if not Disks().hold_nameless(str(tmp_path)):
        pytest.skip(f"the file system of {tmp_path} holds no files without a name")
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "file")])
    assert ended.returncode == -signal.SIGKILL
    assert not os.listdir(tmp_path)


def test_a_file_system_that_holds_no_nameless_files_is_tried_once(tmp_path: Path, monkeypatch) -> None:
    tries, real = [], os.open

    def refusing(path, flags, mode=0o777, **others):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            tries.append(path)
            raise OSError(95, "Operation not supported")
        return real(path, flags, mode, **others)

    monkeypatch.setattr(os, "open", refusing)
    disks = Disks()
    for number in range(3):
        write_atomically(str(tmp_path / str(number)), [b"x"], disks)
    assert tries == [str(tmp_path)]
    assert sorted(os.listdir(tmp_path)) == ["0", "1", "2"]


def test_a_created_file_its_name_and_new_folders_are_forced_onto_the_disk(tmp_path: Path, monkeypatch) -> None:
    forced, fsync = [], os.fsync

    def noted(handle):
        forced.append(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    place = tmp_path / "new/er/file"
    assert create_atomically(str(place), b"x")
    assert forced[1:] == [str(tmp_path / "new/er"), str(tmp_path / "new"), str(tmp_path)]
    del forced[:]
    assert create_atomically(str(tmp_path / "new/er/other"), b"x")
    assert forced[1:] == [str(tmp_path / "new/er")]
    assert not create_atomically(str(place), b"y")
    assert place.read_bytes() == b"x"
