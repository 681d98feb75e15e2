"""A site that echoes as Autobahn|Testsuite expects it: messages come back as they are.

`/loop` through the receive loop, `/extension` texts through the server's extension
"echo.reply", whose answers are texts. Any other path is the demo's.
"""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path

django = get_asgi_application()

from echo.counting import counted  # noqa: E402  (needs the apps to be loaded)


async def loop(scope, receive, send):
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})


async def extension(scope, receive, send):
    scope["extensions"]["echo.reply"](lambda text: text)
    await loop(scope, receive, send)


routes = [
    path("loop", counted(loop, by=lambda scope: "loop")),
    path("extension", counted(extension, by=lambda scope: "extension")),
]
application = ProtocolTypeRouter({"http": django, "websocket": URLRouter(routes)})
