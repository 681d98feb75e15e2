"""Counts pushed as they change: the streams in this process, and those of real servers."""

import asyncio
import gc
import json
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, aclosing
from functools import partial
from pathlib import Path
from weakref import ref

import psutil
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.http import HttpRequest
from django.test import AsyncClient
from django.test import Client as DjangoClient
from pytest_django import Settings

from echo.live import stream as stream_module
from echo.live import views
from echo.live import watcher as watchers
from echo.state import get_state
from echo.state.base import Listener
from echo.state.memory import MemoryState
from tests.pages import HOSTILE
from tests.raw import Client, request
from tests.redis_server import RedisServer
from tests.servers import Server
from tests.waiting import DEADLINE, SECOND, eventually

SERVERS = ["daphne", "uvicorn", "stock-uvicorn"]
MANY = 1000  # streams


def told(name: str, connections: int) -> str:
    return f'data: {{"name": "{name}", "connections": {connections}}}\n\n'


class Watched:
    """A stream of this process, without its first line."""

    def __init__(self, name: str | None) -> None:
        self.events = views.stream_events(stream_module.Stream(name))

    async def __aenter__(self) -> "Watched":
        retry = await anext(self.events)
        assert 1000 <= int(re.fullmatch(r"retry: (\d+)\n\n", retry)[1]) <= 3000
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.events.aclose()

    async def next(self) -> str:
        async with asyncio.timeout(DEADLINE):
            return await anext(self.events)


@pytest.fixture
async def join() -> AsyncIterator:
    """Return a function that gives objects connections, until the end of the test."""
    joined = []

    async def join(*names: str) -> None:
        for name in names:
            await get_state().join(name)
            joined.append(name)

    yield join
    for name in joined:
        get_state().leave(name)


async def test_stream_tells_the_count_at_once_and_each_change(join) -> None:
    await join("foo")

    async with Watched("foo") as stream:
        assert await stream.next() == told("foo", 1)
        await join("foo")
        assert await stream.next() == told("foo", 2)


async def test_stream_of_all_objects_tells_their_changes_even_when_the_sums_are_equal(join) -> None:
    await join("foo")

    async with Watched(None) as stream:
        first = await stream.next()
        await get_state().join("bar")
        second = await stream.next()
        await join("baz")
        get_state().leave("bar")
        third = await stream.next()

    assert first == 'data: {"objects": 1, "connections": 1}\n\n'
    assert second == third == 'data: {"objects": 2, "connections": 2}\n\n'


@pytest.mark.parametrize("name", HOSTILE)
async def test_every_name_is_one_event_of_one_line(join, name: str) -> None:
    await join(name)

    async with Watched(name) as stream:
        event = await stream.next()

    assert event.isascii() and event.count("\n") == 2
    told_name = json.loads(event.removeprefix("data: "))["name"]
    assert told_name == name


async def test_change_in_this_process_is_told_at_once_when_it_was_quiet(
    join, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchers, "CHECK_INTERVAL", 1000.0)
    events: list[str] = []
    stream = stream_module.Stream("foo")
    stream.send = events.append
    watcher = watchers.get_watcher()
    watcher.add(stream)
    try:
        async with asyncio.timeout(DEADLINE):
            while told("foo", 0) not in events:
                await asyncio.sleep(0.001)
            await join("foo")
            while told("foo", 1) not in events:
                await asyncio.sleep(0.001)
    finally:
        watcher.discard(stream)

    assert events == [told("foo", 0), told("foo", 1)]


async def test_later_stream_begins_with_the_count_of_now(join) -> None:
    async with Watched("foo") as earlier:
        assert await earlier.next() == told("foo", 0)
        for count in range(1, 20):
            await join("foo")
            async with Watched("foo") as later:
                assert await later.next() == told("foo", count)


async def test_changes_are_coalesced_to_five_a_second_and_the_last_is_told(join) -> None:
    events = []

    async def collect() -> None:
        async with Watched("foo") as stream:
            while told("foo", 50) not in events:
                events.append(await stream.next())

    began = time.monotonic()
    collecting = asyncio.create_task(collect())
    for _ in range(50):
        await join("foo")
        await asyncio.sleep(0.02)
    await collecting

    assert len(events) <= 2 + (time.monotonic() - began) / stream_module.EVENT_INTERVAL


async def test_silence_is_broken_by_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "HEARTBEAT_INTERVAL", 0.01)

    async with Watched("foo") as stream:
        await stream.next()
        assert await stream.next() == ": still here\nevent: heartbeat\ndata: {}\n\n"


async def test_stream_of_great_age_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "HEARTBEAT_INTERVAL", 0.01)
    monkeypatch.setattr(stream_module, "MAX_AGE", 0.05)

    async with asyncio.timeout(DEADLINE), Watched("foo") as stream:
        events = [event async for event in stream.events]

    assert set(events[:-1]) <= {told("foo", 0), stream_module.HEARTBEAT_EVENT}
    assert events[-1] == stream_module.RECONNECT_EVENT  # not an outage


async def test_stream_that_comes_while_the_last_one_leaves_is_not_ended() -> None:
    watcher = watchers.get_watcher()
    leaving, coming = stream_module.Stream("foo"), stream_module.Stream("foo")
    watcher.add(leaving)
    await asyncio.sleep(0)
    watcher.discard(leaving)
    watcher = watchers.get_watcher()
    watcher.add(coming)
    try:
        async with asyncio.timeout(DEADLINE), aclosing(coming.events()) as events:
            assert await anext(events) == told("foo", 0)
    finally:
        watcher.discard(coming)


async def other_tasks_have_ended() -> None:
    async with asyncio.timeout(DEADLINE):
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.001)


async def test_watching_ends_with_the_last_stream() -> None:
    async with Watched("foo") as one, Watched("bar") as other:
        await one.next()
        await other.next()
        assert len(asyncio.all_tasks()) == 2

    await other_tasks_have_ended()


def test_loop_that_has_ended_is_kept_by_nothing() -> None:
    async def watch() -> "ref[asyncio.AbstractEventLoop]":
        async with Watched("foo") as stream:
            await stream.next()
        return ref(asyncio.get_running_loop())

    loop = asyncio.run(watch())
    gc.collect()

    assert loop() is None


async def test_stream_that_ends_before_its_first_count_leaves_nothing_behind() -> None:
    async with Watched("foo") as stream:
        waiting = asyncio.create_task(stream.next())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])

    await other_tasks_have_ended()


async def test_failure_of_the_watcher_is_logged_and_ends_the_streams(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async with Watched("foo") as stream:
        await stream.next()
        settings.ECHO_MAX_CONNECTIONS = "many"

        with pytest.raises(StopAsyncIteration):
            await stream.next()

    assert [record.exc_info[0] for record in caplog.records] == [ImproperlyConfigured]


class CountingState(MemoryState):
    """It counts how often it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []

    async def asnapshot(self, name: str | None = None) -> tuple[int, dict[str, int]]:
        self.reads.append("all" if name is None else name)
        return self.snapshot(name)

    def listen(self, listener: Listener) -> Callable[[], None]:
        self.miss_changes = partial(listener, 0, None, {})
        return super().listen(listener)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> CountingState:
    state = CountingState()
    monkeypatch.setattr(watchers, "get_state", lambda: state)
    return state


async def next_of_all(streams: list[Watched]) -> list[str]:
    return await asyncio.gather(*(stream.next() for stream in streams))


@pytest.mark.parametrize("viewers", [1, 500])
async def test_changes_are_sent_without_a_read(counting: CountingState, viewers: int) -> None:
    async with ExitStackOfStreams(["foo"] * viewers) as streams:
        assert await next_of_all(streams) == [told("foo", 0)] * viewers
        counting.reads.clear()
        await asyncio.sleep(3 * stream_module.EVENT_INTERVAL)
        await counting.join("foo")
        assert await next_of_all(streams) == [told("foo", 1)] * viewers

    assert counting.reads == []


async def test_many_names_are_read_at_once(counting: CountingState) -> None:
    names = [f"object {number}" for number in range(watchers.MAX_SINGLE_READS + 1)]
    async with ExitStackOfStreams(names) as streams:
        await next_of_all(streams)
        counting.reads.clear()
        counting.miss_changes()
        await counting.join(names[0])

        assert await streams[0].next() == told(names[0], 1)

    assert counting.reads == ["all"]


class ExitStackOfStreams:
    """Many streams, which end together."""

    def __init__(self, names: list[str]) -> None:
        self.streams = [Watched(name) for name in names]

    async def __aenter__(self) -> list[Watched]:
        for stream in self.streams:
            await stream.__aenter__()
        return self.streams

    async def __aexit__(self, *error: object) -> None:
        for stream in self.streams:
            await stream.__aexit__()


@pytest.mark.parametrize("path", ["/foo/connections/live", "/connections/live", "/live"])
async def test_answer_is_an_event_stream_that_nobody_stores_or_holds_back(
    settings: Settings, path: str
) -> None:
    settings.DEBUG = True  # the list is for all then

    response = await AsyncClient().get(path, headers={"Accept-Encoding": "gzip"})

    assert response.status_code == 200
    assert response["Content-Type"] == "text/event-stream"
    assert response["Cache-Control"] == "no-store"
    assert response["X-Accel-Buffering"] == "no"
    assert response["X-Content-Type-Options"] == "nosniff"
    async with aclosing(response.streaming_content) as content:
        assert (await anext(content)).startswith(b"retry: ")


@pytest.mark.parametrize("name", ["x" * 129, "a%00b", "%C2%85"])
async def test_bad_name_is_refused(name: str) -> None:
    response = await AsyncClient().get(f"/{name}/connections/live")

    assert response.status_code == 400
    assert response.content.decode().startswith(("A name has", "The name"))


def nobody(asking: object, name: str | None, action: str) -> bool:
    return False


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/foo/connections/live", "You may not see the count of this object."),
        ("/live", "You may not see the list of the objects."),
    ],
)
async def test_who_may_not_count_gets_no_stream(settings: Settings, path: str, words: str) -> None:
    settings.ECHO_AUTHORIZE = f"{__name__}.nobody"

    response = await AsyncClient().get(path)

    assert (response.status_code, response.content.decode()) == (403, words)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("is_staff", "status"), [(False, 403), (True, 200)])
async def test_list_is_for_staff(django_user_model, is_staff: bool, status: int) -> None:
    user = await django_user_model.objects.acreate(username="someone", is_staff=is_staff)
    client = AsyncClient()
    await client.aforce_login(user)

    assert (await client.get("/live")).status_code == status


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", ["/foo/connections/live", "/live"])
async def test_streams_work_where_requests_are_transactions(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    settings.DEBUG = True  # the list is for all then
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)

    response = await AsyncClient().get(path)

    assert response.status_code == 200
    async with aclosing(response.streaming_content) as content:
        assert [await anext(content) for _ in range(2)][1].startswith(b"data: ")


async def staff_only(request: HttpRequest, name: str | None, action: str) -> bool:
    return request.user.is_staff


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("is_staff", "status"), [(False, 403), (True, 200)])
async def test_async_function_of_the_site_may_ask_who_the_user_is(
    django_user_model, settings: Settings, is_staff: bool, status: int
) -> None:
    settings.ECHO_AUTHORIZE = f"{__name__}.staff_only"
    user = await django_user_model.objects.acreate(username="someone", is_staff=is_staff)
    client = AsyncClient()
    await client.aforce_login(user)

    assert (await client.get("/live")).status_code == status


@pytest.mark.parametrize("path", ["/foo/connections/live", "/live"])
def test_wsgi_is_told_what_is_missing(path: str) -> None:
    response = DjangoClient().get(path)

    assert (response.status_code, response.content.decode()) == (501, views.WSGI)


async def test_only_get_is_answered() -> None:
    assert (await AsyncClient().post("/foo/connections/live")).status_code == 405


# Real servers


class Stream:
    """A client of a server's stream, which reads what has come whenever it is asked."""

    def __init__(self, server: Server, path: str = "/foo/connections/live") -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE)
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        self.socket.setblocking(False)
        self.received = b""
        self.is_over = False

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def told(self) -> list[int | str]:
        """Return the counts that have been told, and "unknown" where that was."""
        self._read()
        lines = re.findall(rb"event: unknown\n|data: \{\"[^\n]*\n", self.received)
        return [
            "unknown" if line.startswith(b"event") else json.loads(line[6:])["connections"]
            for line in lines
        ]

    def has_ended(self) -> bool:
        self._read()
        return self.is_over

    def _read(self) -> None:
        try:
            while data := self.socket.recv(1 << 16):
                self.received += data
            self.is_over = True
        except BlockingIOError:
            pass


def last(stream: Stream) -> int | str | None:
    return next(reversed(stream.told()), None)


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(request.param, DJANGO_DEBUG="1") as server:
        yield server


def test_server_pushes_changes_in_time(server: Server) -> None:
    with Stream(server) as one, Stream(server, "/live") as all_of_them:
        eventually(lambda: (one.told(), all_of_them.told()), ([0], [0]))

        with Client.opened(server.port):
            eventually(one.told, [0, 1], deadline=SECOND)
            eventually(all_of_them.told, [0, 1], deadline=SECOND)

        eventually(one.told, [0, 1, 0], deadline=2 * SECOND)


def test_client_that_goes_leaves_no_trace(server: Server) -> None:
    for _ in range(5):
        with Stream(server) as stream:
            eventually(stream.told, [0])

    with Stream(server) as stream:
        eventually(stream.told, [0])
    assert "Traceback" not in server.log()
    assert "Task" not in server.log()


def connected_sockets(process: psutil.Process) -> int:
    return len([each for each in process.net_connections() if each.status == "ESTABLISHED"])


@pytest.mark.slow
def test_thousand_streams_of_one_object(server: Server) -> None:
    process = psutil.Process(server.process.pid)
    threads, memory = process.num_threads(), process.memory_info().rss
    with ExitStack() as stack:
        streams = [stack.enter_context(Stream(server)) for _ in range(MANY)]
        eventually(lambda: {last(stream) for stream in streams}, {0}, deadline=6 * DEADLINE)
        used = sum(process.cpu_times()[:2])
        time.sleep(SECOND)  # of quiet: what do they cost?
        quiet = sum(process.cpu_times()[:2]) - used

        with Client.opened(server.port):
            began = time.monotonic()
            eventually(lambda: {last(stream) for stream in streams}, {1})
            latency = time.monotonic() - began

        assert process.num_threads() <= threads + 10
    grown = process.memory_info().rss - memory
    print(
        f"{server.kind}: the change came to all of {MANY} in {latency:.2f} s; "
        f"CPU when quiet {quiet / SECOND:.0%}; {grown >> 20} MiB more"
    )
    assert quiet < 0.5 * SECOND
    eventually(lambda: connected_sockets(process), 0)
    assert "Traceback" not in server.log()


@pytest.mark.parametrize("kind", SERVERS)
def test_server_stops_in_time_while_somebody_watches(kind: str) -> None:
    with Server(kind, DJANGO_DEBUG="1") as server, Stream(server) as stream:
        eventually(stream.told, [0])

        server.process.send_signal(signal.SIGTERM)

        server.process.wait(timeout=5 * SECOND)
        assert stream.has_ended()
        assert "Traceback" not in server.log()


@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
def test_change_in_one_process_is_pushed_by_the_other(kind: str, redis_url: str) -> None:
    with (
        Server(kind, ECHO_STATE_URL=redis_url) as here,
        Server(kind, ECHO_STATE_URL=redis_url) as there,
        Stream(here) as stream,
    ):
        eventually(lambda: last(stream), 0)  # unknown at first: Redis is young

        with Client.opened(there.port):
            eventually(lambda: last(stream), 1, deadline=SECOND)

        eventually(lambda: last(stream), 0, deadline=2 * SECOND)


def test_unknown_count_is_told_once_and_the_count_again_when_it_is_known() -> None:
    with (
        RedisServer() as redis,
        Server("daphne", ECHO_STATE_URL=redis.url) as server,
        Client.opened(server.port),
        Stream(server) as stream,
    ):
        eventually(lambda: last(stream), 1)
        before = stream.told()

        redis.stop()
        eventually(lambda: last(stream), "unknown")
        time.sleep(3 * stream_module.EVENT_INTERVAL)
        redis.start()
        eventually(lambda: last(stream), 1)

        assert stream.told() == [*before, "unknown", 1]


async def test_event_is_sent_to_many_streams_in_slices(join, monkeypatch) -> None:
    """An iteration of the event loop wakes some of them only, so that others have their turn."""
    iterations = [0]
    told_in: list[int] = []

    class Counted(stream_module.Stream):
        def send(self, event: str) -> None:
            told_in.append(iterations[0])
            super().send(event)

    async def count_iterations() -> None:
        while True:
            iterations[0] += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_iterations())
    streams = [Counted("foo") for _ in range(MANY)]
    watcher = watchers.get_watcher()
    for stream in streams:
        watcher.add(stream)
    async with asyncio.timeout(DEADLINE):
        while len(told_in) < MANY:
            await asyncio.sleep(0.01)
    await join("foo")
    async with asyncio.timeout(DEADLINE):
        while len(told_in) < 2 * MANY:
            await asyncio.sleep(0.01)
    for stream in streams:
        watcher.discard(stream)
    counting.cancel()

    assert max(Counter(told_in).values()) <= watchers.BATCH_SIZE


def streaming(server: Server) -> Client:
    client = Client(server.port)
    client.send(request("/foo/connections/live", {}))
    assert client.answer().status_line == "HTTP/1.1 200 OK"
    return client


@pytest.mark.parametrize("kind", SERVERS)
def test_more_streams_than_the_limit_are_rejected(kind: str, tmp_path: Path) -> None:
    (tmp_path / "few.py").write_text("from project.settings import *\nECHO_MAX_STREAMS = 3\n")
    env = {"DJANGO_SETTINGS_MODULE": "few", "PYTHONPATH": str(tmp_path)}
    with Server(kind, **env) as server, ExitStack() as stack:
        clients = [stack.enter_context(streaming(server)) for _ in range(3)]

        status, headers, _ = server.get("/foo/connections/live")
        assert (status, headers["retry-after"]) == (503, "2")

        clients[0].socket.close()
        eventually(lambda: is_streamed(server), True)
        eventually(lambda: is_streamed(server), True)  # its own have been given back, too


def is_streamed(server: Server) -> bool:
    with Client(server.port) as client:
        client.send(request("/foo/connections/live", {}))
        return client.answer().status_line == "HTTP/1.1 200 OK"


@pytest.mark.parametrize("kind", SERVERS)
def test_many_streams_that_end_at_once_make_no_threads(kind: str) -> None:
    with Server(kind) as server:
        clients = [streaming(server) for _ in range(300)]
        process = psutil.Process(server.process.pid)
        before = process.num_threads()
        for client in clients:
            client.socket.close()
        most = before
        end = time.monotonic() + 2 * SECOND
        while time.monotonic() < end:
            most = max(most, process.num_threads())

    assert most < before + 20
