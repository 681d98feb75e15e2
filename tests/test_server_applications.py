"""What other people's applications may do: on our servers as on those they were written for."""

import time
from collections.abc import Iterator

import pytest

from tests.raw import UPGRADE, Client
from tests.servers import Server
from tests.waiting import SECOND

SITE = "tests.sites.transport:application"
OURS = ["daphne", "uvicorn"]
KINDS = [*OURS, "stock-daphne", "stock-uvicorn"]


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Server]]:
    running: dict[str, Server] = {}
    try:
        for kind in KINDS:
            running[kind] = Server(kind, SITE)
        yield running
    finally:
        for server in running.values():
            server.stop()


on_all = pytest.mark.parametrize("kind", KINDS)
on_ours = pytest.mark.parametrize("kind", OURS)


def opened(server: Server, app: str, name: str = "applications") -> Client:
    client = Client(server.port)
    try:
        answer = client.ask(f"/{app}/{name}/websocket", UPGRADE)
        assert answer.status_line.startswith("HTTP/1.1 101"), answer
    except AssertionError:
        client.socket.close()
        raise
    return client


# Stock Daphne refuses it if its connect() awaits anything after that.
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
        time.sleep(SECOND)  # more waits than the kernel takes
        texts = [client.text() for _ in range(500)]
        code, _ = client.closing()
        left = server.get("/count/slow")[2]

    assert {len(text) for text in texts} == {65_536}
    assert (code, left) == (4001, "0")
    assert server.get("/events")[2] == "[]"
