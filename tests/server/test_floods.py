"""Floods of tiny frames block no other client; `python -m tests.attack` measures the delay."""

from collections.abc import Iterator

import pytest

from tests.attack.floods import FLOODS, Flood, latencies, percentile
from tests.raw import TEXT, Client, frame
from tests.servers import Server
from tests.waiting import SECOND

SITE = "tests.sites.transport:application"


@pytest.fixture(
    scope="module",
    params=["daphne", "uvicorn", pytest.param("daphne-tls", marks=pytest.mark.long)],
)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(request.param, SITE) as server:
        yield server


LONG = ("fragments", "pongs")  # other floods are much the same


@pytest.mark.parametrize(
    "kind",
    [pytest.param(each, marks=[pytest.mark.long] if each in LONG else []) for each in FLOODS],
)
def test_flood_of_tiny_frames_blocks_no_other_client(server: Server, kind: str) -> None:
    with Client.opened(server.port, "good") as good:
        good.socket.settimeout(30 * SECOND)
        with Flood(server.port, "/loop/flood/websocket", kind):
            taken = latencies(good, SECOND)

    # Far above the target, for a busy machine. Without MAX_FRAMES the delay is a second or more.
    assert percentile(taken, 0.9) < 0.25 * SECOND


def test_message_of_thousands_of_empty_fragments_is_rejected(server: Server) -> None:
    with Client.opened(server.port, "empty") as client:
        client.send(frame(TEXT, fin=False) + frame(0, fin=False) * 4000 + frame(0, b"x"))
        assert client.text() == "[Durable Object]: x"
        client.send(frame(TEXT, fin=False) + frame(0, fin=False) * 5000)
        assert client.closing() == (1008, "Too many empty fragments")
