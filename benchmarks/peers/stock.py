"""What everybody writes: Channels' own consumer, and a count of its own. Uses nothing of ours."""

import os
from functools import cache

import django
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from redis.asyncio import BlockingConnectionPool, Redis

REDIS = os.environ["ECHO_STATE_URL"]
LAYER = (
    {"BACKEND": "channels.layers.InMemoryChannelLayer"}
    if REDIS.startswith("memory:")
    else {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [REDIS]},
    }
)
settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    # What startproject has, but for those that need a database.
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    # Only the consumer with groups has a layer: without one, Channels does less per message.
    CHANNEL_LAYERS={"groups": LAYER},
)
django.setup()

GROUP = "members"
COUNT = "connections"
connections = 0  # wrong after a refusal or an exception: what this project is about


class EchoingConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels has no types
    async def connect(self) -> None:
        global connections
        connections += 1
        await self.accept()

    async def disconnect(self, code: int) -> None:
        global connections
        connections -= 1

    async def receive(self, text_data: str = "", bytes_data: bytes | None = None) -> None:
        await self.send(text_data=f"[Durable Object]: {text_data}")


class GroupedConsumer(EchoingConsumer):
    """The whole of our consumer's job: it echoes, and is in a group."""

    channel_layer_alias = "groups"

    async def connect(self) -> None:
        await self.channel_layer.group_add(GROUP, self.channel_name)
        await super().connect()

    async def disconnect(self, code: int) -> None:
        await super().disconnect(code)
        await self.channel_layer.group_discard(GROUP, self.channel_name)


class BroadcastingConsumer(GroupedConsumer):
    async def receive(self, text_data: str = "", bytes_data: bytes | None = None) -> None:
        await self.channel_layer.group_send(GROUP, {"type": "broadcast", "text": text_data})

    async def broadcast(self, event: dict[str, str]) -> None:
        await self.send(text_data=event["text"])


class CountingConsumer(EchoingConsumer):
    """Counts in Redis, for several processes: what people write when one process is not enough."""

    async def connect(self) -> None:
        await in_redis().incr(COUNT)
        await super().connect()

    async def disconnect(self, code: int) -> None:
        await super().disconnect(code)
        await in_redis().decr(COUNT)


@cache
def in_redis() -> Redis:
    """Return the client of the process, which has one event loop."""
    # Without a pool that waits, many handshakes at once would fail.
    return Redis.from_pool(BlockingConnectionPool.from_url(REDIS, timeout=None))


async def count_in_redis(request: HttpRequest, name: str) -> HttpResponse:
    return HttpResponse(await in_redis().get(COUNT) or "0", content_type="text/plain")


def count(request: HttpRequest, name: str) -> HttpResponse:
    return HttpResponse(f"{connections}", content_type="text/plain")


urlpatterns = [
    path("<str:name>/getCurrentConnections", count),
    path("<str:name>/countInRedis", count_in_redis),
]


def _served(consumer: type[EchoingConsumer]) -> ProtocolTypeRouter:
    router = URLRouter([path("<str:name>/websocket", consumer.as_asgi())])
    return ProtocolTypeRouter({"http": get_asgi_application(), "websocket": router})


echoing = _served(EchoingConsumer)
counting = _served(CountingConsumer)
grouped = _served(GroupedConsumer)
broadcasting = _served(BroadcastingConsumer)
