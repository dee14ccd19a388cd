import http.client
import json
import re
import threading
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from inkbatch.data.labels.painting import LAYERS, TILE_PX
from inkbatch.errors import ConfigError, DataError
from inkbatch.testing.datasets import inked, labelled_segment
from inkbatch.view.guard import refusal
from inkbatch.view.render import UnknownNameError
from inkbatch.view.scene import Scene
from inkbatch.view.server import FILES, PAGE, ViewServer
from inkbatch.view.viewer import Viewer

SHAPE = (96, 160)
LAYER_ROW = r'(\w+): \{ bit: (\d+), colour: "#\w+",(?: excludes: "(\w+)",)? fill'


@contextmanager
def served(root, **options):
    viewer = Viewer(Scene(["seg"], str(root)))
    with ViewServer(viewer, port=0, **options) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def root(tmp_path):
    labelled_segment(tmp_path / "root", "seg", inked(SHAPE, (10, 10, 40, 60)))
    return tmp_path / "root"


@pytest.fixture
def server(root):
    with served(root) as found:
        yield found


def ask(server, path, method="GET", host=None, **headers):
    port = server.server_address[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    connection.putheader("Host", host or f"127.0.0.1:{port}")
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def test_the_page_and_its_files_are_served_with_strict_headers(server):
    for path, name in FILES.items():
        answer, body = ask(server, path)
        assert (answer.status, body) == (200, (PAGE / name).read_bytes()), path
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_every_file_of_the_page_is_served_or_is_a_licence():
    there = {path.relative_to(PAGE).as_posix() for path in PAGE.rglob("*") if path.is_file()}
    assert there == {*FILES.values(), "vendor/openseadragon-LICENSE.txt", "vendor/NOTICE.md"}


def test_the_vendored_library_is_the_one_that_its_notice_names():
    notice = (PAGE / "vendor" / "NOTICE.md").read_text(encoding="utf-8")
    library = (PAGE / "vendor" / "openseadragon.min.js").read_bytes()
    assert sha256(library).hexdigest() in notice
    version = library.split(b"\n", 1)[0].split()[-1].decode()
    assert f"| {version} |" in notice
    assert "Redistribution" in (PAGE / "vendor" / "openseadragon-LICENSE.txt").read_text(encoding="utf-8")


def test_it_listens_on_this_machine_alone(server):
    assert server.server_address[0] == "127.0.0.1"
    assert server.url.startswith("http://localhost:")


@pytest.mark.parametrize(
    "path",
    [
        "/page/../../server.py",
        "/page/%2e%2e/%2e%2e/server.py",
        "/page/vendor/..%2f..%2fserver.py",
        "//etc/passwd",
        "/page/vendor/NOTICE.md",
        "/server.py",
        "/tile/0/map/0/0_0/../../../../etc/passwd",
        "/tile/0/secret/0/0_0?maps=a",
        "/tile/0/map/0/0_0?maps=../../seg",
        "/tile/9/papyrus/0/0_0?range=0,1",
        "/tile/-1/papyrus/0/0_0?range=0,1",
        "/value/0/../../x",
        "/nothing",
    ],
)
def test_unknown_paths_are_refused(server, path):
    answer, body = ask(server, path)
    assert answer.status == 404
    assert set(json.loads(body)) == {"error"}


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "localhost.evil.example", "192.168.0.7", "", "a b", "[::1"]
)
def test_another_name_for_this_machine_is_refused(server, host):
    for path in ("/", "/scene", "/page/main.js", "/tile/0/papyrus/0/0_0?range=0,1"):
        assert ask(server, path, host=host or "\t")[0].status == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:9999", "127.0.0.1:80", "[::1]:1", "LOCALHOST"])
def test_a_tunnel_may_end_at_another_port(server, host):
    assert ask(server, "/scene", host=host)[0].status == 200


def test_pages_of_other_origins_are_refused(server):
    own = f"http://127.0.0.1:{server.server_address[1]}"
    assert ask(server, "/scene", Origin=own)[0].status == 200
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "https://localhost"):
        assert ask(server, "/scene", Origin=origin)[0].status == 403
    for site in ("cross-site", "same-site"):
        assert ask(server, "/scene", Sec_Fetch_Site=site)[0].status == 403
        assert ask(server, "/page/main.js", Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors")[0].status == 403
    assert ask(server, "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0].status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"])
def test_only_get_is_answered(server, method):
    answer, body = ask(server, "/scene", method)
    assert answer.status == 405
    assert "GET" in json.loads(body)["error"]


def test_a_name_can_be_allowed_and_addresses_serve_where_it_listens_to_all(root):
    with served(root, host="0.0.0.0", names=("ink.example",)) as server:
        for host, status in [
            ("ink.example", 200),
            ("192.168.0.7:8700", 200),
            ("evil.example", 403),
            ("localhost", 200),
        ]:
            assert ask(server, "/scene", host=host)[0].status == status
    assert refusal("/", {"Host": "10.0.0.1"}, frozenset({"localhost"}), local_only=True)


def test_faults_are_told_in_words_and_the_right_status(server, root):
    assert ask(server, "/tile/0/papyrus/0/0_0?range=0,99")[0].status == 422
    assert ask(server, "/tile/0/papyrus/0/0_0?range=0")[0].status == 400
    assert ask(server, "/tile/0/papyrus/0/7_7?range=0,1")[0].status == 400
    shard = next(path for path in sorted((root / "segments/seg/surface.zarr/0/c").rglob("*")) if path.is_file())
    shard.unlink()
    answer, body = ask(server, "/tile/0/papyrus/0/0_0?range=1,2")
    assert answer.status == 422
    assert "missing" in json.loads(body)["error"]


def test_a_picture_that_fails_half_way_is_not_taken_for_whole(server, root, capfd):
    for shard in (root / "segments/seg/surface.zarr/0/c").rglob("*"):
        if shard.is_file():
            shard.unlink()
    look = json.dumps({"box": [0, 0, *SHAPE], "papyrus": {"range": [0, 1]}}).replace(" ", "")
    with pytest.raises(http.client.IncompleteRead):
        ask(server, f"/picture/0?look={look}")
    assert "not finished" in capfd.readouterr().err


def test_credentials_never_reach_the_page(s3_root, s3_server, monkeypatch):
    labelled_segment(s3_root.uri, "seg", inked(SHAPE, (10, 10, 40, 60)))
    secrets = [value for name, value in s3_server.environment.items() if "KEY" in name]
    assert secrets
    seen = b""
    with served(s3_root.uri) as server:
        for path in [
            "/",
            "/scene",
            "/tile/0/papyrus/0/0_0?range=0,1",
            "/profile/0?y=1&x=1",
            "/value/0?y=1&x=1&range=0,1",
        ]:
            answer, body = ask(server, path)
            assert answer.status == 200
            seen += body + str(answer.headers).encode()
        (s3_root / "segments/seg/surface.zarr/0").delete_folder()
        answer, body = ask(server, "/tile/0/papyrus/0/0_0?range=1,3")
        assert answer.status == 422
        seen += body
    assert all(secret.encode() not in seen for secret in secrets)


def test_memory_stays_within_its_bound_however_many_tiles_are_asked_for(root):
    viewer = Viewer(Scene(["seg"], str(root)), memory_bytes=1 << 16)
    for low in range(200):
        viewer.tile(0, "papyrus", 0, 0, 0, f"range=0,1&low={low}")
        viewer.tile(0, "papyrus", 0, 0, 0, f"range={low % 2},3")
    assert 0 < viewer.used_bytes <= 1 << 16


def test_the_page_asks_nobody_else():
    for path in Path(PAGE).glob("*.*"):
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text, path
        assert "https://" not in text, path
        assert "//cdn" not in text, path


def test_numbers_are_numpy_free(server):
    body = json.loads(ask(server, "/value/0?y=3&x=3&range=0,1")[1])
    assert isinstance(body["papyrus"], int)
    assert np.isfinite(body["papyrus"])


@pytest.mark.parametrize(
    "words",
    [
        "https://reader:hidden@host/a",
        "https://host/a?token=hidden",
        "WANDB_API_KEY=hidden",
        "AUTHORIZATION: Bearer hidden",
    ],
)
@pytest.mark.parametrize("kind", [DataError, ConfigError, UnknownNameError, RuntimeError])
def test_no_secret_is_in_an_answer_or_on_the_terminal_when_something_fails(server, capfd, monkeypatch, kind, words):
    def fail(*_):
        raise kind(f"segment seg: cannot be read from {words}")

    monkeypatch.setattr(server.viewer, "scene", fail)
    answer, body = ask(server, "/scene")
    assert answer.status >= 400
    assert "hidden" not in body.decode() + capfd.readouterr().err


def test_the_page_has_every_file_that_its_files_name_and_knows_the_layers_as_they_are_stored():
    for name in FILES.values():
        if name.endswith(".js") and "vendor" not in name:
            text = (PAGE / name).read_text(encoding="utf-8")
            assert "https:" not in text
            assert {f"/page/{found}" for found in re.findall(r'from "\./([^"]+)"', text)} <= set(FILES)
    codes = (PAGE / "codes.js").read_text(encoding="utf-8")
    found = {name: (int(bit), excludes) for name, bit, excludes in re.findall(LAYER_ROW, codes)}
    names = {layer.bit: name for name, layer in LAYERS.items()}
    assert found == {name: (layer.bit, names.get(layer.excludes, "")) for name, layer in LAYERS.items()}
    assert f"TILE_PX = {TILE_PX};" in codes
