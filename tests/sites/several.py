"""A site whose connections belong to a room, a user and an address, which headers name."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application
from django.urls import path

http = get_asgi_application()

from echo.consumers import EchoConsumer  # noqa: E402  (needs the apps to be loaded)
from echo.counting import counted  # noqa: E402
from echo.routing import as_websocket_application  # noqa: E402


def by_user(scope):
    return f"user-{dict(scope['headers'])[b'x-user'].decode()}"


def by_address(scope):
    return f"ip-{dict(scope['headers'])[b'x-address'].decode()}"


app = counted(EchoConsumer.as_asgi(), by=("name", by_user, by_address))
routes = [path("<str:name>/websocket", app)]
application = ProtocolTypeRouter(
    {"http": http, "websocket": as_websocket_application(routes, http=http)}
)
