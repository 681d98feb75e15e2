"""Valid handshakes, and the responses to invalid ones."""

import json
from collections.abc import Iterator

import pytest

from tests.hostile import HOSTILE
from tests.raw import ACCEPT, TEXT, UPGRADE, Answer, Client, close_payload, frame, request
from tests.servers import Server
from tests.waiting import eventually

SITE = "tests.sites.transport:application"
# Logged by uvicorn's HTTP parsers for invalid requests, before any WebSocket code runs.
OF_UVICORN = ("Invalid HTTP request received.", "Unsupported upgrade request.")


@pytest.fixture(
    scope="module",
    params=[
        *("daphne", "uvicorn", "uvicorn-http"),
        pytest.param("daphne-tls", marks=pytest.mark.long),
    ],
)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(request.param, SITE) as server:
        yield server


def ask(server: Server, path: str = "/foo/websocket", lines: tuple[str, ...] = (), **changes):
    """Return the response to a handshake with headers changed, omitted (None) or added (lines)."""
    headers = {name.replace("-", "_"): value for name, value in UPGRADE.items()} | changes
    kept = {name.replace("_", "-"): value for name, value in headers.items() if value is not None}
    head = request(path, kept, port=server.port)[:-2]
    with Client(server.port) as client:
        client.send(head + b"".join(line.encode("latin-1") + b"\r\n" for line in lines) + b"\r\n")
        return client.answer()


def status(answer: Answer) -> int:
    return int(answer.status_line.split()[1])


def plain(answer: Answer) -> tuple[int, str]:
    return status(answer), answer.body.decode()


def test_accepted(server: Server) -> None:
    answer = ask(server)

    assert answer.status_line == "HTTP/1.1 101 Switching Protocols"
    assert answer.header("Sec-WebSocket-Accept") == ACCEPT
    assert answer.header("Sec-WebSocket-Protocol") is None


def test_accepted_with_the_applications_headers_and_subprotocol(server: Server) -> None:
    with Client(server.port) as client:
        answer = client.ask("/accepts/foo/websocket", {**UPGRADE, "Sec-WebSocket-Protocol": "a, b"})

        assert status(answer) == 101
        assert answer.header("Sec-WebSocket-Protocol") == "b"
        assert answer.header("X-One") == "1"
        assert client.closing() == (4000, "done")


@pytest.mark.parametrize("version", ["12", "14", "", "13, 8", None])
def test_wrong_version(server: Server, version: str | None) -> None:
    answer = ask(server, Sec_WebSocket_Version=version)

    assert answer.header("Upgrade") == "websocket"
    text = "ERROR: The requested WebSocket version is not supported."
    assert plain(answer) == (426, text)
    assert answer.header("Sec-WebSocket-Version") == "13"


def test_missing_key(server: Server) -> None:
    answer = ask(server, Sec_WebSocket_Key=None)

    assert plain(answer) == (400, "ERROR: Missing Sec-WebSocket-Key")


@pytest.mark.parametrize("key", ["short", "dGhlIHNhbXBsZSBub25jZQ", "!" * 24, "A" * 5000])
def test_wrong_key(server: Server, key: str) -> None:
    answer = ask(server, Sec_WebSocket_Key=key)

    assert plain(answer) == (400, "ERROR: Sec-WebSocket-Key must be 16 bytes in base64")


def test_wrong_method(server: Server) -> None:
    with Client(server.port) as client:
        answer = client.ask("/foo/websocket", UPGRADE, method="PUT")

    assert plain(answer) == (400, "ERROR: WebSocket must be initiated with a GET request.")


def test_two_hosts(server: Server) -> None:
    assert status(ask(server, lines=(f"Host: 127.0.0.1:{server.port}",))) == 400
    assert server.count() == 0


def test_two_origins(server: Server) -> None:
    origin = f"Origin: {'https' if server.tls else 'http'}://127.0.0.1:{server.port}"

    assert status(ask(server, lines=(origin, origin))) == 400
    assert status(ask(server, lines=(origin,))) == 101


def test_two_hosts_without_an_upgrade() -> None:
    with Server("daphne", SITE) as server, Client(server.port) as client:
        client.send(b"GET /scope HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: example.com\r\n\r\n")

        assert status(client.answer()) == 400


def test_unknown_path_gets_the_same_response_as_without_an_upgrade(server: Server) -> None:
    path = "/none/of/these/paths"
    expected = server.get(path)

    answer = ask(server, path)

    assert (status(answer), answer.body.decode()) == (expected[0], expected[2])


def test_denial_with_status_headers_and_body(server: Server) -> None:
    answer = ask(server, "/denies/foo/websocket")

    assert plain(answer) == (401, "No token.")
    assert answer.header("X-Why") == "token"


def test_close_before_the_accept_is_a_403(server: Server) -> None:
    assert plain(ask(server, "/rejects/foo/websocket")) == (403, "Access denied")


def test_exception_in_connect_is_a_500_without_a_traceback(server: Server) -> None:
    answer = ask(server, "/raises/foo/websocket")

    assert plain(answer) == (500, "Internal Server Error")


def test_application_that_fails_does_not_hide_a_refusal(server: Server) -> None:
    answer = ask(server, "/returns/foo/websocket", Sec_WebSocket_Version="11")

    assert plain(answer) == (426, "ERROR: The requested WebSocket version is not supported.")


def test_end_of_a_denial_without_a_length_is_known(server: Server) -> None:
    with Client(server.port) as client:
        answer = client.ask("/denies-briefly/foo/websocket", UPGRADE)
        if server.kind.startswith("uvicorn"):
            assert (answer.header("Content-Length"), answer.body) == ("9", b"No token.")
        else:
            assert answer.header("Transfer-Encoding") == "chunked"


def test_second_start_of_a_denial_raises(server: Server) -> None:
    with Client(server.port) as client:
        client.send(request("/denies-twice/foo/websocket", UPGRADE))

        eventually(lambda: "but got 'websocket.http.response.start'." in server.log(), True)
        if server.kind.startswith("uvicorn"):
            assert client.answer().status_line == "HTTP/1.1 403 Forbidden"
        assert client.at_end()


@pytest.mark.parametrize("kind", ["injects-header", "injects-subprotocol"])
def test_line_breaks_in_headers_of_the_application_raise(server: Server, kind: str) -> None:
    answer = ask(server, f"/{kind}/foo/websocket")

    assert plain(answer) == (500, "Internal Server Error")
    assert answer.header("Set-Cookie") is None
    assert "ValueError" in server.log()


def test_line_breaks_in_a_denial_split_nothing(server: Server) -> None:
    answer = ask(server, "/injects-denial/foo/websocket")

    assert status(answer) in (403, 500)
    assert answer.header("Set-Cookie") is None


def test_root_path_of_a_client_is_ignored(server: Server) -> None:
    changed = server.get("/scope", Daphne_Root_Path="/admin")[2]
    with Client(server.port) as client:
        client.ask("/scope", {**UPGRADE, "Daphne-Root-Path": "/admin"})

        assert json.loads(client.text()) == {"root_path": "", "path": "/scope"}
    assert json.loads(changed) == {"root_path": "", "path": "/scope"}


# uvicorn's own HTTP protocols drop the bytes that they read with the request.
@pytest.mark.parametrize("kind", ["daphne", "uvicorn-http"])
def test_frames_sent_with_the_handshake_are_received(kind: str) -> None:
    with Server(kind, SITE) as server, Client(server.port) as client:
        early = frame(TEXT, b"1") + frame(TEXT, b"2")
        client.send(request("/foo/websocket", UPGRADE, port=server.port) + early)

        assert status(client.answer()) == 101
        assert [client.text(), client.text()] == ["[Durable Object]: 1", "[Durable Object]: 2"]


def test_hostile_handshakes_have_no_lasting_effect(server: Server) -> None:
    """None of them is counted, delays others or logs a warning."""
    options = ("--ping-interval", "1", "--ping-timeout", "1")
    if server.kind.startswith("uvicorn"):
        options = ("--ws-ping-interval", "1", "--ws-ping-timeout", "1")
    with Server(server.kind, SITE, options) as attacked:
        for data in HOSTILE.values():
            send_and_vanish(attacked, data)
        for wrong in (b"\xff" * 50, frame(3), frame(TEXT, b"\xff"), frame(8, b"\x00")):
            with Client.opened(attacked.port) as client:
                client.send(wrong)
                client.closing()

        eventually(lambda: attacked.count(), 0)
        with Client.opened(attacked.port) as client:
            assert client.frame() == (9, b""), "pings are still sent"
            assert attacked.count() == 1
            client.send(frame(8, close_payload(4000)))
            assert client.closing() == (4000, "Durable Object is closing WebSocket")
        log = attacked.log()
    for known in OF_UVICORN if server.kind.startswith("uvicorn") else ():
        log = log.replace(f"WARNING:  {known}", "")
    assert [word for word in ("Traceback", "WARNING", "ERROR", "CRITICAL") if word in log] == [], (
        log
    )


def send_and_vanish(server: Server, data: bytes) -> None:
    """Send the request, read the response for a moment, and disconnect."""
    client = Client(server.port)
    client.socket.settimeout(0.1)
    try:
        client.send(data)
        while client.socket.recv(1 << 16):
            pass
    except OSError:
        pass
    client.reset()
