"""`counted(member=...)`: who is listed, and what errors in the member function change: nothing."""

import asyncio
import functools
import json
import math
from threading import Event
from uuid import UUID

import pytest
from channels.auth import AuthMiddlewareStack
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.testing import WebsocketCommunicator
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.sessions.backends.db import SessionStore
from django.core.exceptions import ImproperlyConfigured

from echo import log
from echo.counting import counted
from echo.extensions import CONNECTION, NAME
from echo.groups.group import get_groups
from echo.objects import Member, aset_member_info, get_object, set_member_info
from echo.state import get_state
from tests.states import messages
from tests.waiting import DEADLINE, eventually

# Consumers close old connections of the database after each event.
pytestmark = pytest.mark.django_db(transaction=True)

ID = UUID("12345678123456781234567812345678")
SECRET = "s3cret"
CONNECT = {"type": "websocket.connect"}
ACCEPT = {"type": "websocket.accept"}
DISCONNECT = {"type": "websocket.disconnect", "code": 1000}


@pytest.fixture(autouse=True)
async def nothing_is_left(settings):
    settings.CHANNEL_LAYERS = {}
    log._last.clear()
    yield
    assert get_groups()._connections == {}
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def until(read, expected, deadline=DEADLINE):
    await asyncio.to_thread(eventually, read, expected, deadline)


def listed(name="foo"):
    return {member.key: member.connections for member in get_object(name).members()}


class Tab:
    """A connection: `async with Tab(app) as tab`."""

    def __init__(self, app, name="foo", **scope):
        self.communicator = WebsocketCommunicator(app, f"/{name}/")
        self.communicator.scope |= {"url_route": {"kwargs": {"name": name}}, **scope}

    async def __aenter__(self):
        is_open, _ = await self.communicator.connect(timeout=DEADLINE)
        assert is_open
        return self

    async def __aexit__(self, *error):
        await self.communicator.disconnect(timeout=DEADLINE)

    async def text(self):
        return await self.communicator.receive_from(timeout=DEADLINE)

    async def ask(self, text=""):
        await self.communicator.send_to(text_data=text)
        return await self.text()


class Wire:
    """A server's side of a connection: `sent` has each event, and count and members by then."""

    def __init__(self, app, **scope):
        self.arriving = asyncio.Queue()
        self.sent = []
        self.scope = {"type": "websocket", "path": "/", "headers": [], **scope}
        self.scope["url_route"] = {"kwargs": {"name": "foo"}}
        self.task = asyncio.ensure_future(app(self.scope, self.arriving.get, self._send))
        self.arriving.put_nowait(CONNECT)

    async def _send(self, event):
        state = get_state()
        self.sent.append((event["type"], await state.acount("foo"), await amember_keys(state)))

    async def end(self):
        self.arriving.put_nowait(DISCONNECT)
        async with asyncio.timeout(DEADLINE):
            await self.task


async def amember_keys(state):
    return sorted((await state.amembers("foo")).members)


class Consumer(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        if text_data == "close":
            await self.close()
        elif text_data == "shout":
            await get_object(self.scope[NAME]).asend("hello", exclude=self.scope)
        else:
            try:
                result = await aset_member_info(self.scope, json.loads(text_data))
            except (TypeError, ValueError) as error:
                result = f"{type(error).__name__}: {error}"
            await self.send(text_data=str(result))


class SyncConsumer(WebsocketConsumer):
    def receive(self, text_data=None, bytes_data=None):
        self.send(text_data=str(set_member_info(self.scope, json.loads(text_data))))


def app_of(member, consumer=Consumer):
    return counted(consumer.as_asgi(), member=member)


# The user


@pytest.fixture
def session_of():
    """Return the Cookie header of a new session of the user."""

    async def session_of(user):
        session = SessionStore()
        session[SESSION_KEY] = str(user.pk)
        session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
        session[HASH_SESSION_KEY] = user.get_session_auth_hash()
        await session.asave()
        return [(b"cookie", f"sessionid={session.session_key}".encode())]

    return session_of


async def test_user_of_the_session_is_the_member_and_a_visitor_is_none(state, session_of):
    users = get_user_model().objects
    ada, bob = await users.acreate_user("ada"), await users.acreate_user("bob")
    app = AuthMiddlewareStack(app_of("user"))
    async with (
        Tab(app, headers=await session_of(ada)),
        Tab(app, headers=await session_of(bob)),
        Tab(app, headers=await session_of(ada)),
        Tab(app, headers=[]),
    ):
        members = await get_object("foo").amembers()
        assert [member[:3] for member in members] == [
            (str(ada.pk), {"name": "ada"}, 2),
            (str(bob.pk), {"name": "bob"}, 1),
        ]
        assert members[0].since < members[1].since
        assert await get_object("foo").amember_count() == 2
        assert await get_object("foo").ahas_member(ada.pk)
        assert not await get_object("foo").ahas_member(ada.pk + bob.pk)
        assert await get_object("foo").acount() == 4

    assert await get_object("foo").amembers() == []
    assert await get_object("foo").acount() == 0


async def test_user_that_is_renamed_or_deleted_is_listed_as_at_the_handshake(memory, session_of):
    ada = await get_user_model().objects.acreate_user("ada")
    app = AuthMiddlewareStack(app_of("user"))
    headers = await session_of(ada)
    async with Tab(app, headers=headers):
        ada.username = "countess"
        await ada.asave()
        assert get_object("foo").members()[0].info == {"name": "ada"}

        async with Tab(app, headers=headers):
            assert get_object("foo").members()[0].info == {"name": "countess"}

        key = str(ada.pk)
        await database_sync_to_async(ada.delete)()
        assert listed() == {key: 1}


async def test_scope_without_a_user_has_no_member(memory):
    async with Tab(app_of("user")):
        assert (memory.count("foo"), listed()) == (1, {})


# Functions


def plain(scope):
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()  # in a thread, where it may use the database
    return Member("ada")


async def asynchronous(scope):
    await asyncio.sleep(0)
    return Member("ada")


class Plain:
    def __call__(self, scope):
        return Member("ada")

    def method(self, scope):
        return Member("ada")


class Asynchronous:
    async def __call__(self, scope):
        return Member("ada")


class Unhashable(Plain):
    __hash__ = None


def with_key(key, scope):
    return Member(key)


FUNCTIONS = [
    plain,
    asynchronous,
    Plain(),
    Plain().method,
    Asynchronous(),
    Unhashable(),
    functools.partial(with_key, "ada"),
    lambda scope: asynchronous(scope),
]


@pytest.mark.parametrize("function", FUNCTIONS)
async def test_function_names_the_member(memory, function):
    async with Tab(app_of(function)):
        assert listed() == {"ada": 1}

    assert (listed(), memory.counts()) == ({}, {})


@pytest.mark.parametrize("key", [7, ID, "a/b", "<b>"])
async def test_keys_are_strings_in_the_list(state, key):
    async with Tab(app_of(lambda scope: Member(key, {"x": "\u2028\n"}))):
        (member,) = await get_object("foo").amembers()
        assert member[:3] == (str(key), {"x": "\u2028\n"}, 1)
        assert await get_object("foo").ahas_member(key)


async def test_none_is_only_counted(memory):
    async with Tab(app_of(lambda scope: None)):
        assert (memory.count("foo"), listed()) == (1, {})


async def test_function_sees_the_scope_of_the_connection(memory):
    async with Tab(app_of(lambda scope: Member(scope["query"])), query="ada"):
        assert listed() == {"ada": 1}


@pytest.mark.parametrize("member", ["name", "", 7, [], Member("ada")])
def test_member_that_is_no_function_is_an_error(member):
    with pytest.raises(ImproperlyConfigured, match=r"counted\(member=.*\): expected"):
        counted(Consumer.as_asgi(), member=member)


def raising(error):
    def member_of(scope):
        raise error

    return member_of


async def araising(scope):
    raise ZeroDivisionError


def returning(value):
    def member_of(scope):
        return value

    return member_of


class Raising:
    __hash__ = None

    def __call__(self, scope):
        raise ZeroDivisionError


WRONG = [
    raising(ZeroDivisionError()),
    raising(StopIteration()),
    raising(OSError()),
    araising,
    Raising(),
    lambda: None,  # another signature
    returning(SECRET),
    returning(7),
    returning((SECRET, {})),
    returning({"key": SECRET}),
    returning(Member(None)),
    returning(Member("")),
    returning(Member(f"{SECRET}\n")),
    returning(Member(f"{SECRET}\x7f")),
    returning(Member(f"{SECRET}\ud800")),
    returning(Member(SECRET * 2000)),
    returning(Member(10**5000)),
    returning(Member("ada", SECRET)),
    returning(Member("ada", None)),
    returning(Member("ada", {"x": math.nan})),
    returning(Member("ada", {"x": {SECRET}})),
    returning(Member("ada", {"x": SECRET * 1000})),
    returning(Member("ada", {"x": f"{SECRET}\ud800"})),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
async def test_connection_whose_function_fails_is_only_counted(state, caplog, number):
    app = app_of(WRONG[number])
    async with Tab(app), Tab(app) as tab:
        found = await get_state().amembers("foo")
        assert (found.connections, found.members) == (2, {})
        assert await tab.ask("{}") == "False"

    assert await get_state().acounts() == {}
    (message,) = messages(caplog)
    assert message.startswith("counted(member=")
    assert message.endswith(") failed; its connections have no member.")
    assert SECRET not in caplog.text


async def test_functions_of_the_same_name_are_logged_apart(memory, caplog):
    here, there = raising(OSError()), raising(OSError())
    there.__module__ = "chat.members"
    async with Tab(app_of(here)), Tab(app_of(there)), Tab(app_of(there)):
        pass

    logged = [message.partition("=")[2].partition(")")[0] for message in messages(caplog)]
    assert logged == [f"{each.__module__}.{each.__qualname__}" for each in (here, there)]


# The end of a connection at each moment


async def test_member_is_listed_before_the_accept_and_not_after_the_close(state):
    wire = Wire(app_of(lambda scope: Member("ada")))
    await until(lambda: wire.sent, [("websocket.accept", 1, ["ada"])])

    wire.arriving.put_nowait({"type": "websocket.receive", "text": "close"})
    await until(lambda: wire.sent[1:], [("websocket.close", 0, [])])
    await wire.end()


async def test_connection_that_ends_while_its_function_runs_is_neither_counted_nor_listed(state):
    """Only the read-ahead can notice the disconnect."""
    go = Event()

    def member_of(scope):
        go.wait(DEADLINE)
        return Member("ada")

    wire = Wire(app_of(member_of))
    await until(wire.arriving.empty, True)
    wire.arriving.put_nowait(DISCONNECT)
    await until(wire.arriving.empty, True)
    go.set()
    async with asyncio.timeout(DEADLINE):
        await wire.task

    assert wire.sent == [("websocket.accept", 0, [])]


@pytest.mark.parametrize("is_async", [True, False])
async def test_connection_that_is_cancelled_while_its_function_runs_leaves_nothing(state, is_async):
    go, began = Event(), Event()

    async def asynchronous(scope):
        began.set()
        await asyncio.sleep(DEADLINE)

    def plain(scope):
        began.set()
        go.wait(DEADLINE)
        return Member("ada")

    wire = Wire(app_of(asynchronous if is_async else plain))
    await until(began.is_set, True)
    wire.task.cancel()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await wire.task

    assert wire.sent == []
    assert (await state.acounts(), await amember_keys(state)) == ({}, [])


@pytest.mark.parametrize("limit", [None, 100])
async def test_connection_that_is_cancelled_at_any_step_leaves_nothing(state, limit):
    for steps in range(40):
        wire = Wire(app_of(asynchronous))
        for _ in range(steps):
            await asyncio.sleep(0 if steps % 2 else 0.0005)
        wire.task.cancel()
        await asyncio.gather(wire.task, return_exceptions=True)

    await state.settled()
    assert (await state.acounts(), await amember_keys(state)) == ({}, [])


@pytest.mark.parametrize("limit", [2])
@pytest.mark.parametrize("extension", [True, False])
async def test_member_is_listed_before_the_accept_within_a_limit(state, limit, extension):
    app = app_of(lambda scope: Member("ada"))
    extensions = {"websocket.http.response": {}} if extension else {}
    wires = []
    for number in (1, 2):
        wires.append(Wire(app, extensions=extensions))
        await until(lambda: wires[-1].sent, [("websocket.accept", number, ["ada"])])
    assert await asyncio.to_thread(listed) == {"ada": 2}

    full = Wire(app, extensions=extensions)
    await until(lambda: len(full.sent), 2)

    kinds = ["http.response.start", "http.response.body"] if extension else ["accept", "close"]
    assert full.sent == [(f"websocket.{kind}", 2, ["ada"]) for kind in kinds]
    for wire in (full, *wires):
        await wire.end()
    assert (await state.acounts(), await amember_keys(state)) == ({}, [])


# set_member_info


@pytest.mark.parametrize("consumer", [Consumer, SyncConsumer])
async def test_consumer_merges_info(state, consumer):
    app = app_of(lambda scope: Member("ada", {"name": "Ada", "typing": False}), consumer)
    async with Tab(app) as tab, Tab(app) as other:
        assert await tab.ask('{"typing": true}') == "True"
        assert await other.ask('{"x": [1]}') == "True"

        (member,) = await get_object("foo").amembers()
        assert member.info == {"name": "Ada", "typing": True, "x": [1]}
        assert member.connections == 2


async def test_simultaneous_changes_of_info_are_all_kept(state):
    async with Tab(app_of(lambda scope: Member("ada"))):
        scope = {NAME: "foo", CONNECTION: tab_connection()}
        await asyncio.gather(*(aset_member_info(scope, {f"x{n}": n}) for n in range(50)))

        (member,) = await get_object("foo").amembers()
        assert member.info == {f"x{n}": n for n in range(50)}


def tab_connection(name="foo"):
    (connection,) = get_groups()._connections[name]
    return connection


async def test_info_of_a_connection_without_a_member_is_not_set(memory):
    async with Tab(app_of("user")) as tab, Tab(counted(Consumer.as_asgi())) as other:
        assert await tab.ask('{"x": 1}') == "False"
        assert await other.ask('{"x": 1}') == "False"


async def test_info_of_a_closed_connection_is_not_set(memory):
    app = app_of(lambda scope: Member("ada"))
    async with Tab(app):
        connection = tab_connection()
        async with Tab(app):
            pass
        first = {NAME: "foo", CONNECTION: connection}
        assert await aset_member_info(first, {"x": 1})
        async with Tab(app) as other:
            (second,) = {*get_groups()._connections["foo"]} - {connection}
            assert await aset_member_info({NAME: "foo", CONNECTION: second}, {"x": 2})
            del other

        assert not await aset_member_info({NAME: "foo", CONNECTION: second}, {"x": 3})
        assert get_object("foo").members()[0].info == {"x": 2}
    assert not await aset_member_info(first, {"x": 4})


@pytest.mark.parametrize("info", [{"x": "x" * 1020}, {"y": "x" * 500}, [1], None, {"x": math.nan}])
async def test_invalid_info_changes_nothing(memory, info):
    before = {"x": "x" * 520}
    async with Tab(app_of(lambda scope: Member("ada", before))) as tab:
        assert "Error" in await tab.ask(json.dumps(info))

        assert get_object("foo").members()[0].info == before


def test_scope_of_another_application_is_an_error():
    with pytest.raises(ValueError, match="The scope is not that of a consumer in counted"):
        set_member_info({"type": "websocket"}, {})


# Sending


def of_query(scope):
    return Member(scope["query"])


async def test_text_to_a_member_reaches_its_tabs_only(memory):
    app = app_of(of_query)
    async with (
        Tab(app, query="ada") as first,
        Tab(app, query="bob") as bob,
        Tab(app, query="ada") as second,
    ):
        await get_object("foo").asend("to ada", member="ada")
        await get_object("foo").asend("to nobody", member="eve")
        await get_object("foo").asend("to all")

        assert [await first.text(), await first.text()] == ["to ada", "to all"]
        assert [await second.text(), await second.text()] == ["to ada", "to all"]
        assert await bob.text() == "to all"


async def test_close_of_a_member_closes_its_tabs_only(memory):
    app = app_of(of_query)
    async with Tab(app, query="7") as tab, Tab(app, query="8") as other:
        await get_object("foo").aclose(4401, "Logged out", member=7)

        event = await tab.communicator.receive_output(DEADLINE)
        assert event == {"type": "websocket.close", "code": 4401, "reason": "Logged out"}
        assert listed() == {"8": 1}
        await get_object("foo").asend("still here")
        assert await other.text() == "still here"


async def test_text_reaches_all_but_the_excluded_connection(memory):
    app = app_of(of_query)
    async with (
        Tab(app, query="ada") as sender,
        Tab(app, query="ada") as tab,
        Tab(app, query="bob") as bob,
    ):
        await sender.communicator.send_to(text_data="shout")
        assert [await tab.text(), await bob.text()] == ["hello", "hello"]
        await get_object("foo").asend("to all")

        assert await sender.text() == "to all"


async def test_connection_without_a_member_can_be_excluded(memory):
    app = counted(Consumer.as_asgi())
    async with Tab(app) as sender, Tab(app) as other:
        await sender.communicator.send_to(text_data="shout")
        assert await other.text() == "hello"
        await get_object("foo").asend("to all")

        assert await sender.text() == "to all"


@pytest.mark.parametrize("key", ["", "a\n", "x" * 129, None.__class__, True, 1.5])
async def test_invalid_key_is_an_error(key):
    foo = get_object("foo")
    for call in (foo.asend("x", member=key), foo.aclose(member=key), foo.ahas_member(key)):
        with pytest.raises((TypeError, ValueError), match="member key"):
            await call


async def test_excluded_scope_of_another_application_is_an_error():
    with pytest.raises(ValueError, match="The scope is not that of a consumer in counted"):
        await get_object("foo").asend("x", exclude={})
