"""Consumers of a site's own: `counted` changes nothing about them but the count."""

import time

import pytest

from tests.faults.link import Link
from tests.raw import CLOSE, Client, close_payload, frame
from tests.redis_server import RedisServer
from tests.servers import Server
from tests.waiting import SECOND, eventually

SITE = "tests.sites.consumers:application"
OURS = ["daphne", "uvicorn"]


@pytest.mark.parametrize("kind", [*OURS, "stock-daphne", "stock-uvicorn"])
def test_each_message_of_a_chat_arrives_at_once_on_the_core_layer(kind, redis_url):
    env = {"DJANGO_SETTINGS_MODULE": "tests.sites.core_layer", "LAYER_URL": redis_url}
    with Server(kind, SITE, **env) as server:
        path = "/chat/lobby/"
        with (
            Client.opened(server.port, path=path) as ada,
            Client.opened(server.port, path=path) as bob,
        ):
            assert server.count("lobby") == 2
            for number in range(4):
                began = time.monotonic()
                ada.send_text(f"message {number}")

                assert [ada.text(), bob.text()] == 2 * [f"message {number}"]
                assert time.monotonic() - began < SECOND


@pytest.mark.parametrize("kind", [*OURS, "stock-daphne", "stock-uvicorn"])
def test_sync_consumer_works_where_warnings_are_errors(kind):
    with (
        Server(kind, SITE, PYTHONWARNINGS="error:async_to_sync") as server,
        Client.opened(server.port, path="/sync/lobby/") as client,
    ):
        client.send_text('{"a": 1}')

        assert client.text() == '{"a": 1}'
        assert server.count("lobby") == 1


@pytest.mark.parametrize("kind", OURS)
def test_consumer_that_fails_in_its_disconnect_is_not_counted_at_its_close(kind):
    """At the reply to its Close no process counts it, also where Redis is 10 ms away."""
    with (
        RedisServer() as redis,
        Link(redis.port, 0.01) as link,
        Server(kind, SITE, ECHO_STATE_URL=link.url) as server,
        Server(kind, SITE, ECHO_STATE_URL=redis.url) as other,
    ):
        path = "/lobby/getCurrentConnections"
        eventually(lambda: [each.get(path)[0] for each in (server, other)], [200, 200])
        counts = [_count_at_the_close(server.port, other) for _ in range(20)]

    assert counts == 20 * [0]


def _count_at_the_close(port, other):
    with Client.opened(port, path="/failing/lobby/") as client:
        client.send(frame(CLOSE, close_payload(1000)))
        assert client.closing()[0] == 1000
        return other.count("lobby")
