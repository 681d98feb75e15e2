"""A site whose applications misbehave as the path says: `/<kind>/<behaviour>/<name>/websocket`.

A behaviour is `echo`, `refuse`, `close-in-receive`, or `raise-in-` or `hold-in-` and one of
connect, accepted, receive, disconnect. What holds goes on at `GET /release/<name>`; what has
happened to a name so far is told by `GET /story/<name>`.
"""

import asyncio
import json
import os
import time
from collections import defaultdict

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path

django = get_asgi_application()

from echo.counting import counted  # noqa: E402  (needs the apps to be loaded)
from tests.waiting import DEADLINE  # noqa: E402

stories: dict[str, list[str]] = defaultdict(list)
released: set[str] = set()


class MisbehaviourError(Exception):
    pass


class Script:
    """What an application must do at a moment, by the arguments of its route."""

    def __init__(self, scope):
        self.behaviour = scope["url_route"]["kwargs"]["behaviour"]
        self.name = scope["url_route"]["kwargs"]["name"]

    async def at(self, moment):
        if self._holds(moment):
            end = time.monotonic() + DEADLINE
            while self.name not in released and time.monotonic() < end:
                await asyncio.sleep(0.01)

    def blocking_at(self, moment):
        if self._holds(moment):
            end = time.monotonic() + DEADLINE
            while self.name not in released and time.monotonic() < end:
                time.sleep(0.01)

    def _holds(self, moment):
        stories[self.name].append(moment)
        if self.behaviour == f"raise-in-{moment}":
            raise MisbehaviourError(moment)
        return self.behaviour == f"hold-in-{moment}"


class Asynchronous(AsyncWebsocketConsumer):
    async def connect(self):
        self.script = Script(self.scope)
        await self.script.at("connect")
        if self.script.behaviour == "refuse":
            await self.close()
            return
        await self.accept()
        await self.script.at("accepted")

    async def receive(self, text_data=None, bytes_data=None):
        await self.script.at("receive")
        if self.script.behaviour == "close-in-receive":
            await self.close(4001)
        else:
            await self.send(text_data=text_data)

    async def disconnect(self, code):
        await self.script.at("disconnect")


class Synchronous(WebsocketConsumer):
    def connect(self):
        self.script = Script(self.scope)
        self.script.blocking_at("connect")
        if self.script.behaviour == "refuse":
            self.close()
            return
        self.accept()
        self.script.blocking_at("accepted")

    def receive(self, text_data=None, bytes_data=None):
        self.script.blocking_at("receive")
        if self.script.behaviour == "close-in-receive":
            self.close(4001)
        else:
            self.send(text_data=text_data)

    def disconnect(self, code):
        self.script.blocking_at("disconnect")


async def function(scope, receive, send):
    script = Script(scope)
    await receive()  # websocket.connect
    await script.at("connect")
    if script.behaviour == "refuse":
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.accept"})
    await script.at("accepted")
    while (event := await receive())["type"] == "websocket.receive":
        await script.at("receive")
        if script.behaviour == "close-in-receive":
            await send({"type": "websocket.close", "code": 4001})
        else:
            await send({"type": "websocket.send", "text": event["text"]})
    await script.at("disconnect")


def observed(app):
    """Return the application; the text "cancel" cancels it, and its end goes into the story."""

    async def application(scope, receive, send):
        task = asyncio.current_task()

        async def cancelling_receive():
            event = await receive()
            if event.get("text") == "cancel":
                task.cancel()
            return event

        try:
            await app(scope, cancelling_receive, send)
        finally:
            stories[scope["url_route"]["kwargs"]["name"]].append("end")

    return application


KINDS = {
    "asynchronous": Asynchronous.as_asgi(),
    "synchronous": Synchronous.as_asgi(),
    "function": function,
}


async def http(scope, receive, send):
    _, verb, *rest = scope["path"].split("/")
    if verb == "release":
        released.add(rest[0])
    if verb not in ("release", "story"):
        await django(scope, receive, send)
        return
    body = json.dumps(stories[rest[0]]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


application = ProtocolTypeRouter(
    {
        "http": http,
        "websocket": URLRouter(
            [
                path(f"{kind}/<str:behaviour>/<str:name>/websocket", observed(counted(app)))
                for kind, app in KINDS.items()
            ]
        ),
    }
)
