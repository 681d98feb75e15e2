"""Our consumer with its receive loop alone: as on a server without the reply extension."""

from typing import Any

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application
from django.urls import path

http = get_asgi_application()

from echo.consumers import EchoConsumer  # noqa: E402  (needs the apps to be loaded)
from echo.counting import counted  # noqa: E402
from echo.extensions import REPLY  # noqa: E402
from echo.routing import as_websocket_application  # noqa: E402

consumer: Any = counted(EchoConsumer.as_asgi(), by="name")


async def looping(scope: Any, receive: Any, send: Any) -> None:
    del scope["extensions"][REPLY]
    await consumer(scope, receive, send)


routes = [path("<str:name>/websocket", looping)]  # type: ignore[arg-type]
application = ProtocolTypeRouter(
    {"http": http, "websocket": as_websocket_application(routes, http=http)}
)
