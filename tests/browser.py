"""A real browser for the tests: Chromium, driven by Playwright, with a limit for every wait."""

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.waiting import DEADLINE

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Calls of Playwright that never return have been reported of machines without a GPU, with
# --disable-gpu as the remedy: https://github.com/microsoft/playwright/issues/4761. It can go when
# Chromium no longer starts a GPU process there. Playwright itself gives the browser a new profile,
# and switches off its first run, updates, background requests and synchronisation.
OPTIONS = ["--no-sandbox", "--disable-gpu"]
LAUNCH_TIMEOUT = 6 * DEADLINE  # seconds: a busy machine with two cores took 30
LIMIT = 9 * DEADLINE  # seconds for all that one test does with the browser; the longest takes 15


class Chromium(NamedTuple):
    browser: Browser
    pid: int


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up(f"No browser on PATH: none of {', '.join(BROWSERS)}.")
    expect.set_options(timeout=DEADLINE * 1000)
    # Module scope: as long as Playwright lives, its loop is the running one of this thread.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=OPTIONS, timeout=LAUNCH_TIMEOUT * 1000
        )
        chromium = Chromium(browser, pid_of(browser))
        try:
            yield chromium
        finally:
            with limited(chromium):
                browser.close()


def pid_of(browser: Browser) -> int:
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    (pid,) = [process["id"] for process in processes if process["type"] == "browser"]
    return pid


@pytest.fixture
def browser(chromium: Chromium) -> Iterator[Browser]:
    """The browser of the module, for one test: it has LIMIT seconds, and its pages are closed."""
    with limited(chromium):
        try:
            yield chromium.browser
        finally:
            for context in chromium.browser.contexts:
                for page in context.pages:  # it may be fetching, for a table that is kept fresh
                    page.unroute_all(behavior="ignoreErrors")
                context.close()


def new_page(browser: Browser, **options: object) -> Page:
    """Open a page in a context of its own, with options of the browser."""
    context = browser.new_context(**options)
    context.set_default_timeout(DEADLINE * 1000)
    return context.new_page()


@contextmanager
def limited(chromium: Chromium, seconds: float = LIMIT) -> Iterator[None]:
    """Kill the browser after that time: then each call that waits for it raises.

    Many calls of Playwright have no timeout and no default for one: new_context, new_page,
    evaluate, count, all, close.
    """
    timer = threading.Timer(seconds, kill, (chromium.pid,))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
