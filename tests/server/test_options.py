"""The options of Daphne's and uvicorn's command lines for WebSockets."""

import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.raw import CLOSE, PING, TEXT, UPGRADE, Client, close_payload, frame, listens, request
from tests.servers import COMMANDS, ROOT, Server
from tests.waiting import DEADLINE, SECOND, eventually

SITE = "tests.sites.transport:application"
# Daphne's command line has no option for it.
BUFFERED = """
import sys
from echo.server.daphne.server import Server

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
DOCS = ROOT / "docs" / "reference" / "servers.md"


def options_of(module: str) -> set[str]:
    shown = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True)
    return set(re.findall(r"^ +(?:-\w(?: \w+)?, )?(--[a-z0-9_-]+)", shown.stdout, re.MULTILINE))


@pytest.mark.parametrize(("module", "title"), [("echo.server", "Daphne"), ("uvicorn", "uvicorn")])
def test_docs_name_every_option(module: str, title: str) -> None:
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", DOCS.read_text(), re.M | re.S)
    named = {
        option
        for line in section.splitlines()
        if line.startswith("|")
        for option in re.findall(r"`(--[a-z0-9_-]+)", line.split("|")[1])
    }

    assert named == options_of(module) - {"--help", "--version"}


# Options of the process alone: how it starts, listens, reloads and logs.
OF_THE_PROCESS = {
    *(
        "--app-dir",
        "--env-file",
        "--factory",
        "--http2",
        "--log-config",
        "--timeout-worker-healthcheck",
    ),
    *("--reload", "--reload-delay", "--reload-dir", "--reload-exclude", "--reload-include"),
}


@pytest.mark.parametrize("module", ["echo.server", "uvicorn"])
def test_every_option_that_reaches_connections_is_tested(module: str) -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("**/*.py"))

    untested = {option for option in options_of(module) if not re.search(f'"{option}[" ]', tests)}

    assert untested <= OF_THE_PROCESS


def opened(server: Server, app: str = "loop") -> Client:
    client = Client(server.port)
    answer = client.ask(f"/{app}/foo/websocket", UPGRADE)
    assert answer.status_line.startswith("HTTP/1.1 101"), answer
    return client


def ended_after(server: Server, log: str) -> float:
    """Close a connection; return the seconds until the text is in the log."""
    with opened(server, "deaf") as client:
        client.send(frame(CLOSE, close_payload(1000)))
        client.closing()
    start = time.monotonic()
    eventually(lambda: log in server.log(), True)
    return time.monotonic() - start


def test_daphne_application_close_timeout() -> None:
    with Server("daphne", SITE, ("--application-close-timeout", "1")) as server:
        assert ended_after(server, "did not finish in time: cancelled") < 5 * SECOND


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


def echoes(client: Client) -> bool:
    for _ in range(10):
        client.send_text("hello")
    return [client.text() for _ in range(10)] == ["hello"] * 10


def outlives(client: Client) -> bool:
    """Return whether the connection outlives a time limit of one second for requests."""
    time.sleep(2)
    return echoes(client)


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
    ("daphne", ("--http-timeout", "1"), outlives),
    ("daphne", ("--verbosity", "2", "--log-fmt", "%(message)s"), echoes),
    ("uvicorn", ("--timeout-keep-alive", "1"), outlives),
    ("uvicorn", ("--ws-max-queue", "1", "--ws-per-message-deflate", "true"), echoes),
    ("uvicorn", ("--limit-max-requests", "1", "--limit-max-requests-jitter", "1"), echoes),
    ("uvicorn", ("--limit-concurrency", "1"), echoes),
    (
        "uvicorn",
        (
            *("--host", "127.0.0.1", "--backlog", "10", "--access-log", "--use-colors"),
            *("--lifespan", "off", "--interface", "asgi3", "--log-level", "debug"),
            *("--server-header", "--date-header"),
        ),
        echoes,
    ),
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


def test_uvicorns_log_has_the_status() -> None:
    with Server("uvicorn", SITE) as server:
        for app in ("denies", "rejects", "raises"):
            with Client(server.port) as client:
                client.ask(f"/{app}/foo/websocket", UPGRADE)
                client.at_end()

        for app, status in (("denies", 401), ("rejects", 403), ("raises", 500)):
            line = f'"WebSocket /{app}/foo/websocket" {status}'
            eventually(lambda line=line: server.log().count(line), 1)
        assert "[rejected]" not in server.log()


def test_daphne_access_log(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with Server("daphne", SITE, ("--access-log", str(log))) as server, opened(server):
        eventually(lambda: "WSCONNECT /loop/foo/websocket" in log.read_text(), True)


@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
def test_application_that_returns_without_accepting_is_logged(kind: str) -> None:
    with Server(kind, SITE) as server, Client(server.port) as client:
        answer = client.ask("/returns/foo/websocket", UPGRADE)
        assert answer.status_line == "HTTP/1.1 500 Internal Server Error"

        line = "Application of '/returns/foo/websocket' returned without accepting"
        eventually(lambda: server.log().count(line), 1)


def test_uvicorn_h11_max_incomplete_event_size() -> None:
    options = ("--http", "h11", "--h11-max-incomplete-event-size", "1000")
    with Server("uvicorn", SITE, options) as server, Client(server.port) as client:
        # The option limits the bytes of an incomplete request.
        client.send(request("/loop/foo/websocket", {**UPGRADE, "X-Long": "x" * 2000})[:1500])
        answer = client.answer()

        assert answer.status_line.startswith("HTTP/1.1 4")


def test_uvicorn_proxy_headers() -> None:
    options = ("--proxy-headers", "--forwarded-allow-ips", "127.0.0.1")
    with Server("uvicorn", SITE, options) as server:
        with Client(server.port) as client:
            client.ask("/denies/foo/websocket", {**UPGRADE, "X-Forwarded-For": "192.0.2.7"})

        eventually(lambda: "192.0.2.7" in server.log(), True)


def test_daphne_proxy_headers_host_and_port() -> None:
    options = (
        "--proxy-headers",
        "--proxy-headers-host",
        "X-Host",
        "--proxy-headers-port",
        "X-Port",
    )
    with Server("daphne", SITE, options) as server:
        with Client(server.port) as client:
            headers = {**UPGRADE, "X-Host": "192.0.2.7", "X-Port": "1234"}
            client.ask("/denies/foo/websocket", headers)

        eventually(lambda: "192.0.2.7:1234" in server.log(), True)


def echo_of(client: Client) -> str:
    client.send(request("/foo/websocket", UPGRADE))
    assert client.answer().status_line.startswith("HTTP/1.1 101")
    client.send_text("hello")
    return client.text()


@pytest.mark.parametrize("kind", ["uvicorn", "uvicorn-http"])
def test_uvicorn_uds(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    command = [*COMMANDS[kind][:-3], "--uds", str(path), SITE]  # in place of the port
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: listens(socket.AF_UNIX, str(path)), True)
        with Client.connected(socket.AF_UNIX, str(path)) as client:
            assert echo_of(client) == "[Durable Object]: hello"
    finally:
        process.terminate()
        process.wait(2 * DEADLINE)


@pytest.mark.parametrize("kind", ["uvicorn", "uvicorn-http"])
def test_uvicorn_ssl(kind: str, certificate: tuple[Path, Path]) -> None:
    options = {
        "--ssl-certfile": str(certificate[0]),
        "--ssl-keyfile": str(certificate[1]),
        "--ssl-keyfile-password": "unused",
        "--ssl-ca-certs": str(certificate[0]),
        "--ssl-cert-reqs": str(ssl.CERT_NONE.value),
        "--ssl-version": str(ssl.PROTOCOL_TLS_SERVER.value),
        "--ssl-ciphers": "TLSv1.2",
    }
    words = tuple(word for option in options.items() for word in option)
    context = ssl.create_default_context(cafile=str(certificate[0]))
    with Server(kind, SITE, words) as server, Client(server.port) as client:
        client.socket = context.wrap_socket(client.socket, server_hostname="localhost")
        assert echo_of(client) == "[Durable Object]: hello"


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
