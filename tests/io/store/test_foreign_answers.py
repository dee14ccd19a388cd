"""On the wire: what a portal, a proxy or a bad cable answers in place of the store is never taken for the store's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from s3fs import S3FileSystem

from inkbatch.config import digest
from inkbatch.errors import CorruptDataError, StorageError
from inkbatch.geometry import Box, Unit
from inkbatch.io.shards.array import ArrayLayout, ShardedArray
from inkbatch.io.store import retrying, s3_files
from inkbatch.io.store.atomic_files import delivered
from inkbatch.io.store.ledger import recording
from inkbatch.io.store.location import Location
from inkbatch.run.record import LEDGER, RunFolder, RunManifest
from inkbatch.run.verifying import verify
from inkbatch.testing.faulty_proxy import Fault, FaultyProxy
from inkbatch.testing.s3 import S3Server

Proxy = Callable[..., object]


def sound(method: str, listing: bool) -> Fault | None:
    return None


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyProxy]:
    """A proxy before a server with a bucket; one address for all tests, so that one client serves them."""
    with S3Server(tmp_path_factory.mktemp("wire") / "buckets") as server:
        server.make_bucket("bucket")
        with FaultyProxy(server.endpoint, sound) as running, pytest.MonkeyPatch.context() as environment:
            for name, value in {**server.environment, "AWS_ENDPOINT_URL": running.endpoint}.items():
                environment.setenv(name, value)
            yield running


@pytest.fixture
def spoiled(proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """Return a context in which `times` requests of a method suffer a fault, but for the first `after`."""
    monkeypatch.setattr(retrying, "RETRY_DELAYS_S", (0.0, 0.0, 0.0))

    @contextmanager
    def spoil(method: str, fault: Fault, times: int = 1, after: int = 0) -> Iterator[FaultyProxy]:
        seen = [0]

        def choose(asked: str, listing: bool) -> Fault | None:
            if ("LIST" if listing else asked) != method:
                return None
            seen[0] += 1
            return fault if after < seen[0] <= after + times else None

        proxy.counts.clear()
        proxy.choose = choose
        yield proxy
        proxy.choose = sound

    return spoil


@pytest.fixture
def place(spoiled: Proxy, request: pytest.FixtureRequest) -> Location:
    return Location.parse(f"s3://bucket/{digest(request.node.name)[:12]}")


ALWAYS = 1000


@pytest.mark.parametrize("fault", ["portal", "refused", "reset", "lost", "flipped"])
def test_a_put_counts_when_the_store_says_that_it_has_the_bytes(place, spoiled, fault):
    with spoiled("PUT", fault) as proxy:
        (place / "object").write_bytes(b"content")
    assert proxy.counts == {f"PUT {fault}": 1}
    assert (place / "object").read_bytes() == b"content"


@pytest.mark.parametrize("fault", ["portal", "flipped"])
def test_a_put_that_never_arrives_is_refused(place, spoiled, fault):
    with spoiled("PUT", fault, ALWAYS), pytest.raises(StorageError, match="put_object|BadDigest"):
        (place / "object").write_bytes(b"content")


@pytest.mark.parametrize("write", [Location.write_bytes, Location.create_bytes])
@pytest.mark.parametrize("gets", ["portal", "flipped"])
def test_where_a_store_compares_no_digest_a_damaged_put_is_read_again(place, spoiled, monkeypatch, gets, write):
    call, put = S3FileSystem._call_s3, set()

    async def looks_alike(self, method, *documents, **words):
        """Compare no digest, and keep the condition of a put, which rclone does not know."""
        words.pop("ContentMD5", None)
        if method == "put_object":
            if words.pop("IfNoneMatch", None) and words["Key"] in put:
                raise FileExistsError(words["Key"])
            put.add(words["Key"])
        return await call(self, method, *documents, **words)

    monkeypatch.setattr(S3FileSystem, "_call_s3", looks_alike)
    faults = {"PUT": ["flipped"], "GET": [gets]}  # the first of each
    with spoiled("PUT", "flipped") as proxy:
        proxy.choose = lambda method, listing: faults[method].pop() if faults.get(method) else None
        assert write(place / "object", b"content") is not False
    assert (place / "object").read_bytes() == b"content"
    assert not any(faults.values())


@pytest.mark.parametrize("fault", ["portal", "lost", "flipped"])
def test_a_conditional_put_takes_no_page_for_the_store(place, spoiled, fault):
    with spoiled("PUT", fault):
        (place / "object").create_bytes(b"content")
    assert (place / "object").read_bytes() == b"content"


def test_a_file_on_its_way_is_measured_afterwards(place, spoiled):
    with spoiled("PUT", "portal"), delivered(place / "small.bin") as file:
        file.write(b"content")
    assert (place / "small.bin").read_bytes() == b"content"


@pytest.mark.slow  # s3fs sends parts from 100 MiB on
def test_a_file_that_is_sent_in_parts_is_measured_afterwards(place, spoiled):
    with spoiled("POST", "portal", 2), delivered(place / "large.bin") as file:  # begins in parts: `POST ?uploads`
        file.write(b"0123456789abcdef" * (7 << 20))
    assert (place / "large.bin").size() == 112 << 20


@pytest.mark.parametrize("fault", ["portal", "refused", "reset", "short", "cut", "flipped"])
def test_a_whole_object_is_read_again_until_it_is_the_stored_one(place, spoiled, fault):
    (place / "object").write_bytes(b"content of an object")
    with spoiled("GET", fault) as proxy:
        assert (place / "object").read_bytes() == b"content of an object"
    assert proxy.counts.total() == 1


def test_damage_that_comes_the_same_way_again_is_not_believed(place, spoiled):
    (place / "object").write_bytes(b"content of an object")
    with spoiled("GET", "flipped", 3) as proxy:
        assert (place / "object").read_bytes() == b"content of an object"
    assert proxy.counts.total() == 3
    with spoiled("GET", "flipped", ALWAYS), pytest.raises(StorageError, match="object: was read 4 times, .* never"):
        (place / "object").read_bytes()


def test_three_equal_readings_are_believed_where_tags_are_no_digests(place, spoiled, monkeypatch):
    monkeypatch.setattr(s3_files, "stated_md5", lambda answer: "0" * 32)
    monkeypatch.setattr(place.fs, "buckets_with_digests", set())
    (place / "object").write_bytes(b"content of an object")
    assert (place / "object").read_bytes() == b"content of an object"
    with spoiled("GET", "flipped"), pytest.raises(StorageError, match="never"):
        (place / "object").read_bytes()


def test_a_document_that_a_page_took_the_place_of_is_not_believed(place, spoiled):
    (place / "facts.json").write_json({"units": 3})
    with spoiled("GET", "portal", ALWAYS), pytest.raises(StorageError, match="no S3 store"):
        (place / "facts.json").read_json()
    with spoiled("GET", "cut", ALWAYS), pytest.raises((StorageError, CorruptDataError), match=r"facts\.json"):
        (place / "facts.json").read_json()


@pytest.mark.parametrize("ask", [Location.exists, Location.size, Location.is_folder])
def test_a_head_that_is_answered_by_a_page_is_asked_again(place, spoiled, ask):
    (place / "object").write_bytes(b"content")
    wanted = ask(place / "object")
    with spoiled("HEAD", "portal"):
        assert ask(place / "object") == wanted


def test_a_page_is_no_empty_folder(place, spoiled):
    (place / "object").write_bytes(b"content")
    with spoiled("LIST", "portal"):
        assert place.names() == ["object"]
    with spoiled("LIST", "portal", ALWAYS), pytest.raises(StorageError):
        place.names()


def test_a_page_deletes_nothing(place, spoiled):
    for name in ("a", "b", "folder/c"):
        (place / name).write_bytes(b"content")
    with spoiled("DELETE", "portal"):
        (place / "a").delete()
    with spoiled("POST", "portal"):
        (place / "folder").delete_folder()
    assert place.names() == ["b"]
    with spoiled("DELETE", "portal", ALWAYS), pytest.raises(StorageError, match="no S3 store"):
        (place / "b").delete()


@pytest.mark.parametrize("fault", ["flipped", "cut", "short"])
@pytest.mark.parametrize("window", [(slice(0, 64), slice(0, 64)), (slice(0, 8), slice(0, 8))])
def test_a_chunk_that_fails_its_checksum_is_read_again(place, spoiled, fault, window):
    array = ShardedArray.create(place, ArrayLayout((64, 64), (16, 16), (64, 64), "uint8"))
    block = np.random.default_rng(0).integers(1, 255, (64, 64), dtype=np.uint8)
    array.write_shard((0, 0), block)
    for after in (0, 1):  # the index, or the chunk that follows
        with spoiled("GET", fault, times=3 if fault == "flipped" else 1, after=after):
            np.testing.assert_array_equal(array.read(window), block[window])
    with spoiled("GET", "flipped", ALWAYS), pytest.raises(CorruptDataError, match="checksum"):
        array.read(window)


def test_verify_reads_again_what_came_damaged(place, spoiled, finished_run):
    with spoiled("GET", "flipped", 1) as proxy:
        assert verify(str(finished_run)).faults == []
    assert proxy.counts.total() == 1


@pytest.fixture
def finished_run(place: Location) -> Location:
    run = RunFolder(place, RunManifest("tiny", {}, {}, 1))
    run.begin()
    with recording() as ledger:
        (place / "result.bin").write_bytes(b"content")
    box = Box(0, 0, 1, 1)
    run.mark(Unit(0, box, box), {LEDGER: dict(ledger)})
    run.complete()
    return place


def test_a_web_servers_page_in_place_of_a_file_is_no_file(web, monkeypatch):
    monkeypatch.setattr(retrying, "RETRY_DELAYS_S", (0.0,))
    (web.folder / "layer.tif").mkdir()  # is answered with a page of links
    with pytest.raises(StorageError, match="a page"):
        Location.parse(f"{web.url}/layer.tif").read_bytes()
