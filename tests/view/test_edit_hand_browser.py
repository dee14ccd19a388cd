"""The label editor under a pen and under fingers, in a headless Chromium. Run by make test-browser."""

import numpy as np
import pytest

from inkbatch.testing.browser import viewer_of
from inkbatch.testing.editor import Desk, segment_to_paint

pytestmark = pytest.mark.browser


class Hand:
    """A pen and fingers: events go to the browser as the machine's own, not to the page's functions."""

    def __init__(self, desk):
        self.desk, self.client = desk, desk.context.new_cdp_session(desk.page)

    def pen(self, *points):
        """Draw from (y, x, force) to (y, x, force)."""
        kinds = ["mousePressed", *["mouseMoved"] * (len(points) - 1), "mouseReleased"]
        for kind, (y, x, force) in zip(kinds, [*points, points[-1]], strict=True):
            at = self.desk.screen(y, x)
            pressed = {"button": "left", "buttons": int(kind != "mouseReleased"), "clickCount": 1}
            event = {"type": kind, "x": at[0], "y": at[1], "pointerType": "pen", "force": force, **pressed}
            self.client.send("Input.dispatchMouseEvent", event)
        self.desk.settle()

    def touch(self, *steps):
        """Put fingers down, move them and lift them; a step lists (y, x) of each finger that touches."""
        last = 0
        for step in (*steps, ()):
            places = [self.desk.screen(y, x) for y, x in step]
            points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
            kind = "touchEnd" if not step else "touchStart" if len(step) > last else "touchMove"
            self.client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
            last = len(step)
            self.desk.page.wait_for_timeout(80)  # a hand that is not flung
        self.desk.settle()


@pytest.fixture
def hand(browser, tmp_path):
    with viewer_of(["seg"], str(segment_to_paint(tmp_path / "root")), edit=True) as url:
        found = Desk(browser, url, has_touch=True)
        yield Hand(found)
        found.context.close()
        assert found.faults == []


def test_a_pen_paints_by_its_pressure_and_from_then_on_fingers_move_the_map(hand):
    desk = hand.desk
    hand.pen((200, 100, 0.25), (200, 150, 0.5), (200, 200, 1.0))
    points = np.array(desk.sent[0]["points"])
    np.testing.assert_allclose(points, [(200, 100, 0.25), (200, 150, 0.5), (200, 200, 1.0)], atol=1)
    np.testing.assert_allclose(points[:, 2], [0.25, 0.5, 1.0], atol=0.01)
    assert desk.shown(218, 198)[3] > 0
    assert desk.shown(218, 104)[3] == 0  # 18 px away, but only a quarter of 24 px were pressed
    before = desk.screen(300, 100)
    hand.touch([(300, 100)], [(300, 130)], [(300, 160)])
    assert len(desk.sent) == 1
    moved = np.subtract(desk.screen(300, 100), before)
    assert moved[0] > 40  # and glides on
    assert abs(moved[1]) < 1


def test_one_finger_paints_and_two_move_and_zoom_the_map(hand):
    desk = hand.desk
    hand.touch([(200, 100)], [(200, 120)], [(200, 140)])
    assert [op["kind"] for op in desk.sent] == ["brush"]
    np.testing.assert_allclose(desk.sent[0]["points"][-1][:2], (200, 140), atol=1.5)
    before = desk.page.evaluate("window.inkbatch.stages[0].look().zoom")
    hand.touch([(300, 200)], [(300, 200), (300, 300)], *([(300, 200), (300, x)] for x in (310, 350, 400, 450)))
    assert desk.page.evaluate("window.inkbatch.stages[0].look().zoom") > 1.5 * before
    assert len(desk.sent) == 1
