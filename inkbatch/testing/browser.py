"""A headless Chromium of the machine (Debian package ``chromium``), driven by Playwright, for tests and screenshots."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs

from inkbatch.view.edit import Editor
from inkbatch.view.scene import Scene
from inkbatch.view.server import ViewServer
from inkbatch.view.viewer import Viewer

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_S = 60.0


def find_chromium() -> str:
    """Find the browser: the environment's ``CHROMIUM``, or the first known name on the search path.

    Raises:
        FileNotFoundError: There is none; says how to get one.
    """
    named = os.environ.get("CHROMIUM")
    found = named or next((path for path in map(shutil.which, NAMES) if path), None)
    if found is None:
        raise FileNotFoundError("no Chromium on this machine; apt-get install chromium, or set CHROMIUM to its path")
    return found


@contextmanager
def chromium() -> Iterator[Any]:
    """Start a browser (`playwright.sync_api.Browser`)."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox"] if os.geteuid() == 0 else []  # as root Chromium has no sandbox; it opens our pages alone
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=flags)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def viewer_of(
    targets: Sequence[str], root: str, *, edit: bool = False, port: int = 0, version: str | None = None
) -> Iterator[str]:
    """Run a viewer, or with `edit` the label editor on a version, or the newest one; yields its address."""
    viewer = Viewer(Scene(targets, root), can_edit=edit)
    editor = Editor(viewer, root, "ada", version) if edit else None
    try:
        with ViewServer(viewer, port=port, editor=editor) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            try:
                yield server.url
            finally:
                server.shutdown()
                thread.join()
    finally:
        if editor is not None:
            editor.close()


def wait_until(page: Any, expression: str) -> None:
    """Wait until a JavaScript expression is true; the page's own rules forbid Playwright's way, which evaluates text.

    Raises:
        TimeoutError: It did not come true.
    """
    end = time.monotonic() + PATIENCE_S
    while not page.evaluate(f"Boolean({expression})"):
        if time.monotonic() > end:
            raise TimeoutError(f"{page.url}: {expression} did not come true within {PATIENCE_S:g} s")
        page.wait_for_timeout(50)


def settle(page: Any) -> None:
    """Wait until the viewer shows all its tiles and stands still."""
    for _ in range(3):  # a picture that is whole may move again in the next frame
        wait_until(page, "window.inkbatch && window.inkbatch.settled()")
        page.wait_for_timeout(100)


@contextmanager
def faultless_page(browser: Any, url: str) -> Iterator[Any]:
    """Open a page and wait until it stands still.

    Raises:
        AssertionError: In the end, where anything went wrong in its console or an answer was an error.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    page, faults = context.new_page(), []
    page.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("response", lambda answer: faults.append(answer.url) if answer.status >= 400 else None)
    page.goto(url)
    settle(page)
    yield page
    context.close()
    assert faults == []


def state_of(page: Any) -> dict[str, str]:
    """Read the state that the viewer keeps in its address."""
    return {key: values[0] for key, values in parse_qs(page.evaluate("location.hash.slice(1)")).items()}
