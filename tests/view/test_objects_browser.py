"""Separate objects in the viewer as a person picks them: a headless Chromium. Run by make test-browser."""

import cv2
import numpy as np
import pytest

from inkbatch.run.job import RunContext
from inkbatch.steps.instances.job import run
from inkbatch.steps.instances.settings import InstancesConfig
from inkbatch.testing.browser import settle, state_of, viewer_of, wait_until
from inkbatch.testing.instances import grain_map

pytestmark = pytest.mark.browser
SHAPE = (600, 800)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A photograph with its objects."""
    folder = tmp_path_factory.mktemp("objects")
    for part in ("maps", "pictures"):
        (folder / part).mkdir()
    values = grain_map(SHAPE, 150, sizes=(12, 30))
    np.save(folder / "maps/stone.npy", values)
    cv2.imwrite(str(folder / "pictures/stone.png"), np.rint(40 + 180 * values).astype(np.uint8))
    asked = {"subject": "sections", "root": str(folder / "root"), "pixel_um": 5.0, "unit_px": 256}
    asked |= {"maps": str(folder / "maps"), "pictures": str(folder / "pictures")}
    return run(InstancesConfig.checked(asked, "instances"), RunContext()).location.path


@pytest.fixture(scope="module")
def url(result):
    with viewer_of([result], "nowhere") as found:
        yield found


def row(page):
    lines = page.locator("#object tr").all()
    return {line.locator("th").text_content(): line.locator("td").text_content() for line in lines}


def place_of(page, row):
    """Place of an object's centre on the screen."""
    y, x = (float(part.split()[1]) for part in row["Centre"].split(", "))
    box = page.locator("#stage-one").bounding_box()
    at = page.evaluate("([x, y]) => { const p = inkbatch.stages[0].toScreen(x, y); return [p.x, p.y]; }", [x, y])
    return box["x"] + at[0], box["y"] + at[1]


def test_a_photograph_is_shown_with_its_outlines_and_says_so(page):
    assert "photograph" in page.locator("#facts").text_content()
    assert page.locator("#objects").is_checked()
    assert page.locator("#layer").is_hidden()
    assert page.locator("#map-box").is_hidden()


def test_a_click_picks_an_object_its_row_appears_and_the_address_leads_back(page):
    page.locator("#object-number").fill("7")
    page.keyboard.press("Enter")
    wait_until(page, "document.querySelector('#object strong').textContent === 'Object 7'")
    settle(page)
    seventh = row(page)
    assert seventh["Area"].endswith("px)")
    assert seventh["Area"].split(" (")[0].endswith("m²")
    assert seventh["Outlined by"] == "watershed of the map"
    at = place_of(page, seventh)
    page.keyboard.press("Escape")
    settle(page)
    assert page.locator("#object").is_hidden()
    page.mouse.click(*at)
    wait_until(page, "!document.querySelector('#object').hidden")
    settle(page)
    assert row(page) == seventh
    assert state_of(page)["pick"] == "7"
    other = page.context.new_page()
    other.goto(page.url)
    settle(other)
    wait_until(other, "!document.querySelector('#object').hidden")
    assert row(other) == seventh
    other.close()


def test_an_address_with_an_object_alone_brings_it_into_view(page, url):
    other = page.context.new_page()
    other.goto(f"{url}#pick=3")
    settle(other)
    wait_until(other, "!document.querySelector('#object').hidden")
    settle(other)
    x, y = place_of(other, row(other))
    box = other.locator("#stage-one").bounding_box()
    assert box["x"] < x < box["x"] + box["width"]
    assert box["y"] < y < box["y"] + box["height"]
    other.close()


def test_keys_step_from_object_to_object_and_hide_them(page):
    page.keyboard.press(">")
    wait_until(page, "document.querySelector('#object strong').textContent === 'Object 1'")
    page.keyboard.press(">")
    wait_until(page, "document.querySelector('#object strong').textContent === 'Object 2'")
    page.keyboard.press("<")
    wait_until(page, "document.querySelector('#object strong').textContent === 'Object 1'")
    page.keyboard.press("o")
    settle(page)
    assert page.locator("#object").is_hidden()
    assert not page.locator("#objects").is_checked()
    assert "obj=" in page.url  # as another result, or none, is: photographs show their first one by default


def test_a_click_beside_all_objects_lets_go_of_the_picked_one(page):
    page.keyboard.press(">")
    wait_until(page, "!document.querySelector('#object').hidden")
    box = page.locator("#stage-one").bounding_box()
    page.keyboard.press("0")
    settle(page)
    corner = page.evaluate("(() => { const p = inkbatch.stages[0].toScreen(1, 1); return [p.x, p.y]; })()")
    page.mouse.click(box["x"] + corner[0], box["y"] + corner[1])
    wait_until(page, "document.querySelector('#object').hidden")
    settle(page)
    assert "pick" not in state_of(page)
