"""What a client is told who comes when the object has all the connections that it may have."""

import pytest

from tests.raw import UPGRADE, Client
from tests.servers import Server
from tests.waiting import eventually

SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.sites.limited", "LIMIT": "1"}


@pytest.mark.parametrize("kind", ["daphne", "uvicorn", "stock-uvicorn"])
def test_one_too_many_is_answered_with_503(kind: str) -> None:
    with Server(kind, **SETTINGS) as server, Client.opened(server.port):
        with Client(server.port) as other:
            answer = other.ask("/foo/websocket", UPGRADE)

        assert answer.status_line == "HTTP/1.1 503 Service Unavailable"
        assert answer.header("Retry-After") == "5"
        assert answer.body == b"This object has 1 connection, which is its limit."
        assert server.count() == 1
        assert "Traceback" not in server.log()


def test_one_too_many_is_closed_with_4503_where_the_server_knows_no_answer() -> None:
    with Server("stock-daphne", **SETTINGS) as server, Client.opened(server.port) as first:
        with Client.opened(server.port) as other:
            assert other.closing()[0] == 4503

        eventually(server.count, 1)
        first.send_text("hello")
        assert first.text() == "[Durable Object]: hello"
        assert "Traceback" not in server.log()


def test_one_that_leaves_makes_room() -> None:
    with Server("daphne", **SETTINGS) as server:
        for _ in range(3):
            with Client.opened(server.port):
                assert server.count() == 1
            eventually(server.count, 0)
