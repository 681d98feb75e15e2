"""A site with automatic replies. Its consumers send back what they receive."""

import asyncio
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application
from django.urls import path

http = get_asgi_application()

from echo.consumers import EchoConsumer  # noqa: E402  (needs the apps to be loaded)
from echo.counting import counted  # noqa: E402
from echo.routing import as_websocket_application, websocket_urlpatterns  # noqa: E402

REPLIES = {"ping": "pong", '{"type": "ping"}': "{}", "": "empty", "wie geht's?": "schön"}


class Asynchronous(AsyncWebsocketConsumer):
    """Replies to "busy 1.5" after as many seconds."""

    async def receive(self, text_data=None, bytes_data=None):
        if text_data is not None and text_data.startswith("busy "):
            await asyncio.sleep(float(text_data.split()[1]))
        await self.send(text_data=f"received {text_data!r} {bytes_data!r}")


class Synchronous(WebsocketConsumer):
    def receive(self, text_data=None, bytes_data=None):
        self.send(text_data=f"received {text_data!r} {bytes_data!r}")


async def loop(scope, receive, send):
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        text = f"received {event.get('text')!r} {event.get('bytes')!r}"
        await send({"type": "websocket.send", "text": text})


class Echo(EchoConsumer):
    """Uses the extension "echo.reply"."""

    def reply(self, text):
        return f"received {'None' if text == '[object ArrayBuffer]' else repr(text)} None"


def by_address(scope):
    return "address"


nested = counted(loop, by=lambda scope: "inner", auto_reply=REPLIES)
APPLICATIONS = {
    "asynchronous": counted(Asynchronous.as_asgi(), auto_reply=REPLIES),
    "synchronous": counted(Synchronous.as_asgi(), auto_reply=REPLIES),
    "loop": counted(loop, auto_reply=REPLIES),
    "echo": counted(Echo.as_asgi(), auto_reply=REPLIES),
    "several": counted(loop, by=("name", by_address), auto_reply=REPLIES),
    "nested": counted(nested, auto_reply={"tick": "tock", "ping": "pong"}),
}
routes = [path(f"{kind}/<str:name>/websocket", app) for kind, app in APPLICATIONS.items()]
application = ProtocolTypeRouter(
    {
        "http": http,
        "websocket": as_websocket_application([*routes, *websocket_urlpatterns], http=http),
    }
)
