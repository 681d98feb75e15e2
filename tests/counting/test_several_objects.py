"""`counted(by=(...))`: connections that belong to several objects, and the limits of these."""

import asyncio
import json

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.testing import WebsocketCommunicator
from django.core.exceptions import ImproperlyConfigured
from prometheus_client import generate_latest

from echo import counting, log
from echo.counting import counted
from echo.extensions import NAME
from echo.groups.group import get_groups
from echo.live.watcher import CountWatcher
from echo.objects import Member, aset_member_info, get_object
from echo.operations.metrics import EchoCollector
from echo.state.base import total_of
from echo.stats import Stats
from tests.waiting import DEADLINE, eventually

# Consumers close old connections of the database after each event.
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def stats(monkeypatch):
    fresh = Stats()
    monkeypatch.setattr(counting, "process_stats", fresh)
    return fresh


@pytest.fixture(autouse=True)
async def nothing_is_left(settings):
    settings.CHANNEL_LAYERS = {}
    log._last.clear()
    yield
    assert get_groups()._connections == {}
    assert asyncio.all_tasks() == {asyncio.current_task()}


class Consumer(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        if text_data == "name":
            await self.send(text_data=self.scope[NAME])
        else:
            result = await aset_member_info(self.scope, json.loads(text_data))
            await self.send(text_data=str(result))


def by_user(scope):
    return f"user-{scope['query_string'].decode()}"


def by_client(scope):
    return "ip-192.0.2.7"


ALL = ("room", by_user, by_client)


class Tab:
    """A connection: `async with Tab(app) as tab`."""

    def __init__(self, by=ALL, user="ada", room="lobby", denials=True, **options):
        app = counted(Consumer.as_asgi(), by=by, **options)
        self.communicator = WebsocketCommunicator(app, f"/{room}/?{user}")
        self.communicator.scope |= {"url_route": {"kwargs": {"room": room}}}
        if denials:
            self.communicator.scope["extensions"] = {"websocket.http.response": {}}

    async def __aenter__(self):
        is_open, _ = await self.communicator.connect(timeout=DEADLINE)
        assert is_open
        return self

    async def __aexit__(self, *error):
        await self.communicator.disconnect(timeout=DEADLINE)

    async def text(self):
        return await self.communicator.receive_from(timeout=DEADLINE)

    async def ask(self, text):
        await self.communicator.send_to(text_data=text)
        return await self.text()

    async def event(self):
        return await self.communicator.receive_output(timeout=DEADLINE)

    async def events(self, number):
        """Return the first events of a handshake that is denied."""
        await self.communicator.send_input({"type": "websocket.connect"})
        events = [await self.event() for _ in range(number)]
        await self.communicator.send_input({"type": "websocket.disconnect", "code": 1006})
        await self.communicator.wait(timeout=DEADLINE)
        return events


async def until(read, expected):
    await asyncio.to_thread(eventually, read, expected)


def total(state):
    return total_of(state.snapshot()[1])[1]


async def test_connection_is_in_each_object_and_once_in_the_totals(state, stats):
    async with Tab() as ada, Tab(user="bob"):
        counts = {"lobby": 2, "user-ada": 1, "user-bob": 1, "ip-192.0.2.7": 2}
        assert await state.acounts() == counts
        assert await asyncio.to_thread(total, state) == 2
        assert await ada.ask("name") == "lobby"
        text = (await asyncio.to_thread(generate_latest, EchoCollector())).decode()
        assert "echo_open_connections 2.0" in text
        assert stats.joins == 2

    await until(lambda: state.snapshot()[1], {})
    assert stats.closes == {1000: 2}


async def test_live_total_counts_each_connection_once(state):
    watched = CountWatcher.__new__(CountWatcher)._watch(None)
    async with Tab(), Tab(user="bob"):
        watched.set(*await state.asnapshot())

    assert watched.event() == 'data: {"objects": 4, "connections": 2}\n\n'


async def test_name_that_comes_twice_counts_once(memory):
    async with Tab(by=("room", by_user, by_user, "room")):
        assert memory.counts() == {"lobby": 1, "user-ada": 1}

    async with Tab(by=[by_client, lambda scope: by_client(scope)]):
        assert memory.snapshot()[1] == {"ip-192.0.2.7": 1}


@pytest.mark.parametrize("by", [(), [], ("room",) * 11, None, 7, ("room", None), {"room": 1}])
def test_wrong_sequence_is_an_error(by):
    with pytest.raises(ImproperlyConfigured, match=r"^counted\(by="):
        counted(Consumer.as_asgi(), by=by)


async def test_connection_has_up_to_ten_objects(memory):
    names = [f"object-{number}" for number in range(10)]

    async with Tab(by=[lambda scope, name=name: name for name in names]):
        assert memory.counts() == dict.fromkeys(names, 1)
        assert total(memory) == 1


async def test_missing_argument_of_a_sequence_is_an_error(memory):
    with pytest.raises(ImproperlyConfigured, match="has no argument 'tenant'"):
        await Tab(by=("room", "tenant")).events(0)


@pytest.mark.parametrize("name", ["a/b", "", "\n", None])
async def test_invalid_further_name_denies_the_handshake(memory, stats, name):
    start, _ = await Tab(by=("room", lambda scope: name)).events(2)

    assert start["status"] == 400
    assert (memory.snapshot()[1], stats.rejections["name"]) == ({}, 1)


def failing(value):
    raise LookupError(value)


async def test_error_in_a_naming_function_ends_the_handshake(memory):
    with pytest.raises(LookupError):
        await Tab(by=("room", failing)).events(0)

    assert memory.snapshot()[1] == {}


async def test_error_in_the_function_of_limits_ends_the_handshake(memory, settings, monkeypatch):
    settings.ECHO_MAX_CONNECTIONS = f"{__name__}.failing"
    monkeypatch.setattr("echo.state._state", memory)

    with pytest.raises(LookupError):
        await Tab().events(0)

    assert memory.snapshot()[1] == {}


asked = []


def authorize(scope, name, action):
    asked.append(name)
    return name != "secret"


async def test_permission_is_asked_for_the_first_object_and_arguments_of_the_route(
    memory, settings, monkeypatch
):
    settings.ECHO_AUTHORIZE = f"{__name__}.authorize"
    monkeypatch.setattr("echo.state._state", memory)
    asked.clear()

    async with Tab(by=(by_user, by_client, "room")):
        assert asked == ["user-ada", "lobby"]

    for by in ("room", ("room", by_user), (by_user, "room"), (lambda scope: "secret", by_user)):
        room = "secret" if "room" in by else "lobby"
        start, _ = await Tab(by=by, room=room).events(2)
        assert start["status"] == 403
    assert memory.snapshot()[1] == {}


async def test_text_reaches_the_connections_of_each_object(state):
    async with Tab() as ada, Tab(user="bob", room="hall") as bob:
        await get_object("user-ada").asend("to ada")
        await get_object("ip-192.0.2.7").asend("to both")
        await get_object("hall").asend("to the hall")

        assert [await ada.text(), await ada.text()] == ["to ada", "to both"]
        assert [await bob.text(), await bob.text()] == ["to both", "to the hall"]


async def test_close_of_any_object_closes_its_connections_and_leaves_all(state):
    for name in ("lobby", "user-ada", "ip-192.0.2.7"):
        async with Tab() as ada:
            await get_object(name).aclose(4000, "bye")

            assert await ada.event() == {"type": "websocket.close", "code": 4000, "reason": "bye"}
            assert await state.acounts() == {}


async def test_members_are_listed_in_each_object_and_share_their_info(state):
    def member(scope):
        return Member(scope["query_string"].decode(), {"n": 1})

    async with Tab(member=member) as ada, Tab(user="bob", member=member):
        assert await ada.ask('{"typing": true}') == "True"

        members = {
            name: [(m.key, m.info) for m in await get_object(name).amembers()]
            for name in ("lobby", "user-ada")
        }
        assert members["user-ada"] == [("ada", {"n": 1, "typing": True})]
        assert sorted(members["lobby"]) == [
            ("ada", {"n": 1, "typing": True}),
            ("bob", {"n": 1}),
        ]
    await until(lambda: [state.members(name).members for name in members], [{}, {}])


LIMITS = {"user-": 1, "lob": 2, "ip-": 3}
FULL = [
    ("ada", "hall", 429, 4429, b"You have 1 connection, which is the limit."),
    ("cyd", "lobby", 503, 4503, b"This object has 2 connections, which is its limit."),
    ("dan", "hall", 429, 4429, b"You have 3 connections, which is the limit."),
]


@pytest.fixture
def limits(settings):
    settings.ECHO_MAX_CONNECTIONS = LIMITS


@pytest.mark.parametrize(("user", "room", "status", "code", "text"), FULL)
async def test_denial_names_the_limit_and_not_the_object(
    limits, state, stats, caplog, user, room, status, code, text
):
    async with Tab(), Tab(user="bob"), Tab(user="eve", room="hall"):
        before = await state.asnapshot()
        start, body = await Tab(user=user, room=room).events(2)
        accept, close = await Tab(user=user, room=room, denials=False).events(2)
        assert (await state.asnapshot())[1] == before[1]

    assert (start["status"], body["body"]) == (status, text)
    assert (b"retry-after", b"5") in start["headers"]
    assert accept["type"] == "websocket.accept"
    assert close == {"type": "websocket.close", "code": code, "reason": text.decode()}
    assert stats.rejections["full"] == 2
    assert "as many connections as ECHO_MAX_CONNECTIONS allows" in caplog.text


async def test_handshake_that_is_cancelled_counts_nowhere(limits, state):
    for _ in range(20):
        tab = Tab()
        await tab.communicator.send_input({"type": "websocket.connect"})
        await asyncio.sleep(0)
        tab.communicator.stop()
    await until(lambda: state.snapshot()[1], {})

    async with Tab():
        assert await state.acounts() == {"lobby": 1, "user-ada": 1, "ip-192.0.2.7": 1}


async def test_all_objects_are_joined_before_the_accept(limits, state):
    seen = []

    async def send(event):
        seen.append((event["type"], await state.acounts()))

    events = iter([{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}])

    async def receive():
        return next(events)

    scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b"ada"}
    scope["url_route"] = {"kwargs": {"room": "lobby"}}
    await counted(Consumer.as_asgi(), by=ALL)(scope, receive, send)

    assert seen == [("websocket.accept", {"lobby": 1, "user-ada": 1, "ip-192.0.2.7": 1})]
