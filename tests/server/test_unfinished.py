"""Messages that a client does not finish: limits on their time and memory."""

import time
from collections.abc import Iterator

import pytest

from tests.raw import BINARY, CLOSE, TEXT, UPGRADE, Client, frame
from tests.servers import Server
from tests.waiting import SECOND, eventually

SITE = "tests.sites.unfinished:application"
MiB = 1 << 20
TIMEOUT = 2  # seconds, on that site
BUDGET = 4 * MiB  # bytes, on that site


@pytest.fixture(
    scope="module",
    params=["daphne", "uvicorn", pytest.param("daphne-tls", marks=pytest.mark.long)],
)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(request.param, SITE) as server:
        yield server


def opened(server: Server, name: str) -> Client:
    client = Client(server.port)
    client.ask(f"/loop/{name}/websocket", UPGRADE)
    return client


BEGINNINGS = {
    "half a frame": frame(TEXT, b"x" * 1000)[:500],
    "a fragment": frame(TEXT, b"x", fin=False),
    "half a fragment": frame(TEXT, fin=False) + frame(0, b"x" * 1000)[:500],
}


@pytest.mark.slow
@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_unfinished_message_times_out(server: Server, beginning: str) -> None:
    with opened(server, "unfinished") as client:
        began = time.monotonic()
        client.send(frame(TEXT, b"whole") + BEGINNINGS[beginning])
        assert client.text() == "whole"

        assert client.closing() == (1008, "Message not finished in time")
        assert TIMEOUT - 0.5 < time.monotonic() - began < TIMEOUT + 5 * SECOND
        assert server.get("/count/unfinished")[2] == "0"


@pytest.mark.slow
def test_messages_that_are_finished_in_time_are_received(server: Server) -> None:
    """At each check one is unfinished, but never the same for long."""
    message = frame(TEXT, b"x" * 1000)
    with opened(server, "finished") as client:
        client.send(message[:500])
        end = time.monotonic() + 2 * TIMEOUT + 1
        while time.monotonic() < end:
            time.sleep(0.5)
            client.send(message[500:] + message[:500])
            assert client.text() == "x" * 1000


def test_budget_is_for_all_connections_and_given_back(server: Server) -> None:
    beginning = frame(BINARY, b"x" * MiB)[:-1]
    clients = [opened(server, "budget") for _ in range(6)]
    for client in clients:
        client.send(beginning)
    eventually(lambda: server.get("/count/budget")[2] in ("3", "4"), True)
    for client in clients:
        client.socket.close()
    eventually(lambda: server.get("/count/budget")[2], "0")

    with opened(server, "small") as client:
        client.send(beginning + b"x")
        assert client.frame()[0] == BINARY


@pytest.mark.parametrize("kind", ["echo", "loop", "asynchronous", "rejects"])
def test_connection_is_freed_without_the_garbage_collector(server: Server, kind: str) -> None:
    for _ in range(3):
        with Client(server.port) as client:
            client.ask(f"/{kind}/kept/websocket", UPGRADE)
            if kind != "rejects":
                client.send(frame(TEXT, b"hello"))
                client.text()
                client.send(frame(CLOSE))

    eventually(lambda: server.get("/kept")[2], "0")


def test_memory_of_unfinished_messages_is_freed_without_the_garbage_collector(server) -> None:
    beginning = frame(BINARY, b"x" * MiB, fin=False)
    before = server.memory()
    for _ in range(20):
        clients = [opened(server, "memory") for _ in range(3)]
        for client in clients:
            client.send(beginning)
            client.socket.close()
    eventually(lambda: server.get("/count/memory")[2], "0")

    assert server.memory() - before < 20 * MiB  # 60 MiB if they were kept
