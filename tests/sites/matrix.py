"""A site of other people's consumers, each routed twice, plain and counted.

`/<consumer>/<plain or counted>/<room>/`. The consumers are written as in the documentation of
Channels, and know nothing of `echo`. `GET /ended` tells how many are still running, and what
they have raised.
"""

import asyncio
import json
import os
import time
import traceback

import django
from asgiref.sync import async_to_sync
from channels.generic.websocket import (
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.sites.matrix_settings")
django.setup()

from django.contrib.auth.models import User  # noqa: E402  (needs the apps to be loaded)

from echo.counting import counted  # noqa: E402
from echo.routing import as_websocket_application  # noqa: E402


class GroupsConsumer(AsyncWebsocketConsumer):
    """The chat of Channels' tutorial, part 3."""

    async def connect(self):
        self.room_name = self.scope["url_route"]["kwargs"]["room"]
        self.room_group_name = f"chat_{self.room_name}"
        await self.channel_layer.group_add(self.room_group_name, self.channel_name)
        await self.accept()

    async def disconnect(self, close_code):
        await self.channel_layer.group_discard(self.room_group_name, self.channel_name)
        await self.channel_layer.group_send(
            self.room_group_name, {"type": "chat.message", "message": f"left with {close_code}"}
        )

    async def receive(self, text_data):
        message = json.loads(text_data)["message"]
        await self.channel_layer.group_send(
            self.room_group_name, {"type": "chat.message", "message": message}
        )

    async def chat_message(self, event):
        await self.send(text_data=json.dumps({"message": event["message"]}))


class SyncConsumer(WebsocketConsumer):
    """The chat of Channels' tutorial, part 2."""

    def connect(self):
        self.room_name = self.scope["url_route"]["kwargs"]["room"]
        self.room_group_name = f"chat_{self.room_name}"
        async_to_sync(self.channel_layer.group_add)(self.room_group_name, self.channel_name)
        self.accept()

    def disconnect(self, close_code):
        async_to_sync(self.channel_layer.group_discard)(self.room_group_name, self.channel_name)

    def receive(self, text_data):
        message = json.loads(text_data)["message"]
        async_to_sync(self.channel_layer.group_send)(
            self.room_group_name, {"type": "chat.message", "message": message}
        )

    def chat_message(self, event):
        self.send(text_data=json.dumps({"message": event["message"]}))


class DatabaseConsumer(JsonWebsocketConsumer):
    """Stores what it is sent, and at its end with which code that came."""

    def connect(self):
        self.room_name = self.scope["url_route"]["kwargs"]["room"]
        self.accept()
        self.send_json({"stored": self.stored()})

    def receive_json(self, content):
        if content:
            User.objects.create(username=f"{self.room_name}/{content['name']}")
        self.send_json({"stored": self.stored()})

    def disconnect(self, code):
        User.objects.create(username=f"{self.room_name}/left with {code}")

    def stored(self):
        users = User.objects.filter(username__startswith=f"{self.room_name}/").order_by("pk")
        return [user.username.partition("/")[2] for user in users]


class BlockingConsumer(AsyncWebsocketConsumer):
    """Blocks the event loop, as those do that call `requests`, and is busy for a while."""

    async def connect(self):
        time.sleep(0.05)
        await self.accept()

    async def receive(self, text_data=None, bytes_data=None):
        time.sleep(0.05)
        if text_data == "be busy":
            await asyncio.sleep(0.5)  # for longer than `counted` waits before it reads ahead
        await self.send(text_data=f"done: {text_data}")


class RaisingConsumer(AsyncWebsocketConsumer):
    """Has bugs: in `receive()` it raises unless it is sent a number, and always at its end.

    And after a Close it goes on to send.
    """

    async def receive(self, text_data=None, bytes_data=None):
        number = int(text_data)
        if number == 0:
            await self.close(code=4000, reason="zero")
        await self.send(text_data=str(2 * number))

    async def disconnect(self, code):
        raise LookupError("nothing to take down")


class SubprotocolConsumer(AsyncWebsocketConsumer):
    """Takes clients that offer "chat.v2", and closes when they say bye."""

    async def connect(self):
        if "chat.v2" not in self.scope["subprotocols"]:
            await self.close(code=4406)
            return
        await self.accept(subprotocol="chat.v2", headers=[(b"x-chat", b"v2")])

    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=text_data)
        if text_data == "bye":
            await self.close(code=4001, reason="see you")


class BinaryConsumer(AsyncWebsocketConsumer):
    """Says hello at once, and returns bytes reversed, texts in upper case."""

    async def connect(self):
        await self.accept()
        await self.send(bytes_data=b"\x00\xff hello")

    async def receive(self, text_data=None, bytes_data=None):
        if bytes_data is not None:
            await self.send(bytes_data=bytes_data[::-1])
        else:
            await self.send(text_data=text_data.upper())


CONSUMERS = {
    "groups": GroupsConsumer,
    "sync": SyncConsumer,
    "database": DatabaseConsumer,
    "blocking": BlockingConsumer,
    "raising": RaisingConsumer,
    "subprotocol": SubprotocolConsumer,
    "binary": BinaryConsumer,
}

routes = []
for name, consumer in CONSUMERS.items():
    routes += [
        path(f"{name}/plain/<str:room>/", consumer.as_asgi()),
        path(f"{name}/counted/<str:room>/", counted(consumer.as_asgi(), by="room")),
    ]

site = get_asgi_application()
running = 0  # applications of WebSockets
raised = []  # what those raised that have ended


async def http(scope, receive, send):
    if scope["path"] != "/ended":
        await site(scope, receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps([running, raised]).encode()})


websocket = as_websocket_application(routes, http=http)


async def noted(scope, receive, send):
    global running
    running += 1
    try:
        await websocket(scope, receive, send)
    except Exception as error:
        raised.append(traceback.format_exception_only(error)[-1].rstrip())
        raise
    finally:
        running -= 1


application = ProtocolTypeRouter({"http": http, "websocket": noted})
