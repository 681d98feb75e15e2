"""Polls the watched counts in one task per event loop, regardless of the number of clients."""

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

# Idle seconds per second of polling: reading very many counts takes at most a tenth of the time.
IDLE_FACTOR = 9
# Streams that receive an event in one iteration of the event loop, before other connections run.
# Django takes a third of a millisecond to send one event.
BATCH_SIZE = 20
MAX_SINGLE_READS = 10  # names; if there are more, all counts are read at once

UNKNOWN_EVENT = "event: unknown\ndata: {}\n\n"

Value = int | dict[str, int] | None  # the count of one object; all counts; unknown


class Watcher:
    """Polls the counts for the streams of one event loop, and sends each change to them.

    Reads run one at a time, so that an older count never follows a newer one. A change in another
    process is sent within EVENT_INTERVAL, a change in this process at once unless it follows
    another one within EVENT_INTERVAL.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._has_changed = False  # whether a count changed in this process since the last poll
        self._streams: dict[str | None, set[Stream]] = {}
        self._values: dict[str | None, tuple[Value, str]] = {}  # and their events
        self._new: set[Stream] = set()  # need a read that begins after their start
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def add(self, stream: Stream) -> None:
        self._new.add(stream)
        self._wake.set()
        if self._task is None or self._task.done():
            # An empty context, so that the task does not inherit that of the current request.
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
            # Before polling: the first read of a process may wait for writes of other processes.
            await _read([conf.ECHO_DEFAULT_OBJECT])
            next_poll = next_change = time()  # next_change applies after a change in this process
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
            logger.exception("Polling the counts failed. The streams end, and clients reconnect.")
        finally:
            stop_listening()
        for number, stream in enumerate(self._new.union(*self._streams.values())):
            stream.end()
            if number % BATCH_SIZE == 0:
                await asyncio.sleep(0)

    def _on_change(self) -> None:
        """Wake the task. Called in the thread that changed a count."""
        if not self._has_changed:
            self._has_changed = True
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._wake.set)

    async def _poll(self, all_streams: bool) -> bool:
        """Read and send the counts for all or only new streams; return whether they are known."""
        new, self._new = self._new, set()
        self._wake.clear()
        for stream in new:
            self._streams.setdefault(stream.name, set()).add(stream)
        values = await _read(self._streams if all_streams else {stream.name for stream in new})
        for name, value in values.items():
            if name in self._streams:  # its streams may have been discarded during the read
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
    """Return the count of each name; for the name None, the counts of all objects."""
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
