"""A site with consumers as the documentation of Channels has them, each of them counted."""

import os

import django
from channels.generic.websocket import AsyncWebsocketConsumer, JsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
django.setup()

from echo.counting import counted  # noqa: E402  (needs the apps to be loaded)
from echo.routing import as_websocket_application, websocket_urlpatterns  # noqa: E402


class ChatConsumer(AsyncWebsocketConsumer):
    """Sends each text to everybody in its group: the chat of Channels' tutorial."""

    async def connect(self):
        self.room_group_name = f"chat_{self.scope['url_route']['kwargs']['room']}"
        await self.channel_layer.group_add(self.room_group_name, self.channel_name)
        await self.accept()

    async def disconnect(self, close_code):
        await self.channel_layer.group_discard(self.room_group_name, self.channel_name)

    async def receive(self, text_data):
        event = {"type": "chat.message", "message": text_data}
        await self.channel_layer.group_send(self.room_group_name, event)

    async def chat_message(self, event):
        await self.send(text_data=event["message"])


class SyncConsumer(JsonWebsocketConsumer):
    def receive_json(self, content):
        self.send_json(content)


class FailingConsumer(AsyncWebsocketConsumer):
    """Has a fault in its clean-up."""

    async def disconnect(self, close_code):
        raise ZeroDivisionError


http = get_asgi_application()
routes = [
    path("chat/<str:room>/", counted(ChatConsumer.as_asgi(), by="room")),
    path("sync/<str:room>/", counted(SyncConsumer.as_asgi(), by="room")),
    path("failing/<str:room>/", counted(FailingConsumer.as_asgi(), by="room")),
    *websocket_urlpatterns,
]
application = ProtocolTypeRouter(
    {"http": http, "websocket": as_websocket_application(routes, http=http)}
)
