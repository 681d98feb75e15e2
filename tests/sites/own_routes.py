"""A site whose HTTP side is not Django's: every path is a 404 of its own."""

import os

import django
from channels.routing import ProtocolTypeRouter

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
django.setup()

from echo.routing import as_websocket_application  # noqa: E402  (needs the apps to be loaded)


async def not_found(scope, receive, send):
    headers = [(b"content-length", b"13")]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": b"Nothing here."})


application = ProtocolTypeRouter(
    {"http": not_found, "websocket": as_websocket_application(http=not_found)}
)
