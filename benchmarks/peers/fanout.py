"""Our consumer for the fan-out: a text that starts with "all:" goes to all of its object."""

from typing import Any

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application
from django.urls import path

http = get_asgi_application()

from echo.consumers import PREFIX, EchoConsumer  # noqa: E402  (needs the apps to be loaded)
from echo.counting import counted  # noqa: E402
from echo.objects import get_object  # noqa: E402
from echo.routing import as_websocket_application  # noqa: E402


class FanoutConsumer(EchoConsumer):
    async def reply(self, text: str) -> str | None:
        if not text.startswith("all:"):
            return PREFIX + text
        await get_object(self.name).asend(text)
        return None


consumer: Any = counted(FanoutConsumer.as_asgi(), by="name")
routes = [path("<str:name>/websocket", consumer)]
application = ProtocolTypeRouter(
    {"http": http, "websocket": as_websocket_application(routes, http=http)}
)
