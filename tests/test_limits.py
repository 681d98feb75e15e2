"""The limits of tests and of waits for a browser, tried on tests that hang."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Error

from tests.browser import Chromium, limited, new_page
from tests.servers import ROOT, Server
from tests.waiting import DEADLINE

BAD = """
import asyncio, gc, socket, threading
import pytest
from tests.raw import Client

limited = pytest.mark.timeout(1)


@limited
def test_sync():
    threading.Event().wait()


async def wait_for_nothing():
    await asyncio.Event().wait()


@limited
async def test_async():
    await wait_for_nothing()


@pytest.fixture
def endless():
    yield
    threading.Event().wait()


@limited
def test_teardown(endless):
    assert False


kept = []


def test_leaky():
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept.append(Client(server.getsockname()[1]))  # as a traceback keeps it
        assert not kept


def test_later():
    kept.clear()
    gc.collect()
"""


def run(folder: Path, code: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(code)
    config = ["-c", "pyproject.toml", "-n", "0", "-p", "tests.conftest", "-p", "no:randomly"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *config, *options, folder / "test_it.py"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        timeout=6 * DEADLINE,
        check=False,
    )


def test_test_that_hangs_shows_its_stacks_and_spoils_no_other(tmp_path: Path) -> None:
    done = run(tmp_path, BAD, "-k", "not teardown")

    assert "3 failed, 1 passed, 1 deselected" in done.stdout, done.stdout + done.stderr
    for test in ("test_sync", "test_async"):
        assert f"{test} - Failed: Timeout (>1.0s)" in done.stdout
    assert ">       threading.Event().wait()" in done.stdout
    assert "in wait_for_nothing" in done.stdout


def test_teardown_that_hangs_after_a_failure_ends_the_process(tmp_path: Path) -> None:
    done = run(tmp_path, BAD, "-k", "teardown")

    assert done.returncode == 1
    assert "in endless" in done.stderr, done.stdout + done.stderr


def test_server_that_does_not_start_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Server] = []

    def fail(server: Server) -> None:
        started.append(server)
        raise OSError

    monkeypatch.setattr(Server, "_wait_until_it_listens", fail)
    with pytest.raises(OSError):
        Server("daphne")

    assert started[0].process.returncode is not None
    assert started[0].log_file.closed


def test_wait_for_a_browser_ends_at_its_limit(chromium: Chromium) -> None:
    browser = chromium.get()
    page = new_page(browser)

    with limited(chromium, seconds=1), pytest.raises(Error, match="closed"):
        page.evaluate("new Promise(() => {})")

    assert not browser.is_connected()
    assert chromium.get().is_connected()  # another one, for the tests that follow
