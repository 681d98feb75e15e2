"""Sends the changes of counts to the streams of one event loop."""

import asyncio
import json
import logging
import signal
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from contextvars import Context

from echo.exceptions import StateUnavailable
from echo.live.stream import Stream
from echo.state import get_state
from echo.state.base import State

logger = logging.getLogger(__name__)

SEND_INTERVAL = 0.02  # seconds between sending changes
CHECK_INTERVAL = 0.2  # seconds between checks whether the server is stopping
RETRY_INTERVAL = 0.25  # seconds between reads while counts are unknown
# Streams that receive an event in one iteration of the event loop, before other connections run.
# Django takes a third of a millisecond to send one event.
BATCH_SIZE = 20
MAX_QUEUED_CHANGES = 10_000
MAX_SINGLE_READS = 10  # names; if there are more, all counts are read at once

UNKNOWN_EVENT = "event: unknown\ndata: {}\n\n"


class Watched:
    """The count that some streams show; if the name is None, the counts of all objects."""

    def __init__(self, name: str | None) -> None:
        self.name = name
        self.streams: set[Stream] = set()
        self.new: set[Stream] = set()  # need a read that begins after their start
        self.counts: dict[str, int] | None = None  # None: unknown
        self.number = -1  # of the last change in the counts; -1 before the first read

    def set(self, number: int, counts: dict[str, int] | None) -> bool:
        """Replace the counts by those of a read; return whether they have changed."""
        has_changed = self.number < 0 or counts != self.counts
        self.number, self.counts = number, counts
        return has_changed

    def update(self, number: int, changes: Mapping[str, int]) -> bool:
        """Apply changes, unless the last read included them; return whether counts have changed."""
        if self.counts is None or number <= self.number:
            return False
        self.number = number
        has_changed = False
        for name in changes if self.name is None else [self.name]:
            if changes[name] != self.counts.get(name, 0):
                has_changed = True
                self.counts[name] = changes[name]
                if not changes[name]:
                    del self.counts[name]
        return has_changed

    def event(self) -> str:
        if self.counts is None:
            return UNKNOWN_EVENT
        data: dict[str, object] = {"name": self.name, "connections": sum(self.counts.values())}
        if self.name is None:
            data = {"objects": len(self.counts), "connections": data["connections"]}
        return f"data: {json.dumps(data)}\n\n"


class Watcher:
    """Follows the changes of the state for the streams of one event loop.

    A change is sent at once if none was sent in the SEND_INTERVAL before. The state is read only
    for new streams, and if changes may have been missed.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._watched: dict[str | None, Watched] = {}
        self._must_read = False  # any count may have changed
        self._changes: deque[tuple[int, Mapping[str, int]]] = deque()
        self._wake = asyncio.Event()
        self._is_woken = False  # whether another thread has set `_wake`, or is about to
        self._task: asyncio.Task[None] | None = None

    def add(self, stream: Stream) -> None:
        watched = self._watched.get(stream.name)
        if watched is None:
            watched = self._watched[stream.name] = Watched(stream.name)
        watched.streams.add(stream)
        watched.new.add(stream)
        self._wake.set()
        if self._task is None or self._task.done():
            # An empty context, so that the task does not inherit that of the current request.
            self._task = self._loop.create_task(self._run(), context=Context())

    def discard(self, stream: Stream) -> None:
        watched = self._watched.get(stream.name)
        if watched is not None:
            watched.streams.discard(stream)
            watched.new.discard(stream)
            if not watched.streams:
                del self._watched[stream.name]
        if not self._watched and self._task is not None:
            self._task.cancel()
            self._task = None
            _watchers.pop(self._loop, None)  # the next stream gets a new watcher

    def _on_change(self, number: int, changes: Mapping[str, int] | None) -> None:
        """Store the changes and wake the task. Called in other threads."""
        if changes is None:
            self._must_read = True
        elif len(self._changes) >= MAX_QUEUED_CHANGES:  # the loop is busy: read them instead
            self._must_read = True
            self._changes.clear()
        elif None in self._watched or not self._watched.keys().isdisjoint(changes):
            self._changes.append((number, changes))
        else:
            return
        if not self._is_woken:
            self._is_woken = True
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._wake.set)

    async def _run(self) -> None:
        state = get_state()
        stop_listening = state.listen(self._on_change)
        try:
            while get_state() is state and not _is_server_stopping():
                self._wake.clear()
                self._is_woken = False
                is_known = await self._read(state)
                for watched in self._apply():
                    await _send_to(watched.streams, watched)
                await asyncio.sleep(SEND_INTERVAL)
                with suppress(TimeoutError):
                    async with asyncio.timeout(CHECK_INTERVAL if is_known else RETRY_INTERVAL):
                        await self._wake.wait()
        except Exception:
            logger.exception("Following the counts failed. The streams end, and clients reconnect.")
        finally:
            stop_listening()
        if _watchers.get(self._loop) is self:
            del _watchers[self._loop]  # the next stream gets a new watcher
        streams = [stream for watched in self._watched.values() for stream in watched.streams]
        for number, stream in enumerate(streams):
            stream.end()
            if number % BATCH_SIZE == 0:
                await asyncio.sleep(0)

    async def _read(self, state: State) -> bool:
        """Read the counts for new streams, or all if necessary; return whether they are known."""
        must_read, self._must_read = self._must_read, False
        to_read = [
            (watched, watched.new)
            for watched in self._watched.values()
            if must_read or watched.new or watched.counts is None
        ]
        for watched, _new in to_read:
            watched.new = set()
        results = await _read(state, [watched.name for watched, _new in to_read])
        for watched, new in to_read:
            has_changed = watched.set(*results[watched.name])
            await _send_to(watched.streams if has_changed else new & watched.streams, watched)
        return all(counts is not None for _number, counts in results.values())

    def _apply(self) -> set[Watched]:
        """Apply the changes that the state has sent; return the changed counts."""
        changed = set()
        while self._changes:
            number, changes = self._changes.popleft()
            for name in (None, *changes):
                watched = self._watched.get(name)
                if watched is not None and watched.update(number, changes):
                    changed.add(watched)
        return changed


async def _send_to(streams: set[Stream], watched: Watched) -> None:
    event = watched.event()
    for number, stream in enumerate(list(streams)):
        stream.send(event)
        if number % BATCH_SIZE == BATCH_SIZE - 1:
            await asyncio.sleep(0)


async def _read(
    state: State, names: list[str | None]
) -> dict[str | None, tuple[int, dict[str, int] | None]]:
    """Return the number of the last change and the counts for each name; None: all counts."""
    try:
        if None not in names and len(names) <= MAX_SINGLE_READS:
            return {name: await state.asnapshot(name) for name in names}
        number, counts = await state.asnapshot()
    except StateUnavailable:
        return dict.fromkeys(names, (0, None))
    return {
        name: (number, counts if name is None else {name: counts.get(name, 0)}) for name in names
    }


def _is_server_stopping() -> bool:
    """Return whether uvicorn is stopping. It waits for all responses to end.

    Other servers cancel responses. Remove this when uvicorn sends `http.disconnect` at shutdown
    again, as it did until https://github.com/Kludex/uvicorn/pull/2913.
    """
    handler = signal.getsignal(signal.SIGTERM)  # a method of uvicorn's Server
    return bool(getattr(getattr(handler, "__self__", None), "should_exit", False))


_watchers: dict[asyncio.AbstractEventLoop, Watcher] = {}  # only for loops with streams


def get_watcher() -> Watcher:
    """Return the watcher of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _watchers:
        _watchers[loop] = Watcher()
    return _watchers[loop]
