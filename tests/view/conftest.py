"""A browser for the tests of a module, and a page of the module's viewer."""

import pytest

from inkbatch.testing.browser import chromium, faultless_page


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture
def page(browser, url):
    """A page that opened the module's `url`; whatever goes wrong in its console fails the test."""
    with faultless_page(browser, url) as found:
        yield found
