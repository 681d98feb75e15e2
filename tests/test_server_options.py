"""The options of Daphne's and uvicorn's command lines, and what they do for WebSockets."""

import re
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.raw import CLOSE, PING, TEXT, UPGRADE, Client, close_payload, frame, request
from tests.servers import COMMANDS, ROOT, Server
from tests.waiting import DEADLINE, SECOND, eventually

SITE = "tests.sites.transport:application"
# Daphne's command line has no option for it.
BUFFERED = """
import sys
from echo.server.daphne import Server

async def application(scope, receive, send):
    sizes = []
    while True:
        event = await receive()
        sizes.append(len(event["body"]))
        if not event["more_body"]:
            break
    body = str(sizes).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send(dict(type="http.response.start", status=200, headers=headers))
    await send(dict(type="http.response.body", body=body))

endpoint = "tcp:port=" + sys.argv[1] + ":interface=127.0.0.1"
Server(application, [endpoint], request_buffer_size=10).run()
"""
DOCS = ROOT / "docs" / "options.md"


def options_of(module: str) -> set[str]:
    shown = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True)
    return set(re.findall(r"^ +(?:-\w(?: \w+)?, )?(--[a-z0-9_-]+)", shown.stdout, re.MULTILINE))


@pytest.mark.parametrize(("module", "title"), [("daphne", "Daphne"), ("uvicorn", "uvicorn")])
def test_docs_name_every_option(module: str, title: str) -> None:
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", DOCS.read_text(), re.M | re.S)
    named = {
        option
        for line in section.splitlines()
        if line.startswith("|")
        for option in re.findall(r"`(--[a-z0-9_-]+)", line.split("|")[1])
    }

    assert named == options_of(module) - {"--help", "--version"}


def opened(server: Server, app: str = "loop") -> Client:
    client = Client(server.port)
    answer = client.ask(f"/{app}/foo/websocket", UPGRADE)
    assert answer.status_line.startswith("HTTP/1.1 101"), answer
    return client


def ended_after(server: Server, log: str) -> float:
    """Close, and return after how many seconds the log has that."""
    with opened(server, "deaf") as client:
        client.send(frame(CLOSE, close_payload(1000)))
        client.closing()
    start = time.monotonic()
    eventually(lambda: log in server.log(), True)
    return time.monotonic() - start


def test_daphne_application_close_timeout() -> None:
    with Server("daphne", SITE, ("--application-close-timeout", "1")) as server:
        assert ended_after(server, "did not end, and is cancelled") < 5 * SECOND


@pytest.mark.parametrize(("timeout", "longest"), [("1", 3), ("6", 9)])
def test_uvicorn_timeout_graceful_shutdown(timeout: str, longest: float) -> None:
    with Server("uvicorn", SITE, ("--timeout-graceful-shutdown", timeout)) as server:
        with opened(server, "deaf") as client:
            start = time.monotonic()
            server.process.terminate()
            assert client.closing()[0] == 1012
            client.send(frame(CLOSE, close_payload(1012)))
            server.process.wait(2 * DEADLINE)
        seconds = time.monotonic() - start

    assert float(timeout) - 0.5 < seconds < longest * SECOND


def too_long(client: Client) -> bool:
    client.send(frame(TEXT, b"x" * 101))
    return client.closing()[0] == 1009


def too_old(client: Client) -> bool:
    return client.closing()[0] == 1000


def pinged(client: Client) -> bool:
    return client.frame() == (PING, b"")


def not_pinged(client: Client) -> bool:
    client.socket.settimeout(4)
    with pytest.raises(TimeoutError):
        client.frame()
    return True


OPTIONS: list[tuple[str, tuple[str, ...], Callable[[Client], bool]]] = [
    ("daphne", ("--websocket-max-message-size", "100"), too_long),
    ("daphne", ("--websocket-max-frame-size", "100"), too_long),
    ("daphne", ("--websocket_timeout", "1"), too_old),
    ("daphne", ("--ping-interval", "1"), pinged),
    ("daphne", ("--ping-interval", "0"), not_pinged),
    ("uvicorn", ("--ws-max-size", "100"), too_long),
    ("uvicorn", ("--ws-ping-interval", "1"), pinged),
    ("uvicorn", ("--ws-ping-interval", "0"), not_pinged),
    ("uvicorn", ("--reset-contextvars", "--ws-ping-interval", "1"), pinged),
]


@pytest.mark.parametrize(("kind", "options", "holds"), OPTIONS)
def test_option(kind: str, options: tuple[str, ...], holds: Callable[[Client], bool]) -> None:
    with Server(kind, SITE, options) as server, opened(server) as client:
        assert holds(client)


def test_daphne_websocket_connect_timeout() -> None:
    with (
        Server("daphne", SITE, ("--websocket_connect_timeout", "1")) as server,
        Client(server.port) as client,
    ):
        answer = client.ask("/silent/foo/websocket", UPGRADE)
        assert answer.status_line == "HTTP/1.1 503 Service Unavailable"


@pytest.mark.parametrize(
    ("kind", "options", "headers"),
    [
        ("daphne", (), {"Server": "daphne"}),
        ("daphne", ("--server-name", "mine"), {"Server": "mine"}),
        ("daphne", ("--no-server-name",), {"Server": None}),
        ("uvicorn", ("--header", "X-Mine:1"), {"Server": "uvicorn", "X-Mine": "1"}),
        ("uvicorn", ("--no-server-header", "--no-date-header"), {"Server": None, "Date": None}),
    ],
)
def test_default_headers_are_on_each_response(kind: str, options: tuple[str, ...], headers) -> None:
    with Server(kind, SITE, options) as server:
        for path in ("/loop/foo/websocket", "/denies/foo/websocket", "/nowhere/websocket"):
            with Client(server.port) as client:
                answer = client.ask(path, UPGRADE)
                assert {name: answer.header(name) for name in headers} == headers
                if kind == "uvicorn" and "Date" not in headers:
                    assert answer.header("Date")


def test_uvicorns_log_has_a_status() -> None:
    with Server("uvicorn", SITE) as server:
        for app in ("denies", "refuses", "raises"):
            with Client(server.port) as client:
                client.ask(f"/{app}/foo/websocket", UPGRADE)
                client.at_end()

        for app, status in (("denies", 401), ("refuses", 403), ("raises", 500)):
            line = f'"WebSocket /{app}/foo/websocket" {status}'
            eventually(lambda line=line: server.log().count(line), 1)
        assert "[rejected]" not in server.log()


@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
def test_application_that_returns_without_accepting_is_logged(kind: str) -> None:
    with Server(kind, SITE) as server, Client(server.port) as client:
        answer = client.ask("/returns/foo/websocket", UPGRADE)
        assert answer.status_line == "HTTP/1.1 500 Internal Server Error"

        line = "The application of '/returns/foo/websocket' returned unaccepted"
        eventually(lambda: server.log().count(line), 1)


def test_uvicorns_log_level_trace_tells_begin_and_end() -> None:
    with Server("uvicorn", SITE, ("--log-level", "trace")) as server:
        with opened(server) as client:
            port = client.socket.getsockname()[1]

        for what in ("made", "lost"):
            line = f"127.0.0.1:{port} - WebSocket connection {what}"
            eventually(lambda line=line: server.log().count(line), 1)


def test_daphnes_request_buffer_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "buffered", ["-c", BUFFERED, "{port}"])
    with Server("buffered") as server, Client(server.port) as client:
        client.send(request("/", {"Content-Length": "25"}, method="POST") + 25 * b"x")
        assert client.answer().body == b"[10, 10, 5]"
