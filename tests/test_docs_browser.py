"""The script of docs/howto/live-counts.md in a real browser, which has a running event loop."""

from pathlib import Path

from playwright.sync_api import Browser, ConsoleMessage

from tests.browser import new_page
from tests.raw import Client
from tests.readme import block, make_site
from tests.servers import ROOT, Server


def is_output(message: ConsoleMessage) -> bool:
    return message.type == "log"  # the browser itself logs an error if the site has no icon


def test_script_reads_the_live_count(browser: Browser, tmp_path: Path) -> None:
    make_site(tmp_path)
    environment = {"PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "mysite.settings"}

    with Server("daphne", "mysite.asgi:application", folder=tmp_path, **environment) as server:
        page = new_page(browser)
        page.goto(f"http://127.0.0.1:{server.port}/connections/")
        with page.expect_console_message(is_output) as first:
            page.add_script_tag(content=block("js", "EventSource"))
        with page.expect_console_message(is_output) as second:
            client = Client.opened(server.port, path="/chat/lobby/")
        client.reset()

    assert (first.value.text, second.value.text) == ("0", "1")
