"""A chat whose members are the users, and HTTP requests to log in, to list, to send and to close.

`GET /login/<username>`, which returns the key of a session; `GET /members/<room>`;
`GET /send/<room>/<text>/<key>`; `GET /close/<room>/<key>`.
"""

import json
import os

import django
from channels.auth import AuthMiddlewareStack
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.sites.matrix_settings")
django.setup()

from django.contrib.auth import (  # noqa: E402  (needs the apps to be loaded)
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
    get_user_model,
)
from django.contrib.sessions.backends.db import SessionStore  # noqa: E402

from echo.counting import counted  # noqa: E402
from echo.objects import aset_member_info, get_object, set_member_info  # noqa: E402


class ChatConsumer(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        room = self.scope["url_route"]["kwargs"]["room"]
        if text_data.startswith("{"):
            await self.send(str(await aset_member_info(self.scope, json.loads(text_data))))
        else:
            await get_object(room).asend(text_data, exclude=self.scope)


class SyncChatConsumer(WebsocketConsumer):
    def receive(self, text_data=None, bytes_data=None):
        room = self.scope["url_route"]["kwargs"]["room"]
        if text_data.startswith("{"):
            self.send(str(set_member_info(self.scope, json.loads(text_data))))
        else:
            get_object(room).send(text_data, exclude=self.scope)


def login(username):
    user, _ = get_user_model().objects.get_or_create(username=username)
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return session.session_key


async def members(room):
    found = get_object(room)
    listed = {member.info["name"]: member.connections for member in await found.amembers()}
    infos = {member.info["name"]: member.info for member in await found.amembers()}
    return [await found.acount(), await found.amember_count(), listed, infos]


async def http(scope, receive, send):
    _, action, *arguments = scope["path"].split("/")
    if action == "login":
        result = await database_sync_to_async(login)(*arguments)
    elif action == "members":
        result = await members(*arguments)
    elif action == "send":
        room, text, key = arguments
        result = await get_object(room).asend(text, member=key)
    elif action == "close":
        room, key = arguments
        result = await get_object(room).aclose(4401, "Logged out", member=key)
    else:
        await site(scope, receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(result).encode()})


site = get_asgi_application()
routes = [
    path("chat/<str:room>/", counted(ChatConsumer.as_asgi(), by="room", member="user")),
    path("sync/<str:room>/", counted(SyncChatConsumer.as_asgi(), by="room", member="user")),
]
application = ProtocolTypeRouter(
    {"http": http, "websocket": AuthMiddlewareStack(URLRouter(routes))}
)
