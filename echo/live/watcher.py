"""Sends the changes of the state to the streams of one event loop."""

import asyncio
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from contextvars import Context
from typing import Any, Generic, TypeVar

from echo.exceptions import StateUnavailable
from echo.extensions import uvicorn_server
from echo.live.stream import UNKNOWN_EVENT, Event, Stream
from echo.state import get_state
from echo.state.base import total_of
from echo.state.follower import Changes, Follower, MemberChanges

logger = logging.getLogger(__name__)

SEND_INTERVAL = 0.02  # seconds between sending changes
# Seconds between checks whether the server is stopping, and between reads while counts are unknown.
CHECK_INTERVAL = 0.2
# Streams that receive an event in one iteration of the event loop, before other connections run.
# Django takes a third of a millisecond to send one event.
BATCH_SIZE = 20
MAX_SINGLE_READS = 10  # names; if there are more, all counts are read at once


class Shown(ABC, Generic[Event]):
    """What some streams show."""

    def __init__(self, name: str | None) -> None:
        self.name = name
        self.streams: set[Stream[Event]] = set()
        self.number = 0  # of the last change that the last read included
        self.next_read = 0.0  # loop time until which new streams have to wait for a read

    @abstractmethod
    def is_known(self) -> bool: ...

    @abstractmethod
    def event(self) -> Event: ...


class Watched(Shown[str]):
    """The count that some streams show; if the name is None, the counts of all objects."""

    def __init__(self, name: str | None) -> None:
        super().__init__(name)
        self.counts: dict[str, int] | None = None  # None: unknown

    def is_known(self) -> bool:
        return self.counts is not None

    def set(self, number: int, counts: dict[str, int] | None) -> bool:
        """Replace the counts by those of a read; return whether they have changed."""
        if counts is not None and self.name is not None:
            counts = {self.name: counts[self.name]} if counts.get(self.name) else {}
        has_changed = counts != self.counts
        self.number, self.counts = number, counts
        return has_changed

    def update(self, changes: Changes) -> bool:
        """Apply changes, unless the last read included them; return whether counts have changed."""
        has_changed = False
        for name in changes if self.name is None else [self.name]:
            number, count = changes[name]
            if self.counts is None or number <= self.number or count == self.counts.get(name, 0):
                continue
            has_changed = True
            self.counts[name] = count
            if not count:
                del self.counts[name]
        return has_changed

    def event(self) -> str:
        if self.counts is None:
            return UNKNOWN_EVENT
        objects, connections = total_of(self.counts)
        data = {"objects": objects} if self.name is None else {"name": self.name}
        return f"data: {json.dumps({**data, 'connections': connections})}\n\n"


AnyShown = TypeVar("AnyShown", bound=Shown[Any])


class Watcher(ABC, Generic[AnyShown]):
    """Follows the changes of the state for the streams of one kind and one event loop.

    A change is sent at once if none was sent in the SEND_INTERVAL before. The state is read only
    for new streams, and if changes may have been missed.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._watched: dict[str | None, AnyShown] = {}
        self._new: set[Stream[Any]] = set()  # need a read that begins after their start
        self._wake = asyncio.Event()
        self._state = get_state()
        self._follower = Follower(self._state, self._wake_up, self._follows)
        # An empty context, so that the task does not inherit that of the current request.
        self._task = self._loop.create_task(self._run(), context=Context())

    def add(self, stream: Stream[Any]) -> None:
        if stream.name not in self._watched:
            self._watched[stream.name] = self._watch(stream.name)
        self._watched[stream.name].streams.add(stream)
        self._new.add(stream)
        self._wake.set()

    def discard(self, stream: Stream[Any]) -> None:
        self._new.discard(stream)
        streams = self._watched[stream.name].streams
        streams.discard(stream)
        if not streams:
            del self._watched[stream.name]
            self._wake.set()

    @abstractmethod
    def _watch(self, name: str | None) -> AnyShown:
        """Return what the streams of that name show, unknown at first."""

    @abstractmethod
    def _follows(self, name: str) -> bool:
        """Return whether to follow the object, or the member, of that (entry) name."""

    @abstractmethod
    def _apply(self, changes: Changes, members: MemberChanges) -> Iterator[AnyShown]:
        """Apply the changes to what is watched, and yield what has changed."""

    @abstractmethod
    async def _read_state(self, to_read: list[AnyShown]) -> list[bool]:
        """Read the state, and return for each whether it has changed."""

    def _wake_up(self) -> None:
        """Wake the task. Called in other threads."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._wake.set)

    async def _run(self) -> None:
        watched = self._watched
        try:
            while watched and get_state() is self._state and not _is_server_stopping():
                self._wake.clear()
                must_read, changes, members = self._follower.take()
                await self._read(must_read)
                for shown in self._apply(changes, members):
                    await _send(shown.event(), shown.streams - self._new)
                await asyncio.sleep(SEND_INTERVAL)
                with suppress(TimeoutError):
                    async with asyncio.timeout(CHECK_INTERVAL):
                        await self._wake.wait()
        except Exception:
            logger.exception("Following the state failed. The streams end, and clients reconnect.")
        finally:
            self._follower.stop()
            del _watchers[self._loop, type(self)]  # the next stream gets a new watcher
        for each in list(watched.values()):
            await _send(None, each.streams)

    async def _read(self, must_read: bool) -> None:
        """Read and send what new streams show, and what is unknown, or all."""
        new, self._new = self._new, set()
        now = self._loop.time()
        to_read = []
        for shown in self._watched.values():
            waiting = shown.streams & new
            if must_read or not shown.is_known() or (waiting and now >= shown.next_read):
                to_read.append(shown)
            else:
                self._new |= waiting
        has_changed = await self._read_state(to_read)
        for shown, changed in zip(to_read, has_changed, strict=True):
            streams = shown.streams if changed else shown.streams & new
            await _send(shown.event(), streams - self._new)


class CountWatcher(Watcher[Watched]):
    """Follows the counts."""

    def _watch(self, name: str | None) -> Watched:
        return Watched(name)

    def _follows(self, name: str) -> bool:
        return name in self._watched or (None in self._watched and "/" not in name)

    def _apply(self, changes: Changes, members: MemberChanges) -> Iterator[Watched]:
        for name in (None, *changes):
            if name in self._watched and self._watched[name].update(changes):
                yield self._watched[name]

    async def _read_state(self, to_read: list[Watched]) -> list[bool]:
        names = [watched.name for watched in to_read]
        results: list[tuple[int, dict[str, int] | None]]
        try:
            if None in names or len(names) > MAX_SINGLE_READS:
                results = [await self._state.asnapshot()] * len(names)
            else:
                results = [await self._state.asnapshot(name) for name in names]
        except StateUnavailable:
            results = [(0, None)] * len(names)
        return [
            watched.set(number, counts)
            for watched, (number, counts) in zip(to_read, results, strict=True)
        ]


async def _send(event: Event | None, streams: set[Stream[Event]]) -> None:
    for number, stream in enumerate(list(streams), start=1):
        stream.send(event)
        if number % BATCH_SIZE == 0:
            await asyncio.sleep(0)


def _is_server_stopping() -> bool:
    """Return whether uvicorn is stopping. It waits for all responses to end.

    Other servers cancel responses. Remove this when uvicorn sends `http.disconnect` at shutdown
    again, as it did until https://github.com/Kludex/uvicorn/pull/2913.
    """
    return bool(getattr(uvicorn_server(), "should_exit", False))


# Only for loops with streams.
_watchers: dict[tuple[asyncio.AbstractEventLoop, type[Watcher[Any]]], Watcher[Any]] = {}


def get_watcher(kind: type[Watcher[Any]] = CountWatcher) -> Watcher[Any]:
    """Return the watcher of that kind of the running event loop."""
    key = asyncio.get_running_loop(), kind
    if key not in _watchers:
        _watchers[key] = kind()
    return _watchers[key]
