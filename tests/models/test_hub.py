"""Checkpoints of the Hugging Face hub: the real client against a small hub on a loopback port."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest

from inkbatch.errors import EXIT_CONFIG, ConfigError, DataError, StorageError
from inkbatch.models.hub import HubReference, fetch

OLD, NEW = "a" * 40, "b" * 40


class Hub:
    """A hub with one repository, ``owner/net``, of two commits; `main` is the newer.

    Attributes:
        files: Content by commit and name.
        requests: ``(path, authorization)`` in order.
        fail_with: A status that every request gets, or None.
    """

    def __init__(self) -> None:
        self.files = {OLD: {"model.ckpt": b"old"}, NEW: {"model.ckpt": b"new", "README.md": b"words"}}
        self.requests: list[tuple[str, str | None]] = []
        self.fail_with: int | None = None
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self._answer()

            def do_GET(self) -> None:
                self._answer()

            def _answer(self) -> None:
                path = unquote(self.path.partition("?")[0])
                hub.requests.append((path, self.headers.get("Authorization")))
                status, headers, body = hub.answer(path) if hub.fail_with is None else (hub.fail_with, {}, b"{}")
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        commits = {"main": NEW, "v1": OLD, OLD: OLD, NEW: NEW}
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            if parts[2:4] != ["owner", "net"]:
                return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
            commit = commits.get(parts[5] if len(parts) > 5 else "main")
            if commit is None:
                return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
            siblings = [{"rfilename": name} for name in self.files[commit]]
            return 200, {}, json.dumps({"id": "owner/net", "sha": commit, "siblings": siblings}).encode()
        commit, name = commits[parts[3]], "/".join(parts[4:])
        if name not in self.files[commit]:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b""
        body = self.files[commit][name]
        tag = hashlib.sha256(body).hexdigest()
        return 200, {"ETag": f'"{tag}"', "X-Repo-Commit": commit, "Content-Type": "application/octet-stream"}, body

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    server = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    huggingface_hub.close_session()
    yield server
    huggingface_hub.close_session()
    server.stop()


@pytest.mark.parametrize(
    ("text", "repo", "file", "revision"),
    [
        ("hf://owner/net", "owner/net", None, None),
        ("hf://owner/net/model.ckpt", "owner/net", "model.ckpt", None),
        ("hf://owner/net/folder/epoch=3.ckpt@v1", "owner/net", "folder/epoch=3.ckpt", "v1"),
        ("hf://owner/net@refs/pr/1", "owner/net", None, "refs/pr/1"),
    ],
)
def test_a_reference_is_read_and_written(text, repo, file, revision):
    reference = HubReference.parse(text)
    assert (reference.repo, reference.file, reference.revision) == (repo, file, revision)
    assert str(reference) == text


@pytest.mark.parametrize(
    "text",
    ["hf://owner", "hf://", "hf://owner/net@", "hf://owner/net@main/model.ckpt", "hf://owner//x", "hf://o/n/../x"],
)
def test_what_is_no_reference_is_refused(text):
    with pytest.raises(ConfigError, match="expected hf://owner/repo"):
        HubReference.parse(text)


@pytest.mark.parametrize(
    ("text", "content", "commit"),
    [
        ("hf://owner/net", b"new", NEW),
        ("hf://owner/net/model.ckpt", b"new", NEW),
        ("hf://owner/net@v1", b"old", OLD),
        ("hf://owner/net/model.ckpt@v1", b"old", OLD),
        (f"hf://owner/net/model.ckpt@{OLD}", b"old", OLD),
    ],
)
def test_a_file_is_fetched_and_pinned_to_its_commit(hub, text, content, commit):
    found = fetch(HubReference.parse(text))
    assert found.path.read_bytes() == content
    assert str(found.reference) == f"hf://owner/net/model.ckpt@{commit}"


def test_the_repository_s_config_comes_along_where_there_is_one(hub):
    assert fetch(HubReference.parse("hf://owner/net")).config == {}
    hub.files[NEW]["config.json"] = b'{"num_frames": 26}'
    assert fetch(HubReference.parse("hf://owner/net")).config == {"num_frames": 26}
    hub.requests.clear()
    assert fetch(HubReference.parse(f"hf://owner/net/model.ckpt@{NEW}")).config == {"num_frames": 26}
    assert hub.requests == []


def test_a_pinned_file_in_the_cache_needs_no_network(hub):
    reference = HubReference.parse(f"hf://owner/net/model.ckpt@{OLD}")
    fetch(reference)
    hub.requests.clear()
    assert fetch(reference).path.read_bytes() == b"old"
    assert hub.requests == []


def test_the_token_is_taken_from_its_usual_place(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch(HubReference.parse("hf://owner/net"))
    assert {authorization for _, authorization in hub.requests} == {"Bearer hf_secret"}


def test_the_usual_file_is_taken_among_several(hub):
    hub.files[NEW] = {"last.ckpt": b"x", "model.safetensors": b"y"}
    assert fetch(HubReference.parse("hf://owner/net")).reference.file == "model.safetensors"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"a.ckpt": b"", "b.pth": b""},
            r"2 checkpoints; name one of them: hf://owner/net/a\.ckpt, hf://owner/net/b\.pth",
        ),
        ({"README.md": b""}, "the repository holds no checkpoint"),
    ],
)
def test_a_repository_that_is_not_one_checkpoint_is_named(hub, files, message):
    hub.files[NEW] = files
    with pytest.raises(DataError, match=message):
        fetch(HubReference.parse("hf://owner/net"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hf://owner/other", "no such repository, or it is not open to everyone.*log in"),
        ("hf://owner/net@v7", "no such revision"),
        ("hf://owner/net/no.ckpt", "no such file"),
    ],
)
def test_what_is_not_there_is_named(hub, text, message):
    with pytest.raises(DataError, match=message) as caught:
        fetch(HubReference.parse(text))
    assert str(caught.value).startswith(text)


def test_a_failing_hub_is_worth_another_try(hub):
    hub.fail_with = 503
    with pytest.raises(StorageError, match="the hub answered 503"):
        fetch(HubReference.parse("hf://owner/net"))


PINNED = pytest.param(f"hf://owner/net/model.ckpt@{OLD}", marks=pytest.mark.slow, id="pinned")  # the client waits


@pytest.mark.parametrize("text", ["hf://owner/net", PINNED])
def test_without_a_network_the_cure_is_named(hub, text):
    hub.stop()
    with pytest.raises(ConfigError, match=r"cannot be fetched from here.*give its path, or mount") as caught:
        fetch(HubReference.parse(text))
    assert caught.value.exit_code == EXIT_CONFIG
    assert "hf://owner/net/FILE@COMMIT" in str(caught.value)


def test_offline_mode_is_named(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="cannot be fetched from here"):
        fetch(HubReference.parse("hf://owner/net"))
