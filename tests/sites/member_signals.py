"""The demo, with members: `ws://…/foo/websocket?member=ada`, and `http://…/foo/members` as JSON.

If SIGNALS_FILE is set, receivers write the signals to that file.
"""

import json
import os
from urllib.parse import parse_qs

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, WebSocketScope
from channels.routing import ProtocolTypeRouter
from django.urls import path

from echo.consumers import EchoConsumer
from echo.counting import counted
from echo.exceptions import StateUnavailable
from echo.members import Member
from echo.routing import as_websocket_application
from echo.signals import member_joined, member_left, object_occupied, object_vacated
from echo.state import get_state
from project.asgi import application as demo


def member_of(scope: WebSocketScope) -> Member | None:
    """Return the member that the query string names."""
    [key] = parse_qs(scope["query_string"].decode()).get("member", [""])
    return Member(key, {"name": key.title()}) if key else None


async def http(scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Return `{"connections": 3, "members": {"ada": 2}}` as one step of the state reads it."""
    name, _, view = scope["path"].strip("/").rpartition("/")
    if view != "members":
        return await demo.application_mapping["http"](scope, receive, send)
    try:
        found = await get_state().amembers(name)
        status = 200
        members = {key: presence.connections for key, presence in found.members.items()}
        body = {"connections": found.connections, "members": members}
    except StateUnavailable as error:
        status, body = 503, {"error": str(error)}
    text = json.dumps(body).encode()
    headers = [(b"content-length", b"%d" % len(text))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})


routes = [path("<str:name>/websocket", counted(EchoConsumer.as_asgi(), member=member_of))]
application = ProtocolTypeRouter({"http": http, "websocket": as_websocket_application(routes)})


def write(*words: str) -> None:
    descriptor = os.open(os.environ["SIGNALS_FILE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, (" ".join(words) + "\n").encode())
    os.close(descriptor)


def occupied(name: str, **kwargs: object) -> None:
    write("occupied", name)


def vacated(name: str, **kwargs: object) -> None:
    write("vacated", name)


def joined(name: str, member: Member, **kwargs: object) -> None:
    write("joined", name, str(member.key))


async def left(name: str, member: Member, **kwargs: object) -> None:
    write("left", name, str(member.key))


if "SIGNALS_FILE" in os.environ:
    object_occupied.connect(occupied)
    object_vacated.connect(vacated)
    member_joined.connect(joined)
    member_left.connect(left)
