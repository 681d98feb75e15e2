"""One task per event loop looks at the counts that are watched, however many watch them."""

import asyncio
import json
import logging
import random
import signal
from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress
from contextvars import Context

from echo.conf import conf
from echo.exceptions import StateUnavailable
from echo.state import get_state

logger = logging.getLogger(__name__)

PERIOD = 0.2  # seconds between two looks, and between two events of a stream
REST = 9  # times as long as a look took: very many counts are read for a tenth of the time
HEARTBEAT = 15.0  # seconds of silence at the most
# A stream then ends, and its client comes again: who may see the count is asked anew, and what
# a client has not read is forgotten.
MAX_AGE = 600.0  # seconds
# Streams that are woken in one iteration of the event loop: Django takes a third of a millisecond
# to send an event, and others have their turn in between.
SLICE = 20
ONE_BY_ONE = 10  # names, above which all counts are read at once

UNKNOWN = "event: unknown\ndata: {}\n\n"
AGAIN = "event: again\ndata: {}\n\n"  # this stream ends, which is no outage
# Scripts cannot see the comment, and so not whether the server is still there: hence the event.
BEAT = ": still here\nevent: heartbeat\ndata: {}\n\n"

Value = int | dict[str, int] | None  # of an object; of all; what cannot be known


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
        yield AGAIN


class Watcher:
    """Reads the counts that are watched on one event loop, and tells those who watch.

    All reads are made here, one after the other: an older number never follows a newer one. What
    changes in this process is told at once if it was quiet before, what changes elsewhere within
    PERIOD.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._has_changed = False  # in this process, since the last look
        self._streams: dict[str | None, set[Stream]] = {}
        self._values: dict[str | None, tuple[Value, str]] = {}  # and the event that tells it
        self._new: set[Stream] = set()  # a read that is under way may be too old for them
        self._arrival = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def add(self, stream: Stream) -> None:
        self._new.add(stream)
        self._arrival.set()
        if self._task is None or self._task.done():
            self._task = self._loop.create_task(self._run(), context=Context())  # nobody's request

    def discard(self, stream: Stream) -> None:
        self._new.discard(stream)
        streams = self._streams.get(stream.name, set())
        streams.discard(stream)
        if not streams:
            self._streams.pop(stream.name, None)
            self._values.pop(stream.name, None)
        if not self._streams and not self._new and self._task is not None:
            self._task.cancel()  # who comes now gets another watcher, and a task of its own
            self._task = None
            _watchers.pop(self._loop, None)

    async def _run(self) -> None:
        time = self._loop.time
        end_listening = get_state().listen(self._on_change)
        try:
            # The first read of a process may wait for others to write: no work to rest from.
            await _read([conf.ECHO_DEFAULT_OBJECT])
            next_look = next_change = time()  # the latter for what has changed in this process
            while not _server_stops():
                began, has_changed = time(), self._has_changed
                is_due = began >= (next_change if has_changed else next_look)
                if is_due:
                    self._has_changed = False
                is_known = await self._look(at_all=is_due)
                if is_due:
                    rested = time() + REST * (time() - began) * is_known
                    next_look = max(began + PERIOD, rested)
                    next_change = next_look if has_changed else rested
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
            end_listening()
        for number, stream in enumerate(self._new.union(*self._streams.values())):
            stream.end()
            if number % SLICE == 0:
                await asyncio.sleep(0)

    def _on_change(self) -> None:
        """Wake the task; on the thread of the change."""
        if not self._has_changed:
            self._has_changed = True
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._arrival.set)

    async def _look(self, at_all: bool) -> bool:
        """Read and tell the counts of the new streams, or of all; return whether they are known."""
        new, self._new = self._new, set()
        self._arrival.clear()
        for stream in new:
            self._streams.setdefault(stream.name, set()).add(stream)
        values = await _read(self._streams if at_all else {stream.name for stream in new})
        for name, value in values.items():
            if name in self._streams:  # else they have left meanwhile
                await self._tell(name, value, new)
        return None not in values.values()

    async def _tell(self, name: str | None, value: Value, new: set[Stream]) -> None:
        known = self._values.get(name)
        if known is None or known[0] != value:
            known = self._values[name] = value, _event(name, value)
            streams = list(self._streams[name])
        else:
            streams = list(self._streams[name] & new)
        for first in range(0, len(streams), SLICE):
            for stream in streams[first : first + SLICE]:
                stream.tell(known[1])
            await asyncio.sleep(0)


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


_watchers: dict[asyncio.AbstractEventLoop, Watcher] = {}  # as long as somebody watches


def get_watcher() -> Watcher:
    """Return the watcher of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _watchers:
        _watchers[loop] = Watcher()
    return _watchers[loop]
