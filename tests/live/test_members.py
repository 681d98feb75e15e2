"""The members of an object, pushed as they change."""

import asyncio
import functools
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, suppress

import psutil
import pytest
from django.contrib.auth.models import User
from django.test import AsyncClient
from django.test import Client as DjangoClient
from pytest_django import Settings

from echo.live import members as members_module
from echo.live import stream as stream_module
from echo.live import views
from echo.members import MemberList, Presence
from echo.state import get_state
from tests.pages import HOSTILE, IMAGE
from tests.raw import Client
from tests.redis_server import RedisServer
from tests.servers import Server
from tests.waiting import DEADLINE, SECOND, eventually

Event = tuple[str, dict]
Join = Callable[..., Awaitable[None]]
ADA = "ada", '{"name":"Ada"}'
BOB = "bob", '{"name":"Bob"}'
PATHS = ["/foo/members/live", "/members/live"]


def parsed(text: str) -> list[Event]:
    """Return kinds and data of the events, without `since`."""
    events = []
    for part in text.removesuffix("\n\n").split("\n\n"):
        if found := re.fullmatch(r"(?:event: (\w+)\n)?data: (.*)", part):
            data = json.loads(found[2])
            for member in data.get("members", []):
                del member["since"]
            events.append((found[1] or "message", data))
    return events


def member(who: tuple[str, str], connections: int = 1) -> dict:
    return {"key": who[0], "info": json.loads(who[1]), "connections": connections}


def whole(connections: int, *members: dict, name: str = "foo", **more: int) -> list[Event]:
    data = {"name": name, "connections": connections, **more, "members": list(members)}
    return [("message", data)]


class Watched:
    """A stream of this process, without its first line."""

    def __init__(self, name: str = "foo") -> None:
        stream = members_module.MemberStream(name)
        self.events = views.stream_events(stream, members_module.MemberWatcher)

    async def __aenter__(self) -> "Watched":
        assert (await anext(self.events)).startswith("retry: ")
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.events.aclose()

    async def next(self) -> list[Event]:
        async with asyncio.timeout(DEADLINE):
            return parsed(await anext(self.events))


@pytest.fixture
async def join() -> AsyncIterator[Join]:
    """Return a function that gives "foo" connections of members, until the end of the test."""
    joined: list[tuple[str, str | None]] = []

    async def join(*members: tuple[str, str] | None, name: str = "foo") -> None:
        for who in members:
            await get_state().join(name, member=who)
            joined.append((name, who and who[0]))

    join.leave = lambda who, name="foo": (  # type: ignore[attr-defined]
        joined.remove((name, who and who[0])),
        get_state().leave(name, who and who[0]),
    )
    yield join
    for name, key in joined:
        get_state().leave(name, key)


async def test_stream_begins_with_the_whole_list_oldest_first(join: Join) -> None:
    await join(BOB, ADA, BOB, None)

    async with Watched() as stream:
        assert await stream.next() == whole(4, member(BOB, 2), member(ADA))


async def test_later_events_are_the_differences(join: Join) -> None:
    async with Watched() as stream:
        assert await stream.next() == whole(0)
        await join(ADA)
        assert await stream.next() == [("joined", {"connections": 1, "members": [member(ADA)]})]
        await join(ADA)
        updated = {"connections": 2, "members": [member(ADA, 2)]}
        assert await stream.next() == [("updated", updated)]
        await join(None)
        assert await stream.next() == [("connections", {"connections": 3})]
        get_state().set_info("foo", "ada", '{"name":"Ada","away":true}')
        renamed = {"key": "ada", "info": {"name": "Ada", "away": True}, "connections": 2}
        assert await stream.next() == [("updated", {"connections": 3, "members": [renamed]})]
        join.leave(ADA)
        join.leave(ADA)
        left = {**renamed, "connections": 0}
        assert await stream.next() == [("left", {"connections": 1, "members": [left]})]


async def test_changes_of_one_interval_are_coalesced(join: Join) -> None:
    await join(ADA)

    async with Watched() as stream:
        await stream.next()
        join.leave(ADA)
        await join(BOB, BOB)
        await join(("eve", "{}"))
        join.leave(("eve", "{}"))
        events = await stream.next()

    assert events == [
        ("left", {"connections": 2, "more": 1, "members": [member(ADA, 0)]}),
        ("joined", {"connections": 2, "members": [member(BOB, 2)]}),
    ]


async def test_member_that_leaves_and_joins_within_an_interval_is_no_event(join: Join) -> None:
    await join(ADA)

    async with Watched() as stream:
        await stream.next()
        join.leave(ADA)
        await asyncio.sleep(3 * 0.02)  # seen by the watcher, but not sent
        await join(ADA)
        await asyncio.sleep(3 * 0.02)
        await join(BOB)

        assert await stream.next() == [("joined", {"connections": 2, "members": [member(BOB)]})]


async def test_reader_that_is_slow_misses_no_change(join: Join) -> None:
    await join(ADA)
    async with Watched() as stream:
        shown = {each["key"]: each for each in (await stream.next())[0][1]["members"]}
        for number in range(30):
            await join((f"user {number}", "{}"))
            if number % 3 == 0:
                join.leave((f"user {number}", "{}"))
            await asyncio.sleep(0.03)
        join.leave(ADA)
        connections = 0
        async with asyncio.timeout(DEADLINE):
            while connections != 20 or "ada" in shown:
                for kind, data in await stream.next():
                    connections = data["connections"]
                    for each in data.get("members", []):
                        assert (each["key"] in shown) == (kind != "joined")
                        if kind == "left":
                            del shown[each["key"]]
                        else:
                            shown[each["key"]] = each

    assert sorted(shown) == sorted(f"user {number}" for number in range(30) if number % 3)


@pytest.fixture
def two_are_shown(settings: Settings) -> None:
    settings.ECHO_MAX_MEMBERS_SHOWN = 2


async def test_above_the_limit_only_numbers_are_sent(two_are_shown: None, join: Join) -> None:
    eve, zoe = ("eve", "{}"), ("zoe", "{}")
    async with Watched() as stream:
        await stream.next()
        await join(ADA, BOB)
        await stream.next()
        await join(eve)
        assert await stream.next() == [("connections", {"connections": 3, "more": 1})]
        await join(zoe)
        assert await stream.next() == [("connections", {"connections": 4, "more": 2})]
        get_state().set_info("foo", "zoe", '{"away":true}')
        join.leave(eve)
        assert await stream.next() == [("connections", {"connections": 3, "more": 1})]
        async with Watched() as later:
            assert await later.next() == whole(3, member(ADA), member(BOB), more=1)


async def test_member_that_is_shown_and_leaves_is_replaced(two_are_shown: None, join: Join) -> None:
    await join(ADA, BOB, ("eve", "{}"))

    async with Watched() as stream:
        assert await stream.next() == whole(3, member(ADA), member(BOB), more=1)
        join.leave(ADA)
        assert await stream.next() == [
            ("left", {"connections": 2, "more": 1, "members": [member(ADA, 0)]}),
            ("joined", {"connections": 2, "members": [member(("eve", "{}"))]}),
        ]


async def test_list_and_more_add_up_to_all_members_after_each_event(
    two_are_shown: None, join: Join
) -> None:
    await join(ADA, BOB, ("eve", "{}"), ("zoe", "{}"))

    async with Watched() as stream:
        await stream.next()
        join.leave(ADA)
        (_, left), (_, joined) = await stream.next()

    assert 1 + left["more"] == 2 + joined["more"] == 3


def test_older_member_that_comes_late_is_shown_first(two_are_shown: None) -> None:
    watched = members_module.WatchedMembers("foo")
    present = {key: Presence(1, since, since, "{}") for key, since in (("b", 20), ("c", 30))}
    watched.set(members_module.MemberList(1, 2, present))
    assert list(watched.event().members) == ["b", "c"]

    watched.update((2, 3), {"a": (2, "1 10 10 {}"), "d": (2, "1 40 40 {}")})

    event = watched.event()
    assert (list(event.members), event.more) == (["a", "b"], 2)


def test_changes_that_the_read_included_are_ignored() -> None:
    watched = members_module.WatchedMembers("foo")
    watched.set(members_module.MemberList(7, 0, {}))

    assert not watched.update((7, 1), {"a": (7, "1 10 10 {}")})
    assert watched.event().members == {}


async def test_difference_is_computed_once_for_all_streams(
    join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = []

    class Counted(members_module.ShownList):
        def _difference(self, earlier: members_module.ShownList) -> str:
            computed.append(self)
            return super()._difference(earlier)

    monkeypatch.setattr(members_module, "ShownList", Counted)
    streams = [Watched() for _ in range(200)]
    async with asyncio.timeout(DEADLINE):
        for stream in streams:
            await stream.__aenter__()
        await asyncio.gather(*(stream.next() for stream in streams))
        await asyncio.sleep(2 * stream_module.EVENT_INTERVAL)  # of the first event
        await join(ADA)
        events = await asyncio.gather(*(stream.next() for stream in streams))
        for stream in streams:
            await stream.__aexit__()

    assert events == [[("joined", {"connections": 1, "members": [member(ADA)]})]] * 200
    assert len(computed) == 1


async def test_streams_of_an_object_that_takes_long_to_read_share_a_read(
    join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, reads = get_state(), []

    async def slow_amembers(name: str) -> MemberList:
        reads.append(name)
        members = state.members(name)
        await asyncio.sleep(0.05)
        return members

    monkeypatch.setattr(state, "amembers", slow_amembers)
    await join(ADA)
    async with Watched() as first, AsyncExitStack() as stack:
        await first.next()
        later = []
        for _ in range(10):
            stream = await stack.enter_async_context(Watched())
            later.append(asyncio.create_task(stream.next()))
            await asyncio.sleep(0.02)
        await join(BOB)
        lists = await asyncio.gather(*later)

    assert lists == [whole(2, member(ADA), member(BOB))] * 10
    assert reads == ["foo", "foo"]


@pytest.mark.parametrize("text", [*HOSTILE, IMAGE, "a\nb", "\u2028"])
async def test_every_key_and_info_is_one_line_of_ascii(join: Join, text: str) -> None:
    who = text.replace("\n", " "), json.dumps({"name": text, text: [text]})
    await join(who)

    async with Watched() as stream:
        event = await anext(stream.events)

    assert event.isascii() and event.count("\n") == 2
    assert parsed(event) == whole(1, member(who))


async def test_count_streams_do_not_follow_members(join: Join) -> None:
    watcher_of_counts = views.stream_events(stream_module.Stream("foo"))
    events = [await anext(watcher_of_counts), await anext(watcher_of_counts)]
    await join(ADA)
    get_state().set_info("foo", "ada", '{"away":true}')
    events.append(await anext(watcher_of_counts))
    await watcher_of_counts.aclose()

    assert events[2] == 'data: {"name": "foo", "connections": 1}\n\n'


# The view


@pytest.mark.parametrize("path", PATHS)
async def test_visitors_get_no_members(path: str) -> None:
    response = await AsyncClient().get(path)

    denied = "You may not see the members of this object."
    assert (response.status_code, response.content.decode()) == (403, denied)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", PATHS)
async def test_staff_get_the_members(join: Join, path: str) -> None:
    await join(ADA)
    client = AsyncClient()
    await client.aforce_login(await User.objects.acreate(username="someone", is_staff=True))

    response = await client.get(path)

    assert (response.status_code, response["Content-Type"]) == (200, "text/event-stream")
    content = response.streaming_content
    texts = [(await anext(content)).decode() for _ in range(2)]
    await content.aclose()
    assert parsed(texts[1]) == whole(1, member(ADA))


@pytest.mark.parametrize("name", ["x" * 129, "a%00b", "%C2%85"])
async def test_bad_name_is_rejected(name: str) -> None:
    assert (await AsyncClient().get(f"/{name}/members/live")).status_code == 400


@pytest.mark.parametrize("path", PATHS)
def test_wsgi_has_no_streams(path: str) -> None:
    response = DjangoClient().get(path)

    assert (response.status_code, response.content.decode()) == (501, views.WSGI)


# Real servers


@pytest.fixture(scope="module")
def servers() -> Iterator[Callable[[str], Server]]:
    """Return a function that starts a site with members, once, until the end of the tests."""
    with ExitStack() as stack:

        @functools.cache
        def start(kind: str) -> Server:
            return stack.enter_context(site(kind))

        yield start


def site(kind: str, url: str = "memory://") -> Server:
    return Server(kind, "tests.sites.named:application", DJANGO_DEBUG="1", ECHO_STATE_URL=url)


class Stream:
    """A client of a server's stream, which reads what has come whenever it is asked."""

    def __init__(self, server: Server, name: str = "foo") -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE)
        request = f"GET /{name}/members/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        self.socket.sendall(request.encode())
        self.socket.setblocking(False)
        self.received = b""

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def events(self) -> list[Event]:
        """Return the events that have come."""
        with suppress(BlockingIOError):
            while data := self.socket.recv(1 << 16):
                self.received += data
        lines = re.findall(rb"(?:event: \w+\n)?data: .*\n", self.received)
        events = [each for line in lines for each in parsed(f"{line.decode()}\n")]
        return [event for event in events if event[0] != "heartbeat"]

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events()]

    def keys(self) -> list[str]:
        """Return the keys of the list that a client has after these events, oldest first."""
        shown: dict[str, int] = {}
        for kind, data in self.events():
            if kind in ("message", "unknown"):
                shown.clear()
            for each in data.get("members", []):
                assert (each["key"] in shown) == (kind in ("left", "updated")), (kind, each)
                shown[each["key"]] = each["connections"]
                if kind == "left":
                    del shown[each["key"]]
        return list(shown)


def opened(server: Server, member: str, name: str = "foo") -> Client:
    return Client.opened(server.port, path=f"/{name}/websocket?{member}")


@pytest.mark.parametrize("kind", ["daphne", "uvicorn", "stock-uvicorn"])
def test_server_pushes_members_in_time(servers: Callable[[str], Server], kind: str) -> None:
    server = servers(kind)
    with Stream(server) as stream:
        eventually(stream.kinds, ["message"])
        with opened(server, "Ada"), opened(server, "Bob"):
            eventually(lambda: sorted(stream.keys()), ["Ada", "Bob"], deadline=SECOND)
        eventually(stream.keys, [], deadline=2 * SECOND)

    listed = json.loads(server.get("/foo/members")[2])
    assert listed == {"name": "foo", "connections": 0, "members": []}
    assert "Traceback" not in server.log()


def test_members_of_other_processes_join_and_those_of_a_killed_one_leave(redis_url: str) -> None:
    with (
        site("daphne", redis_url) as here,
        site("uvicorn", redis_url) as there,
        Stream(here) as stream,
        opened(here, "Ada"),
    ):
        eventually(stream.keys, ["Ada"])
        with opened(there, "Ada"), opened(there, "Bob"):
            eventually(stream.keys, ["Ada", "Bob"], deadline=SECOND)
            there.process.kill()
            eventually(stream.keys, ["Ada"])

        assert stream.events()[-1][1]["connections"] == 1


def test_outage_is_told_and_then_the_whole_list() -> None:
    with (
        RedisServer() as redis,
        site("daphne", redis.url) as server,
        opened(server, "Ada"),
        opened(server, "Bob"),
        Stream(server) as stream,
    ):
        eventually(stream.keys, ["Ada", "Bob"])
        before = stream.kinds()

        redis.stop()
        eventually(lambda: stream.kinds()[-1], "unknown")
        redis.start()
        eventually(stream.keys, ["Ada", "Bob"])
        redis.flush()
        time.sleep(SECOND)
        eventually(stream.keys, ["Ada", "Bob"])

        after = stream.kinds()[len(before) :]
        assert after[:2] == ["unknown", "message"]
        assert set(after) == {"unknown", "message"}


@pytest.mark.slow
def test_thousand_streams_are_sent_the_changes_of_200_members(
    servers: Callable[[str], Server],
) -> None:
    server = servers("uvicorn")
    process = psutil.Process(server.process.pid)
    with ExitStack() as stack:
        members = [stack.enter_context(opened(server, f"m{number}")) for number in range(200)]
        streams = [stack.enter_context(Stream(server)) for _ in range(1000)]
        eventually(lambda: {len(each.keys()) for each in streams}, {200}, deadline=6 * DEADLINE)
        for stream in streams:
            stream.received = b""
        used = sum(process.cpu_times()[:2])
        members[0].socket.close()
        began = time.monotonic()
        eventually(lambda: {tuple(each.kinds()) for each in streams}, {("left",)})
        cpu = sum(process.cpu_times()[:2]) - used
        print(f"{time.monotonic() - began:.2f} s until all know; CPU {cpu:.2f} s")

    assert cpu < SECOND
    assert "Traceback" not in server.log()
