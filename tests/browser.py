"""A real browser for the tests: Chromium, driven by Playwright, with a limit for every wait."""

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from playwright.sync_api import Browser, Error, Page, Playwright, expect, sync_playwright

from tests.waiting import DEADLINE

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Calls of Playwright that never return have been reported of machines without a GPU, with
# --disable-gpu as the remedy: https://github.com/microsoft/playwright/issues/4761. It can go when
# Chromium no longer starts a GPU process there. Playwright itself gives the browser a new profile,
# and switches off its first run, updates, background requests and synchronisation.
OPTIONS = ["--no-sandbox", "--disable-gpu"]
LAUNCH_TIMEOUT = 6 * DEADLINE  # seconds: a busy machine with two cores took 30
LIMIT = 9 * DEADLINE  # seconds for all that one test does with the browser; the longest takes 15
CLOSE_LIMIT = 2 * DEADLINE  # seconds to close the pages of a test


class Chromium:
    """A browser that is started, and after it had to be killed, started again."""

    def __init__(self, playwright: Playwright, path: str) -> None:
        self._playwright = playwright
        self._path = path
        self._browser: Browser | None = None
        self._pid = 0

    def get(self) -> Browser:
        if self._browser is None or not self._browser.is_connected():
            self._browser = self._playwright.chromium.launch(
                executable_path=self._path, args=OPTIONS, timeout=LAUNCH_TIMEOUT * 1000
            )
            self._pid = pid_of(self._browser)
        return self._browser

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)

    def close(self) -> None:
        if self._browser is not None:
            with limited(self, CLOSE_LIMIT), suppress(Error):
                self._browser.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up(f"No browser on PATH: none of {', '.join(BROWSERS)}.")
    expect.set_options(timeout=DEADLINE * 1000)
    # Module scope: as long as Playwright lives, its loop is the running one of this thread.
    with sync_playwright() as playwright:
        chromium = Chromium(playwright, path)
        try:
            yield chromium
        finally:
            chromium.close()


def pid_of(browser: Browser) -> int:
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    (pid,) = [process["id"] for process in processes if process["type"] == "browser"]
    return pid


@pytest.fixture
def browser(chromium: Chromium) -> Iterator[Browser]:
    """The browser of the module, for one test: it has LIMIT seconds, and its pages are closed."""
    browser = chromium.get()
    with limited(chromium, LIMIT):
        yield browser
    # Once in about 500 tests on a busy machine, Chromium 156 never answered the request to dispose
    # of a context (Target.disposeBrowserContext), as in
    # https://github.com/duckduckgo/tracker-radar-collector/pull/88. It is killed then, and the next
    # test starts another one.
    with limited(chromium, CLOSE_LIMIT), suppress(Error):
        for context in browser.contexts:
            for page in context.pages:  # it may be fetching, for a table that is kept fresh
                page.unroute_all(behavior="ignoreErrors")
            context.close()


def new_page(browser: Browser, **options: object) -> Page:
    """Open a page in a context of its own, with options of the browser."""
    context = browser.new_context(**options)
    context.set_default_timeout(DEADLINE * 1000)
    return context.new_page()


@contextmanager
def limited(chromium: Chromium, seconds: float) -> Iterator[None]:
    """Kill the browser after that time: then each call that waits for it raises.

    Many calls of Playwright have no timeout and no default for one: new_context, new_page,
    evaluate, count, all, close.
    """
    timer = threading.Timer(seconds, chromium.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
