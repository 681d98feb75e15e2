"""uvloop's event loop, with a selector of its own for `add_reader` and `add_writer`.

If the peer resets a TCP connection, uvloop calls a reader once more and then closes its poll handle
without another word. Twisted reads what was received before the reset, and waits for the reset
without end: the socket, its request and its application leak. A selector reports the error until
the reader has read it, as on asyncio's own loop.

https://github.com/MagicStack/uvloop/blob/v0.23.0/uvloop/handles/poll.pyx, `_fatal_error`. This
module can go when uvloop calls the reader until it is removed.
"""

import selectors
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, TypeVarTuple

import uvloop

Ts = TypeVarTuple("Ts")


class Loop(uvloop.Loop):
    """An event loop whose readers and writers are called for errors, too."""

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

    def remove_reader(self, fd: Any) -> bool:  # type: ignore[override]  # asyncio's has it
        return self._remove(fd, selectors.EVENT_READ)

    def add_writer(self, fd: Any, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        self._add(fd, selectors.EVENT_WRITE, callback, args)

    def remove_writer(self, fd: Any) -> bool:  # type: ignore[override]  # asyncio's has it
        return self._remove(fd, selectors.EVENT_WRITE)

    def _add(
        self, fd: Any, event: int, callback: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        known = (copy_context(), callback, args)
        try:
            key = self._selector.get_key(fd)
        except KeyError:
            self._selector.register(fd, event, {event: known})
        else:
            key.data[event] = known
            self._selector.modify(fd, key.events | event, key.data)

    def _remove(self, fd: Any, event: int) -> bool:
        try:
            key = self._selector.get_key(fd)
        except (KeyError, RuntimeError):  # unknown; the loop is closed
            return False
        is_known = key.data.pop(event, None) is not None
        if key.data:
            self._selector.modify(fd, key.events & ~event, key.data)
        else:
            self._selector.unregister(fd)
        return is_known

    def _dispatch(self) -> None:
        for key, events in self._selector.select(0):
            for event in (selectors.EVENT_READ, selectors.EVENT_WRITE):
                # A callback before this one may have removed it.
                if events & event and event in key.data:
                    self._call(*key.data[event])

    def _call(
        self, context: Context, callback: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        try:
            context.run(callback, *args)
        except Exception as error:
            what = {"message": f"Exception in callback {callback!r}", "exception": error}
            self.call_exception_handler(what)


class EventLoopPolicy(uvloop.EventLoopPolicy):  # type: ignore[misc]  # deprecated: no type
    def _loop_factory(self) -> Loop:
        return Loop()
