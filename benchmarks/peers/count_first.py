"""The demo, with the count answered before Django's handler."""

from channels.routing import ProtocolTypeRouter

from project.asgi import http

from echo.middleware.count_first import CountFirst  # isort: skip  (needs the apps to be loaded)
from echo.routing import as_websocket_application  # isort: skip

application = ProtocolTypeRouter(
    {"http": CountFirst(http), "websocket": as_websocket_application(http=http)}
)
