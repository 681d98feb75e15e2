"""uvicorn's worker processes, HTTP parsers and event loops."""

import json
import ssl
import time
from contextlib import suppress

import pytest

from tests import tls
from tests.raw import CLOSE, UPGRADE, Client, close_payload, frame, request
from tests.servers import Server
from tests.waiting import SECOND, eventually

SITE = "tests.sites.transport:application"
REASON = "Durable Object is closing WebSocket"


def test_workers_serve_and_stop_in_order() -> None:
    with Server("uvicorn", options=("--workers", "2")) as server:
        clients = [Client.opened(server.port) for _ in range(8)]
        clients[0].send(frame(CLOSE, close_payload(4000)))
        assert clients[0].closing() == (4000, REASON)

        server.process.terminate()

        assert [client.closing() for client in clients[1:]] == [(1012, "Service Restart")] * 7
        for client in clients:
            client.socket.close()
        assert server.process.wait(10) == 0
        assert "Traceback" not in server.log()


def test_other_http_and_loop_implementations() -> None:
    with (
        Server("uvicorn", options=("--http", "h11", "--loop", "asyncio")) as server,
        Client.opened(server.port) as client,
    ):
        client.send_text("hello")
        assert client.text() == "[Durable Object]: hello"
        assert server.count() == 1
        client.send(frame(CLOSE, close_payload(4000)))
        assert client.closing() == (4000, REASON)
        assert server.count() == 0


def test_http_implementation_that_keeps_the_spelling_of_headers() -> None:
    options = ("--http", "tests.sites.as_spelled:HTTPProtocol")
    with Server("uvicorn", options=options) as server, Client.opened(server.port) as client:
        client.send_text("hello")
        assert client.text() == "[Durable Object]: hello"


# The HTTP protocol of this project


def scope_of(client: Client) -> dict[str, object]:
    headers = {"Host": "127.0.0.1", "Sec-WebSocket-Protocol": "a, b", "X-Forwarded-Proto": "https"}
    client.send(request("/core-scope?a=b", {**UPGRADE, **headers}))
    assert client.answer().status_line.startswith("HTTP/1.1 101")
    return json.loads(client.text())


def test_scope_is_the_same_with_our_http_protocol() -> None:
    scopes = []
    for kind in ("uvicorn", "uvicorn-http"):
        with (
            Server(kind, SITE, ("--root-path", "/below")) as server,
            Client(server.port) as client,
        ):
            scope = scope_of(client)
            assert scope.pop("client") == list(client.socket.getsockname())
            assert scope.pop("server") == list(client.socket.getpeername())
            scopes.append(scope)

    assert scopes[0] == scopes[1]
    assert (scopes[1]["scheme"], scopes[1]["subprotocols"]) == ("wss", ["a", "b"])


def test_handshake_in_two_parts_and_an_http_request_reach_uvicorn() -> None:
    handshake = request("/foo/websocket", UPGRADE)
    with Server("uvicorn-http") as server, Client(server.port) as client:
        client.send(handshake[:40])
        time.sleep(0.1)
        client.send(handshake[40:])

        assert client.answer().status_line.startswith("HTTP/1.1 101")
        assert server.count() == 1


def test_connections_that_send_nothing_do_not_delay_the_end() -> None:
    with Server("uvicorn-http") as server, Client(server.port) as silent, Client(server.port):
        assert server.count() == 0
        began = time.monotonic()
        server.process.terminate()

        assert silent.at_end()
        server.process.wait(10)
        assert time.monotonic() - began < 2 * SECOND


def test_our_http_protocol_with_another_websocket_protocol() -> None:
    with (
        Server("uvicorn-http", options=("--ws", "websockets-sansio")) as server,
        Client.opened(server.port) as client,
    ):
        client.send_text("hello")
        assert client.text() == "[Durable Object]: hello"


@pytest.mark.parametrize("kind", ["uvicorn", "uvicorn-http"])
def test_tls_handshake_that_is_unfinished_at_sigterm_does_not_delay_the_end(kind: str) -> None:
    certificate, key = tls.certificate()
    options = ("--ssl-certfile", str(certificate), "--ssl-keyfile", str(key))
    with Server(kind, options=options) as server, Client(server.port) as client:
        time.sleep(0.2)  # until it is accepted
        server.process.terminate()
        eventually(lambda: "Shutting down" in server.log(), True)

        context = ssl.create_default_context(cafile=str(certificate))
        with suppress(OSError):  # if it is closed at once
            client.socket = context.wrap_socket(client.socket, server_hostname="127.0.0.1")
            client.send(request("/foo/websocket", UPGRADE))

        server.process.wait(10)
