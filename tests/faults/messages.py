"""Faults of the network between a site and its channel layer: a text must reach."""

import itertools
import time

from tests.faults.link import Link
from tests.faults.redis_server import OwnRedis
from tests.faults.services import OWN_LAYER
from tests.faults.site import Site
from tests.faults.table import row
from tests.raw import Client
from tests.servers import Server

SENDING = {"application": "tests.sites.sending:application", **OWN_LAYER}
REACHES = 12  # seconds: a probe each 5 s, its time limit, and a new subscription


@row(
    "The flow of messages from the channel layer (pubsub) is dropped silently",
    "a text reaches all connections again <= 12 s",
)
def drop_pubsub() -> str:
    return drop_messages("channels_redis.pubsub.RedisPubSubChannelLayer")


@row(
    "The flow of messages from the channel layer (core) is dropped silently",
    "a text reaches all connections again <= 12 s",
)
def drop_core() -> str:
    return drop_messages("channels_redis.core.RedisChannelLayer")


def drop_messages(backend: str) -> str:
    with (
        OwnRedis() as redis,
        OwnRedis() as layer,
        Link(layer.port) as link,
        Site(redis.url, LAYER_URL=link.url, LAYER=backend, **SENDING) as site,
    ):
        clients = [site.open(server) for server in site.servers]
        seconds_until_reached(site.servers[0], clients, 2)
        dropped = link.drop(receiving=True)
        assert dropped, "no connection waits for messages"
        seconds = seconds_until_reached(site.servers[0], clients, REACHES)
        return f"{dropped} connections dropped; a text reaches after {seconds:.1f} s"


def seconds_until_reached(server: Server, clients: list[Client], deadline: float) -> float:
    """Send texts until one that is sent from now on has reached each client."""
    began = time.monotonic()
    reached: set[Client] = set()
    for number in itertools.count():
        text = f"{began}-{number}"
        server.get(f"/send/foo/{text}")
        for client in clients:
            if has_received(client, text):
                reached.add(client)
        seconds = time.monotonic() - began
        if len(reached) == len(clients):
            return seconds
        missing = len(clients) - len(reached)
        assert seconds < deadline, f"no text reaches {missing} of {len(clients)} in {deadline} s"
    raise AssertionError


def has_received(client: Client, text: str, timeout: float = 0.2) -> bool:
    """Return whether the text comes; earlier texts are skipped."""
    client.socket.settimeout(timeout)
    try:
        while client.text() != text:
            pass
    except TimeoutError:
        return False
    return True


@row(
    "The channel layer is 10 ms away from two processes; a text is sent right after a 101",
    "it reaches the connection, 40 of 40",
    small={"times": 4},
)
def text_after_101(times: int = 40) -> str:
    with (
        OwnRedis() as redis,
        Link(redis.port, 0.01) as link,
        Site(redis.url, ["daphne"], LAYER_URL=redis.url, **SENDING) as site,
    ):
        near = site.servers[0]
        near.get("/send/nobody/hello")
        far = [site.start(kind, LAYER_URL=link.url) for kind in ("daphne", "uvicorn")]
        clients = []
        for number in range(times):
            clients.append(site.open(far[number % 2], f"object-{number}"))
            near.get(f"/send/object-{number}/hello")
        reached = sum(has_received(client, "hello", 0.5) for client in clients)
    assert reached == times, f"{times - reached} of {times} texts lost"
    return f"{reached} of {times}"
