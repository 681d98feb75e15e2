"""The scripts of docs/howto/live-counts.md and reconnect.md in a real browser."""

import json
from pathlib import Path

from playwright.sync_api import Browser, ConsoleMessage, Route

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


# In place of partysocket, whose settings are tested here, not its code.
SOCKET = """
export default class {
  constructor(url, protocols, options) {
    const reconnects = code => options.shouldReconnectOnClose({ code });
    const codes = [1000, 1006, 1008, 1012, 4401, 4403].filter(reconnects);
    console.log(JSON.stringify({ url, protocols, codes, ...options }));
  }
}
"""
IMPORTS = '{"imports": {"partysocket/ws": "/partysocket.js"}}'


def test_clients_of_the_library_reconnect_after_random_delays(browser: Browser) -> None:
    def serve(route: Route) -> None:
        is_script = route.request.url.endswith(".js")
        body = SOCKET if is_script else f"<script type=importmap>{IMPORTS}</script>"
        route.fulfill(body=body, content_type="text/javascript" if is_script else "text/html")

    found = []
    for _ in range(2):
        page = new_page(browser)
        page.route("**/*", serve)
        page.goto("https://example.com/")
        with page.expect_console_message(is_output) as message:
            page.add_script_tag(content=block("js", "partysocket"), type="module")
        found.append(json.loads(message.value.text))

    first, second = found
    for each in found:
        assert (each["url"], each["protocols"]) == ("wss://example.com/chat/lobby/", [])
        assert each["codes"] == [1000, 1006, 1012]  # 1000: attempts that fail
        assert 1000 <= each["minReconnectionDelay"] < 10_000
        assert 20_000 <= each["maxReconnectionDelay"] < 30_000
    assert first["minReconnectionDelay"] != second["minReconnectionDelay"]
