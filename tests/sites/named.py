"""A site whose clients name their member by the query of the path: `/foo/websocket?Ada`."""

import os
from urllib.parse import unquote

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application
from django.urls import path

http = get_asgi_application()

from echo.consumers import EchoConsumer  # noqa: E402  (needs the apps to be loaded)
from echo.counting import counted  # noqa: E402
from echo.objects import Member  # noqa: E402
from echo.routing import as_websocket_application  # noqa: E402


def member(scope):
    name = unquote(scope["query_string"].decode())
    return Member(name, {"name": name}) if name else None


routes = [path("<str:name>/websocket", counted(EchoConsumer.as_asgi(), by="name", member=member))]
application = ProtocolTypeRouter(
    {"http": http, "websocket": as_websocket_application(routes, http=http)}
)
