"""Third-party applications behave on our servers as on those that they were written for."""

import json
import time
from collections.abc import Iterator

import pytest
from channels.testing import WebsocketCommunicator

from echo.consumers import EchoConsumer
from tests.raw import BINARY, CLOSE, PING, TEXT, UPGRADE, Client, close_payload, frame, request
from tests.servers import Server
from tests.waiting import SECOND, eventually

SITE = "tests.sites.transport:application"
OURS = ["daphne", "uvicorn"]
KINDS = [*OURS, "stock-daphne", "stock-uvicorn"]
# Stock uvicorn waits for applications that never end.
LIMITED_STOP = {"stock-uvicorn": ("--timeout-graceful-shutdown", "1")}


class Servers(dict[str, Server]):
    """Servers by kind, started on first use."""

    def __missing__(self, kind: str) -> Server:
        self[kind] = Server(kind, SITE, LIMITED_STOP.get(kind, ()))
        return self[kind]


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    running = Servers()
    yield running
    for server in running.values():
        server.stop()


on_all = pytest.mark.parametrize("kind", KINDS)
on_ours = pytest.mark.parametrize(
    "kind", [*OURS, pytest.param("daphne-tls", marks=pytest.mark.long)]
)


def opened(server: Server, app: str, name: str = "applications") -> Client:
    client = Client(server.port)
    try:
        answer = client.ask(f"/{app}/{name}/websocket", UPGRADE)
        assert answer.status_line.startswith("HTTP/1.1 101"), answer
    except AssertionError:
        client.socket.close()
        raise
    return client


# Stock Daphne rejects the handshake if connect() awaits anything after it has blocked.
@pytest.mark.parametrize(
    ("kind", "app"),
    [*((kind, "blocking") for kind in KINDS), *((kind, "blocking-then-awaiting") for kind in OURS)],
)
def test_consumer_that_blocks_the_loop_in_connect_is_accepted(kind: str, app: str) -> None:
    options = ("--websocket_connect_timeout", "1") if "daphne" in kind else ()
    with Server(kind, SITE, options) as server, opened(server, app) as client:
        client.send_text("hello")

        assert client.text() == "hello"


# The stock servers write to their transports from the other thread, and may fail.
@on_ours
def test_send_from_the_event_loop_of_another_thread_reaches_a_slow_client(servers, kind) -> None:
    server = servers[kind]
    with opened(server, "other-loop", "slow") as client:
        client.send_text("500")
        time.sleep(SECOND)  # until more is sent than the kernel buffers
        texts = [client.text() for _ in range(500)]
        code, _ = client.closing()
        left = server.get("/count/slow")[2]

    assert {len(text) for text in texts} == {65_536}
    assert (code, left) == (4001, "0")
    assert "Error" not in server.get("/events")[2]


# Events that the server rejects do not end the connection: it stays counted


@on_all
@pytest.mark.parametrize("code", [999, 1005, 70_000])
def test_invalid_close_code_leaves_the_connection_open_and_counted(servers, kind, code):
    with opened(servers[kind], "stubborn", "open") as client:
        client.send_text(f"close {code}")

        assert client.text() == f"ValueError: {code} is not a code that a Close frame may carry."
        assert servers[kind].get("/count/open")[2] == "1"
    eventually(lambda: servers[kind].get("/count/open")[2], "0")


@on_all
def test_denial_after_the_accept_leaves_the_connection_open_and_counted(servers, kind) -> None:
    with opened(servers[kind], "stubborn", "open") as client:
        client.send_text("deny 403")
        if kind != "stock-daphne":  # it ignores unknown events
            assert "websocket.http.response.start" in client.text()

        client.send_text("close 1005")
        assert client.text().startswith("ValueError")
        assert servers[kind].get("/count/open")[2] == "1"
    eventually(lambda: servers[kind].get("/count/open")[2], "0")


def code_on(kind: str, code: int) -> int:
    """Return the code that the client receives: autobahn does not send the RFC's own codes."""
    return code + 3000 if kind == "stock-daphne" and code != 1000 else code


@on_all
@pytest.mark.parametrize("code", [1000, 1001, 1008, 1012])
def test_close_of_an_object_reaches_its_clients_on_each_server(servers, kind, code) -> None:
    with opened(servers[kind], "deaf", "closed") as client:
        servers[kind].get(f"/close/closed?{code}")

        assert client.closing()[0] == code_on(kind, code)


@on_all
@pytest.mark.parametrize("code", [1001, 1008, 1012])
def test_close_of_an_application_reaches_its_client_on_each_server(servers, kind, code) -> None:
    with opened(servers[kind], "stubborn", "closed") as client:
        client.send_text(f"close {code}")

        assert client.closing()[0] == code_on(kind, code)


@on_all
def test_invalid_close_reason_still_closes(servers, kind) -> None:
    with opened(servers[kind], "stubborn", "closed") as client:
        client.send_text("reason 4000")  # the reason is a number

        assert client.closing()[0] == 4000


@pytest.mark.parametrize("kind", ["daphne", "stock-uvicorn"])
def test_close_is_sent_even_if_its_task_is_cancelled(kind: str, redis_server) -> None:
    """Redis hangs, and the application's time limit is shorter than ours."""
    redis_server.flush()
    with (
        Server(kind, SITE, LIMITED_STOP.get(kind, ()), ECHO_STATE_URL=redis_server.url) as server,
        opened(server, "impatient", "closed") as client,
    ):
        redis_server.hang()
        try:
            client.send_text("close")
            assert client.text() == "given up"
            assert client.closing()[0] == 4001
        finally:
            redis_server.resume()


# The end of a connection


@pytest.mark.slow
@on_ours
def test_application_that_receives_for_ever_blocks_nothing_and_is_cancelled(servers, kind) -> None:
    server = servers[kind]
    with opened(server, "endless") as client:
        client.send(frame(CLOSE, close_payload(1000)))
        assert client.closing()[0] == 1000
    began = time.monotonic()
    slowest = 0.0
    with opened(server, "echo") as other:
        while "endless cancelled" not in server.get("/events")[2]:
            sent = time.monotonic()
            assert sent - began < 15 * SECOND
            other.send_text("hello")
            other.text()
            slowest = max(slowest, time.monotonic() - sent)
            time.sleep(0.1)

    assert slowest < SECOND


@on_ours
@pytest.mark.parametrize("end", ["reset", "fin"])
def test_client_that_goes_during_connect_reaches_disconnect_once(servers, kind, end) -> None:
    server, path = servers[kind], f"/busy-in-connect/{end}/websocket"
    clients = [Client(server.port) for _ in range(5)]
    for client in clients:
        client.send(request(path, UPGRADE, port=server.port))
    eventually(lambda: noted(server, f"begins {path}"), 5)
    leave(clients, end)

    eventually(lambda: noted(server, f"disconnect {path}"), 5)
    assert server.get(f"/count/{end}")[2] == "0"


@on_ours
@pytest.mark.parametrize("end", ["reset", "fin"])
def test_client_that_goes_during_a_handler_reaches_disconnect_once(servers, kind, end) -> None:
    server, path = servers[kind], f"/busy-in-receive/{end}/websocket"
    clients = [opened(server, "busy-in-receive", end) for _ in range(5)]
    for client in clients:
        client.send_text("go")
    eventually(lambda: noted(server, f"receives {path}"), 5)
    leave(clients, end)

    eventually(lambda: noted(server, f"disconnect {path}"), 5)


def noted(server: Server, event: str) -> int:
    return json.loads(server.get("/events")[2]).count(event)


def leave(clients: list[Client], end: str) -> None:
    for client in clients:
        if end == "reset":
            client.reset()
        else:
            client.socket.close()


@on_ours
@pytest.mark.parametrize("app", ["deaf", "pushing", "busy-in-receive"])
def test_close_gets_a_reply_at_once_if_the_application_is_busy(servers, kind, app) -> None:
    with opened(servers[kind], app, "answered") as client:
        if app == "busy-in-receive":
            client.send_text("begin")
            eventually(lambda: servers[kind].get("/count/answered")[2], "1")
        began = time.monotonic()
        client.send(frame(CLOSE, close_payload(4000, "bye")))
        while (received := client.frame())[0] != CLOSE:
            pass

        assert received == (CLOSE, close_payload(4000))
        assert client.at_end()
        assert time.monotonic() - began < SECOND


@on_ours
def test_close_behind_texts_waits_for_an_application_that_receives_them(servers, kind) -> None:
    with opened(servers[kind], "slow-echo") as client:
        client.send(frame(TEXT, b"x") * 20 + frame(CLOSE, close_payload(4000)))

        assert [client.text() for _ in range(20)] == ["x"] * 20
        assert client.closing()[0] == 4000


# Events and scopes


@on_all
def test_scope_can_be_copied_and_pickled_and_events_have_one_key(servers, kind) -> None:
    with opened(servers[kind], "copying", "copied") as client:
        copied = json.loads(client.text())
        client.send(frame(TEXT, b"x") + frame(BINARY, b"x"))
        keys = [json.loads(client.text()) for _ in range(2)]

    assert copied == {"copied": "/copying/copied/websocket", "pickled": True}
    assert keys == [["text", "type"], ["bytes", "type"]]


async def test_channels_test_client_reads_the_reply_of_an_echo_consumer() -> None:
    communicator = WebsocketCommunicator(EchoConsumer.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_to(text_data="hello")

    assert await communicator.receive_from() == "[Durable Object]: hello"
    await communicator.disconnect()


# Pings


def test_interval_of_zero_means_no_pings() -> None:
    options = ("--ws-ping-interval", "0")
    with Server("uvicorn", SITE, options) as server, opened(server, "loop") as client:
        client.socket.settimeout(3)

        with pytest.raises(TimeoutError):
            client.frame()


@pytest.mark.slow
@on_ours
def test_client_without_pongs_is_closed_with_1011(kind: str) -> None:
    prefix = "--ws-ping" if kind == "uvicorn" else "--ping"
    options = (f"{prefix}-interval", "1", f"{prefix}-timeout", "1")
    with Server(kind, SITE, options) as server, opened(server, "loop", "silent") as client:
        assert client.frame() == (PING, b"")
        assert client.closing() == (1011, "keepalive ping timeout")
        assert server.get("/count/silent")[2] == "0"


# Handshakes that must be rejected


@on_ours
def test_consumer_does_not_run_for_a_handshake_that_is_rejected(servers, kind) -> None:
    server, path = servers[kind], "/busy-in-connect/rejected/websocket"
    without_key = {name: value for name, value in UPGRADE.items() if "Key" not in name}
    wrong_version = {**UPGRADE, "Sec-WebSocket-Version": "12"}
    for headers, status in ((without_key, "400"), (wrong_version, "426")):
        with Client(server.port) as client:
            assert client.ask(path, headers).status_line.split()[1] == status

    assert noted(server, f"begins {path}") == 0


@on_ours
def test_wrong_path_wins_over_a_wrong_key(servers, kind) -> None:
    with Client(servers[kind].port) as client:
        answer = client.ask("/no/such/path", {**UPGRADE, "Sec-WebSocket-Key": "wrong"})

    assert answer.status_line == "HTTP/1.1 200 OK"  # the demo's usage page


@on_ours
def test_status_that_http_does_not_have_is_an_error(servers, kind) -> None:
    with Client(servers[kind].port) as client:
        answer = client.ask("/status-700/foo/websocket", UPGRADE)

    assert answer.status_line == "HTTP/1.1 500 Internal Server Error"
    assert "ValueError: 700 is not the status of an HTTP response." in servers[kind].log()
