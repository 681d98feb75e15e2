"""One WebSocket connection, between an asyncio transport and an ASGI application.

ASGI 3, WebSocket spec 2.4. Everything runs on the transport's event loop.
"""

import asyncio
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from typing import Any, NamedTuple, cast

from echo.extensions import ON_END, REPLY, SEND_NOW
from echo.server import framing, handshake
from echo.server.framing import Close, Failure, Framing

logger = logging.getLogger(__name__)

Application = Callable[..., Any]

ROOM = 64  # events that wait for the application before reading pauses
ROOM_BYTES = 256 * 1024  # and the bytes in them
LARGE = 4096  # bytes of a frame that does not wait for others, to be written with them
CLOSE_TIMEOUT = 5.0  # seconds for the client to answer a Close, or to take what is left
REPLY_TIMEOUT = 1.0  # seconds for the application to choose the answer to a client's Close
BUSY_GRACE = 0.1  # seconds, for one that is busy: what it sends in them goes before that answer
SLOW_READER_TIMEOUT = 10.0  # seconds in which a client must take something of what waits for it
MESSAGE_TIMEOUT = 60  # seconds from a message's first byte to its last
APPLICATION_TIMEOUT = 10.0  # seconds for the application to end after its connection
MAX_DROPPED = 1000  # events that an application sends before it receives the end
AGAIN = 0.1  # seconds until an application is told of the end once more
EARLY = 0.1  # seconds: a ping that is nearly due does not wait for the next look
STATUSES = range(200, 600)  # RFC 9110 §15; one of the 1xx would not be final
ABNORMAL, RESTART, INTERNAL_ERROR = 1006, 1012, 1011  # RFC 6455 §7.4 and its registry


try:
    from fcntl import ioctl
    from termios import TIOCOUTQ
except ImportError:  # Windows

    def _unacknowledged(transport: asyncio.Transport) -> int:
        return 0

else:

    def _unacknowledged(transport: asyncio.Transport) -> int:
        """Return the bytes that the kernel holds: it may take megabytes, and no more for long."""
        try:
            buffer = ioctl(transport.get_extra_info("socket").fileno(), TIOCOUTQ, bytes(4))
        except OSError:
            return 0
        return int.from_bytes(buffer, sys.byteorder)


class ClientDisconnected(OSError):
    """The connection is over: nothing can be sent (ASGI spec 2.4 asks for an OSError)."""


class Limits(NamedTuple):
    """What a connection may take, in bytes and seconds; None where there is no limit."""

    max_size: int = 1024 * 1024  # bytes of a message
    ping_interval: float | None = 20  # 0 as None
    ping_timeout: float | None = 10
    handshake_timeout: float | None = 20  # for the application to accept or refuse
    max_age: float | None = None
    application_timeout: float = APPLICATION_TIMEOUT


class State:
    """Plain numbers: looking up the members of an enumeration is slow (74 ns), and all do it."""

    HANDSHAKE = 0  # neither accepted nor refused
    ANSWERING = 1  # refused: an HTTP answer is on its way
    OPEN = 2
    CLIENT_CLOSED = 3  # the client's Close or FIN is here; the application may choose the answer
    CLOSE_SENT = 4
    OVER = 5


class PickledConnection:
    """What a pickled scope has in place of its connection: it has all methods, and none works."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return _fail_in_other_process


def _fail_in_other_process(*arguments: object) -> None:
    raise RuntimeError("This scope has been pickled: it has no connection any more.")


class WebSocketConnection(asyncio.Protocol):
    """The protocol of a connection whose handshake request has been read.

    `start` runs the application. `check_timeouts` must be called about each second.
    `over` is called once, when transport and application have both ended.
    """

    __slots__ = (
        "__weakref__",
        "_application",
        "_backlog",
        "_binary_reply",
        "_client_close",
        "_continues",
        "_dropped",
        "_early",
        "_ending",
        "_events",
        "_events_size",
        "_flush_soon",
        "_framing",
        "_head",
        "_heard",
        "_limits",
        "_loop",
        "_observe",
        "_observing",
        "_on_end",
        "_out",
        "_pinged",
        "_quiet_since",
        "_reading_paused",
        "_refusal",
        "_reply",
        "_since",
        "_started",
        "_task",
        "_told",
        "_waiter",
        "_writable",
        "scope",
        "state",
        "transport",
    )

    def __init__(self, application: Application, limits: Limits) -> None:
        self._application = application
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._framing = Framing(limits.max_size, framing.BUDGET)
        self.state = State.HANDSHAKE
        self.scope: dict[str, Any] = {}
        self.transport: asyncio.Transport | None = None
        self._refusal: handshake.Refusal | None = None
        self._head = False
        self._task: asyncio.Task[None] | None = None
        # What came in: bytes before the handshake is answered, then what the application is told.
        self._early = b""
        self._events: list[Any] = [{"type": "websocket.connect"}]
        self._events_size = 0  # bytes
        self._waiter: asyncio.Future[None] | None = None
        self._reading_paused = False
        self._continues = False  # is what has been read to be parsed in the loop's next turn?
        self._reply: framing.TextReply | None = None
        self._binary_reply: framing.BinaryReply | None = None
        self._observe: Callable[[float], None] | None = None
        self._observing = False  # is the next reply to be timed?
        self._client_close: Close | None = None
        self._ending: dict[str, Any] | None = None  # the websocket.disconnect event
        self._told = False  # has the application received it?
        self._dropped = 0  # events that were sent after it
        self._on_end: list[Callable[[int], None]] | None = None
        # What goes out: frames of one pass are written together.
        self._out: list[bytes] = []
        self._flush_soon = False
        self._writable: asyncio.Future[None] | None = None
        self._backlog = 0  # bytes that wait for a slow reader, at the last look
        # For the time limits, by the loop's clock.
        self._started = self._since = self._quiet_since = self._loop.time()
        self._heard = True
        self._pinged: float | None = None

    def __deepcopy__(self, memo: object) -> "WebSocketConnection":
        """Return itself: a copy of the scope (test suites make them) is of the same connection."""
        return self

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Let the scope be pickled: its extensions are the methods of a connection."""
        return PickledConnection, ()

    def over(self) -> None:
        """Transport and application have ended. For subclasses."""

    def log(self, action: str) -> None:
        """Note "connecting", "connected", "disconnected" or "rejected". For subclasses."""

    def default_headers(self) -> handshake.Headers:
        """Return what the server adds to each response. For subclasses."""
        return []

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def start(self, scope: dict[str, Any], method: str = "GET") -> None:
        """Run the application for the handshake request of the scope."""
        self.scope = scope
        self._refusal = handshake.judge(method, scope["headers"])
        self._head = method == "HEAD"  # an answer to it has no body
        scope["extensions"] = {
            "websocket.http.response": {},
            ON_END: self._call_at_end,
            REPLY: self._reply_with,
            SEND_NOW: self._send_now,
        }
        self.log("connecting")
        self._task = self._loop.create_task(self._run())

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if self.state is State.OPEN:
            self._parse(data)
        elif self.state is State.HANDSHAKE:
            self._early += data
            if len(self._early) > ROOM_BYTES:
                self._pause_reading()
        elif self.state is State.CLOSE_SENT:
            if Close in map(type, self._framing.receive(data)):
                self._finish()
            elif self._framing.has_more:
                self._parse_soon()
            self._framing.pongs.clear()  # nothing follows a Close

    def _parse(self, data: bytes) -> None:
        parser = self._framing
        # What a slow reader asks for waits as events do, and so does what comes after those.
        direct = self._reply is not None and self._writable is None and not self._events
        reply = self._reply if direct else None
        room = framing.ALL if direct else ROOM - len(self._events)
        began = perf_counter() if self._observing else 0.0
        try:
            events = parser.receive(data, room, reply, self._binary_reply)
        except Exception:
            self._log_application_error()
            events = [Failure(INTERNAL_ERROR, "")]
        if parser.pongs:
            self._send_pongs()
        if parser.replies:
            self._flush()
            self._write(b"".join(parser.replies))
            parser.replies.clear()
            if self._observing and self._observe is not None:
                self._observing = False
                self._observe(perf_counter() - began)
        if events:
            self._take(events)
        if parser.has_more and self._has_more():
            self._parse_soon()

    def _has_more(self) -> bool:
        """Return whether there is something to parse that came before the client's FIN, if any."""
        return self._framing.has_more and self.state in (State.OPEN, State.CLIENT_CLOSED)

    def _parse_soon(self) -> None:
        """Parse on in the loop's next turn, and read nothing meanwhile: others come first."""
        self._pause_reading()
        if not self._continues and not self._is_full():
            self._continues = True
            self._loop.call_soon(self._parse_on)

    def _parse_on(self) -> None:
        self._continues = False
        if self.state is State.CLOSE_SENT:
            self.data_received(b"")
        elif self._has_more() and not self._is_full():
            self._parse(b"")
        if not self._framing.has_more and not self._is_full():
            self._resume_reading()
        self._wake()  # for one that waits for what this was the end of

    def _is_full(self) -> bool:
        """Return whether enough events wait for the application."""
        return len(self._events) >= ROOM or self._events_size >= ROOM_BYTES

    def _send_pongs(self) -> None:
        pongs = self._framing.pongs
        if self._writable is None:
            self._framing.replies[:0] = pongs
            pongs.clear()
        else:  # RFC 6455 §5.5.3: of pings that wait, the last may be answered alone
            del pongs[:-1]

    def _take(self, events: list[framing.Event]) -> None:
        # nothing follows an end
        end = events.pop() if events and isinstance(events[-1], Close | Failure) else None
        self._events += events
        self._events_size += sum(map(len, cast(list[str | bytes], events)))
        if isinstance(end, Close):
            self._client_has_closed(end)
        elif end is not None:
            self._fail(cast(Failure, end))
        if self._is_full():
            self._pause_reading()
        self._wake()

    def _client_has_closed(self, close: Close) -> None:
        self.state = State.CLIENT_CLOSED
        self._client_close = close
        self._since = self._loop.time()
        if self._events or self._waiter is None or self._waiter.done():
            self._loop.call_later(BUSY_GRACE, self._answer_for_busy, len(self._events))
        self._end(close.code, close.reason)

    def _answer_for_busy(self, events: int) -> None:
        """Answer the client's Close, unless the application takes its events or has the end."""
        if self.state is not State.CLIENT_CLOSED or self._told:
            return
        if len(self._events) < events:
            self._loop.call_later(BUSY_GRACE, self._answer_for_busy, len(self._events))
        else:
            self._answer_close(framing.NO_CODE, "")

    def _fail(self, failure: Failure) -> None:
        logger.debug("Closing %r with %s: %s", self.scope["path"], failure.code, failure.reason)
        self._framing.drop()
        self._close(failure.code, failure.reason)
        # A close of the socket with bytes unread would reset it, and the Close frame be lost.
        if self.transport is not None and self.transport.can_write_eof():
            with suppress(OSError, RuntimeError):  # the client has reset the connection
                self.transport.write_eof()

    def eof_received(self) -> bool:
        """The client sends no more but may still read: what it has sent is answered first."""
        if self.state not in (State.HANDSHAKE, State.OPEN):
            return False
        if self.state is State.OPEN:
            self.state = State.CLIENT_CLOSED
        self._since = self._loop.time()
        self._end(ABNORMAL, "")
        # TLS cannot be half closed, and asyncio would log a warning for each that is.
        return self.transport is not None and self.transport.can_write_eof()

    def connection_lost(self, error: Exception | None) -> None:
        self.state = State.OVER
        self._since = self._loop.time()
        self.transport = None
        # Here, since the cycle of connection, task and scope is for the garbage collector.
        self._framing.drop()
        self.resume_writing()
        self._end(ABNORMAL, "")
        self._see_whether_over()

    def _pause_reading(self) -> None:
        if not self._reading_paused and self.transport is not None:
            self._reading_paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused and self.transport is not None:
            self._reading_paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()
        self._since = self._loop.time()
        self._backlog = 0

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set_result(None)
            self._writable = None
            if self._framing.pongs and self.state is State.OPEN:
                self._write(self._framing.pongs.pop())

    # The application's side

    async def _run(self) -> None:
        code = 1000
        try:
            await self._application(self.scope, self._receive, self._send)
        except ClientDisconnected:
            logger.debug("The application sent to %r after its end", self.scope["path"])
        except Exception:
            self._log_application_error()
            code = INTERNAL_ERROR
        finally:
            self._application_ended(code)

    def _log_application_error(self) -> None:
        logger.exception("Exception inside application: %r", self.scope["path"])

    def _application_ended(self, code: int) -> None:
        if self.state is State.HANDSHAKE:
            if code != INTERNAL_ERROR and self._ending is None:
                logger.error("The application of %r returned unaccepted", self.scope["path"])
            self._answer(500, "Internal Server Error")
        elif self.state is State.OPEN:
            self._close(code, "")
        elif self.state is State.CLIENT_CLOSED:
            self._answer_close(framing.NO_CODE, "")
        elif self.state is State.ANSWERING:
            self._finish()
        self._loop.call_soon(self._see_whether_over)

    def _see_whether_over(self) -> None:
        if self.transport is None and (self._task is None or self._task.done()):
            self._events.clear()
            self.over()

    def _call_at_end(self, call: Callable[[int], None]) -> None:
        """The extension "echo.on_end": call it with the code as soon as the end is known."""
        if self._ending is not None or self._refusal is not None:
            call(ABNORMAL if self._ending is None else self._ending["code"])
        else:
            self._on_end = [*(self._on_end or ()), call]

    def _reply_with(
        self,
        text: framing.TextReply,
        binary: framing.BinaryReply | None = None,
        observe: Callable[[float], None] | None = None,
    ) -> None:
        """The extension "echo.reply": answer messages where they are read, without `receive`.

        `observe` is called about once a second, if there is anything to answer, with the seconds
        that an answer took: from bytes read to bytes written.
        """
        self._reply, self._binary_reply, self._observe = text, binary, observe

    async def _receive(self) -> dict[str, Any]:
        if self._refusal is not None and self.state is State.HANDSHAKE:
            # A wrong path has its own answer, sent without receiving; no consumer is to run.
            self._refuse(self._refusal)
            raise ClientDisconnected
        while not self._events:
            self._flush()
            if self._has_more():
                self._parse_soon()
                await self._until_event()
            elif self._ending is not None:
                if self._told:  # a loop that does not end at it must not stop all others
                    await asyncio.sleep(AGAIN)
                else:
                    self._told = True
                    self._since = self._loop.time()
                return self._ending
            else:
                self._resume_reading()
                await self._until_event()
        event = self._events.pop(0)
        self._events_size -= len(event)
        if isinstance(event, str):
            return {"type": "websocket.receive", "text": event}
        if isinstance(event, bytes):
            return {"type": "websocket.receive", "bytes": event}
        return cast(dict[str, Any], event)

    async def _until_event(self) -> None:
        self._waiter = self._loop.create_future()
        await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _send(self, event: dict[str, Any]) -> None:
        if asyncio.get_running_loop() is not self._loop:  # in another thread, as reactpy-django's
            sending = asyncio.run_coroutine_threadsafe(self._send(event), self._loop)
            await asyncio.wrap_future(sending)
            return
        kind = event["type"]
        if kind == "websocket.send":
            if not self._send_message(event):
                await self._drop()
            elif self._writable is not None:
                await self._until_writable()
        elif kind == "websocket.accept" and self.state is State.HANDSHAKE:
            await self._accept(event)
        elif kind == "websocket.close":
            self._close_by_application(event)
        elif kind == "websocket.http.response.start" and self.state is State.HANDSHAKE:
            if event["status"] not in STATUSES:
                raise ValueError(f"{event['status']!r} is not the status of an HTTP response.")
            self.answer_start(event["status"], list(event.get("headers", ())))
            self.state = State.ANSWERING
        elif kind == "websocket.http.response.body" and self.state is State.ANSWERING:
            await self._send_body(event.get("body", b""), event.get("more_body", False))
        elif self.state is State.OVER:
            await self._drop()
        else:
            raise RuntimeError(f"{kind!r} cannot be sent at this point of the connection.")

    async def _accept(self, event: dict[str, Any]) -> None:
        if self._refusal is not None:
            self._refuse(self._refusal)
            raise ClientDisconnected
        headers = handshake.with_defaults(event.get("headers") or (), self.default_headers())
        head = handshake.acceptance(self.scope["headers"], event.get("subprotocol"), headers)
        self._started = self._loop.time()  # its time limit is for the application alone
        await self.take_over()
        if self._ending is not None or self.transport is None:
            self._finish()
            await self._drop()
            return
        self.transport.write(head)
        self.state = State.OPEN
        self.log("connected")
        early, self._early = self._early, b""
        self._resume_reading()
        if early:
            self._parse(early)

    async def take_over(self) -> None:
        """Make sure that `transport` is there: the handshake is accepted. For subclasses."""

    async def _send_body(self, body: bytes, more: bool) -> None:
        """Send a piece of the answer; after the last one the application is told of the end."""
        if body:
            self.answer_body(body, more=True)
        if self._writable is not None:
            await self._until_writable()
        if not more and self.state is State.ANSWERING:
            self._end(ABNORMAL, "")
            self.answer_body(b"", more=False)

    async def _drop(self) -> None:
        """Send nothing, for the connection is over; an error if the application knows that.

        Until it has received the end it may not know, and Channels' consumers would not come to
        their disconnect() after an exception.
        """
        self._dropped += 1
        if self._told or self._dropped > MAX_DROPPED:
            raise ClientDisconnected
        await asyncio.sleep(0)

    def _send_message(self, event: dict[str, Any]) -> bool:
        """Send it, if the connection is not over."""
        if self.state is not State.OPEN and (self.state is not State.CLIENT_CLOSED or self._told):
            if self.state in (State.HANDSHAKE, State.ANSWERING):
                raise RuntimeError("'websocket.send' needs a 'websocket.accept' before it.")
            return False
        text = event.get("text")
        if text is not None:
            frame = framing.frame(framing.TEXT, text.encode())
        elif (binary := event.get("bytes")) is not None:
            frame = framing.frame(framing.BINARY, binary)
        else:
            raise ValueError("'websocket.send' has neither 'text' nor 'bytes'.")
        if self._events or self._out:  # more replies follow: they go together
            self._out.append(frame)
            if len(self._out) >= ROOM or len(frame) >= LARGE:
                self._flush()
            elif not self._flush_soon:
                self._flush_soon = True
                self._loop.call_soon(self._flush_later)
        elif self.transport is not None:
            self.transport.write(frame)
        return True

    async def _until_writable(self) -> None:
        self._flush()
        if self._writable is not None:
            await asyncio.shield(self._writable)
        if self.transport is None:
            await self._drop()

    def _send_now(self, text: str) -> bool:
        """The extension "echo.send_now": send a text unless that would have to wait."""
        if self.state is not State.OPEN or self._writable is not None or self.transport is None:
            return False
        self._flush()
        self.transport.write(framing.frame(framing.TEXT, text.encode()))
        return True

    def _flush_later(self) -> None:
        self._flush_soon = False
        self._flush()

    def _flush(self) -> None:
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self._write(data)

    def _write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def _close_by_application(self, event: dict[str, Any]) -> None:
        code = event.get("code") or 1000
        reason = event.get("reason") or ""
        if self.state is State.HANDSHAKE:
            self._answer(403, "Access denied")
        elif self.state is State.CLIENT_CLOSED:
            self._answer_close(code, reason)
        elif self.state is State.OPEN:
            if code not in framing.CODES:
                raise ValueError(f"{code!r} is not a code that a Close frame may carry.")
            self._close(code, reason)
            self._dropped = MAX_DROPPED  # what follows is an error: the application knows the end

    # The ends

    def _end(self, code: int, reason: str) -> None:
        """The connection is over, for the application and those who count."""
        if self._ending is not None:
            return
        self._ending = {"type": "websocket.disconnect", "code": code, "reason": reason}
        for call in self._on_end or ():
            call(code)
        self._wake()
        self.log("disconnected" if self.state > State.ANSWERING else "rejected")

    def _close(self, code: int, reason: str) -> None:
        """Close from our side: the client has CLOSE_TIMEOUT to answer."""
        close = framing.close_frame(code, reason)  # may raise: the connection stays as it is
        self.state = State.CLOSE_SENT
        self._since = self._loop.time()
        self._end(code, reason)
        self._flush()
        self._write(close)
        self._events.clear()
        self._events_size = 0
        if self._framing.has_more:  # the client's Close may be in what has been read already
            self._parse_soon()
        else:
            self._resume_reading()

    def _answer_close(self, code: int, reason: str) -> None:
        """Answer the client's Close, with its own code where the application names none."""
        self._flush()
        if self._client_close is not None:
            own = code if code in framing.CODES else self._client_close.code
            self._write(framing.close_frame(own, reason))
        self._finish()

    def _finish(self) -> None:
        self.state = State.OVER
        self._since = self._loop.time()
        if self.transport is not None:
            self.transport.close()

    def shutdown(self) -> None:
        """The server stops: 1012 for the client, and the application is told."""
        if self.state is State.HANDSHAKE:
            self._answer(503, "Service Restart")
        elif self.state is State.ANSWERING:
            self._end(ABNORMAL, "")
        elif self.state is State.OPEN:
            self._close(RESTART, "Service Restart")

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def cancel(self) -> None:
        """End what is left of the connection at once."""
        self._abort()
        if self._task is not None:
            self._task.cancel()

    # HTTP answers: on a transport of its own a connection ends with its answer

    def _refuse(self, refusal: handshake.Refusal) -> None:
        self._answer(refusal.status, refusal.text, refusal.headers)

    def _answer(self, status: int, text: str, headers: handshake.Headers | None = None) -> None:
        if self._ending is not None:  # nobody is there
            self._finish()
            return
        self.state = State.ANSWERING
        self._end(ABNORMAL, "")
        body = text.encode()
        plain = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
        self.answer_start(status, [(b"connection", b"close"), *plain, *(headers or ())])
        self.answer_body(body, more=False)

    def answer_start(self, status: int, headers: handshake.Headers) -> None:
        kept = handshake.with_defaults(headers, self.default_headers())
        self._write(handshake.answer_head(status, kept))

    def answer_body(self, body: bytes, more: bool) -> None:
        if body and not self._head:
            self._write(body)
        if not more:
            self._finish()

    # The time limits

    def check_timeouts(self, now: float) -> None:
        """Enforce the time limits; `now` is the loop's time."""
        waited = now - self._since
        if self.state is State.OPEN:
            self._watch_open(now, waited)
        elif self.state is State.HANDSHAKE:
            limit = self._limits.handshake_timeout
            if limit is not None and now - self._started > limit:
                self._answer(503, "The application has not answered in time")
        elif self.state is State.CLIENT_CLOSED:
            if waited > CLOSE_TIMEOUT and self._writable is not None:
                self._abort()
            elif waited > (REPLY_TIMEOUT if self._told else CLOSE_TIMEOUT):
                self._answer_close(framing.NO_CODE, "")
        elif self.state is State.ANSWERING and self._ending is None:
            self._watch_reader(now, waited)  # as with HTTP, the application may take its time
        elif self.transport is not None:
            if waited > CLOSE_TIMEOUT:
                self._abort()
        elif self._task is None or self._task.done():
            pass
        elif waited > self._limits.application_timeout:
            logger.info("Application of %r did not finish in time: cancelled", self.scope["path"])
            self._task.cancel()

    def postpone_timeouts(self, seconds: float) -> None:
        """Move all time limits: for so long the event loop was blocked."""
        self._started += seconds
        self._since += seconds
        self._quiet_since += seconds
        if self._pinged is not None:
            self._pinged += seconds

    def _watch_open(self, now: float, waited: float) -> None:
        limits = self._limits
        self._observing = self._observe is not None
        if self._watch_reader(now, waited):
            return
        if not self._reading_paused and self._framing.grow_older() > MESSAGE_TIMEOUT:
            self._close(framing.POLICY_VIOLATION, "Message not finished in time")
            self._framing.drop()
            return
        if limits.max_age is not None and now - self._started > limits.max_age:
            self._close(1000, "")
        elif self._heard or self._reading_paused:
            self._heard, self._pinged, self._quiet_since = False, None, now
        elif self._pinged is not None:
            if limits.ping_timeout is not None and now - self._pinged >= limits.ping_timeout:
                logger.debug("%r does not answer pings", self.scope["path"])
                self._end(ABNORMAL, "")
                self._close(INTERNAL_ERROR, "keepalive ping timeout")
        elif (
            limits.ping_interval  # None or 0: no pings, as uvicorn has it
            and now - self._quiet_since >= limits.ping_interval - EARLY
        ):
            self._pinged = now
            self._write(framing.frame(framing.PING, b""))

    def _watch_reader(self, now: float, waited: float) -> bool:
        """Return whether something waits for a slow reader; one that takes nothing is ended."""
        if self.transport is None or self._writable is None:
            return False
        backlog = self.transport.get_write_buffer_size() + _unacknowledged(self.transport)
        if backlog < self._backlog or not self._backlog:
            self._since = now
        elif waited > SLOW_READER_TIMEOUT:
            self._abort()
        self._backlog = backlog
        return True
