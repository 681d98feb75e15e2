"""A site with logins: the requests log in and out, and change users and sessions.

`GET /login/<username>`, which creates the user; with the session's cookie `GET /logout`,
`/alogout`, `/expire` (within a second) and `/password` (of the own user); `GET
/change/<username>/<what>` with "password", "deactivate", "delete" or "withdraw" (the permission).
"""

import os
from datetime import timedelta
from secrets import token_hex

import django
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path
from django.utils import timezone

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.sites.logins_settings")
django.setup()

from django.contrib.auth import (  # noqa: E402  (needs the apps to be loaded)
    alogout,
    get_user_model,
    login,
    logout,
    update_session_auth_hash,
)

from echo.counting import counted  # noqa: E402
from echo.routing import as_websocket_application  # noqa: E402

WITHOUT_PERMISSION = "may not connect"


def authorize(scope, name, action):
    return getattr(scope["user"], "first_name", "") != WITHOUT_PERMISSION


class ChatConsumer(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=text_data)


def log_in(request, username):
    user, _ = get_user_model().objects.get_or_create(username=username)
    login(request, user, "django.contrib.auth.backends.ModelBackend")
    request.session["id"] = token_hex(8)  # signed cookies of the same second are equal otherwise
    return HttpResponse()


def log_out(request):
    logout(request)
    return HttpResponse()


async def alog_out(request):
    await alogout(request)
    return HttpResponse()


def expire(request):
    # Not a number of seconds, by which sessions in files never expire on the server.
    request.session.set_expiry(timezone.now() + timedelta(seconds=1))
    return HttpResponse()


def change_password(request):
    request.user.set_password("new")
    request.user.save()
    update_session_auth_hash(request, request.user)
    return HttpResponse()


def change(request, username, what):
    user = get_user_model().objects.get(username=username)
    if what == "delete":
        user.delete()
        return HttpResponse()
    if what == "password":
        user.set_password("new")
    elif what == "deactivate":
        user.is_active = False
    elif what == "withdraw":
        user.first_name = WITHOUT_PERMISSION
    user.save()
    return HttpResponse()


urlpatterns = [
    path("login/<str:username>", log_in),
    path("logout", log_out),
    path("alogout", alog_out),
    path("expire", expire),
    path("password", change_password),
    path("change/<str:username>/<str:what>", change),
]
http = get_asgi_application()
routes = [path("chat/<str:room>/", counted(ChatConsumer.as_asgi(), by="room"))]
application = ProtocolTypeRouter(
    {"http": http, "websocket": as_websocket_application(routes, http=http)}
)
