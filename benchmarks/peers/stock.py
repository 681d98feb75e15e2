"""What everybody writes: Channels' own consumer. Uses nothing of ours."""

import django
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    # Only the consumer with groups has a layer: without one, Channels does less per message.
    CHANNEL_LAYERS={"groups": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
)
django.setup()

GROUP = "members"


class EchoingConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels has no types
    async def receive(self, text_data: str = "", bytes_data: bytes | None = None) -> None:
        await self.send(text_data=f"[Durable Object]: {text_data}")


class GroupedConsumer(EchoingConsumer):
    """The whole of our consumer's job: it echoes, and is in a group."""

    channel_layer_alias = "groups"

    async def connect(self) -> None:
        await self.channel_layer.group_add(GROUP, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(GROUP, self.channel_name)


class BroadcastingConsumer(GroupedConsumer):
    async def receive(self, text_data: str = "", bytes_data: bytes | None = None) -> None:
        await self.channel_layer.group_send(GROUP, {"type": "broadcast", "text": text_data})

    async def broadcast(self, event: dict[str, str]) -> None:
        await self.send(text_data=event["text"])


def _served(consumer: type[EchoingConsumer]) -> ProtocolTypeRouter:
    router = URLRouter([path("<str:name>/websocket", consumer.as_asgi())])
    return ProtocolTypeRouter({"websocket": router})


echoing = _served(EchoingConsumer)
grouped = _served(GroupedConsumer)
broadcasting = _served(BroadcastingConsumer)
