"""uvloop's event loop with a separate selector for `add_reader` and `add_writer`.

If the peer resets a TCP connection, uvloop calls the reader once more and then silently closes its
poll handle. Twisted reads the data that came before the reset and then waits for the reset forever:
the socket, its request and its application leak. A selector reports the error until the reader has
read it, as in asyncio's own event loop.

See https://github.com/MagicStack/uvloop/issues/552, and `_fatal_error` in
https://github.com/MagicStack/uvloop/blob/v0.23.0/uvloop/handles/poll.pyx. Remove this module when
uvloop calls a reader until `remove_reader`.
"""

import selectors
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, TypeVarTuple

import uvloop

Ts = TypeVarTuple("Ts")


class Loop(uvloop.Loop):
    """An event loop that also calls readers and writers if the socket has an error."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = selectors.DefaultSelector()
        super().add_reader(self._selector.fileno(), self._dispatch)

    def close(self) -> None:
        if not self.is_closed():
            super().remove_reader(self._selector.fileno())
            self._selector.close()
        super().close()

    def add_reader(self, fd: Any, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        self._add(fd, selectors.EVENT_READ, callback, args)

    def remove_reader(self, fd: Any) -> bool:  # type: ignore[override]  # as in asyncio
        return self._remove(fd, selectors.EVENT_READ)

    def add_writer(self, fd: Any, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        self._add(fd, selectors.EVENT_WRITE, callback, args)

    def remove_writer(self, fd: Any) -> bool:  # type: ignore[override]  # as in asyncio
        return self._remove(fd, selectors.EVENT_WRITE)

    def _add(
        self, fd: Any, event: int, callback: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        registered = (copy_context(), callback, args)
        try:
            key = self._selector.get_key(fd)
        except KeyError:
            self._selector.register(fd, event, {event: registered})
        else:
            key.data[event] = registered
            self._selector.modify(fd, key.events | event, key.data)

    def _remove(self, fd: Any, event: int) -> bool:
        try:
            key = self._selector.get_key(fd)
        except (KeyError, RuntimeError):  # not registered, or the loop is closed
            return False
        was_registered = key.data.pop(event, None) is not None
        if key.data:
            self._selector.modify(fd, key.events & ~event, key.data)
        else:
            self._selector.unregister(fd)
        return was_registered

    def _dispatch(self) -> None:
        for key, events in self._selector.select(0):
            for event in (selectors.EVENT_READ, selectors.EVENT_WRITE):
                # An earlier callback may have removed this one.
                if events & event and event in key.data:
                    self._call(*key.data[event])

    def _call(
        self, context: Context, callback: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        try:
            context.run(callback, *args)
        except Exception as error:
            details = {"message": f"Exception in callback {callback!r}", "exception": error}
            self.call_exception_handler(details)


class EventLoopPolicy(uvloop.EventLoopPolicy):  # type: ignore[misc]  # deprecated: no type
    def _loop_factory(self) -> Loop:
        return Loop()
