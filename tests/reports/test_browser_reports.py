"""Every report page as a person opens it: a headless Chromium, wide and on a phone, light and dark, printed."""

from __future__ import annotations

import pytest

from inkbatch.run.record import report_place
from inkbatch.testing.browser import chromium
from inkbatch.testing.reports import MAKERS

pytestmark = pytest.mark.browser

WIDE, PHONE = (1280, 800), (390, 844)
CONTRAST = 4.5  # of text, WCAG 2.2 AA

# Smallest contrast of any text that is seen, between its colour and the nearest ground behind it.
LOWEST_CONTRAST = """() => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => [r, g, b].map(v => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = element => { for (let e = element; e; e = e.parentElement) {
    const c = parts(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] === 1) return c }
    return [255, 255, 255] };
  let lowest = [99, ''];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode, e = text.parentElement;
    if (!text.data.trim() || !e.getClientRects().length || e.closest('.scale')) continue;
    const style = getComputedStyle(e), ink = e.closest('svg') ? style.fill : style.color;
    const [a, b] = [light(parts(ink)), light(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < lowest[0]) lowest = [ratio, text.data.trim()];
  }
  return lowest }"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module", params=sorted(MAKERS))
def report(request, tmp_path_factory):
    return report_place(MAKERS[request.param](tmp_path_factory.mktemp(request.param)), request.param)


@pytest.fixture
def opened(browser, report):
    """Opens the page; whatever goes wrong in its console, or any request beside it, fails the test."""
    faults, contexts = [], []

    def open_page(size, scheme):
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda asked: asked.url.startswith(("data:", "file:")) or faults.append(asked.url))
        page.goto(f"file://{report}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_it_opens_without_a_fault_and_nothing_scrolls_sideways(opened, size, scheme):
    page = opened(size, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.evaluate("[...document.images].every(picture => picture.complete && picture.naturalWidth > 0)")
    assert page.evaluate("document.images.length + document.querySelectorAll('svg').length") > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(opened, scheme):
    page = opened(WIDE, scheme)
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    ratio, text = page.evaluate(LOWEST_CONTRAST)
    assert ratio >= CONTRAST, text


def test_the_two_schemes_differ_and_the_picture_comes_first(opened):
    grounds = [
        opened(WIDE, scheme).evaluate("getComputedStyle(document.body).backgroundColor") for scheme in ("light", "dark")
    ]
    assert grounds[0] != grounds[1]
    page = opened(WIDE, "light")
    top = page.evaluate("document.querySelector('.hero figure').getBoundingClientRect().top + scrollY")
    later = page.evaluate(
        "[...document.querySelectorAll('.figures, table, pre')].map(e => e.getBoundingClientRect().top + scrollY)"
    )
    assert all(top < place for place in later)


def test_it_prints_on_white_with_all_its_words(opened):
    page = opened(WIDE, "dark")
    page.emulate_media(media="print", color_scheme="light")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert len(page.pdf(format="A4", print_background=True)) > 10_000
