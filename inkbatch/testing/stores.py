"""Contract of every store behind `Location`, as a suite: a new one adds a subclass of `StoreContract` with a root.

class TestMyStore(StoreContract):
    @pytest.fixture
    def root(self) -> Location:
        return Location.parse("mystore://bucket/empty-prefix")
"""

# ruff: noqa: D102  # a test's name says what it promises

from __future__ import annotations

import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from inkbatch.errors import ConfigError, CorruptDataError, DataError
from inkbatch.io.store.ledger import recording
from inkbatch.io.store.location import Location
from inkbatch.io.store.ranges import read_ranges

CONTENT = bytes(range(256)) * 8


class StoreContract:
    """Tests of one store. Subclasses give `root`: a folder that is not there yet, new for each test."""

    @pytest.fixture
    def root(self) -> Location:
        """Return a folder that is not there yet."""
        raise NotImplementedError("a StoreContract subclass gives a root")

    def test_what_was_written_is_read(self, root: Location) -> None:
        place = root / "folder/object.bin"
        place.write_bytes(CONTENT)
        assert place.read_bytes() == CONTENT
        assert place.size() == len(CONTENT)
        assert place.exists()

    def test_parts_are_joined(self, root: Location) -> None:
        (root / "parts").write_parts([b"one", memoryview(b"two"), b""])
        assert (root / "parts").read_bytes() == b"onetwo"

    def test_a_stream_is_stored_and_noted_like_a_whole(self, root: Location) -> None:
        with recording() as ledger:
            assert (root / "stream").write_stream(lambda: iter([b"one", b"", b"two"])) == 6
            (root / "whole").write_bytes(b"onetwo")
        assert (root / "stream").read_bytes() == b"onetwo"
        assert ledger[(root / "stream").uri] == ledger[(root / "whole").uri]

    def test_writing_again_replaces_the_whole(self, root: Location) -> None:
        (root / "again").write_bytes(CONTENT)
        (root / "again").write_bytes(b"short")
        assert (root / "again").read_bytes() == b"short"

    def test_an_empty_object_is_an_object(self, root: Location) -> None:
        (root / "empty").write_bytes(b"")
        assert (root / "empty").exists()
        assert (root / "empty").size() == 0
        assert (root / "empty").read_bytes() == b""

    def test_ranges_are_half_open(self, root: Location) -> None:
        place = root / "object.bin"
        place.write_bytes(CONTENT)
        assert place.read_range(3, 7) == CONTENT[3:7]
        assert place.read_range(0, len(CONTENT)) == CONTENT
        assert place.read_range(5, 5) == b""

    def test_a_range_beyond_the_end_is_a_truncated_object(self, root: Location) -> None:
        place = root / "object.bin"
        place.write_bytes(b"0123456789")
        for start, stop in ((5, 11), (10, 12), (50, 60)):
            with pytest.raises(CorruptDataError, match=r"object\.bin"):
                place.read_range(start, stop)

    def test_many_ranges_come_back_in_order(self, root: Location) -> None:
        places = [root / f"object-{number}" for number in range(5)]
        for number, place in enumerate(places):
            place.write_bytes(bytes([number]) * 100)
        ranges = [(places[number % 5], number, number + 3) for number in range(60)]
        assert read_ranges(ranges) == [bytes([number % 5]) * 3 for number in range(60)]

    def test_one_missing_object_among_many_is_named(self, root: Location) -> None:
        (root / "there").write_bytes(CONTENT)
        with pytest.raises(FileNotFoundError, match="not-there"):
            read_ranges([(root / "there", 0, 4), (root / "not-there", 0, 4)])

    def test_a_missing_object_is_file_not_found_and_bad_data(self, root: Location) -> None:
        place = root / "nobody"
        for action in (place.read_bytes, place.size, lambda: place.read_range(0, 1), place.read_json):
            with pytest.raises(FileNotFoundError, match="nobody") as caught:
                action()
            assert isinstance(caught.value, DataError)  # exit 65 when nobody handles it

    def test_names_lists_one_folder(self, root: Location) -> None:
        for name in ("b.txt", "a.txt", "deep/er/c.txt"):
            (root / name).write_bytes(b"x")
        assert root.names() == ["a.txt", "b.txt", "deep"]
        assert (root / "deep").names() == ["er"]

    def test_sizes_lists_objects_and_not_folders(self, root: Location) -> None:
        (root / "a.txt").write_bytes(b"xy")
        (root / "deep/c.txt").write_bytes(b"x")
        assert root.sizes() == {"a.txt": 2}

    def test_nothing_lies_in_a_missing_folder_or_in_an_object(self, root: Location) -> None:
        assert root.names() == []
        assert root.sizes() == {}
        (root / "object").write_bytes(b"x")
        assert (root / "object").names() == []
        assert (root / "object").sizes() == {}

    def test_folders_and_objects_are_told_apart(self, root: Location) -> None:
        assert not root.exists()
        (root / "folder/object").write_bytes(b"x")
        assert root.exists()
        assert (root / "folder").is_folder()
        assert not (root / "folder/object").is_folder()
        assert not (root / "nobody").is_folder()

    def test_a_folder_has_no_size(self, root: Location) -> None:
        (root / "folder/object").write_bytes(b"x")
        with pytest.raises(DataError, match="folder"):
            (root / "folder").size()

    def test_names_that_begin_alike_are_not_mixed_up(self, root: Location) -> None:
        (root / "layers/00.tif").write_bytes(b"x")
        (root / "layers-old/01.tif").write_bytes(b"x")
        assert (root / "layers").names() == ["00.tif"]
        assert not (root / "layer").exists()

    def test_deleting_twice_is_harmless(self, root: Location) -> None:
        place = root / "object"
        place.write_bytes(b"x")
        place.delete()
        place.delete()
        assert not place.exists()
        assert root.names() == []

    def test_deleting_a_folder_takes_all_of_it_and_nothing_else(self, root: Location) -> None:
        for name in ("folder/a", "folder/deep/b", "folder-2/c"):
            (root / name).write_bytes(b"x")
        (root / "folder").delete_folder()
        (root / "folder").delete_folder()
        assert root.names() == ["folder-2"]

    def test_json_of_equal_values_is_equal_bytes(self, root: Location) -> None:
        (root / "one").write_json({"b": [1, 2], "a": "µm"})
        (root / "two").write_json({"a": "µm", "b": [1, 2]})
        assert (root / "one").read_bytes() == (root / "two").read_bytes()
        assert (root / "one").read_json() == {"a": "µm", "b": [1, 2]}

    def test_what_is_not_json_is_corrupt(self, root: Location) -> None:
        (root / "bad").write_bytes(b'{"cut')
        with pytest.raises(CorruptDataError, match="bad"):
            (root / "bad").read_json()

    def test_a_path_never_leaves_its_root(self, root: Location) -> None:
        for relative in ("../up", "a/../../b", "/etc"):
            with pytest.raises(ConfigError):
                root / relative

    def test_many_threads_share_a_location(self, root: Location) -> None:
        def write_and_read(number: int) -> bool:
            place = root / f"object-{number % 7}-{number}"
            place.write_bytes(bytes([number]) * 1000)
            return place.read_range(10, 20) == bytes([number]) * 10

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(write_and_read, range(40)))

    def test_readers_see_the_old_object_or_the_new_one(self, root: Location) -> None:
        place, stop, seen = root / "object", threading.Event(), set()
        old, new = b"a" * 100_000, b"b" * 100_000
        place.write_bytes(old)

        def read() -> None:
            while not stop.is_set():
                seen.add(place.read_bytes())

        reader = threading.Thread(target=read)
        reader.start()
        for content in (new, old) * 5:
            place.write_bytes(content)
        stop.set()
        reader.join()
        assert seen <= {old, new}

    def test_a_location_survives_pickling(self, root: Location) -> None:
        (root / "object").write_bytes(b"x")
        assert pickle.loads(pickle.dumps(root / "object")).read_bytes() == b"x"

    def test_a_forked_process_makes_its_own_client(self, root: Location) -> None:
        place = root / "object"
        place.write_bytes(CONTENT)
        assert place.read_bytes() == CONTENT  # the client is warm before the fork
        child = os.fork()
        if child == 0:  # pragma: no cover  # the coverage of another process
            os._exit(0 if place.read_bytes() == CONTENT else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
