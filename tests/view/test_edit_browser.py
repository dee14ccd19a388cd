"""The label editor as a person uses it: with a mouse in a headless Chromium. Run by make test-browser."""

import subprocess
import sys
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from inkbatch.data.datasets.cvat import read_cvat
from inkbatch.data.labels.painting_version import PaintedVersion
from inkbatch.geometry import Box
from inkbatch.io.store.location import Location
from inkbatch.testing.browser import viewer_of, wait_until
from inkbatch.testing.datasets import inked
from inkbatch.testing.editor import BLOT, HALO, SHAPE, Desk, segment_to_paint, stored_marks

pytestmark = pytest.mark.browser


@pytest.fixture
def root(tmp_path):
    return segment_to_paint(tmp_path / "root")


@pytest.fixture
def desk(browser, root):
    with viewer_of(["seg"], str(root), edit=True) as url:
        found = Desk(browser, url)
        yield found
        found.context.close()
        assert found.faults == []


def discs(points, radius):
    """The brush drawn anew: all pixels whose centre lies within the radius of a line between two points."""
    rows, columns = np.indices(SHAPE) + 0.5
    out = np.zeros(SHAPE, bool)
    for (y0, x0, _), (y1, x1, _) in zip(points, points[1:] or points, strict=len(points) == 1):
        dy, dx = y1 - y0, x1 - x0
        along = np.clip(((rows - y0) * dy + (columns - x0) * dx) / max(dy * dy + dx * dx, 1e-12), 0, 1)
        out |= np.hypot(rows - y0 - along * dy, columns - x0 - along * dx) <= radius
    return out


def test_a_letter_painted_with_the_mouse_is_stored_to_the_pixel_and_undone_and_redone(browser, root):
    with viewer_of(["seg"], str(root), edit=True) as url:
        desk = Desk(browser, url)
        assert "token" not in desk.page.url
        desk.stroke((150, 100), (300, 160), (150, 220))
        desk.stroke((240, 130), (240, 190))
        desk.press("2")
        desk.stroke((200, 300), (260, 330))
        strokes = desk.sent[:3]
        assert desk.status() == "Saved"
        desk.press("z", "z", "z", "Z", "Z", "y")
        assert desk.page.locator("#tools [value=redo]").is_disabled()
        desk.press("e")
        desk.stroke((190, 300), (200, 320))
        desk.context.close()
        assert desk.faults == []
    assert [op["kind"] for op in desk.sent[3:9]] == ["undo"] * 3 + ["redo"] * 3
    for op, wanted in zip(strokes, [((150, 100), (150, 220)), ((240, 130), (240, 190))], strict=False):
        for point, end in zip((op["points"][0], op["points"][-1]), wanted, strict=True):
            np.testing.assert_allclose(point[:2], end, atol=1.5)
    ink = discs(strokes[0]["points"], 24) | discs(strokes[1]["points"], 24)
    np.testing.assert_array_equal(stored_marks(root, "ink_labels"), ink)
    erased = discs(desk.sent[9]["points"], 24)
    np.testing.assert_array_equal(stored_marks(root, "not_ink"), discs(strokes[2]["points"], 24) & ~erased)


def test_what_is_painted_is_seen_at_once_and_after_a_reload_and_undo_goes_on(desk):
    desk.page.mouse.move(*desk.screen(200, 200))
    desk.page.mouse.down()
    desk.page.mouse.move(*desk.screen(200, 260), steps=4)
    wait_until(desk.page, "window.inkbatch.editor.tools[0].op?.points.length > 3")
    desk.page.wait_for_timeout(60)
    preview = desk.shown(200, 230)
    assert desk.sent == []
    desk.page.mouse.up()
    desk.settle()
    assert preview[3] > 50
    np.testing.assert_allclose(desk.shown(200, 230), preview, atol=2)
    assert desk.shown(200, 400)[3] == 0
    desk.page.reload()
    desk.settle()
    np.testing.assert_allclose(desk.shown(200, 230), preview, atol=2)
    desk.press("z")
    assert desk.shown(200, 230)[3] == 0


def test_shapes_are_painted_at_any_zoom_and_in_a_mirrored_view(browser, root):
    with viewer_of(["seg"], str(root), edit=True) as url:
        desk = Desk(browser, url)
        desk.press("f", "-", "-", "r")
        desk.stroke((100, 100), (400, 500))
        desk.press("3", "n")
        for corner in ((100, 600), (100, 800), (300, 700)):
            desk.page.mouse.click(*desk.screen(*corner))
        desk.press("Enter", "4", "k")
        desk.page.mouse.click(*desk.screen(150, 700))
        desk.settle()
        desk.context.close()
        assert desk.faults == []
    box, corners = desk.sent[0]["box"], np.array(desk.sent[1]["points"])
    np.testing.assert_allclose(box, (100, 100, 400, 500), atol=3)
    np.testing.assert_allclose(corners, [(100, 600), (100, 800), (300, 700)], atol=3)
    np.testing.assert_array_equal(stored_marks(root, "ink_labels"), inked(SHAPE, tuple(box)) > 0)
    rows, columns = np.indices(SHAPE) + 0.5
    sides = [
        (y1 - y0) * (columns - x0) - (x1 - x0) * (rows - y0)
        for (y0, x0), (y1, x1) in zip(corners, np.roll(corners, -1, axis=0), strict=True)
    ]
    triangle = np.all(np.array(sides) <= 0, axis=0) | np.all(np.array(sides) >= 0, axis=0)
    np.testing.assert_array_equal(stored_marks(root, "ignore_mask"), triangle)
    np.testing.assert_array_equal(stored_marks(root, "supervision_mask"), triangle)


def test_a_click_accepts_a_letter_of_the_map_and_its_uncertain_rim_as_ignored(browser, root):
    with viewer_of(["seg"], str(root), edit=True) as url:
        desk = Desk(browser, url)
        desk.press("a", "u")
        desk.page.mouse.click(*desk.screen(270, 650))
        desk.settle()
        desk.press("w", "2")
        desk.stroke((100, 100), (100, 200))
        desk.context.close()
        assert desk.faults == []
    assert desk.sent[0]["band"] == [0.3, 0.5]
    ink, ignored = inked(SHAPE, BLOT) > 0, (inked(SHAPE, HALO) > 0) & ~(inked(SHAPE, BLOT) > 0)
    np.testing.assert_array_equal(stored_marks(root, "ink_labels"), ink)
    np.testing.assert_array_equal(stored_marks(root, "ignore_mask"), ignored)
    assert stored_marks(root, "not_ink").any()


def test_strokes_wait_while_the_server_is_away_and_a_new_address_in_another_tab_sends_them(browser, root):
    with viewer_of(["seg"], str(root), edit=True) as url:
        desk = Desk(browser, url)
        desk.stroke((100, 100), (100, 200))
        port = int(url.split(":")[2].split("/")[0])
    desk.page.mouse.move(*desk.screen(300, 100))
    desk.page.mouse.down()
    desk.page.mouse.move(*desk.screen(300, 300), steps=3)
    desk.page.mouse.up()
    wait_until(desk.page, "document.querySelector('#saved').textContent === 'Not saved: 1 stroke'")
    assert "leave this page open" in desk.page.locator("#trouble").text_content()
    assert desk.shown(300, 200)[3] > 0
    desk.wait_for_unanswered(3)  # tried again and again: the stroke, or first of all where this tab stands
    with viewer_of(["seg"], str(root), edit=True, port=port) as url:
        wait_until(desk.page, "document.querySelector('#trouble').textContent.includes('open the address')")
        second = Desk(browser, url, desk.context)
        wait_until(desk.page, "document.querySelector('#saved').textContent === 'Saved'")
        assert not desk.page.locator("#trouble").is_visible()
        strokes = [op for number, op in enumerate(desk.sent) if op not in desk.sent[:number]]
        desk.press("z")
        assert desk.shown(300, 200)[3] == 0
        desk.press("Z")
        second.context.close()
    assert len(strokes) == 2  # applied once
    np.testing.assert_array_equal(
        stored_marks(root, "ink_labels"), discs(strokes[0]["points"], 24) | discs(strokes[1]["points"], 24)
    )


@contextmanager
def editor_process(root, port=0):
    """Run ``inkbatch view --edit`` in a process of its own; yields it and its address."""
    command = [sys.executable, "-m", "inkbatch", "view", "seg", "--root", str(root), "--edit", "--author", "ada"]
    with subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.PIPE, text=True) as process:
        lines = iter(process.stdout.readline, "")
        try:
            yield process, next(line.split()[1] for line in lines if "http://" in line)
        finally:
            process.kill()


def test_a_server_that_is_killed_takes_no_stroke_with_it(browser, root):
    with editor_process(root) as (server, url):
        desk = Desk(browser, url)
        desk.stroke((100, 100), (100, 200))
        desk.stroke((150, 100), (150, 200))
        assert desk.status() == "Saved"
        desk.page.mouse.move(*desk.screen(300, 100))
        desk.page.mouse.down()
        desk.page.mouse.move(*desk.screen(300, 200), steps=3)
        server.kill()  # before its tiles are written, perhaps: these strokes are in the journal
        server.wait()
        desk.page.mouse.move(*desk.screen(300, 300), steps=3)
        desk.page.mouse.up()
        wait_until(desk.page, "document.querySelector('#saved').textContent === 'Not saved: 1 stroke'")
        kept = PaintedVersion.open(Location.parse(root) / "labels/seg/v001").tiles.read(Box(0, 0, *SHAPE)) > 0
        answered = discs(desk.sent[0]["points"], 24) | discs(desk.sent[1]["points"], 24)
        np.testing.assert_array_equal(kept, answered)
        port = int(url.split(":")[2].split("/")[0])
    with editor_process(root, port) as (_, url):
        second = Desk(browser, url, desk.context)
        wait_until(desk.page, "document.querySelector('#saved').textContent === 'Saved'")
        strokes = [op for number, op in enumerate(desk.sent) if op not in desk.sent[:number]]
        desk.press("z", "z")
        assert desk.shown(100, 150)[3] > 0  # the first one is left
        assert desk.shown(150, 150)[3] == 0
        desk.press("Z", "Z")
        assert desk.status() == "Saved"
        second.context.close()
    assert desk.faults == []
    found = PaintedVersion.open(Location.parse(root) / "labels/seg/v001").tiles.read(Box(0, 0, *SHAPE)) > 0
    np.testing.assert_array_equal(found, answered | discs(strokes[2]["points"], 24))


def test_leaving_with_a_stroke_that_waits_is_warned_of_and_the_stroke_is_sent_by_the_next_page(browser, root):
    with viewer_of(["seg"], str(root), edit=True) as url:
        desk = Desk(browser, url)
        desk.stroke((100, 100), (100, 200))
        desk.page.route("**/op", lambda route: route.abort())
        desk.page.mouse.click(*desk.screen(300, 200))
        wait_until(desk.page, "document.querySelector('#saved').textContent === 'Not saved: 1 stroke'")
        warned = []
        desk.page.on("dialog", lambda dialog: (warned.append(dialog.type), dialog.accept()))
        desk.page.reload()
        wait_until(desk.page, "document.querySelector('#saved').textContent === 'Not saved: 1 stroke'")
        desk.page.unroute("**/op")
        desk.settle()
        assert desk.status() == "Saved"
        assert desk.shown(300, 200)[3] > 0
        desk.context.close()
    assert warned == ["beforeunload"]
    first, last = desk.sent[0]["points"], desk.sent[-1]["points"]
    np.testing.assert_array_equal(stored_marks(root, "ink_labels"), discs(first, 24) | discs(last, 24))


def test_two_tabs_see_each_other_and_no_one_paints_over_the_other_unseen(browser, root):
    with viewer_of(["seg"], str(root), edit=True) as url:
        one = Desk(browser, url)
        other = Desk(browser, url, one.context)
        for desk in (one, other):
            desk.page.evaluate("window.inkbatch.editor.link.see()")
        wait_until(one.page, "!document.querySelector('#others').hidden")
        one.stroke((100, 100), (100, 200))
        other.page.evaluate("window.inkbatch.editor.link.seeing = true")  # it hears nothing for a while
        other.stroke((100, 150), (120, 250))
        assert "another tab painted" in other.page.locator("#message").text_content()
        other.page.evaluate("window.inkbatch.editor.link.seeing = false; window.inkbatch.editor.link.see()")
        wait_until(other.page, "window.inkbatch.editor.link.session.base === 1")
        other.settle()
        assert other.shown(100, 150)[3] > 0
        other.stroke((100, 150), (120, 250))
        one.page.bring_to_front()  # browsers draw nothing behind
        one.page.evaluate("window.inkbatch.editor.link.see()")
        wait_until(one.page, "window.inkbatch.editor.link.session.base === 2")
        one.settle()
        assert one.shown(120, 250)[3] > 0
        one.context.close()
        assert one.faults + other.faults == []
    ink = discs(one.sent[0]["points"], 24) | discs(other.sent[-1]["points"], 24)
    np.testing.assert_array_equal(stored_marks(root, "ink_labels"), ink)


def test_a_version_is_branched_compared_and_exported_while_the_first_one_stays(browser, root):
    with viewer_of(["seg"], str(root), edit=True) as url:
        desk = Desk(browser, url)
        desk.stroke((100, 100), (100, 200))
        desk.page.get_by_text("Versions", exact=True).click()
        desk.page.get_by_role("button", name="New version from this").click()
        wait_until(desk.page, "document.querySelector('#version').value === 'v002'")
        desk.settle()
        assert desk.shown(100, 150)[3] > 0
        desk.stroke((300, 100), (300, 200))
        desk.page.locator("#against").select_option("v001")
        wait_until(desk.page, "document.querySelectorAll('#difference-says td').length")
        rows = desk.page.locator("#difference-says tr").all_text_contents()
        tiles = desk.page.evaluate("window.inkbatch.editor.marked")
        with desk.page.expect_download() as waiting:
            desk.page.locator("#export").click()
        exported = cv2.imread(str(waiting.value.path()), cv2.IMREAD_UNCHANGED)
        desk.page.locator("#version").select_option("v001")
        wait_until(desk.page, "window.inkbatch.editor.link.session.version === 'v001'")
        desk.settle()
        assert desk.shown(300, 150)[3] == 0
        desk.context.close()
        assert desk.faults == []
    first = discs(desk.sent[0]["points"], 24)
    np.testing.assert_array_equal(stored_marks(root, "ink_labels"), first)
    second = first | discs(desk.sent[1]["points"], 24)
    np.testing.assert_array_equal(stored_marks(root, "ink_labels", "v002"), second)
    np.testing.assert_array_equal(exported > 0, second)
    assert [row[:3] for row in rows] == ["v00", "ink", "not", "ign", "sup", "unl"]
    assert tiles == [[0, 1]]  # column and row of the one tile that the second stroke touched


def test_a_version_is_exported_as_any_file_and_each_holds_what_was_painted(browser, root, tmp_path):
    with viewer_of(["seg"], str(root), edit=True) as url:
        desk = Desk(browser, url)
        desk.stroke((100, 100), (300, 400))
        desk.press("3", "r")
        desk.stroke((400, 100), (500, 300))
        desk.page.get_by_text("Versions", exact=True).click()
        found = {}
        for kind in ("png", "tiff", "coco"):
            desk.page.locator("#export-as").select_option(kind)
            with desk.page.expect_download() as waiting:
                desk.page.locator("#export").click()
            found[kind] = waiting.value.suggested_filename, waiting.value.path().read_bytes()
        desk.context.close()
        assert desk.faults == []
    ignored = inked(SHAPE, tuple(desk.sent[1]["box"])) > 0
    for kind, name in (("png", "seg-v001-ignore_mask.png"), ("tiff", "seg-v001-ignore_mask.tif")):
        assert found[kind][0] == name
        picture = cv2.imdecode(np.frombuffer(found[kind][1], np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(picture > 0, ignored)
    (tmp_path / "export").mkdir()
    (tmp_path / "export/instances.json").write_bytes(found["coco"][1])
    (drawn,) = read_cvat(Location.parse(tmp_path / "export"), ("ink",), ("ignore",))
    np.testing.assert_array_equal(drawn.ink > 0, discs(desk.sent[0]["points"], 24))
    np.testing.assert_array_equal(drawn.ignored > 0, ignored)


def test_all_of_the_view_is_accepted_from_the_map_and_only_the_specks_in_view_are_cleaned(browser, root):
    with viewer_of(["seg"], str(root), edit=True) as url:
        desk = Desk(browser, url)
        desk.press("u", "A")
        ink, ignored = inked(SHAPE, BLOT) > 0, (inked(SHAPE, HALO) > 0) & ~(inked(SHAPE, BLOT) > 0)
        desk.press("1", "b")
        desk.page.locator("#radius").evaluate("e => { e.value = 0; e.dispatchEvent(new Event('input')) }")
        for at in ((100, 100), (500, 800)):
            desk.page.mouse.click(*desk.screen(*at))
            desk.settle()
        with_specks = stored_marks(root, "ink_labels")
        desk.page.locator("#below").fill("200")
        desk.page.locator("#below").press("Enter")
        desk.page.evaluate("window.inkbatch.stages[0].goTo({ x: 800, y: 500, zoom: 4 })")
        desk.settle()
        desk.page.locator("#clean").click()
        desk.settle()
        desk.context.close()
        assert desk.faults == []
    dots = [discs(op["points"], op["radius"]) for op in desk.sent if op["kind"] == "brush"]
    assert 0 < min(dot.sum() for dot in dots) < 200
    np.testing.assert_array_equal(with_specks, ink | dots[0] | dots[1])
    np.testing.assert_array_equal(stored_marks(root, "ink_labels"), ink | dots[0])
    np.testing.assert_array_equal(stored_marks(root, "ignore_mask"), ignored)


def test_the_wheel_sizes_the_brush_and_every_key_of_the_help_does_something_without_complaint(desk):
    desk.page.mouse.move(*desk.screen(200, 200))
    desk.page.keyboard.down("Shift")
    desk.page.mouse.wheel(0, -120)
    desk.page.keyboard.up("Shift")
    wait_until(desk.page, "window.inkbatch.editor.settings.radius > 24")
    desk.page.keyboard.press("?")
    keys = desk.page.locator("#keys kbd").all_text_contents()
    desk.page.keyboard.press("Escape")
    assert len(keys) == len(set(keys)) > 50
    for key in keys:
        if key != "s":  # opens a dialog, tested with the viewer
            desk.page.keyboard.press({"Esc": "Escape"}.get(key, key))
        if desk.page.locator("dialog[open]").count():
            desk.page.keyboard.press("Escape")
    desk.settle()
    unnamed = desk.page.evaluate(
        "[...document.querySelectorAll('#tools button, #paint-box input, #paint-box select, #paint-box button')]"
        ".filter(e => !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map(e => e.id || e.value)"
    )
    assert unnamed == []


def test_a_phone_needs_no_sideways_scrolling(browser, root):
    with viewer_of(["seg"], str(root), edit=True) as url:
        options = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
        desk = Desk(browser, url, **options)
        desk.page.get_by_role("button", name="Controls").click()
        desk.page.wait_for_timeout(400)
        assert desk.page.locator("#radius").is_visible()
        sticking_out = desk.page.evaluate(
            "[...document.querySelectorAll('header *, #panel *, #tools *')]"
            ".filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.id || e.className || e.tagName)"
        )
        assert sticking_out == []
        desk.context.close()
