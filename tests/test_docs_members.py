"""The blocks of docs/howto/members.md: connections of members in this process."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser, Group
from django.db.models.signals import post_delete
from django.test import RequestFactory
from django.urls import path

from echo.counting import counted
from echo.objects import Member, get_object
from tests import readme
from tests.waiting import DEADLINE

PAGE = "docs/howto/members.md"
# Consumers close old connections of the database, whether they use it or not.
pytestmark = pytest.mark.django_db(transaction=True)

Connect = Callable[..., Awaitable[WebsocketCommunicator]]


def names_of(start: str, **names: Any) -> dict[str, Any]:
    """Run the one block that contains `start`, and return what it defines."""
    exec(readme.block("python", start, PAGE), names)
    return names


@pytest.fixture(scope="module", autouse=True)
def all_blocks_are_tested(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    assert readme.missing(request, [PAGE]) == []


class Chat(AsyncWebsocketConsumer):
    """The consumer of the site."""


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Connect a user to the lobby, in an application whose `counted` has that argument."""
    opened: list[WebsocketCommunicator] = []

    async def connect(
        user: Any, member: Any = "user", consumer: Any = Chat, **scope: Any
    ) -> WebsocketCommunicator:
        route = path("chat/<str:room>/", counted(consumer.as_asgi(), by="room", member=member))
        client = WebsocketCommunicator(URLRouter([route]), "/chat/lobby/")
        client.scope |= {"user": user, **scope}
        assert await client.connect() == (True, None)
        opened.append(client)
        return client

    yield connect
    for client in opened:
        if not client.future.done():
            await client.disconnect()


def user(pk: int, name: str, **fields: Any) -> Any:
    return get_user_model()(pk=pk, username=name, **fields)


def shown() -> list[tuple[str, Any, int]]:
    return [(member.key, member.info, member.connections) for member in lobby().members()]


def lobby() -> Any:
    return get_object("lobby")


ADA = user(7, "Ada")
BOB = user(8, "Bob")


async def test_users_are_members_and_visitors_are_not(connect: Connect) -> None:
    routes = names_of('member="user"', ChatConsumer=Chat)["routes"]
    assert routes[0].callback.counted_by == ("room",)

    for connected in (ADA, ADA, BOB, AnonymousUser()):
        await connect(connected)

    assert shown() == [("7", {"name": "Ada"}, 2), ("8", {"name": "Bob"}, 1)]
    assert lobby().count() == 4


async def test_function_names_the_member_or_none(connect: Connect) -> None:
    member_of = names_of("user.is_staff")["member_of"]

    await connect(user(7, "Ada", first_name="Ada", last_name="Lovelace"), member_of)
    await connect(user(8, "Bob", is_staff=True), member_of)
    await connect(AnonymousUser(), member_of)

    assert shown() == [("7", {"name": "Ada Lovelace"}, 1)]


async def test_async_function_may_query_the_database(connect: Connect) -> None:
    member_of = names_of("aexists()")["member_of"]
    people = [await get_user_model().objects.acreate(username=name) for name in ("Ada", "Botty")]
    await people[1].groups.aadd(await Group.objects.acreate(name="bots"))

    for person in people:
        await connect(person, member_of)

    assert shown() == [(str(people[0].pk), {"name": "Ada"}, 1)]


@pytest.mark.parametrize(
    "member",
    [None, "secret", Member("secret\n"), Member("secret" * 22), Member("7", {"secret": object()})],
)
async def test_function_that_fails_leaves_the_connection_without_a_member(
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    member: Any,
) -> None:
    monkeypatch.setattr("echo.counting.members.is_due", lambda key: True)

    def member_of(scope: Any) -> Member:
        return member or scope["no such key"]

    await connect(ADA, member_of)

    assert (lobby().count(), shown()) == (1, [])
    [record] = caplog.records
    name = f"{__name__}.{member_of.__qualname__}"
    assert (record.levelno, record.args) == (logging.ERROR, (name,))
    assert "secret" not in caplog.text  # keys and infos are personal data


async def test_visitors_are_members_by_a_key_in_their_session(connect: Connect) -> None:
    request: Any = RequestFactory().get("/")
    request.session = {}
    rendered: list[Any] = []
    view = names_of("uuid4")["chat"]
    view.__globals__["render"] = lambda *args: rendered.append(args[1:])
    for _ in range(2):
        view(request, "lobby")
    assert rendered == [("chat/room.html", {"room": "lobby"})] * 2

    member_of = names_of("a guest")["member_of"]
    for session in (request.session, request.session, {}):
        await connect(AnonymousUser(), member_of, session=session)

    assert shown() == [(f"guest-{request.session['guest']}", {"name": "a guest"}, 2)]


async def test_members_are_read(connect: Connect) -> None:
    for _ in range(2):
        await connect(ADA)
    lines = readme.block("python", "lobby.member_count()", PAGE).strip().splitlines()
    names: dict[str, Any] = {}
    exec("\n".join(lines[:3]), names)

    [member], count, has_member = [eval(line, names) for line in lines[3:]]

    assert (member.key, member.info, member.connections) == ("7", {"name": "Ada"}, 2)
    assert (count, has_member) == (1, True)


def test_users_are_read_from_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    users_in = names_of("def users_in")["users_in"]
    ada, _, eve = people = [
        get_user_model().objects.create(username=name) for name in ("Ada", "Bob", "Eve")
    ]
    members = [Member(str(person.pk), {"name": person.username}) for person in reversed(people)]
    named = SimpleNamespace(members=lambda: members)
    monkeypatch.setitem(users_in.__globals__, "get_object", lambda name: named)
    eve.username = "Eva"
    eve.save()
    people[1].delete()

    assert [person.username for person in users_in("lobby")] == ["Eva", "Ada"]
    assert users_in("lobby")[1] == ada


async def test_connections_of_a_deleted_user_are_closed(connect: Connect) -> None:
    names = names_of("post_delete")
    clients = [await connect(person) for person in (ADA, BOB)]
    try:
        await post_delete.asend(get_user_model(), instance=ADA)
    finally:
        assert post_delete.disconnect(names["close_connections"], get_user_model())

    assert await clients[0].receive_output() == {
        "type": "websocket.close",
        "code": 4001,
        "reason": "Account deleted",
    }
    assert shown() == [("8", {"name": "Bob"}, 1)]
    assert await clients[1].receive_nothing()


async def test_one_member_receives_a_text_and_is_closed(connect: Connect) -> None:
    tab, other_tab, bob = [await connect(person) for person in (ADA, ADA, BOB)]
    lines = readme.block("python", "Your tea is ready", PAGE)

    await asyncio.to_thread(exec, lines, {})  # as a view runs it

    for client in (tab, other_tab):
        assert await client.receive_from() == "Your tea is ready"
        assert (await client.receive_output())["code"] == 4001
    assert await bob.receive_nothing()


async def test_text_reaches_all_but_the_sender(connect: Connect) -> None:
    consumer = names_of("exclude=self.scope")["ChatConsumer"]
    tab, other_tab, bob = [await connect(person, consumer=consumer) for person in (ADA, ADA, BOB)]

    await tab.send_to("hello")

    assert [await client.receive_from() for client in (other_tab, bob)] == ["hello"] * 2
    assert await tab.receive_nothing()


async def test_info_is_merged(connect: Connect) -> None:
    consumer = names_of("aset_member_info")["ChatConsumer"]
    client = await connect(ADA, consumer=consumer)
    await client.send_json_to({"text": "hello"})
    await client.send_json_to({"away": True})

    async with asyncio.timeout(DEADLINE):
        while shown() != [("7", {"name": "Ada", "away": True}, 1)]:
            await asyncio.sleep(0.01)

    await connect(ADA, consumer=consumer)
    assert shown() == [("7", {"name": "Ada"}, 2)]
