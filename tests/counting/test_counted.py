import asyncio

import pytest
from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import InMemoryChannelLayer, get_channel_layer
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.core.exceptions import ImproperlyConfigured
from django.urls import path

from echo.counting import counted, read_ahead
from echo.counting.read_ahead import BUSY_TIMEOUT
from echo.groups.subscription import JOIN_TIMEOUT
from echo.middleware.origin import HostAndOriginCheck
from echo.names import group_name
from echo.state import get_state
from echo.state.memory import MemoryState
from tests.waiting import DEADLINE, SECOND, eventually

CONNECT = {"type": "websocket.connect"}
ACCEPT = {"type": "websocket.accept"}
DISCONNECT = {"type": "websocket.disconnect", "code": 1000}


def text(content):
    return {"type": "websocket.receive", "text": content}


class Wire:
    """A server's side of one connection: `sent` holds what came out, and the count by then."""

    def __init__(self, app, name="foo", **scope):
        self.name = name
        self.arriving = asyncio.Queue()
        self.sent = []
        self.scope = {
            "type": "websocket",
            "path": f"/{name}/websocket",
            "url_route": {"args": (), "kwargs": {"name": name}},
            **scope,
        }
        self.task = asyncio.ensure_future(app(self.scope, self.arriving.get, self._send))
        self.arrive(CONNECT)

    async def _send(self, event):
        self.sent.append((event["type"], self.count()))

    def arrive(self, *events):
        for event in events:
            self.arriving.put_nowait(event)

    def count(self):
        return get_state().count(self.name)

    async def accepted(self):
        await until(lambda: self.sent[-1:], [("websocket.accept", 1)])
        return self

    async def end(self):
        async with asyncio.timeout(DEADLINE):
            await self.task


async def until(read, expected, deadline=DEADLINE):
    await asyncio.to_thread(eventually, read, expected, deadline)


async def end_tasks():
    """End what keeps this process in its groups, which would last as long as the event loop."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def echo(scope, receive, send):
    await receive()
    await send(ACCEPT)
    while (event := await receive())["type"] != "websocket.disconnect":
        if event["text"] == "close":
            await send({"type": "websocket.close"})
        elif event["text"] == "return":
            return
        elif event["text"] == "raise":
            raise ZeroDivisionError
        else:
            await send({"type": "websocket.send", "text": event["text"]})


@pytest.fixture(autouse=True)
async def nothing_is_left():
    """Each test begins and ends without a connection, and ends without a task or a timer."""
    assert get_state().counts() == {}
    yield
    assert get_state().counts() == {}
    loop = asyncio.get_running_loop()
    for _ in range(3):  # a task that was cancelled needs a turn to end
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert [timer for timer in loop._scheduled if not timer.cancelled()] == []


@pytest.fixture
def slow_state(monkeypatch):
    """The state of this process, with joins that take until `slow_state.go.set()`."""

    class SlowState(MemoryState):
        def __init__(self):
            super().__init__()
            self.go = asyncio.Event()

        async def join_all(self, *arguments):
            await self.go.wait()
            return await super().join_all(*arguments)

    state = SlowState()
    monkeypatch.setattr("echo.state._state", state)
    return state


class HangingLayer(InMemoryChannelLayer):
    async def group_add(self, group, channel):
        await asyncio.sleep(100 * SECOND)


async def test_handshake_waits_once_for_state_and_channel_layer(slow_state, settings):
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": f"{__name__}.HangingLayer"}}
    loop = asyncio.get_running_loop()
    loop.call_later(0.8 * JOIN_TIMEOUT, slow_state.go.set)
    wire = Wire(counted(echo))

    began = loop.time()
    await wire.accepted()
    seconds = loop.time() - began

    assert seconds < 1.6 * JOIN_TIMEOUT  # one after the other they would take 1.8
    wire.arrive(DISCONNECT)
    await wire.end()
    await end_tasks()


class SlowLayer(InMemoryChannelLayer):
    async def group_add(self, group, channel):
        await asyncio.sleep(0.2 * JOIN_TIMEOUT)
        await super().group_add(group, channel)


async def test_slow_state_takes_nothing_of_the_time_for_the_channel_layer(slow_state, settings):
    """As while a Redis warms up: when the client is accepted, the group reaches it."""
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": f"{__name__}.SlowLayer"}}
    asyncio.get_running_loop().call_later(1.2 * JOIN_TIMEOUT, slow_state.go.set)
    wire = Wire(counted(echo))

    await wire.accepted()

    assert group_name("foo") in get_channel_layer().groups
    wire.arrive(DISCONNECT)
    await wire.end()
    await end_tasks()


async def test_connection_counts_before_its_accept_goes_out():
    wire = Wire(counted(echo))

    await wire.accepted()

    assert wire.sent == [("websocket.accept", 1)]
    wire.arrive(DISCONNECT)
    await wire.end()


async def test_connection_counts_no_more_before_its_close_goes_out():
    wire = await Wire(counted(echo)).accepted()

    wire.arrive(text("close"))

    await until(lambda: wire.sent[1:], [("websocket.close", 0)])
    wire.arrive(DISCONNECT)
    await wire.end()


async def test_connection_counts_no_more_once_its_disconnect_has_come():
    counts = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await receive()
        counts.append(get_state().count("foo"))

    wire = await Wire(counted(app)).accepted()

    wire.arrive(DISCONNECT)
    await wire.end()

    assert counts == [0]


async def test_connection_counts_no_more_when_its_application_returns():
    wire = await Wire(counted(echo)).accepted()

    wire.arrive(text("return"))
    await wire.end()

    assert wire.count() == 0


async def test_connection_counts_no_more_when_its_application_raises():
    wire = await Wire(counted(echo)).accepted()

    wire.arrive(text("raise"))
    with pytest.raises(ZeroDivisionError):
        await wire.end()

    assert wire.count() == 0


async def test_connection_counts_no_more_when_its_application_is_cancelled():
    wire = await Wire(counted(echo)).accepted()

    wire.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wire.end()

    assert wire.count() == 0


async def test_connection_that_ends_in_three_ways_leaves_once():
    other = await Wire(counted(echo)).accepted()
    wire = Wire(counted(echo))
    await until(wire.count, 2)

    wire.arrive(text("close"), text("hello"), text("raise"), DISCONNECT)
    with pytest.raises(ZeroDivisionError):
        await wire.end()

    assert wire.count() == 1
    other.arrive(DISCONNECT)
    await other.end()


async def test_connection_that_is_accepted_twice_counts_once():
    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await send(ACCEPT)
        await receive()

    wire = Wire(counted(app))

    await until(lambda: wire.sent, [("websocket.accept", 1)] * 2)
    wire.arrive(DISCONNECT)
    await wire.end()


async def test_connection_that_is_accepted_twice_while_it_joins_counts_once(slow_state):
    async def app(scope, receive, send):
        await receive()
        await asyncio.gather(send(ACCEPT), send(ACCEPT))
        await receive()

    wire = Wire(counted(app))
    await asyncio.sleep(0)
    slow_state.go.set()

    await until(lambda: len(wire.sent), 2)
    assert wire.count() == 1
    wire.arrive(DISCONNECT)
    await wire.end()


async def test_connection_that_is_accepted_after_its_disconnect_never_counts():
    async def app(scope, receive, send):
        await receive()
        assert await receive() == DISCONNECT
        await send(ACCEPT)

    wire = Wire(counted(app))

    wire.arrive(DISCONNECT)
    await wire.end()

    assert wire.sent == [("websocket.accept", 0)]


async def test_connection_that_ends_while_it_joins_does_not_count(slow_state):
    async def app(scope, receive, send):
        await receive()
        accepting = asyncio.ensure_future(send(ACCEPT))
        assert await receive() == DISCONNECT
        slow_state.go.set()
        await accepting

    wire = Wire(counted(app))

    wire.arrive(DISCONNECT)
    await wire.end()

    assert wire.sent == [("websocket.accept", 0)]


async def test_connection_that_vanishes_unheard_while_it_joins_does_not_count(slow_state):
    """Its application waits for the join, so that only the read-ahead can notice the disconnect."""
    wire = Wire(counted(echo))

    wire.arrive(DISCONNECT)
    await until(wire.arriving.empty, True)
    slow_state.go.set()
    await wire.end()

    assert wire.sent == [("websocket.accept", 0)]


async def test_connection_that_is_cancelled_while_it_joins_does_not_count(slow_state):
    wire = Wire(counted(echo))
    await until(wire.arriving.empty, True)

    wire.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wire.end()

    assert wire.count() == 0


@pytest.mark.parametrize(
    "answer", [{"type": "websocket.close"}, {"type": "websocket.http.response.start"}]
)
async def test_refused_handshake_never_counts(answer):
    async def app(scope, receive, send):
        await receive()
        await send(answer)
        await receive()

    wire = Wire(counted(app))

    wire.arrive(DISCONNECT)
    await wire.end()

    assert wire.sent == [(answer["type"], 0)]


class Busy:
    """An application that is busy from its accept until `go`, then takes all that has come."""

    def __init__(self):
        self.go = asyncio.Event()
        self.received = []

    async def __call__(self, scope, receive, send):
        await receive()
        await send(ACCEPT)
        await self.go.wait()
        while (event := await receive())["type"] != "websocket.disconnect":
            self.received.append(event["text"])


async def test_busy_application_is_counted_no_more_soon_after_the_disconnect():
    app = Busy()
    wire = await Wire(counted(app)).accepted()

    wire.arrive(DISCONNECT)

    await until(wire.count, 0, BUSY_TIMEOUT + SECOND)
    app.go.set()
    await wire.end()


async def test_busy_application_with_messages_waiting_is_counted_no_more_either():
    app = Busy()
    wire = await Wire(counted(app)).accepted()

    wire.arrive(*[text("hello")] * 1000, DISCONNECT)

    await until(wire.count, 0, BUSY_TIMEOUT + SECOND)
    app.go.set()
    await wire.end()


async def test_busy_application_finds_all_events_in_their_order():
    app = Busy()
    wire = await Wire(counted(app)).accepted()

    wire.arrive(*map(text, "abc"))
    await until(wire.arriving.empty, True)
    wire.arrive(*map(text, "def"))
    app.go.set()
    wire.arrive(*map(text, "ghi"), DISCONNECT)
    await wire.end()

    assert app.received == list("abcdefghi")


async def test_busy_application_does_not_draw_a_flood_into_memory(monkeypatch):
    monkeypatch.setattr(read_ahead, "MAX_READ_AHEAD", 10_000)
    app = Busy()
    wire = await Wire(counted(app)).accepted()

    wire.arrive(*[text("x" * 1000)] * 100)

    await until(lambda: wire.arriving.qsize() < 100, True)
    await asyncio.sleep(0.1 * SECOND)
    assert wire.arriving.qsize() > 80
    app.go.set()
    wire.arrive(DISCONNECT)
    await wire.end()
    assert app.received == ["x" * 1000] * 100


async def test_application_that_gives_up_waiting_loses_no_event():
    received = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await asyncio.sleep(2 * BUSY_TIMEOUT)  # busy: the read-ahead reads
        for _ in range(3):
            try:
                async with asyncio.timeout(0.01):
                    received.append(await receive())
            except TimeoutError:
                received.append("nothing yet")
        received.append(await receive())
        received.append(await receive())

    wire = await Wire(counted(app)).accepted()

    await until(lambda: received, ["nothing yet"] * 3)
    wire.arrive(text("hello"), DISCONNECT)
    await wire.end()

    assert received[3:] == [text("hello"), DISCONNECT]


async def test_application_that_is_busy_and_then_closes_still_receives_its_disconnect():
    last = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await asyncio.sleep(3 * BUSY_TIMEOUT)  # busy: the read-ahead reads
        await send({"type": "websocket.close", "code": 1000})
        last.append(await receive())

    wire = await Wire(counted(app)).accepted()

    wire.arrive(text("hello"))
    await until(lambda: wire.sent[1:], [("websocket.close", 0)])
    wire.arrive(DISCONNECT)
    await wire.end()

    assert last == [DISCONNECT]


async def test_server_that_tells_the_end_is_believed_at_once():
    """The extension "echo.on_end" of our own servers."""
    functions = []
    app = Busy()
    scope = {"extensions": {"echo.on_end": functions.append}}
    wire = await Wire(counted(app), **scope).accepted()

    (end,) = functions
    end()

    assert wire.count() == 0
    app.go.set()
    wire.arrive(DISCONNECT)
    await wire.end()


async def test_server_that_tells_the_end_is_not_listened_to_in_place_of_the_application():
    receives = []

    async def app(scope, receive, send):
        receives.append(receive)

    wire = Wire(counted(app), extensions={"echo.on_end": lambda end: None})
    await wire.end()

    assert receives == [wire.arriving.get]


async def test_server_that_tells_the_end_before_the_accept_never_counts():
    wire = Wire(counted(echo), extensions={"echo.on_end": lambda end: end()})

    wire.arrive(DISCONNECT)
    await wire.end()

    assert wire.sent == [("websocket.accept", 0)]


async def test_connection_of_two_objects_counts_in_both():
    wire = await Wire(counted(counted(echo, by=lambda scope: "inner")), name="foo").accepted()
    assert get_state().counts() == {"foo": 1, "inner": 1}

    wire.arrive(DISCONNECT)
    await wire.end()

    assert get_state().counts() == {}


@pytest.mark.parametrize("kind", ["http", "lifespan"])
async def test_other_scopes_pass_untouched(kind):
    calls = []

    async def app(*arguments):
        calls.append(arguments)

    async def receive():
        raise AssertionError

    async def send(event):
        raise AssertionError

    scope = {"type": kind}
    await counted(app)(scope, receive, send)

    assert calls == [(scope, receive, send)]
    assert calls[0][0] is scope


INVALID = [
    ("", "A name has 1 to 128 bytes of UTF-8; this one has 0."),
    ("x" * 129, "A name has 1 to 128 bytes of UTF-8; this one has 129."),
    ("a\nb", r"The name 'a\nb' has a control character."),
    ("a/b", "The name 'a/b' has a slash."),
]


@pytest.mark.parametrize(("name", "message"), INVALID)
async def test_invalid_name_is_answered_with_400_where_the_server_can(name, message):
    sent = []

    async def receive():
        return CONNECT

    async def send(event):
        sent.append(event)

    scope = scope_of(name, extensions={"websocket.http.response": {}})
    await counted(echo)(scope, receive, send)

    assert sent == [
        {
            "type": "websocket.http.response.start",
            "status": 400,
            "headers": [
                (b"content-type", b"text/plain;charset=UTF-8"),
                (b"cache-control", b"no-store"),
                (b"content-length", str(len(message)).encode()),
            ],
        },
        {"type": "websocket.http.response.body", "body": message.encode(), "more_body": False},
    ]


@pytest.mark.parametrize(("name", "message"), INVALID)
async def test_invalid_name_is_refused_by_a_close_elsewhere(name, message):
    sent = []

    async def receive():
        return CONNECT

    async def send(event):
        sent.append(event)

    await counted(echo)(scope_of(name), receive, send)

    assert sent == [{"type": "websocket.close", "code": 1008, "reason": message}]


def scope_of(name, **more):
    route = {"args": (), "kwargs": {"name": name}}
    return {"type": "websocket", "path": "/", "url_route": route, **more}


async def test_wrong_argument_is_told_with_the_route_and_its_arguments():
    wire = Wire(counted(echo, by="room"))

    with pytest.raises(ImproperlyConfigured) as raised:
        await wire.end()

    assert str(raised.value) == (
        "counted(by='room'): the route of '/foo/websocket' has no argument 'room'; it has 'name'. "
        "Name one of them, or pass a function of the scope."
    )


async def test_missing_route_is_told_to_have_no_argument():
    scope = {"type": "websocket", "path": "/ws"}

    with pytest.raises(ImproperlyConfigured) as raised:
        await counted(echo)(scope, None, None)

    assert str(raised.value) == (
        "counted(by='name'): the route of '/ws' has no argument 'name'; it has none. "
        "Name one of them, or pass a function of the scope."
    )


async def test_object_can_be_told_by_a_function_of_the_scope():
    wire = Wire(counted(echo, by=lambda scope: scope["subprotocols"][0]), subprotocols=["chat"])

    await until(lambda: get_state().counts(), {"chat": 1})

    wire.arrive(DISCONNECT)
    await wire.end()


async def test_object_can_be_told_by_a_number_of_the_route():
    router = URLRouter([path("ws/<int:room>/", counted(echo, by="room"))])
    communicator = WebsocketCommunicator(router, "/ws/7/")

    await communicator.connect()

    assert get_state().counts() == {"7": 1}
    await communicator.disconnect()


def test_consumer_without_as_asgi_is_told():
    with pytest.raises(ImproperlyConfigured) as raised:
        counted(AsyncWebsocketConsumer)

    sentence = "counted() needs an application: write AsyncWebsocketConsumer.as_asgi()."
    assert str(raised.value) == sentence


ROUTER = URLRouter([path("ws/", echo)])


@pytest.mark.parametrize("app", [ROUTER, AuthMiddlewareStack(ROUTER), HostAndOriginCheck(ROUTER)])
def test_router_that_cannot_give_an_argument_is_told(app):
    with pytest.raises(ImproperlyConfigured) as raised:
        counted(app, by="room")

    assert str(raised.value) == (
        "counted() wraps a router. Wrap each consumer: "
        'path("chat/<str:room>/", counted(ChatConsumer.as_asgi(), by="room")).'
    )


async def test_router_can_be_counted_by_a_function_of_the_scope():
    router = URLRouter([path("ws/", echo)])
    communicator = WebsocketCommunicator(counted(router, by=lambda scope: "all"), "/ws/")

    await communicator.connect()

    assert get_state().counts() == {"all": 1}
    await communicator.disconnect()


async def test_wrapping_leaves_the_application_as_it_is():
    application = AsyncWebsocketConsumer.as_asgi()
    before = dict(vars(application))

    counted(application)

    assert vars(application) == before
