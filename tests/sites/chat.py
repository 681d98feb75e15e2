"""A site that has only consumers of Channels' own, which know nothing of objects."""

import asyncio
import os

import django
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
django.setup()

from echo.counting import counted  # noqa: E402  (needs the apps to be loaded)
from echo.routing import as_websocket_application  # noqa: E402


class ChatConsumer(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=text_data)


class TalkingConsumer(AsyncWebsocketConsumer):
    """Talks on and on, also when it has been closed from outside."""

    async def receive(self, text_data=None, bytes_data=None):
        for _ in range(100):
            await self.send(text_data="on and on")
            await asyncio.sleep(0.01)
        print("The talk is over", flush=True)


routes = [
    path("chat/<str:room>/", counted(ChatConsumer.as_asgi(), by="room")),
    path("talk/<str:room>/", counted(TalkingConsumer.as_asgi(), by="room")),
]
http = get_asgi_application()
application = ProtocolTypeRouter(
    {"http": http, "websocket": as_websocket_application(routes, http=http)}
)
