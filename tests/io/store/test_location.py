from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from inkbatch.errors import (
    EXIT_CONFIG,
    EXIT_DATA,
    EXIT_TRY_AGAIN,
    ConfigError,
    CorruptDataError,
    DataError,
    StorageError,
)
from inkbatch.io.store import retrying
from inkbatch.io.store.faults import (
    ForbiddenError,
    MissingObjectError,
    RangeUnsupportedError,
    WrongKindError,
    from_status,
    judge,
)
from inkbatch.io.store.location import Location
from inkbatch.io.store.ranges import read_ranges
from inkbatch.io.store.retrying import retried
from inkbatch.redaction import redact
from inkbatch.testing.stores import StoreContract


class TestLocalFiles(StoreContract):
    @pytest.fixture
    def root(self, tmp_path: Path) -> Location:
        return Location.parse(tmp_path / "store")


class TestMemory(StoreContract):
    @pytest.fixture
    def root(self, memory_root: Location) -> Location:
        return memory_root


class TestS3(StoreContract):
    @pytest.fixture
    def root(self, s3_root: Location) -> Location:
        return s3_root


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "RETRY_DELAYS_S", (0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("s3://bucket/prefix/", "s3://bucket/prefix"),
        ("S3://bucket", "s3://bucket"),
        ("file:///data/x/", "/data/x"),
        ("file:/data/x", "/data/x"),
        ("file://localhost/data/x", "/data/x"),
        ("FILE:///data/two%20words/%C3%BC#%25", "/data/two words/ü#%"),
        ("/data/../data/x", "/data/x"),
        ("memory://a/b", "memory://a/b"),
        ("https://host/a/b/", "https://host/a/b"),
    ],
)
def test_a_location_has_one_spelling(text: str, uri: str) -> None:
    assert Location.parse(text).uri == uri


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Location.parse("layers").uri == str(tmp_path / "layers")


@pytest.mark.parametrize(
    "text",
    ["", "  ", "https://user:secret@host/a", "s3://key:secret@bucket/a", "https://host/a?X-Amz-Signature=secret"],
)
def test_credentials_in_a_location_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Location.parse(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "parent", "name"),
    [
        ("s3://bucket/a/b", "s3://bucket/a", "b"),
        ("s3://bucket/a", "s3://bucket", "a"),
        ("s3://bucket", "s3://bucket", "bucket"),
        ("/a/b", "/a", "b"),
        ("/a", "/", "a"),
        ("memory://a/b", "memory://a", "b"),
    ],
)
def test_the_parent_of_a_root_is_the_root(uri: str, parent: str, name: str) -> None:
    location = Location.parse(uri)
    assert location.parent.uri == parent
    assert location.name == name


def test_an_unknown_protocol_is_a_bad_configuration() -> None:
    with pytest.raises(ConfigError, match="nonsense"):
        Location.parse("nonsense://x/y").exists()


def test_a_failed_write_leaves_the_old_object_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Location.parse(tmp_path / "object")
    place.write_bytes(b"old")
    monkeypatch.setattr(retrying, "RETRY_DELAYS_S", ())

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match="No space left"):
        place.write_bytes(b"new")
    assert place.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["object"]


def test_a_file_that_vanishes_while_a_folder_is_listed_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept").write_bytes(b"x")
    (tmp_path / "gone.partial").write_bytes(b"x")
    scandir = os.scandir

    def racing(path: str):
        entries = scandir(path)
        (tmp_path / "gone.partial").unlink(missing_ok=True)
        return entries

    monkeypatch.setattr(os, "scandir", racing)
    assert Location.parse(tmp_path).sizes() == {"kept": 1}


def test_a_file_where_a_folder_is_wanted_is_bad_data(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(WrongKindError) as caught:
        (Location.parse(tmp_path) / "file/below").write_bytes(b"x")
    assert caught.value.exit_code == EXIT_DATA


def test_passing_faults_are_retried(no_waiting: None) -> None:
    faults = [OSError(5, "I/O error"), TimeoutError(), EOFError()]

    def action() -> str:
        if faults:
            raise faults.pop()
        return "done"

    assert retried("place", action) == "done"


def test_a_fault_that_stays_names_the_place_and_says_try_again(no_waiting: None) -> None:
    calls = []

    def action() -> None:
        calls.append(1)
        raise OSError(5, "I/O error")

    with pytest.raises(StorageError, match=r"s3://b/k.*I/O error") as caught:
        retried("s3://b/k", action)
    assert len(calls) == 4
    assert caught.value.exit_code == EXIT_TRY_AGAIN


def test_a_bug_is_neither_retried_nor_renamed(no_waiting: None) -> None:
    calls = []

    def action() -> None:
        calls.append(1)
        raise KeyError("x")

    with pytest.raises(KeyError):
        retried("place", action)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("status", "kind", "exit_code"),
    [
        (404, MissingObjectError, EXIT_DATA),
        (403, ForbiddenError, EXIT_CONFIG),
        (401, ForbiddenError, EXIT_CONFIG),
        (416, CorruptDataError, EXIT_DATA),
        (429, StorageError, EXIT_TRY_AGAIN),
        (500, StorageError, EXIT_TRY_AGAIN),
        (503, StorageError, EXIT_TRY_AGAIN),
        (400, ConfigError, EXIT_CONFIG),
        (501, ConfigError, EXIT_CONFIG),
    ],
)
def test_a_status_decides_whether_a_retry_can_help(status: int, kind: type, exit_code: int) -> None:
    error = from_status("https://host/x", status)
    assert isinstance(error, kind)
    assert error.exit_code == exit_code
    assert "https://host/x" in str(error)


def _s3_answer(code: str, status: int, translated: bool) -> BaseException:
    from botocore.exceptions import ClientError

    answer = {"Error": {"Code": code, "Message": "words"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = ClientError(answer, "GetObject")
    if not translated:
        return error
    as_s3fs_does = OSError(22, "words")
    as_s3fs_does.__cause__ = error
    return as_s3fs_does


@pytest.mark.parametrize("translated", [True, False])
@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("NoSuchKey", 404, MissingObjectError),
        ("NoSuchBucket", 404, MissingObjectError),
        ("AccessDenied", 403, ForbiddenError),
        ("ExpiredToken", 400, ForbiddenError),
        ("SignatureDoesNotMatch", 403, ForbiddenError),
        ("InvalidRange", 416, CorruptDataError),
        ("SlowDown", 503, StorageError),
        ("RequestTimeout", 400, StorageError),
        ("PermanentRedirect", 301, ConfigError),
        ("InvalidBucketName", 400, ConfigError),
        ("404", 404, MissingObjectError),
    ],
)
def test_s3_answers_are_told_apart(code: str, status: int, kind: type, translated: bool) -> None:
    assert isinstance(judge("s3://bucket/key", _s3_answer(code, status, translated)), kind)


def test_messages_carry_no_credentials() -> None:
    text = redact("GET https://user:pw@host/a?X-Amz-Signature=abc&b=c failed (http://h/x?token=t)")
    for secret in ("pw", "user", "abc", "token"):
        assert secret not in text
    assert "host/a" in text


def test_missing_credentials_are_a_bad_configuration_with_a_cure(
    s3_root: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for action in (s3_root.names, s3_root.read_bytes, lambda: s3_root.read_range(0, 1)):
        with pytest.raises(ForbiddenError, match="AWS_NO_SIGN_REQUEST") as caught:
            action()
        assert caught.value.exit_code == EXIT_CONFIG


def test_wrong_credentials_are_refused_without_showing_them(s3_root: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret-" * 4)
    with pytest.raises(ForbiddenError) as caught:
        s3_root.names()
    assert "wrong-secret" not in str(caught.value)


def test_a_changed_environment_makes_a_new_client(s3_root: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    (s3_root / "object").write_bytes(b"x")
    with monkeypatch.context() as other:
        other.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret-" * 4)
        with pytest.raises(ForbiddenError):
            (s3_root / "object").read_bytes()
    assert (s3_root / "object").read_bytes() == b"x"


def test_a_missing_bucket_is_missing_data(s3_root: Location) -> None:
    place = Location.parse("s3://no-such-bucket/x")
    with pytest.raises(FileNotFoundError, match="no-such-bucket"):
        place.read_bytes()
    with pytest.raises(FileNotFoundError):
        place.write_bytes(b"x")


def test_a_folder_marker_is_not_listed_as_its_own_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    class ConsoleMadeFolder:
        """An object store where someone made the folder by hand: an empty object of that name and a slash."""

        def _strip_protocol(self, uri: str) -> str:
            return uri.removeprefix("s3://")

        def ls(self, path: str, detail: bool) -> list[dict[str, object]]:
            return [
                {"name": "bucket/folder/", "size": 0, "type": "file"},
                {"name": "bucket/folder/object", "size": 1, "type": "file"},
            ]

    monkeypatch.setattr("inkbatch.io.store.location.filesystem", lambda protocol: ConsoleMadeFolder())
    assert Location.parse("s3://bucket/folder").names() == ["object"]
    assert Location.parse("s3://bucket/folder").sizes() == {"object": 1}


def test_an_unreachable_store_says_try_again(monkeypatch: pytest.MonkeyPatch, no_waiting: None) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        place = Location.parse(f"http://127.0.0.1:{taken.getsockname()[1]}/x")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        for action in (place.exists, place.size, place.read_bytes, lambda: place.read_range(0, 1)):
            with pytest.raises(StorageError, match=r"127\.0\.0\.1"):
                action()


def test_the_web_is_read_by_ranges(web) -> None:
    (web.folder / "a.bin").write_bytes(bytes(range(200)))
    place = Location.parse(f"{web.url}/a.bin")
    assert place.exists()
    assert place.size() == 200
    assert place.read_bytes() == bytes(range(200))
    web.reset()
    assert place.read_range(10, 20) == bytes(range(10, 20))
    assert web.served_bytes == 10
    with pytest.raises(CorruptDataError, match="truncated"):
        place.read_range(190, 210)
    with pytest.raises(CorruptDataError):
        place.read_range(300, 310)
    assert not Location.parse(f"{web.url}/nobody").exists()
    with pytest.raises(FileNotFoundError):
        Location.parse(f"{web.url}/nobody").size()


def test_a_web_folder_lists_its_own_entries_only(web) -> None:
    (web.folder / "layers/deep").mkdir(parents=True)
    (web.folder / "layers/00.tif").write_bytes(b"x")
    assert Location.parse(f"{web.url}/layers").names() == ["00.tif", "deep"]
    assert set(Location.parse(f"{web.url}/layers").sizes()) == {"00.tif"}


def test_a_server_without_head_still_states_sizes(web) -> None:
    web.knows_head = False
    (web.folder / "a.bin").write_bytes(b"12345")
    (web.folder / "empty.bin").write_bytes(b"")
    assert Location.parse(f"{web.url}/a.bin").size() == 5
    assert Location.parse(f"{web.url}/empty.bin").size() == 0


def test_a_server_that_ignores_ranges_is_refused_without_fetching_the_file(web) -> None:
    web.ignores_ranges = True
    (web.folder / "a.bin").write_bytes(bytes(5_000_000))
    with pytest.raises(RangeUnsupportedError, match="copy the data"):
        Location.parse(f"{web.url}/a.bin").read_range(10, 20)


def test_a_web_server_in_trouble_is_asked_again(web, no_waiting: None) -> None:
    (web.folder / "a.bin").write_bytes(b"12345")
    place = Location.parse(f"{web.url}/a.bin")
    web.fail_next = [503, 429]
    assert place.read_range(0, 5) == b"12345"
    web.fail_next = [500, 500]
    assert place.read_bytes() == b"12345"
    web.fail_next = [503] * 8
    with pytest.raises(StorageError, match="503"):
        place.read_range(0, 5)


def test_only_failed_ranges_are_asked_for_again(web, no_waiting: None) -> None:
    (web.folder / "a.bin").write_bytes(bytes(range(100)))
    place = Location.parse(f"{web.url}/a.bin")
    web.fail_next = [503]
    ranges = [(place, number, number + 1) for number in range(20)]
    assert read_ranges(ranges) == [bytes([number]) for number in range(20)]
    assert len(web.requests) == 21


def test_a_forbidden_page_is_a_bad_configuration(web) -> None:
    web.fail_next = [403]
    with pytest.raises(ForbiddenError):
        Location.parse(f"{web.url}/a.bin").read_bytes()


def test_the_web_cannot_be_written(web) -> None:
    with pytest.raises((ConfigError, DataError)):
        Location.parse(f"{web.url}/a.bin").write_bytes(b"x")
