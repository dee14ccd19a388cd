"""The viewer as a person uses it: a headless Chromium on the demo segment. Run by make test-browser."""

import base64
import re

import cv2
import numpy as np
import pytest

from inkbatch.data.segments.catalog import shipped_catalog
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location
from inkbatch.run.job import RunContext
from inkbatch.steps.export import picture as export
from inkbatch.steps.infer import job as infer
from inkbatch.steps.labels import job as labels
from inkbatch.steps.prepare import job as prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.testing.browser import settle, state_of, viewer_of, wait_until

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The demo segment with labels and two predictions."""
    place = str(tmp_path_factory.mktemp("viewer") / "root")
    prepare.run(PrepareConfig.load(options={"segment": "demo", "root": place}), RunContext())
    for name, stride in (("fine", 64), ("rough", 128)):
        options = {"segment": "demo", "root": place, "bundle": "demo", "name": name, "stride_px": stride}
        infer.run(infer.InferConfig.load(options=options), RunContext())
    truth = str(shipped_catalog().with_name("truth.png"))
    options = {"segment": "demo", "root": place, "image": truth, "ignore": {"border": "papyrus"}}
    labels.run(labels.LabelsConfig.load(options=options), RunContext())
    return place


@pytest.fixture(scope="module")
def url(root):
    with viewer_of(["demo"], root) as found:
        yield found


def canvas(page, stage="#stage-one"):
    """The drawn map alone, without what lies over it."""
    script = "stage => { const c = document.querySelector(stage + ' .canvas canvas'); return c.toDataURL('image/png') }"
    data = page.evaluate(script, stage).split(",", 1)[1]
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)


def slide(page, name, value):
    page.locator(f"#{name}").evaluate(
        "(element, value) => { element.value = value; element.dispatchEvent(new Event('input', { bubbles: true })) }",
        value,
    )
    settle(page)


def pointed_at(page):
    """Full-size pixel (y, x) under the cursor, as the page has it."""
    return tuple(int(page.locator("#readout").get_attribute(f"data-{axis}")) for axis in "yx")


def wheel(page, x, y, steps=4):
    page.mouse.move(x, y)
    for _ in range(steps):
        page.mouse.wheel(0, -120)
        page.wait_for_timeout(80)
    settle(page)


def press(page, key):
    page.keyboard.press(key)
    settle(page)


def download(page, part, size):
    page.get_by_role("button", name="Save picture").click()
    page.locator("#save-part").select_option(part)
    page.locator("#save-size").select_option(size)
    with page.expect_download() as waiting:
        page.locator("#save-go").click()
    body = waiting.value.path().read_bytes()
    return waiting.value.suggested_filename, cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED)


def test_the_demo_opens_with_ink_over_papyrus(page):
    assert page.title() == "demo · inkbatch"
    assert "13 layers" in page.locator("#facts").text_content()
    colours = canvas(page)
    glowing = (colours[..., 0] > 200) & (colours[..., 2] < 190)  # inferno's upper end; papyrus is grey
    assert 0.05 < glowing.mean() < 0.5


def test_wheel_and_keys_zoom_and_the_scale_bar_follows(page):
    before = float(state_of(page)["z"])
    first = float(page.locator("#scale").get_attribute("data-mm"))
    wheel(page, 500, 400)
    assert float(state_of(page)["z"]) > 1.5 * before
    for _ in range(4):
        press(page, "+")
    assert float(page.locator("#scale").get_attribute("data-mm")) < first
    # The bar is as long as it says: mm * 1000 / voxel size * zoom.
    width = page.locator("#scale .rule").bounding_box()["width"]
    mm = float(page.locator("#scale").get_attribute("data-mm"))
    assert width == pytest.approx(mm * 1000 / 7.91 * float(state_of(page)["z"]), abs=2)
    press(page, "0")
    assert float(state_of(page).get("z", before)) == pytest.approx(before, rel=0.01)


def test_flipping_mirrors_the_map_and_the_coordinates_under_the_cursor(page):
    plain = canvas(page)
    page.mouse.move(300, 420)
    wait_until(page, "document.querySelector('#readout').textContent.includes('ink')")
    at = pointed_at(page)
    press(page, "f")
    assert state_of(page)["f"] == "1"
    mirrored = canvas(page)[:, ::-1]
    assert np.abs(plain - mirrored).mean() < 4
    assert np.abs(plain - mirrored[:, ::-1]).mean() > 20
    width = page.locator("#stage-one").bounding_box()["width"]
    page.mouse.move(width - 300, 420)
    page.wait_for_timeout(400)
    again = pointed_at(page)
    assert again[0] == at[0]
    assert abs(again[1] - at[1]) <= 1


def test_the_value_under_the_cursor_is_the_stored_one(page, root):
    page.mouse.move(420, 380)
    wait_until(page, "document.querySelector('#readout').textContent.includes('ink')")
    text = page.locator("#readout").text_content()
    y, x = pointed_at(page)
    stored = Prediction.open(Location.parse(root) / "predictions" / "demo" / "fine").pyramid.levels[0]
    value = float(stored.read((slice(y, y + 1), slice(x, x + 1)))[0, 0])
    assert f"ink {value:.3f}" in text


def test_sliders_change_what_is_seen(page):
    whole = canvas(page)
    slide(page, "opacity", 0)
    bare = canvas(page)
    assert np.abs(bare[..., 0] - bare[..., 2]).max() <= 3  # papyrus is grey
    slide(page, "opacity", 0.9)
    slide(page, "threshold", 1)
    assert np.abs(canvas(page) - bare).mean() < 0.5 * np.abs(whole - bare).mean()
    slide(page, "threshold", 0)
    slide(page, "boost", 1)
    assert state_of(page)["g"] == "20"
    assert canvas(page).mean() > whole.mean()
    slide(page, "boost", 0.5)
    slide(page, "layer", 0)
    assert state_of(page)["l"] == "0"
    slide(page, "depth", 13)
    assert page.locator("#layer-says").text_content() == "0 – 12"
    assert np.abs(canvas(page) - whole).mean() > 3


def test_two_predictions_stand_side_by_side_and_move_together(page):
    press(page, "x")
    assert page.locator("#stage-two").is_visible()
    assert page.locator("#stage-one .tag").text_content() == "fine"
    assert page.locator("#stage-two .tag").text_content() == "rough"
    assert 0.1 < np.abs(canvas(page) - canvas(page, "#stage-two")).mean() < 40
    wheel(page, 900, 420)
    looks = page.evaluate("window.inkbatch.stages.map(stage => stage.look())")
    for key in ("x", "y", "zoom"):
        assert looks[0][key] == pytest.approx(looks[1][key], rel=0.01)
    assert page.locator("#stage-one .ghost").is_visible()


def test_a_difference_and_an_ensemble_are_made_on_the_fly(page):
    press(page, "d")
    assert page.locator("#stage-one .tag").text_content() == "fine − rough"
    assert page.locator("#difference-hint").is_visible()
    press(page, "d")
    page.get_by_role("checkbox", name="rough").check()
    settle(page)
    assert page.locator("#stage-one .tag").text_content() == "Mean of 2"
    page.get_by_role("button", name="Maximum").click()
    settle(page)
    assert state_of(page)["maps"] == "fine,rough"
    assert state_of(page)["k"] == "max"


def test_a_click_gives_the_depth_profile(page):
    page.mouse.click(420, 380)
    wait_until(page, "!document.querySelector('#profile').hidden && document.querySelector('#profile path')")
    assert len(page.locator("#profile path.pixel").get_attribute("d").split("L")) == 13
    assert page.locator("#stage-one .pin").is_visible()
    settle(page)
    assert re.fullmatch(r"\d+,\d+", state_of(page)["pin"])
    press(page, "Escape")
    assert not page.locator("#profile").is_visible()


def test_outlines_of_labels_can_be_shown(page):
    before = canvas(page)
    press(page, "l")
    after = canvas(page)
    cyan = (after[..., 2] > 200) & (after[..., 0] < 120)
    assert cyan.sum() > 500
    assert ((before[..., 2] > 200) & (before[..., 0] < 120)).sum() < 50


def test_the_address_brings_back_the_same_view(page, browser):
    slide(page, "boost", 0.7)
    press(page, "f")
    press(page, "c")
    wheel(page, 400, 300)
    address, picture = page.evaluate("location.href"), canvas(page)
    again = browser.new_page(viewport={"width": 1280, "height": 800})
    again.goto(address)
    settle(again)
    assert again.evaluate("location.href") == address
    assert np.abs(canvas(again) - picture).mean() < 3
    again.close()


def test_the_saved_picture_is_the_export_pixel_for_pixel(page, root, tmp_path):
    press(page, "p")
    page.locator("#colours").select_option("grey")
    page.get_by_role("button", name="Cover").click()
    slide(page, "opacity", 1)
    name, found = download(page, "whole", "full")
    options = {"segment": "demo", "root": root, "name": "fine", "to": str(tmp_path / "map.png")}
    export.run(export.ExportConfig.load(options=options))
    wanted = cv2.imread(str(tmp_path / "map.png"), cv2.IMREAD_UNCHANGED)
    assert name == "demo-fine-y0-x0-640x1024.png"
    np.testing.assert_array_equal(found, wanted)


def test_a_marked_region_is_saved_at_full_size(page, root):
    press(page, "r")
    page.mouse.move(300, 300)
    page.mouse.down()
    page.mouse.move(520, 420, steps=5)
    page.mouse.up()
    settle(page)
    y0, x0, y1, x1 = (int(part) for part in state_of(page)["r"].split(","))
    name, found = download(page, "region", "full")
    assert found.shape == (y1 - y0, x1 - x0, 3)
    assert f"y{y0}-x{x0}" in name
    ratio = 220 / (x1 - x0)
    assert ratio == pytest.approx(
        float(state_of(page).get("z", page.evaluate("window.inkbatch.stages[0].scale"))), rel=0.03
    )


def test_the_view_stays_where_it_is_while_everything_is_hidden(page):
    wheel(page, 500, 300)
    before = page.evaluate("window.inkbatch.stages[0].look()")
    for key in ("p", "m"):
        page.keyboard.press(key)
    page.wait_for_timeout(300)
    press(page, "p")
    after = page.evaluate("window.inkbatch.stages[0].look()")
    for key, value in before.items():
        assert after[key] == pytest.approx(value, rel=0.001)


def test_every_key_of_the_help_panel_does_something_without_complaint(page):
    page.keyboard.press("?")
    assert page.locator("#help-dialog").is_visible()
    keys = page.locator("#keys kbd").all_text_contents()
    page.keyboard.press("Escape")
    assert len(keys) > 20
    for key in keys:
        page.keyboard.press({"Esc": "Escape"}.get(key, key))
        if page.locator("dialog[open]").count():
            page.keyboard.press("Escape")
    settle(page)


@pytest.mark.parametrize(("width", "height"), [(360, 740), (768, 1024)])
def test_a_phone_needs_no_sideways_scrolling(browser, url, width, height):
    page = browser.new_page(viewport={"width": width, "height": height}, has_touch=True, is_mobile=True)
    page.goto(url)
    settle(page)
    if width < 760:
        page.get_by_role("button", name="Controls").click()
        page.wait_for_timeout(400)
    assert page.locator("#opacity").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sticking_out = page.evaluate(
        "[...document.querySelectorAll('header *, #panel *')]"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.id || e.className || e.tagName)"
    )
    assert sticking_out == []
    page.close()
