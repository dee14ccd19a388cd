"""Pages with and without the token of a server, in a headless Chromium. Run by make test-browser."""

import pytest

from inkbatch.geometry import Box
from inkbatch.reports.viewer_links import viewer_link
from inkbatch.testing.browser import settle, viewer_of, wait_until
from inkbatch.testing.editor import Desk, segment_to_paint, stored_marks

pytestmark = pytest.mark.browser


@pytest.fixture
def root(tmp_path):
    return segment_to_paint(tmp_path / "root")


def test_without_its_token_the_page_shows_and_says_how_to_paint(browser, root):
    with viewer_of(["seg"], str(root), edit=True) as url:
        page = browser.new_page()
        page.goto(url.split("#")[0])
        settle(page)
        wait_until(page, "!document.getElementById('message').hidden")
        assert "open the address" in page.locator("#message").text_content()
        assert not page.locator("#tools").is_visible()
        page.close()


def test_a_page_that_a_link_opened_paints_with_the_token_of_another_tab(browser, root, tmp_path):
    with viewer_of(["seg"], str(root), edit=True) as url:
        desk = Desk(browser, url)
        report = tmp_path / "report.html"
        report.write_text(f'<a href="{viewer_link("seg", Box(200, 300, 264, 364), "net")}" target="_blank">look</a>')
        page = desk.context.new_page()
        page.goto(f"file://{report}")
        page.evaluate("at => { document.links[0].href = at + document.links[0].hash }", url.split("#")[0])
        with desk.context.expect_page() as opened:
            page.click("a")
        linked = opened.value
        wait_until(linked, "document.querySelector('#tools:not([hidden])')")
        settle(linked)
        assert linked.evaluate("window.inkbatch.store.state.region") == [200, 300, 264, 364]
        linked.mouse.click(640, 420)
        settle(linked)
        assert linked.locator("#saved").text_content() == "Saved"
        desk.context.close()
        assert desk.faults == []
    assert stored_marks(root, "ink_labels").sum() > 100


def test_a_page_without_a_token_begins_to_paint_when_the_printed_address_is_opened(browser, root):
    context = browser.new_context()
    with viewer_of(["seg"], str(root), edit=True) as url:
        page = context.new_page()
        page.goto(url.split("#")[0])
        settle(page)
        assert not page.locator("#tools").is_visible()
        context.new_page().goto(url)
        wait_until(page, "document.querySelector('#tools:not([hidden])')")
        context.close()


def test_a_tab_of_a_server_that_ended_lends_its_token_to_nobody(browser, root):
    with viewer_of(["seg"], str(root), edit=True) as url:
        desk = Desk(browser, url)
    port = int(url.split(":")[2].split("/")[0])
    with viewer_of(["seg"], str(root), edit=True, port=port) as url:
        page = desk.context.new_page()
        page.goto(url.split("#")[0])
        wait_until(page, "!document.getElementById('message').hidden")
        assert "open the address" in page.locator("#message").text_content()
        assert not page.locator("#tools").is_visible()
        desk.context.close()
