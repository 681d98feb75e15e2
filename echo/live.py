"""Counts pushed as they change, by server-sent events (HTML standard, §9.2).

One task per event loop looks at the counts that are watched, however many watch them.
"""

import asyncio
import json
import logging
import random
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from contextvars import Context
from weakref import WeakKeyDictionary

from asgiref.sync import SyncToAsync, sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import connections as databases
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_GET

from echo.access import COUNT, LIST, may
from echo.conf import conf
from echo.exceptions import InvalidName, StateUnavailable
from echo.names import check_name
from echo.state import get_state
from echo.views import text

logger = logging.getLogger(__name__)

PERIOD = 0.2  # seconds between two looks, and between two events of a stream
HEARTBEAT = 15.0  # seconds of silence at the most
# A stream then ends, and its client comes again: who may see the count is asked anew, and what
# a client has not read is forgotten.
MAX_AGE = 600.0  # seconds
RETRY = 1000, 3000  # milliseconds until a client comes again; each has its own
ONE_BY_ONE = 10  # names, above which all counts are read at once

UNKNOWN = "event: unknown\ndata: {}\n\n"
# Scripts cannot see the comment, and so not whether the server is still there: hence the event.
BEAT = ": still here\nevent: heartbeat\ndata: {}\n\n"
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Encoding": "identity",  # GZipMiddleware would hold events back until it has many
    "X-Accel-Buffering": "no",  # nginx would, too
    "X-Content-Type-Options": "nosniff",
}
WSGI = "Live counts need a server that speaks ASGI; this one speaks WSGI."

Value = int | dict[str, int] | None  # of an object; of all; what cannot be known


@require_GET
async def count(request: HttpRequest, name: str | None = None) -> HttpResponseBase:
    """The count of the object, `{"name": "foo", "connections": 3}`: now, and at each change."""
    name = conf.ECHO_DEFAULT_OBJECT if name is None else name
    try:
        check_name(name)
    except InvalidName as error:
        return text(str(error), status=400)
    return await _stream(request, name, COUNT, "You may not see the count of this object.")


@require_GET
async def total(request: HttpRequest) -> HttpResponseBase:
    """What all objects have, `{"objects": 2, "connections": 5}`: at each change of any count."""
    return await _stream(request, None, LIST, "You may not see the list of the objects.")


async def _stream(
    request: HttpRequest, name: str | None, action: str, refusal: str
) -> HttpResponseBase:
    if not isinstance(request, ASGIRequest):
        return text(WSGI, status=501)
    # in a thread, since whoever decides may ask the database who the user is
    if not await sync_to_async(may)(request, name, action):
        return text(refusal, status=403)
    return StreamingHttpResponse(
        _events(name), content_type="text/event-stream", headers={**HEADERS}
    )


async def _events(name: str | None) -> AsyncIterator[str]:
    await _release_thread()
    yield f"retry: {random.randint(*RETRY)}\n\n"
    stream = Stream(name)
    watcher = get_watcher()
    watcher.add(stream)
    try:
        async with aclosing(stream.events()) as events:
            async for event in events:
                yield event
    finally:
        watcher.discard(stream)


async def _release_thread() -> None:
    """Give back the thread and the database connection that Django keeps for each request."""
    context = SyncToAsync.thread_sensitive_context.get(None)
    if context is None or context not in SyncToAsync.context_to_thread_executor:
        return
    await sync_to_async(databases.close_all)()
    SyncToAsync.context_to_thread_executor.pop(context).shutdown(wait=False)


class Stream:
    """One client that watches an object, or with the name None all of them."""

    def __init__(self, name: str | None) -> None:
        self.name = name
        self._latest = ""
        self._changed = asyncio.Event()
        self._ended = False

    def tell(self, event: str) -> None:
        self._latest = event
        self._changed.set()

    def end(self) -> None:
        self._ended = True
        self._changed.set()

    async def events(self) -> AsyncGenerator[str, None]:
        """Give the latest event, at most one each PERIOD, and heartbeats when there is none."""
        loop = asyncio.get_running_loop()
        end = loop.time() + MAX_AGE * random.uniform(0.9, 1)
        while loop.time() < end:
            try:
                async with asyncio.timeout(HEARTBEAT):
                    await self._changed.wait()
            except TimeoutError:
                yield BEAT
                continue
            if self._ended:
                return
            self._changed.clear()
            yield self._latest
            await asyncio.sleep(PERIOD)


class Watcher:
    """Reads the counts that are watched on one event loop, and tells those who watch.

    All reads are made here, one after the other: an older number never follows a newer one.
    """

    def __init__(self) -> None:
        self._streams: dict[str | None, set[Stream]] = {}
        self._values: dict[str | None, tuple[Value, str]] = {}  # and the event that tells it
        self._new: set[Stream] = set()  # a read that is under way may be too old for them
        self._arrival = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def add(self, stream: Stream) -> None:
        self._new.add(stream)
        self._arrival.set()
        if self._task is None or self._task.done():
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._run(), context=Context())  # nobody's request

    def discard(self, stream: Stream) -> None:
        self._new.discard(stream)
        streams = self._streams.get(stream.name, set())
        streams.discard(stream)
        if not streams:
            self._streams.pop(stream.name, None)
            self._values.pop(stream.name, None)
        if not self._streams and not self._new and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        next_look = loop.time()
        try:
            while not _server_stops():
                if is_due := loop.time() >= next_look:
                    next_look = loop.time() + PERIOD
                await self._look(at_all=is_due)
                try:
                    async with asyncio.timeout_at(next_look):
                        await self._arrival.wait()
                except TimeoutError:
                    pass
        except Exception:
            logger.exception(
                "Watching the counts failed; the streams end, their clients come again."
            )
        finally:
            for stream in self._new.union(*self._streams.values()):
                stream.end()

    async def _look(self, at_all: bool) -> None:
        new, self._new = self._new, set()
        self._arrival.clear()
        for stream in new:
            self._streams.setdefault(stream.name, set()).add(stream)
        values = await _read(self._streams if at_all else {stream.name for stream in new})
        for name, value in values.items():
            if name in self._streams:  # else they have left meanwhile
                self._tell(name, value, new)

    def _tell(self, name: str | None, value: Value, new: set[Stream]) -> None:
        known = self._values.get(name)
        if known is None or known[0] != value:
            event = _event(name, value)
            self._values[name] = value, event
            for stream in self._streams[name]:
                stream.tell(event)
        else:
            for stream in self._streams[name] & new:
                stream.tell(known[1])


async def _read(names: Iterable[str | None]) -> dict[str | None, Value]:
    """Return the count of each name, and for None the counts of all objects."""
    names = set(names)
    state = get_state()
    try:
        if None not in names and len(names) <= ONE_BY_ONE:
            return {name: await state.acount(name) for name in names if name is not None}
        counts = await state.acounts()
    except StateUnavailable:
        return dict.fromkeys(names)
    return {name: counts if name is None else counts.get(name, 0) for name in names}


def _event(name: str | None, value: Value) -> str:
    if value is None:
        return UNKNOWN
    told: dict[str, object] = {"name": name, "connections": value}
    if isinstance(value, dict):
        told = {"objects": len(value), "connections": sum(value.values())}
    return f"data: {json.dumps(told)}\n\n"


def _server_stops() -> bool:
    """Return whether uvicorn wants to end: it waits without limit for responses to end first.

    Other servers cancel them.
    """
    handler = signal.getsignal(signal.SIGTERM)  # a method of uvicorn's Server
    return bool(getattr(getattr(handler, "__self__", None), "should_exit", False))


_watchers: "WeakKeyDictionary[asyncio.AbstractEventLoop, Watcher]" = WeakKeyDictionary()


def get_watcher() -> Watcher:
    """Return the watcher of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _watchers:
        _watchers[loop] = Watcher()
    return _watchers[loop]
