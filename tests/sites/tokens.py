"""A site without django.contrib.auth, whose clients have tokens: `GET /revoke/<token>`."""

import os

import django
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.sites.tokens_settings")
django.setup()

from echo.counting import counted  # noqa: E402  (needs the apps to be loaded)

revoked = set()


class TokenUser:
    """As packages for tokens have: not in the database, but authenticated."""

    is_authenticated = True

    def __init__(self, token):
        self.token = token


class ChatConsumer(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=text_data)


async def has_valid_token(scope):
    return scope["user"].token not in revoked


def revoke(request, token):
    revoked.add(token)
    return HttpResponse()


def with_token(application):
    async def middleware(scope, receive, send):
        token = scope["query_string"].decode()
        await application({**scope, "user": TokenUser(token)}, receive, send)

    return middleware


urlpatterns = [path("revoke/<str:token>", revoke)]
routes = [
    path("chat/<str:room>/", counted(ChatConsumer.as_asgi(), by="room", recheck=has_valid_token)),
]
application = ProtocolTypeRouter(
    {"http": get_asgi_application(), "websocket": with_token(URLRouter(routes))}
)
