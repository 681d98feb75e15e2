"""Plain handshakes, which Daphne's front door reads, and all else, which it gives to Twisted."""

import json
import os
import re
import resource
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from echo.server import handshake
from tests.hostile import HOSTILE, handshake_with
from tests.raw import CLOSE, TEXT, UPGRADE, Client, close_payload, frame, listens, request
from tests.servers import Server, free_port
from tests.waiting import DEADLINE, SECOND, eventually

SITE = "tests.sites.transport:application"
KINDS = ["daphne", "daphne-twisted"]
QUIET = 0.5 * SECOND  # after which no more is expected of a server


class Listening(NamedTuple):
    """A server, and its addresses beside its port."""

    server: Server
    ipv6: tuple[str, int]
    unix: str


@contextmanager
def listening(kind: str, folder: Path) -> Iterator[Listening]:
    ipv6, unix = ("::1", free_port()), str(folder / kind)
    options = (
        *("--endpoint", f"tcp6:{ipv6[1]}:interface=\\:\\:1", "--unix-socket", unix),
        *("--proxy-headers", "--root-path", "/below", "--application-close-timeout", "1"),
    )
    with Server(kind, SITE, options) as server:
        eventually(lambda: listens(socket.AF_INET6, ipv6), True)
        eventually(lambda: listens(socket.AF_UNIX, unix), True)
        yield Listening(server, ipv6, unix)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Listening]]:
    folder = tmp_path_factory.mktemp("sockets")
    with ExitStack() as stack:
        yield {kind: stack.enter_context(listening(kind, folder)) for kind in KINDS}


@pytest.fixture(params=KINDS)
def of_kind(request: pytest.FixtureRequest, servers: dict[str, Listening]) -> Listening:
    return servers[request.param]


# Which requests are plain handshakes

PLAIN = handshake_with(b"")


def test_plain_handshake_is_parsed() -> None:
    data = b"GET /a%20b?c=?d HTTP/1.1\r\nHOST:h\r\nUpgrade: \t WebSocket \r\nX: y\t z \r\n\r\n"

    found = handshake.parse(data + b"early")

    headers = [(b"host", b"h"), (b"upgrade", b"WebSocket"), (b"x", b"y\t z")]
    assert found == (b"/a%20b?c=?d", headers, len(data))


def test_part_of_a_handshake_is_not_plain() -> None:
    assert handshake.parse(PLAIN) is not None
    assert [size for size in range(len(PLAIN)) if handshake.parse(PLAIN[:size])] == []


LINES = [
    *(b"Upgrade: websocket", b"upgrade: h2c", b"Host: 127.0.0.1", b"HOST: 127.0.0.1"),
    *(b"Content-Length: 0", b"Transfer-Encoding: chunked", b"Expect: 100-continue"),
    *(b"Daphne-Root-Path: /a", b"X_Y: z", b"X Y: z", b"X : y", b" X: y", b": y", b"X", b"X\xff: y"),
    *(b"X: \0", b"X: \x7f", b"X: \x80", b"X: y\n", b"X: y\r", b"X: y\r\n z", b"X: y\r\nX: z"),
    b"\r\n".join(b"X-%d: y" % number for number in range(100)),
    b"X: " + b"y" * handshake.MAX_PLAIN_SIZE,
]


@pytest.mark.parametrize("lines", LINES, ids=lambda lines: repr(lines[:30]))
def test_unusual_header_is_not_plain(lines: bytes) -> None:
    assert handshake.parse(handshake_with(b"X-One: 1\r\n")) is not None
    assert handshake.parse(handshake_with(lines + b"\r\n")) is None


START_LINES = [
    *(b"get / HTTP/1.1", b"HEAD / HTTP/1.1", b"GET / HTTP/1.0", b"GET / HTTP/1.1 ", b"GET /"),
    *(b"GET  / HTTP/1.1", b"GET * HTTP/1.1", b"GET http://h/ HTTP/1.1", b"GET /a b HTTP/1.1"),
    *(b"GET /\x7f HTTP/1.1", b"GET /\xe9 HTTP/1.1", b"\r\nGET / HTTP/1.1", b"GET / HTTP/1.1\n"),
]


@pytest.mark.parametrize("line", START_LINES, ids=repr)
def test_unusual_request_line_is_not_plain(line: bytes) -> None:
    rest = PLAIN.partition(b"\r\n")[2]

    assert handshake.parse(b"GET / HTTP/1.1\r\n" + rest) is not None
    assert handshake.parse(line + b"\r\n" + rest) is None


# The same on the wire


def to(path: str, lines: bytes = b"") -> bytes:
    return handshake_with(lines, path.encode())


CLOSING = frame(CLOSE, close_payload(4000, "bye"))
SCOPE = b"GET /scope HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
DENIED = ["denies", "rejects", "raises", "returns", "status-700", "injects-denial"]
LONG = ("many headers", "a huge header", "a huge path", "noise")  # the connection is reset
SENT: dict[str, bytes] = {
    **{name: data for name, data in HOSTILE.items() if name not in LONG},
    **{name: to(f"/{name}/foo/websocket") + SCOPE for name in DENIED},
    "denied and closed": to("/denies/foo/websocket", b"Connection: close\r\n") + SCOPE,
    "denied twice": to("/denies/foo/websocket") * 2 + SCOPE,
    "denied, then accepted": to("/denies/foo/websocket") + to("/accepts/foo/websocket"),
    "accepted": to("/accepts/foo/websocket", b"Sec-WebSocket-Protocol: a, b\r\n"),
    "unknown path": to("/none/of/these") + SCOPE,
    "no version": PLAIN.replace(b"Sec-WebSocket-Version: 13\r\n", b"") + SCOPE,
    "no key": PLAIN.replace(b"Sec-WebSocket-Key", b"Sec-WebSocket-Kay") + SCOPE,
    "another method": PLAIN.replace(b"GET", b"PUT") + SCOPE,
    "without a body": PLAIN.replace(b"GET", b"HEAD") + SCOPE,
    "lower case": to("/loop/foo/websocket")
    .lower()
    .replace(b"get", b"GET")
    .replace(b"http", b"HTTP"),
    "tabs": to("/loop/foo/websocket", b"X:\t\ty\t\r\nX-Y:\r\n") + CLOSING,
    "an early text": to("/loop/foo/websocket") + frame(TEXT, b"early", mask=b"abcd") + CLOSING,
    "many early texts": to("/loop/foo/websocket") + frame(TEXT, b"x" * 999) * 50 + CLOSING,
    "two requests for a count": SCOPE * 2,
    "an empty line first": b"\r\n" + PLAIN + CLOSING,
    "two slashes": to("//loop/foo/websocket"),
    "a query": to("/loop/foo/websocket?a=/b?c=%20#d") + CLOSING,
    "an origin": to("/loop/foo/websocket", b"Origin: http://127.0.0.1\r\n") + CLOSING,
    "another origin": to("/loop/foo/websocket", b"Origin: http://example.com\r\n") + SCOPE,
}


class Exchange:
    """The connections of one server on which all of SENT is sent, and what has come back."""

    def __init__(self, server: Server) -> None:
        self.clients = {name: Client(server.port) for name in SENT}
        self.ended: set[str] = set()
        for name, client in self.clients.items():
            client.send(SENT[name])

    def received(self) -> dict[str, tuple[bytes, bool]]:
        """Return all bytes received, and whether the connection has ended, by name."""
        while sockets := {
            client.socket: name for name, client in self.clients.items() if name not in self.ended
        }:
            ready, _, _ = select.select(sockets, [], [], QUIET)
            for each in ready:
                if data := each.recv(1 << 16):
                    self.clients[sockets[each]].buffer += data
                else:
                    self.ended.add(sockets[each])
            if not ready:
                break
        return {name: (client.buffer, name in self.ended) for name, client in self.clients.items()}

    def close(self) -> None:
        for client in self.clients.values():
            client.socket.close()


def access_log(log: str) -> list[str]:
    """Return the lines without ports and times."""
    lines = [line for line in log.splitlines() if " - - [" in line and "/open" not in line]
    return sorted(re.sub(r":\d+ - - \[.*?\]", "", line) for line in lines)


def test_responses_and_logs_are_the_same_with_and_without_the_front_door(servers) -> None:
    """Byte for byte, and whether the connection stays open."""
    both = [listening.server for listening in servers.values()]
    # The clients of other tests have been logged.
    eventually(lambda: [server.get("/open")[2] for server in both], ["0", "0"], 2 * DEADLINE)
    logged = [len(server.log()) for server in both]
    exchanges = [Exchange(server) for server in both]
    end = time.monotonic() + DEADLINE
    while True:
        first, second = [exchange.received() for exchange in exchanges]
        if first == second or time.monotonic() > end:
            break
    for exchange in exchanges:
        exchange.close()

    assert first == second
    eventually(lambda: [server.get("/open")[2] for server in both], ["0", "0"])
    logs = [access_log(server.log()[start:]) for server, start in zip(both, logged, strict=True)]
    assert logs[0] == logs[1]


# The scope


def scope_of(client: Client, **headers: str) -> dict[str, object]:
    client.send(request("/core-scope?a=b", {**UPGRADE, "Host": "127.0.0.1", **headers}))
    assert client.answer().status_line.startswith("HTTP/1.1 101")
    return json.loads(client.text())


def test_scope_is_the_same(servers: dict[str, Listening]) -> None:
    scopes = []
    for listening in servers.values():
        with Client(listening.server.port) as client:
            scope = scope_of(client, **{"Sec-WebSocket-Protocol": "a, b"}, Cookie="c")
            assert scope.pop("client") == list(client.socket.getsockname())
            assert scope.pop("server") == list(client.socket.getpeername())
        scopes.append(scope)

    assert [scope.pop("by the front door") for scope in scopes] == [True, False]
    assert scopes[0] == scopes[1]
    assert (scopes[0]["query_string"], scopes[0]["subprotocols"]) == ("b'a=b'", ["a", "b"])
    assert scopes[0]["root_path"] == "/below"
    assert scopes[0]["without delay"]


def test_scope_behind_a_proxy(of_kind: Listening) -> None:
    forwarded = {"X-Forwarded-For": "10.0.0.1, 10.0.0.2", "X-Forwarded-Port": "1234"}

    with Client(of_kind.server.port) as client:
        scope = scope_of(client, **forwarded, **{"X-Forwarded-Proto": "https"})

    assert (scope["client"], scope["scheme"]) == (["10.0.0.1", 1234], "wss")


def test_scope_and_denial_on_ipv6(of_kind: Listening) -> None:
    with Client.connected(socket.AF_INET6, of_kind.ipv6) as client:
        client.send(request("/denies/foo/websocket", UPGRADE))
        assert client.answer().status_line == "HTTP/1.1 401 Unauthorized"
    with Client.connected(socket.AF_INET6, of_kind.ipv6) as client:
        scope = scope_of(client)
        own = list(client.socket.getsockname()[:2])

    assert (scope["client"], scope["server"]) == (own, list(of_kind.ipv6))


def test_scope_and_denial_on_a_unix_socket(of_kind: Listening) -> None:
    with Client.connected(socket.AF_UNIX, of_kind.unix) as client:
        client.send(request("/denies/foo/websocket", UPGRADE))
        assert client.answer().status_line == "HTTP/1.1 401 Unauthorized"
    with Client.connected(socket.AF_UNIX, of_kind.unix) as client:
        scope = scope_of(client)

    assert (scope["client"], scope["server"]) == (None, None)
    assert scope["by the front door"] == (of_kind.server.kind == "daphne")


# Clients that vanish, and limits


def descriptors(server: Server) -> set[int]:
    return {int(number) for number in os.listdir(f"/proc/{server.process.pid}/fd")}


@pytest.mark.parametrize("kind", KINDS)
def test_client_that_sends_nothing_is_closed(kind: str) -> None:
    with (
        Server(kind, "tests.sites.silent_clients:application") as server,
        Client(server.port) as silent,
        Client(server.port) as late,
    ):
        time.sleep(0.5)
        late.send(PLAIN)
        assert late.answer().status_line.startswith("HTTP/1.1 101")

        assert silent.at_end()
        late.send_text("hello")
        assert late.text() == "[Durable Object]: hello"


def test_fin_or_reset_before_the_accept_ends_the_connection(of_kind: Listening) -> None:
    """`silent` never accepts. Its connections have no other end before their time limit."""
    server = of_kind.server
    finished, reset = Client(server.port), Client(server.port)
    with finished:
        for client in (finished, reset):
            client.send(request("/silent/foo/websocket", UPGRADE))
        server.get("/open")
        before = len(descriptors(server))
        finished.socket.shutdown(socket.SHUT_WR)
        reset.reset()

        assert finished.at_end()
        eventually(lambda: len(descriptors(server)) <= before - 2, True)


@pytest.mark.parametrize("kind", KINDS)
def test_connection_that_ends_before_the_accept_is_forgotten(kind: str) -> None:
    options = ("--application-close-timeout", "1")
    with Server(kind, SITE, options=options) as server, Client(server.port) as client:
        client.send(request("/silent/foo/websocket", UPGRADE))
        eventually(lambda: server.get("/open")[2], "1")
        client.reset()

        eventually(lambda: server.get("/open")[2], "0")


def test_denial_with_the_last_descriptor(servers: dict[str, Listening]) -> None:
    """Twisted cannot get the connection then, which is closed after the response."""
    server = servers["daphne"].server
    with Client(server.port) as client, Client(server.port) as other:
        other.ask("/scope", {})  # both are accepted, and no other connection ends from now on
        free = min(set(range(1000)) - descriptors(server))
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (free, limits[1]))
        try:
            answer = client.ask("/denies/foo/websocket", UPGRADE)
            assert (answer.status_line, answer.body) == ("HTTP/1.1 401 Unauthorized", b"No token.")
            assert client.at_end()
        finally:
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, limits)
