"""Polls the watched counts in one task per event loop, whatever the number of clients."""

import asyncio
import json
import logging
import signal
from collections.abc import Iterable
from contextlib import suppress
from contextvars import Context

from echo.conf import conf
from echo.exceptions import StateUnavailable
from echo.live.stream import EVENT_INTERVAL, Stream
from echo.state import get_state

logger = logging.getLogger(__name__)

# Idle time per second of polling: reading very many counts takes a tenth of the time at most.
IDLE_FACTOR = 9
# Streams that get an event in one iteration of the event loop. Django takes a third of a
# millisecond to send one, and other connections have their turn in between.
BATCH_SIZE = 20
MAX_SINGLE_READS = 10  # names; if there are more, all counts are read at once

UNKNOWN_EVENT = "event: unknown\ndata: {}\n\n"

Value = int | dict[str, int] | None  # of one object; of all objects; unknown


class Watcher:
    """Polls the counts that the streams of one event loop show, and sends the changes to them.

    All reads are made here, one after the other, so that an older number never follows a newer one.
    A change in this process is sent at once after a quiet interval, a change in another process
    within EVENT_INTERVAL.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._has_changed = False  # in this process, since the last poll
        self._streams: dict[str | None, set[Stream]] = {}
        self._values: dict[str | None, tuple[Value, str]] = {}  # and the event for the value
        self._new: set[Stream] = set()  # a read that has begun may be too old for these
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def add(self, stream: Stream) -> None:
        self._new.add(stream)
        self._wake.set()
        if self._task is None or self._task.done():
            # The context of the request that happens to start the task must not leak into it.
            self._task = self._loop.create_task(self._run(), context=Context())

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
            _watchers.pop(self._loop, None)  # the next stream gets a new watcher

    async def _run(self) -> None:
        time = self._loop.time
        stop_listening = get_state().listen(self._on_change)
        try:
            # The first read of a process may wait for other processes to write, and is not polling.
            await _read([conf.ECHO_DEFAULT_OBJECT])
            next_poll = next_change = time()  # the latter after a change in this process
            while not _is_server_stopping():
                began, has_changed = time(), self._has_changed
                is_due = began >= (next_change if has_changed else next_poll)
                if is_due:
                    self._has_changed = False
                is_known = await self._poll(all_streams=is_due)
                if is_due:
                    idle_until = time() + IDLE_FACTOR * (time() - began) * is_known
                    next_poll = max(began + EVENT_INTERVAL, idle_until)
                    next_change = next_poll if has_changed else idle_until
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(next_poll):
                        await self._wake.wait()
        except Exception:
            logger.exception("Polling the counts failed. The streams end, their clients reconnect.")
        finally:
            stop_listening()
        for number, stream in enumerate(self._new.union(*self._streams.values())):
            stream.end()
            if number % BATCH_SIZE == 0:
                await asyncio.sleep(0)

    def _on_change(self) -> None:
        """Wake the task. Runs on the thread of the change."""
        if not self._has_changed:
            self._has_changed = True
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._wake.set)

    async def _poll(self, all_streams: bool) -> bool:
        """Read and send the counts of the new or of all streams; return whether they are known."""
        new, self._new = self._new, set()
        self._wake.clear()
        for stream in new:
            self._streams.setdefault(stream.name, set()).add(stream)
        values = await _read(self._streams if all_streams else {stream.name for stream in new})
        for name, value in values.items():
            if name in self._streams:  # else its streams have been discarded during the read
                await self._send(name, value, new)
        return None not in values.values()

    async def _send(self, name: str | None, value: Value, new: set[Stream]) -> None:
        last = self._values.get(name)
        if last is None or last[0] != value:
            last = self._values[name] = value, _make_event(name, value)
            streams = list(self._streams[name])
        else:
            streams = list(self._streams[name] & new)
        for first in range(0, len(streams), BATCH_SIZE):
            for stream in streams[first : first + BATCH_SIZE]:
                stream.send(last[1])
            await asyncio.sleep(0)


async def _read(names: Iterable[str | None]) -> dict[str | None, Value]:
    """Return the count of each name, and for None the counts of all objects."""
    names = set(names)
    state = get_state()
    try:
        if None not in names and len(names) <= MAX_SINGLE_READS:
            return {name: await state.acount(name) for name in names if name is not None}
        counts = await state.acounts()
    except StateUnavailable:
        return dict.fromkeys(names)
    return {name: counts if name is None else counts.get(name, 0) for name in names}


def _make_event(name: str | None, value: Value) -> str:
    if value is None:
        return UNKNOWN_EVENT
    data: dict[str, object] = {"name": name, "connections": value}
    if isinstance(value, dict):
        data = {"objects": len(value), "connections": sum(value.values())}
    return f"data: {json.dumps(data)}\n\n"


def _is_server_stopping() -> bool:
    """Return whether uvicorn is stopping: it waits for the end of all responses before it cancels.

    Other servers cancel responses. This can go when uvicorn sends `http.disconnect` at shutdown,
    as it did until https://github.com/Kludex/uvicorn/pull/2913.
    """
    handler = signal.getsignal(signal.SIGTERM)  # a method of uvicorn's Server
    return bool(getattr(getattr(handler, "__self__", None), "should_exit", False))


_watchers: dict[asyncio.AbstractEventLoop, Watcher] = {}  # of the loops that have streams


def get_watcher() -> Watcher:
    """Return the watcher of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _watchers:
        _watchers[loop] = Watcher()
    return _watchers[loop]
