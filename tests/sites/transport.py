"""A site with an application for each need of the server tests: `/<kind>/<name>/websocket`.

Any other path is the demo's. At its end the site prints the counts that are left.
"""

import asyncio
import atexit
import copy
import gc
import json
import logging
import os
import pickle
import socket
import threading
import time

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

from channels.generic.websocket import (
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application
from django.urls import path

django = get_asgi_application()

# Views read the routes of ASGI_APPLICATION, whose first import configures logging again.
import project.asgi  # noqa: E402, F401
from echo.consumers import EchoConsumer  # noqa: E402  (needs the apps to be loaded)
from echo.counting import counted  # noqa: E402
from echo.extensions import ON_END, REPLY  # noqa: E402
from echo.objects import get_object  # noqa: E402
from echo.routing import as_websocket_application, websocket_urlpatterns  # noqa: E402
from echo.server.connection import WebSocketConnection  # noqa: E402
from echo.server.registry import get_open_connections  # noqa: E402
from echo.state import get_state  # noqa: E402

# Silence Django's message for each 4xx: tests check what else is logged.
logging.getLogger("django.request").setLevel(logging.ERROR)
logging.getLogger("echo.denial").setLevel(logging.ERROR)

events: list[str] = []  # recorded by consumers, for GET /events
release = asyncio.Event()  # set by GET /release
PIECE = "x" * 65_536
BLOCKED = 3  # seconds


async def loop(scope, receive, send):
    """Echoes in a receive loop, without the server's extensions."""
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})


async def busy(scope, receive, send):
    """Echoes like `loop`, but only after `release`."""
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    await release.wait()
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})


async def deaf(scope, receive, send):
    """Accepts, and then neither receives nor returns."""
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    await asyncio.sleep(3600)


async def failing_at_the_end(scope, receive, send):
    """Registers a callback that raises when the connection ends."""
    scope["extensions"][ON_END](lambda code: 1 / 0)
    await deaf(scope, receive, send)


async def lingering(scope, receive, send):
    """Finishes half a second after its disconnect."""
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    await receive()
    await asyncio.sleep(0.5)


async def broadcast(scope, receive, send):
    """Sends for ever, whatever the client does."""
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    while True:
        await send({"type": "websocket.send", "text": PIECE})


async def burst(scope, receive, send):
    """Sends 1000 large messages for each of the client's, without receiving meanwhile."""
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    while (await receive())["type"] == "websocket.receive":
        for _ in range(1000):
            await send({"type": "websocket.send", "text": PIECE})


async def stubborn(scope, receive, send):
    """Closes by the client's commands (`close 1001`), and continues if that raises."""
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        command, _, code = event["text"].partition(" ")
        answer = {"type": "websocket.close", "code": int(code)}
        if command == "deny":
            answer = {"type": START, "status": int(code), "headers": []}
        if command == "reason":
            answer["reason"] = int(code)  # not a text
        try:
            await send(answer)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            await send({"type": "websocket.send", "text": text})


async def impatient(scope, receive, send):
    """Closes after the first text, with a timeout that cancels the send."""
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    await receive()
    try:
        async with asyncio.timeout(0.05):
            await send({"type": "websocket.close", "code": 4001})
    except TimeoutError:
        await send({"type": "websocket.send", "text": "given up"})
    await asyncio.sleep(3600)


async def endless(scope, receive, send):
    """Receives for ever, even after the disconnect."""
    try:
        await receive()  # websocket.connect
        await send({"type": "websocket.accept"})
        while True:
            await receive()
    finally:
        events.append("endless cancelled")


class Grouped(AsyncWebsocketConsumer):
    """Is busy in the method `busy_in`, and then sends; records its disconnect()."""

    busy_in = "connect"

    async def connect(self):
        self.path = self.scope["path"]
        events.append(f"begins {self.path}")
        if self.busy_in == "connect":
            await asyncio.sleep(0.5)
        await self.accept()
        await self.send(text_data="accepted")

    async def receive(self, text_data=None, bytes_data=None):
        events.append(f"receives {self.path}")
        await asyncio.sleep(0.5)
        for _ in range(20):
            await self.send(text_data=PIECE)
            await asyncio.sleep(0.01)

    async def disconnect(self, code):
        events.append(f"disconnect {self.path}")


class GroupedInReceive(Grouped):
    busy_in = "receive"


async def pushing(scope, receive, send):
    """Sends now and then, and never receives."""
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    while True:
        await asyncio.sleep(0.3)
        await send({"type": "websocket.send", "text": "news"})


class SlowEcho(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        await asyncio.sleep(0.03)
        await self.send(text_data=text_data)


async def copying(scope, receive, send):
    """Copies and pickles its scope, as test suites do; then sends the keys of each event."""
    own = {
        key: value for key, value in scope.items() if key != "url_route"
    }  # which cannot be pickled
    copied = copy.deepcopy(own)
    pickled = pickle.loads(pickle.dumps(own))
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    copies = {"copied": copied["path"], "pickled": pickled["headers"] == scope["headers"]}
    await send({"type": "websocket.send", "text": json.dumps(copies)})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": json.dumps(sorted(event))})


class ScriptError(Exception):
    pass


async def script(scope, receive, send):
    """Executes the client's commands: `close 1001 reason`, `raise`, `return`."""
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        command, _, rest = event["text"].partition(" ")
        if command == "return":
            return
        if command == "raise":
            raise ScriptError(rest)
        code, _, reason = rest.partition(" ")
        await send({"type": "websocket.close", "code": int(code), "reason": reason})
        try:
            await send({"type": "websocket.send", "text": "too late"})
        except OSError as error:
            events.append(type(error).__name__)


START = "websocket.http.response.start"
BODY = "websocket.http.response.body"
CRLF = (b"x-name", b"value\r\nset-cookie: stolen=1")

ANSWERS = {
    "raises": [],
    "rejects": [{"type": "websocket.close"}],
    "denies": [
        {
            "type": START,
            "status": 401,
            "headers": [(b"x-why", b"token"), (b"content-length", b"9")],
        },
        {"type": BODY, "body": b"No ", "more_body": True},
        {"type": BODY, "body": b"token."},
    ],
    "denies-briefly": [{"type": START, "status": 403}, {"type": BODY, "body": b"No token."}],
    "denies-twice": [{"type": START, "status": 403}, {"type": START, "status": 404}],
    "accepts": [
        {"type": "websocket.accept", "subprotocol": "b", "headers": [(b"x-one", b"1")]},
        {"type": "websocket.close", "code": 4000, "reason": "done"},
    ],
    "status-700": [{"type": START, "status": 700}, {"type": BODY}],
    "injects-header": [{"type": "websocket.accept", "headers": [CRLF]}],
    "injects-subprotocol": [{"type": "websocket.accept", "subprotocol": "b\r\nset-cookie: c=1"}],
    "injects-denial": [{"type": START, "status": 403, "headers": [CRLF]}, {"type": BODY}],
}


def answering(answers):
    async def application(scope, receive, send):
        await receive()  # websocket.connect
        for answer in answers:
            await send(answer)
        if not answers:
            raise ScriptError("in connect")

    return application


async def sleeper(scope, receive, send):
    """Blocks a thread for each message."""
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    while (await receive())["type"] == "websocket.receive":
        await asyncio.to_thread(time.sleep, 20)


async def returns(scope, receive, send):
    """Returns without accepting or rejecting."""


async def silent(scope, receive, send):
    """Neither accepts nor rejects."""
    await asyncio.sleep(3600)


class Asynchronous(AsyncWebsocketConsumer):
    async def connect(self):
        await self.accept()

    async def receive(self, text_data=None, bytes_data=None):
        if text_data == "close":
            await self.close(4001, "as asked")
        else:
            await self.send(text_data=text_data, bytes_data=bytes_data)

    async def disconnect(self, code):
        await asyncio.sleep(0.01)
        events.append(f"asynchronous {code}")


class Blocking(Asynchronous):
    """Blocks the event loop in its connect(), as a breakpoint does."""

    async def connect(self):
        time.sleep(BLOCKED)
        await self.accept()


class BlockingThenAwaiting(Asynchronous):
    async def connect(self):
        time.sleep(BLOCKED)
        await asyncio.sleep(0.01)
        await self.accept()


def in_other_loop(call):
    """Run a coroutine function in the event loop of another thread, as reactpy-django does."""
    future = asyncio.run_coroutine_threadsafe(call(), other_loop)
    return asyncio.wrap_future(future)


other_loop = asyncio.new_event_loop()
threading.Thread(target=other_loop.run_forever, daemon=True).start()


class OtherLoop(Asynchronous):
    """Sends and closes from the event loop of another thread."""

    async def connect(self):
        await in_other_loop(self.accept)

    async def receive(self, text_data=None, bytes_data=None):
        async def send_pieces():
            for _ in range(int(text_data)):
                await self.send(text_data=PIECE)
            await self.close(4001, "all sent")

        try:
            await in_other_loop(send_pieces)
        except Exception as error:
            events.append(repr(error))
            raise


class Amplifying(EchoConsumer):
    def reply(self, text):
        return PIECE


class Synchronous(WebsocketConsumer):
    def receive(self, text_data=None, bytes_data=None):
        if text_data == "close":
            self.close(4001, "as asked")
        else:
            self.send(text_data=text_data, bytes_data=bytes_data)

    def disconnect(self, code):
        events.append(f"synchronous {code}")


class Json(JsonWebsocketConsumer):
    def receive_json(self, content):
        if content == "close":
            self.close(4001, "as asked")
        else:
            self.send_json(content)

    def disconnect(self, code):
        events.append(f"json {code}")


KINDS = {
    "echo": EchoConsumer.as_asgi(),
    "amplifying": Amplifying.as_asgi(),
    "loop": loop,
    "busy": busy,
    "deaf": deaf,
    "failing-at-the-end": failing_at_the_end,
    "lingering": lingering,
    "broadcast": broadcast,
    "burst": burst,
    "endless": endless,
    "busy-in-connect": Grouped.as_asgi(),
    "busy-in-receive": GroupedInReceive.as_asgi(),
    "pushing": pushing,
    "slow-echo": SlowEcho.as_asgi(),
    "copying": copying,
    "script": script,
    "impatient": impatient,
    "stubborn": stubborn,
    "returns": returns,
    "silent": silent,
    "sleeper": sleeper,
    "asynchronous": Asynchronous.as_asgi(),
    "blocking": Blocking.as_asgi(),
    "blocking-then-awaiting": BlockingThenAwaiting.as_asgi(),
    "other-loop": OtherLoop.as_asgi(),
    "synchronous": Synchronous.as_asgi(),
    "json": Json.as_asgi(),
    **{kind: answering(answers) for kind, answers in ANSWERS.items()},
}


async def answer(send, content):
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})


async def http(scope, receive, send):
    if scope["path"] == "/scope":
        await answer(send, {"root_path": scope["root_path"], "path": scope["path"]})
    elif scope["path"].startswith("/count/"):  # responds sooner than Django under load
        await answer(send, get_state().count(scope["path"].removeprefix("/count/")))
    elif scope["path"] == "/open":
        await answer(send, len(get_open_connections()))
    elif scope["path"] == "/kept":  # connections in memory
        kept = [each for each in gc.get_objects() if issubclass(type(each), WebSocketConnection)]
        await answer(send, len(kept))
    elif scope["path"] == "/collector":
        await answer(send, [gc.get_freeze_count() > 10_000, *gc.get_threshold()])
    elif scope["path"] == "/events":
        await answer(send, events)
    elif scope["path"] == "/release":
        release.set()
        await answer(send, "released")
    elif scope["path"].startswith("/close/"):
        code = int(scope["query_string"])
        await get_object(scope["path"].removeprefix("/close/")).aclose(code)
        await answer(send, "closed")
    elif scope["path"].startswith("/push/"):
        for _ in range(200):
            await get_object(scope["path"].removeprefix("/push/")).asend(PIECE)
        await answer(send, "pushed")
    elif scope["path"] == "/wait":
        await asyncio.sleep(float(scope["query_string"] or 3600))
        await answer(send, "waited")
    elif scope["path"] == "/stream":
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while True:
            await send({"type": "http.response.body", "body": b":" * 100_000, "more_body": True})
            await asyncio.sleep(0.1)
    elif scope["path"] == "/breaks":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        raise ScriptError("in the middle")
    elif scope["path"] == "/size":
        size = 0
        while (event := await receive())["type"] == "http.request":
            size += len(event["body"])
            if not event["more_body"]:
                break
        await answer(send, size)
    else:
        await django(scope, receive, send)


async def root_path(scope, receive, send):
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    text = json.dumps({"root_path": scope["root_path"], "path": scope["path"]})
    await send({"type": "websocket.send", "text": text})


CORE = (  # ASGI spec, "Websocket Connection Scope"
    *("type", "asgi", "http_version", "scheme", "path", "raw_path", "query_string", "root_path"),
    *("headers", "client", "server", "subprotocols"),
)


async def core_scope(scope, receive, send):
    """Sends its scope, and whether Daphne's front door has read the handshake."""
    connection = scope["extensions"][REPLY].__self__
    by_front_door = getattr(connection, "accepted", None) is not None
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    core = {**{key: scope[key] for key in CORE}, "by the front door": by_front_door}
    if scope["client"] is not None:
        own = connection.transport.get_extra_info("socket")
        core["without delay"] = own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    await send({"type": "websocket.send", "text": json.dumps(core, default=repr)})


def print_counts():
    print(f"Counts left: {get_state().counts()}", flush=True)


async def lifespan(scope, receive, send):
    """Print the counts when uvicorn stops. Daphne has no lifespan: there atexit prints them."""
    while True:
        kind = (await receive())["type"]
        if kind == "lifespan.shutdown":
            print_counts()
        await send({"type": f"{kind}.complete"})


atexit.register(print_counts)

routes = [path(f"{kind}/<str:name>/websocket", counted(app)) for kind, app in KINDS.items()]
routes.append(path("automatic/<str:name>/websocket", counted(deaf, auto_reply={"x" * 1000: PIECE})))
websocket = as_websocket_application(
    [*routes, path("scope", root_path), path("core-scope", core_scope), *websocket_urlpatterns],
    http=http,
)
application = ProtocolTypeRouter({"http": http, "websocket": websocket, "lifespan": lifespan})
