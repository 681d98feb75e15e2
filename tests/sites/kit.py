"""A site to try the test kit on: a consumer of Channels' own, and one with a database."""

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter
from django.contrib.auth.models import User
from django.core.asgi import get_asgi_application
from django.urls import path

from echo.counting import counted
from echo.routing import as_websocket_application


class ChatConsumer(AsyncWebsocketConsumer):
    """Accepts a subprotocol, says what it is told, and closes with the code that it is told."""

    async def connect(self):
        await self.accept(subprotocol=next(iter(self.scope["subprotocols"]), None))

    async def receive(self, text_data=None, bytes_data=None):
        if text_data is not None and text_data.isdigit():
            await self.close(code=int(text_data), reason="as you said")
        else:
            await self.send(text_data=text_data, bytes_data=bytes_data)


class UsersConsumer(AsyncWebsocketConsumer):
    """Tells the users of the site, and adds one when its connection ends."""

    async def receive(self, text_data=None, bytes_data=None):
        names = await database_sync_to_async(lambda: list(User.objects.values_list("username")))()
        await self.send(text_data=",".join(name for (name,) in names))

    async def disconnect(self, code):
        await database_sync_to_async(User.objects.create)(username=f"left-{code}")


class RefusingConsumer(AsyncWebsocketConsumer):
    async def connect(self):
        await self.close()


http = get_asgi_application()
routes = [
    path("chat/<str:room>/", counted(ChatConsumer.as_asgi(), by="room")),
    path("team/<str:room>/", counted(ChatConsumer.as_asgi(), by="room", member="user")),
    path("users/<str:room>/", counted(UsersConsumer.as_asgi(), by="room")),
    path("refused/<str:room>/", counted(RefusingConsumer.as_asgi(), by="room")),
]
application = ProtocolTypeRouter(
    {"http": http, "websocket": as_websocket_application(routes, http=http)}
)
