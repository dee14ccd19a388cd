import gzip
import http.client
import json
import threading
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from inkbatch.data.datasets.cvat import read_cvat
from inkbatch.errors import DataError
from inkbatch.io.store.location import Location
from inkbatch.testing.datasets import inked, labelled_segment
from inkbatch.testing.maps import store_map
from inkbatch.view.edit import MOST_BODY_BYTES, Editor
from inkbatch.view.scene import Scene
from inkbatch.view.server import ViewServer
from inkbatch.view.viewer import Viewer

SHAPE = (300, 560)
TAB = "0f1e2d3c-tab"


@contextmanager
def edited(root, **options):
    scene = Scene(["seg"], str(root))
    viewer = Viewer(scene, can_edit=True)
    editor = Editor(viewer, str(root), "ada", **options)
    with ViewServer(viewer, port=0, editor=editor) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield Page(server)
        finally:
            server.shutdown()
            thread.join()
            editor.close()


class Page:
    """The editor's page, as far as the server can see it."""

    def __init__(self, server, tab=TAB):
        self.server, self.token, self.tab = server, server.editor.token, tab
        self.seq = self.base = 0

    def ask(self, path, method="GET", body=None, **headers):
        port = self.server.server_address[1]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        sent = {"X-Inkbatch-Token": self.token, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if method == "POST":
            sent.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, body, {name: value for name, value in sent.items() if value is not None})
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    def post(self, what, document, **headers):
        answer, body = self.ask(f"/edit/0/{what}", "POST", json.dumps(document).encode(), **headers)
        return answer.status, json.loads(body)

    def message(self, kind, **op):
        return {"tab": self.tab, "seq": self.seq, "base": self.base, "version": "v001", "op": {"kind": kind, **op}}

    def paint(self, kind, status=200, **op):
        self.seq += 1
        found = self.post("op", self.message(kind, **op))
        assert found[0] == status, found
        if status == 200:
            self.base = found[1]["revision"]
        else:
            self.seq -= 1
        return found[1]

    def codes(self, level=0, column=0, row=0):
        answer, body = self.ask(f"/edit/0/tile/{level}/{column}_{row}")
        assert answer.status == 200
        return np.frombuffer(body, np.uint8).reshape(256, 256)

    def whole(self):
        return np.block([[self.codes(0, x, y) for x in range(3)] for y in range(2)])[: SHAPE[0], : SHAPE[1]]


@pytest.fixture
def root(tmp_path):
    labelled_segment(tmp_path / "root", "seg", inked(SHAPE, (10, 10, 40, 60)))
    return tmp_path / "root"


@pytest.fixture
def page(root):
    with edited(root) as found:
        yield found


@pytest.fixture(scope="module")
def refusing(tmp_path_factory):
    """A page whose requests are all refused, so that tests share it."""
    root = tmp_path_factory.mktemp("refusing") / "root"
    labelled_segment(root, "seg", inked(SHAPE, (10, 10, 40, 60)))
    with edited(root) as found:
        yield found
        found.token = found.server.editor.token
        assert json.loads(found.ask("/edit/0")[1])["revision"] == 0


def disc(y, x, radius):
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    return (rows + 0.5 - y) ** 2 + (columns + 0.5 - x) ** 2 <= radius**2


def test_a_stroke_is_drawn_to_the_pixel_across_tiles_and_can_be_undone_and_redone(page):
    told = page.paint("brush", layer="ink", points=[[250.2, 255.7, 1]], radius=20)
    assert sorted(told["tiles"]) == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert (told["revision"], told["undo"], told["redo"]) == (1, True, False)
    np.testing.assert_array_equal(page.whole(), disc(250.2, 255.7, 20) * 1)
    page.paint("brush", layer="not_ink", points=[[250.2, 255.7, 1]], radius=10)
    inner = disc(250.2, 255.7, 10)
    expected = np.where(inner, 2, disc(250.2, 255.7, 20))
    np.testing.assert_array_equal(page.whole(), expected)
    page.paint("rectangle", layer="ignore", box=[-5, 200, 260, 1000])
    ignored = np.zeros(SHAPE, np.uint8)
    ignored[:260, 200:] = 4
    np.testing.assert_array_equal(page.whole(), expected | ignored)
    for undone in (expected, disc(250.2, 255.7, 20), np.zeros(SHAPE)):
        told = page.paint("undo")
        np.testing.assert_array_equal(page.whole(), undone)
    assert (told["undo"], told["redo"]) == (False, True)
    for _ in range(3):
        told = page.paint("redo")
    assert (told["undo"], told["redo"]) == (True, False)
    np.testing.assert_array_equal(page.whole(), expected | ignored)
    page.paint("undo")
    told = page.paint("polygon", layer="ignore", points=[[0, 0], [0, 10], [10, 0]])
    assert told["redo"] is False  # a new stroke leaves nothing to redo
    page.paint("undo")
    np.testing.assert_array_equal(page.whole(), expected)


def test_what_was_painted_is_there_after_the_server_ends_and_undo_goes_on(root):
    with edited(root) as page:
        page.paint("rectangle", layer="ink", box=[0, 0, 20, 30])
        page.paint("rectangle", layer="supervision", box=[10, 10, 299, 555])
        before = page.whole()
    with edited(root) as page:
        page.seq, page.base = 2, 2
        np.testing.assert_array_equal(page.whole(), before)
        described = json.loads(page.ask(f"/edit/0?tab={TAB}")[1])
        assert (described["version"], described["revision"]) == ("v001", 2)
        assert (described["seq"], described["undo"]) == (2, True)
        (version,) = described["versions"]
        assert version["cm2"]["ink"] == pytest.approx(600 * 64e-8, abs=1e-6)  # pixels of 8 µm
        page.paint("undo")
        page.paint("undo")
        assert not page.whole().any()


def test_coarse_tiles_show_every_mark(page):
    page.paint("brush", layer="ink", points=[[10, 9, 1], [299.5, 555.5, 0]], radius=2)
    page.paint("rectangle", layer="ignore", box=[290, 0, 291, 501])
    whole = np.zeros((1024, 1024), np.uint8)
    whole[: SHAPE[0], : SHAPE[1]] = page.whole()
    for level in range(1, 6):
        edge = 1 << level
        covered = np.bitwise_or.reduce(whole.reshape(1024 >> level, edge, 1024 >> level, edge), axis=(1, 3))
        there = min(256, 1024 >> level)
        np.testing.assert_array_equal(page.codes(level)[:there, :there], covered[:there, :there])
        assert not page.codes(level)[there:].any()
    assert not page.codes(3, 5, 5).any()
    answer, body = page.ask("/edit/0/tile/0/0_0", Accept_Encoding="gzip")
    assert answer.headers["X-Revision"] == "2"
    assert len(gzip.decompress(body)) == 65536


def test_a_stroke_that_was_answered_is_answered_again_and_nothing_else_under_its_number(page):
    page.paint("rectangle", layer="ink", box=[0, 0, 20, 30])
    message = page.message("rectangle", layer="ink", box=[0, 0, 20, 30])
    status, told = page.post("op", message)
    assert (status, told["revision"], told["tiles"]) == (200, 1, [[0, 0]])
    status, told = page.post("op", page.message("rectangle", layer="ink", box=[0, 0, 21, 30]))
    assert status == 409
    status, told = page.post("op", {**message, "seq": 3})
    assert status == 409
    assert "expected number 2" in told["error"]
    assert np.count_nonzero(page.whole()) == 600


def test_two_tabs_are_told_of_each_other_and_never_overwrite_each_other(page):
    other = Page(page.server, "other-tab")
    page.paint("rectangle", layer="ink", box=[0, 0, 20, 30])
    assert other.paint("rectangle", status=409, layer="not_ink", box=[0, 0, 20, 30])["tiles"] == [[0, 0]]
    assert other.paint("rectangle", layer="not_ink", box=[0, 300, 20, 330])["tiles"] == [[1, 0]]  # merged by tile
    status, seen = other.post("seen", {"tab": "other-tab", "author": "bob", "revision": 0})
    assert (status, seen["changed"], seen["revision"]) == (200, [[0, 0]], 2)
    status, seen = page.post("seen", {"tab": TAB, "author": "ada", "revision": 2})
    assert {row["author"] for row in seen["tabs"]} == {"ada", "bob"}
    other.base = 2
    other.paint("rectangle", layer="not_ink", box=[0, 0, 20, 30])
    page.base = 3
    assert "painted over" in page.paint("undo", status=409)["error"]
    assert np.count_nonzero(page.whole() == 2) == 1200


def test_no_undo_leaves_a_pixel_that_is_ink_and_not_ink(page):
    other = Page(page.server, "other-tab")
    page.paint("rectangle", layer="ink", box=[0, 0, 20, 30])
    page.paint("rectangle", layer="ink", erase=True, box=[0, 0, 20, 30])
    other.base = page.base
    other.paint("rectangle", layer="not_ink", box=[0, 0, 20, 10])  # none of the bits that the eraser flipped
    page.base = other.base
    assert "painted over" in page.paint("undo", status=409)["error"]
    assert np.count_nonzero(page.whole() == 2) == 200 == np.count_nonzero(page.whole())


@pytest.mark.parametrize("token", ["", "forged", None])
def test_without_the_token_nothing_is_read_or_painted(refusing, token):
    page = Page(refusing.server)
    page.token = token
    for path in ("/edit/0", "/edit/0/tile/0/0_0", "/edit/9", "/edit/nothing"):
        assert page.ask(path)[0].status == 403
    assert page.post("op", {**page.message("undo"), "seq": 1})[0] == 403


def test_other_origins_and_names_are_refused_even_with_the_token(refusing):
    page = refusing
    document = page.message("rectangle", layer="ink", box=[0, 0, 20, 30])
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "none"},
    ):
        assert page.post("op", {**document, "seq": 1}, **headers)[0] == 403


@pytest.mark.parametrize(
    "path",
    [
        "/edit/9",
        "/edit/0/../..",
        "/edit/0/%2e%2e/op",
        "/edit/0/secret",
        "/edit/0/tile/0/-1_0",
        "/edit/0/tile/0/0_0/x",
        "/editor",
    ],
)
def test_unknown_addresses_are_not_found(refusing, path):
    assert refusing.ask(path)[0].status == 404
    assert refusing.ask(path, "POST", b"{}")[0].status == 404


def test_bodies_are_bounded_before_they_are_read(refusing):
    page = refusing

    def sent(status, body=b"{}", **headers):
        assert page.ask("/edit/0/op", "POST", body, **headers)[0].status == status

    sent(415, Content_Type="text/plain")
    sent(415, Content_Type="application/x-www-form-urlencoded")
    sent(413, Content_Length=str(MOST_BODY_BYTES + 1))
    sent(413, Content_Length="9" * 30)
    sent(411, Content_Length="-1")
    sent(411, Transfer_Encoding="chunked")
    for body in (b"", b"{", b"[]", b'{"a": 1}', b"\xff\xfe", b"[" * 5000, b'{"tab": NaN}'):
        sent(400, body)
    assert page.ask("/edit/0/op")[0].status == 405
    assert page.ask("/edit/0", "POST", b"{}")[0].status == 405
    assert page.ask("/scene", "POST", b"{}")[0].status == 405


@pytest.mark.parametrize(
    "change",
    [
        {"version": "../v001"},
        {"version": "v1"},
        {"seq": 0},
        {"seq": "1; drop"},
        {"tab": "../../x"},
        {"further": 1},
        {"op": {"kind": "nothing"}},
        {"op": {"kind": "brush", "layer": "ink", "points": [[0, 0, 1]], "radius": 0}},
        {"op": {"kind": "brush", "layer": "ink", "points": [[0, 0, 1]], "radius": 3000}},
        {"op": {"kind": "brush", "layer": "ink", "points": [], "radius": 3}},
        {"op": {"kind": "brush", "layer": "ink", "points": [[0, 1e300, 1]], "radius": 3}},
        {"op": {"kind": "brush", "layer": "../ink", "points": [[0, 0, 1]], "radius": 3}},
        {"op": {"kind": "polygon", "layer": "ink", "points": [[0, 0], [9e5, 9]] * 5000}},
        {"op": {"kind": "rectangle", "layer": "ink", "box": [5, 5, 5, 9]}},
        {"op": {"kind": "take", "map": "net", "threshold": 0.5, "points": [[0, 0, 1], [9e5, 9, 1]] * 9, "radius": 3}},
    ],
)
def test_malformed_strokes_are_refused(refusing, change):
    message = {**refusing.message("rectangle", layer="ink", box=[0, 0, 20, 30]), "seq": 1, **change}
    status, told = refusing.post("op", message)
    assert (status, set(told)) == (400, {"error"})


@pytest.mark.parametrize("author", ["a\nb", "\x1b[2J", "\x9b2J", "a\u2028b", "a\u202eb", "\ud800", "a" * 81])
def test_an_author_is_one_line_of_text(refusing, author):
    assert refusing.post("seen", {"tab": TAB, "author": author})[0] == 400
    assert refusing.post("version", {"tab": TAB, "action": "branch", "from": "v001", "author": author})[0] == 400


def test_a_version_that_is_not_there_is_named(refusing):
    message = {**refusing.message("undo"), "seq": 1, "version": "v999"}
    status, told = refusing.post("op", message)
    assert (status, "v001" in told["error"]) == (422, True)


def test_a_second_program_is_refused_with_the_place(root):
    with edited(root), pytest.raises(DataError, match=r"labels/seg/v001.*open for painting in process") as refused:
        Editor(Viewer(Scene(["seg"], str(root))), str(root), "bob")
    assert "end that one" in str(refused.value)
    with edited(root) as page:  # given back when the first one ended
        page.paint("rectangle", layer="ink", box=[0, 0, 20, 30])


def test_a_branch_starts_with_what_was_painted_and_goes_its_own_way(page):
    page.paint("rectangle", layer="ink", box=[0, 0, 20, 30])
    status, told = page.post("version", {"tab": TAB, "action": "branch", "from": "v001", "author": "bob"})
    assert (status, told["version"], told["parent"], told["author"]) == (200, "v002", "v001", "bob")
    assert told["started_from"] == "v001 at stroke 1"
    assert told["versions"][1]["cm2"] == told["versions"][0]["cm2"]
    status, _ = page.post(
        "op", {**page.message("rectangle", layer="ink", box=[0, 0, 99, 99]), "version": "v002", "base": 0}
    )
    assert status == 200
    assert np.count_nonzero(page.whole()) == 99 * 99  # the branch is shown now
    assert page.ask("/edit/0/tile/0/0_0?version=v001")[1].count(b"\x01") == 600
    assert page.post("version", {"tab": TAB, "action": "switch", "from": "v001"})[1]["version"] == "v001"
    assert np.count_nonzero(page.whole()) == 600


def test_a_version_that_is_older_than_the_surface_is_named_until_a_new_one_is_begun_from_it(root):
    complete = Location.parse(root) / "segments/seg/prepare/complete.json"
    complete.write_json({**complete.read_mapping(), "content": "one"})
    with edited(root) as page:
        assert json.loads(page.ask("/edit/0")[1])["outdated"] == ""
    complete.write_json({**complete.read_mapping(), "content": "other"})
    with edited(root) as page:
        assert "v001 of segment seg were begun before the segment was prepared again" in page.server.editor.started[1]
        assert page.server.editor.started[1] == json.loads(page.ask("/edit/0")[1])["outdated"]
        status, told = page.post("version", {"tab": TAB, "action": "branch", "from": "v001"})
        assert (status, told["version"], told["outdated"]) == (200, "v002", "")


def test_maps_are_taken_filled_snapped_to_and_cleaned_where_they_lie(root):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    letter, speck = np.hypot(y - 150, x - 256) < 60, np.hypot(y - 20, x - 20) < 3
    store_map(root, "seg", "net", np.where(letter | speck, 0.75, np.where(x < 200, 0.375, 0.125)))
    with edited(root) as page:
        page.paint("take", map="net", threshold=0.5, band=[0.25, 0.5], box=[0, 0, 300, 560])
        np.testing.assert_array_equal(page.whole() == 1, letter | speck)
        np.testing.assert_array_equal(page.whole() == 4, ~(letter | speck) & (x < 200))
        page.paint("clean", box=[0, 0, 300, 560], below_px=100)
        np.testing.assert_array_equal(page.whole() == 1, letter)
        page.paint("undo")
        page.paint("undo")
        page.paint("take", map={"maps": ["net"], "combine": "max"}, threshold=0.5, at=[150, 256])
        np.testing.assert_array_equal(page.whole(), letter)
        page.paint("fill", layer="ignore", at=[0, 0])
        np.testing.assert_array_equal(page.whole(), np.where(letter, 1, 4))
        page.paint("undo")
        page.paint("undo")
        page.paint("smart", layer="ink", map="net", points=[[150, 250, 1], [150, 260, 1]], radius=80)
        np.testing.assert_array_equal(page.whole(), letter)
        page.paint("take", map="net", threshold=0.5, points=[[20, 20, 1]], radius=9)
        np.testing.assert_array_equal(page.whole(), letter | speck)
        assert (
            "no prediction"
            in page.paint("smart", status=404, layer="ink", map="n", points=[[1, 1, 1]], radius=3)["error"]
        )
        assert page.paint("fill", status=422, layer="ink", at=[300, 0])["error"].startswith("fill: expected")
        page.paint("take", status=400, map="net", threshold=0.5)


def test_versions_are_compared_and_exported(page, tmp_path):
    page.paint("rectangle", layer="ink", box=[0, 0, 20, 30])
    page.paint("rectangle", layer="ignore", box=[200, 200, 299, 400])
    page.post("version", {"tab": TAB, "action": "branch", "from": "v001"})
    op = {"kind": "rectangle", "layer": "not_ink", "box": [0, 0, 10, 40]}
    assert page.post("op", {**page.message(""), "seq": 1, "base": 0, "version": "v002", "op": op})[0] == 200
    found = json.loads(page.ask("/edit/0/compare?one=v001&other=v002")[1])
    assert found["changed_tiles"] == [[0, 0]]
    assert (found["added_px"]["not_ink"], found["removed_px"]["ink"], found["added_px"]["ink"]) == (400, 300, 0)
    papyrus = SHAPE[0] * SHAPE[1]
    assert found["cm2"]["v001"]["unlabelled"] == pytest.approx((papyrus - 600 - 99 * 200) * 64e-8)
    assert found["cm2"]["v002"]["unlabelled"] == pytest.approx((papyrus - 700 - 99 * 200) * 64e-8)
    for kind, name in (("png", "seg-v001-ink_labels.png"), ("tiff", "seg-v001-ink_labels.tif")):
        answer, body = page.ask(f"/edit/0/export?version=v001&as={kind}")
        assert name in answer.headers["Content-Disposition"]
        picture = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(picture, inked(SHAPE, (0, 0, 20, 30)))
    answer, body = page.ask("/edit/0/export?version=v002&as=coco")
    (tmp_path / "export").mkdir()
    (tmp_path / "export/instances.json").write_bytes(body)
    (drawn,) = read_cvat(Location.parse(tmp_path / "export"), ("ink",), ("ignore",))
    np.testing.assert_array_equal(drawn.ink * np.uint8(255), inked(SHAPE, (10, 0, 20, 30)))
    np.testing.assert_array_equal(drawn.ignored * np.uint8(255), inked(SHAPE, (200, 200, 299, 400)))
    assert page.ask("/edit/0/export?version=v002&as=exe")[0].status == 400
    assert page.ask("/edit/0/export?version=../v002&as=png")[0].status == 422
