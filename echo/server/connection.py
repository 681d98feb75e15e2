"""One WebSocket connection, between an asyncio transport and an ASGI application.

ASGI 3, WebSocket spec 2.4. Everything runs on the transport's event loop.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, cast

from echo.extensions import AUTO_REPLY, CLOSE_CODES, ON_END, REPLY, SEND_NOW, draining
from echo.server import deflate, framing, handshake
from echo.server.flow_control import BATCH_SIZE, MAX_BATCHED_FRAME, FlowControl
from echo.server.framing import Close, Failure, Framing
from echo.server.receive_queue import MAX_QUEUED_BYTES, MAX_QUEUED_EVENTS, ReceiveQueue
from echo.server.timeouts import (
    BUSY_GRACE,
    CLOSE_REPLY_TIMEOUT,
    CLOSE_TIMEOUT,
    MESSAGE_TIMEOUT,
    Limits,
    Timeouts,
)

logger = logging.getLogger(__name__)

Application = Callable[..., Any]

# Events that the application may send after the end, while it has not received the disconnect.
MAX_DROPPED_EVENTS = 1000
# Seconds between deliveries of the disconnect, if the application receives it repeatedly.
DISCONNECT_INTERVAL = 0.1
FINAL_STATUSES = range(200, 600)  # RFC 9110 §15; after a 1xx another response must follow
# RFC 6455 §7.4 and the IANA registry
ABNORMAL_CLOSURE, SERVICE_RESTART, INTERNAL_ERROR = 1006, 1012, 1011
ENDS = (Close, Failure)  # no event follows these
RETRY_AFTER = b"2"  # seconds until another process may accept a handshake, as in echo.responses


class ClientDisconnected(OSError):
    """Nothing can be sent any more (ASGI spec 2.4 requires an OSError)."""


class State:
    """The states of a connection. Not an Enum, whose members take 74 ns to access on each read."""

    HANDSHAKE = 0  # neither accepted nor rejected
    RESPONDING = 1  # rejected: an HTTP response is being sent
    OPEN = 2
    CLIENT_CLOSED = 3  # Close or FIN received; the application may choose the close reply
    CLOSE_SENT = 4
    CLOSED = 5


class PickledConnection:
    """Replaces the connection in a pickled scope. All its methods raise RuntimeError."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return _raise_pickled


def _raise_pickled(*arguments: object) -> None:
    raise RuntimeError("This scope has been pickled, so it has no connection any more.")


def _first_of(first: framing.TextReply | None, second: framing.TextReply) -> framing.TextReply:
    """Return a function for the reply of the first function or, if it has none, the second."""
    if first is None:
        return second

    def reply(text: str) -> str | None:
        replied = first(text)
        return second(text) if replied is None else replied

    return reply


class WebSocketConnection(asyncio.Protocol):
    """The protocol of a connection whose handshake request has been read.

    `start` runs the application. The server must call `check_timeouts` about once a second.
    `finished` is called once, when the transport is closed and the application has finished.
    """

    def __init__(self, limits: Limits) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self.state = State.HANDSHAKE
        self.scope: dict[str, Any] = {}
        self.transport: asyncio.Transport | None = None
        self._framing = Framing(limits.max_size, framing.BUDGET)
        self._may_deflate = limits.deflate
        self._queue = ReceiveQueue(loop)
        self._flow = FlowControl(loop)
        self._timeouts = Timeouts(limits, loop.time())
        self._task: asyncio.Task[None] | None = None
        self._has_returned = False  # the application
        self._rejection: handshake.Rejection | None = None
        self._is_head = False
        self._response_head = b""  # of a response, until a part of its body is sent
        self._early = b""  # received before the handshake was accepted
        self._parse_scheduled = False
        self._reply: framing.TextReply | None = None
        self._binary_reply: framing.BinaryReply | None = None
        self._auto_reply: framing.TextReply | None = None
        self._client_close: Close | None = None
        self._on_end: tuple[Callable[[int], None], ...] = ()
        self._dropped = 0  # events that the application sent after the end

    def __deepcopy__(self, memo: object) -> "WebSocketConnection":
        """Return the same connection: test suites copy scopes."""
        return self

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Make the scope picklable, since its extensions are methods of the connection."""
        return PickledConnection, ()

    def finished(self) -> None:
        """Called when transport and application have finished. For subclasses."""

    def log(self, action: str) -> None:
        """Log "connecting", "connected", "disconnected" or "rejected". For subclasses."""

    def default_headers(self) -> handshake.Headers:
        """Return the headers that the server adds to each response. For subclasses."""
        return []

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._set_transport(cast(asyncio.Transport, transport))

    def _set_transport(self, transport: asyncio.Transport | None) -> None:
        self.transport = self._queue.transport = self._flow.transport = transport

    def start(self, application: Application, scope: dict[str, Any], method: str = "GET") -> None:
        """Run the application for the handshake request of the scope."""
        self.scope = scope
        self._rejection = handshake.validate(method, scope["headers"])
        self._is_head = method == "HEAD"  # the response has no body
        scope["extensions"] = {
            "websocket.http.response": {},
            ON_END: self._call_at_end,
            REPLY: self._reply_with,
            AUTO_REPLY: self._reply_automatically,
            SEND_NOW: self._send_now,
        }
        self.log("connecting")
        self._task = self._loop.create_task(self._run(application))

    def data_received(self, data: bytes) -> None:
        self._timeouts.has_received = True
        if self.state is State.OPEN:
            self._parse(data)
        elif self.state is State.HANDSHAKE:
            self._early += data
            if len(self._early) > MAX_QUEUED_BYTES:
                self._queue.pause_reading()
        elif self.state is State.CLOSE_SENT:
            if Close in map(type, self._framing.receive(data)):
                self._close_when_finished()
            elif self._framing.has_more:
                self._parse_soon()
            self._framing.pongs.clear()  # nothing may follow a Close

    def _parse(self, data: bytes) -> None:
        parser, queue = self._framing, self._queue
        try:
            # Queue the messages, instead of replying while parsing, if others are queued (replies
            # keep the order of the messages) or the client reads slowly (the queue is limited).
            if self._reply is not None and not self._flow.is_paused and not queue.events:
                events = parser.receive(data, framing.NO_LIMIT, self._reply, self._binary_reply)
            elif self._auto_reply is not None and not self._flow.is_paused:
                most = MAX_QUEUED_EVENTS - len(queue.events)
                events = parser.receive(data, most, self._auto_reply, returns_unreplied=True)
            else:
                events = parser.receive(data, MAX_QUEUED_EVENTS - len(queue.events))
        except Exception:
            self._log_application_error()
            events = [Failure(INTERNAL_ERROR, "")]
        if parser.pongs:
            self._send_pongs()
        if parser.replies:
            self._flow.write(b"".join(parser.replies))
            parser.replies.clear()
        if events:
            self._enqueue(events)
        if parser.has_more and self._has_more():
            self._parse_soon()

    def _has_more(self) -> bool:
        """Return whether received bytes remain to be parsed, even if the client has sent a FIN."""
        return self._framing.has_more and self.state in (State.OPEN, State.CLIENT_CLOSED)

    def _parse_soon(self) -> None:
        """Pause reading, and parse more in the loop's next iteration, after other connections."""
        self._queue.pause_reading()
        if not self._parse_scheduled and not self._queue.is_full():
            self._parse_scheduled = True
            self._loop.call_soon(self._parse_scheduled_rest)

    def _parse_scheduled_rest(self) -> None:
        self._parse_scheduled = False
        queue = self._queue
        if self.state is State.CLOSE_SENT:
            self.data_received(b"")
        elif self._has_more() and not queue.is_full():
            self._parse(b"")
        if not self._framing.has_more and not queue.is_full():
            queue.resume_reading()
        queue.wake()  # the application may be waiting for the disconnect after these bytes

    def _send_pongs(self) -> None:
        pongs = self._framing.pongs
        if not self._flow.is_paused:
            self._framing.replies[:0] = pongs
            pongs.clear()
        else:  # RFC 6455 §5.5.3: a pong for the most recent ping is enough
            del pongs[:-1]

    def _enqueue(self, events: list[framing.Event]) -> None:
        end = events.pop() if isinstance(events[-1], ENDS) else None
        queue = self._queue
        queue.extend(cast(list[str | bytes], events))
        if isinstance(end, Close):
            self._client_has_closed(end)
        elif end is not None:
            self._fail(cast(Failure, end))
        if queue.is_full():
            queue.pause_reading()
        queue.wake()

    def _client_has_closed(self, close: Close) -> None:
        self._enter(State.CLIENT_CLOSED)
        self._client_close = close
        queued = len(self._queue.events)
        if queued or not self._queue.is_awaited():
            self._loop.call_later(BUSY_GRACE, self._reply_to_close_if_busy, queued)
        self._disconnect(close.code, close.reason)

    def _reply_to_close_if_busy(self, queued: int) -> None:
        """Reply to the client's Close unless the application has received an event since then."""
        queue = self._queue
        if self.state is not State.CLIENT_CLOSED or queue.has_delivered_disconnect:
            return
        if len(queue.events) < queued:
            self._loop.call_later(BUSY_GRACE, self._reply_to_close_if_busy, len(queue.events))
        else:
            self._reply_to_close(framing.NO_CODE, "")

    def _fail(self, failure: Failure) -> None:
        logger.debug("Closing %r with %s: %s", self.scope["path"], failure.code, failure.reason)
        self._framing.drop()
        self._close(failure.code, failure.reason)
        # Closing a socket with unread bytes would reset it, and the Close frame could be lost.
        if self.transport is not None and self.transport.can_write_eof():
            with suppress(OSError, RuntimeError):  # the client has reset the connection
                self.transport.write_eof()

    def eof_received(self) -> bool:
        """Handle the client's FIN. The client may still read, so process its data first."""
        if self.state not in (State.HANDSHAKE, State.OPEN):
            return False
        self._enter(State.CLIENT_CLOSED if self.state is State.OPEN else self.state)
        self._disconnect(ABNORMAL_CLOSURE, "")
        # TLS cannot be half-closed: asyncio would log a warning for each such connection.
        return self.transport is not None and self.transport.can_write_eof()

    def connection_lost(self, error: Exception | None) -> None:
        self._enter(State.CLOSED)
        self._set_transport(None)
        self._framing.drop()
        self._flow.resume()
        self._disconnect(ABNORMAL_CLOSURE, "")
        self._check_finished()

    def pause_writing(self) -> None:
        self._flow.pause()
        self._timeouts.state_since = self._loop.time()

    def resume_writing(self) -> None:
        self._flow.resume()
        if self._framing.pongs and self.state is State.OPEN:
            self._flow.write(self._framing.pongs.pop())

    # The application's side

    async def _run(self, application: Application) -> None:
        code = 1000
        try:
            await self.connect()
            await application(self.scope, self._receive, self._send)
        except ClientDisconnected:
            logger.debug("Application of %r sent after its disconnect", self.scope["path"])
        except Exception:
            self._log_application_error()
            code = INTERNAL_ERROR
        finally:
            self._application_finished(code)

    async def connect(self) -> None:
        """Called before the application is run. For subclasses without a transport until then."""

    def _log_application_error(self) -> None:
        logger.exception("Exception inside application: %r", self.scope["path"])

    def _application_finished(self, code: int) -> None:
        if self.state is State.HANDSHAKE and self._rejection is not None:
            self._respond(*self._rejection)
        elif self.state is State.HANDSHAKE:
            if code != INTERNAL_ERROR and self._queue.disconnect is None:
                logger.error(
                    "Application of %r returned without accepting or rejecting the handshake",
                    self.scope["path"],
                )
            self._respond(500, "Internal Server Error")
        elif self.state is State.OPEN:
            if self._queue.disconnect is None:
                self._close(code, "")
            else:
                self._close_for_restart()
        elif self.state is State.CLIENT_CLOSED:
            self._reply_to_close(framing.NO_CODE, "")
        elif self.state is State.RESPONDING or (
            self.state is State.CLOSED and self.transport is not None
        ):
            self._close_transport()
        self._has_returned = True
        self._check_finished()

    def _is_running(self) -> bool:
        """Return whether the application is running."""
        return not (self._has_returned or self._task is None or self._task.done())

    def _check_finished(self) -> None:
        if self.transport is None and not self._is_running():
            self._queue.clear()
            self.finished()
            # Break the reference cycles: in a storm of reconnects, the garbage collector would take
            # as long as the handshakes.
            self.scope, self._on_end = {}, ()
            self._reply = self._binary_reply = self._auto_reply = None

    def _call_at_end(self, callback: Callable[[int], None]) -> None:
        """The extension "echo.on_end"."""
        disconnect = self._queue.disconnect
        if disconnect is not None or self._rejection is not None:
            callback(ABNORMAL_CLOSURE if disconnect is None else disconnect["code"])
        else:
            self._on_end += (callback,)

    def _reply_with(
        self, text: framing.TextReply, binary: framing.BinaryReply | None = None
    ) -> None:
        """The extension "echo.reply"."""
        self._reply, self._binary_reply = _first_of(self._auto_reply, text), binary

    def _reply_automatically(self, reply: framing.TextReply) -> None:
        """The extension "echo.auto_reply". Later calls add to the first one."""
        self._auto_reply = _first_of(self._auto_reply, reply)

    async def _receive(self) -> dict[str, Any]:
        if self._rejection is not None and self.state is State.HANDSHAKE:
            # Not before `receive`: an application that rejects the path responds without it.
            self._respond(*self._rejection)
            raise ClientDisconnected
        queue, flow = self._queue, self._flow
        while not queue.events:
            if len(flow.batch) > 1:  # one frame alone can as well be written in the next iteration
                flow.flush()
            if self._has_more():
                self._parse_soon()
            elif queue.disconnect is not None:
                if queue.has_delivered_disconnect:
                    # An application that ignores the disconnect must not block the event loop.
                    await asyncio.sleep(DISCONNECT_INTERVAL)
                else:
                    queue.has_delivered_disconnect = True
                    self._timeouts.state_since = self._loop.time()
                return queue.disconnect
            else:
                queue.resume_reading()
            await queue.wait()
        return queue.pop()

    async def _send(self, event: dict[str, Any]) -> None:
        if asyncio.get_running_loop() is not self._loop:  # another thread, as in reactpy-django
            sending = asyncio.run_coroutine_threadsafe(self._send(event), self._loop)
            await asyncio.wrap_future(sending)
            return
        if event["type"] != "websocket.send":
            await self._send_other(event)
            return
        if self.state is not State.OPEN and not self._may_still_send():
            await self._drop()
            return
        text = event.get("text")
        if text is not None:
            frame = self._framing.frame(framing.TEXT, text.encode())
        elif (binary := event.get("bytes")) is not None:
            frame = self._framing.frame(framing.BINARY, binary)
        else:
            raise ValueError("'websocket.send' has neither 'text' nor 'bytes'.")
        flow = self._flow
        if flow.batch:
            flow.batch.append(frame)
            if len(flow.batch) >= BATCH_SIZE or len(frame) >= MAX_BATCHED_FRAME:
                flow.flush()
        elif self._queue.events and len(frame) < MAX_BATCHED_FRAME:
            flow.start_batch(frame)  # the application may reply to more messages
        else:
            flow.write(frame)
        if flow.is_paused:
            await self._wait_until_writable()

    def _may_still_send(self) -> bool:
        """Return whether the application may send although the connection is not open.

        It may after the client's Close, until it has received the disconnect. Raises RuntimeError
        before the handshake is accepted.
        """
        if self.state in (State.HANDSHAKE, State.RESPONDING):
            raise RuntimeError("'websocket.send' needs a 'websocket.accept' before it.")
        return self.state is State.CLIENT_CLOSED and not self._queue.has_delivered_disconnect

    async def _send_other(self, event: dict[str, Any]) -> None:
        """Handle an event of the application other than `websocket.send`."""
        kind = event["type"]
        if kind == "websocket.accept" and self.state is State.HANDSHAKE:
            await self._accept(event)
        elif kind == "websocket.close":
            self._close_by_application(event)
        elif kind == "websocket.http.response.start" and self.state is State.HANDSHAKE:
            if event["status"] not in FINAL_STATUSES:
                raise ValueError(f"{event['status']!r} is not the status of an HTTP response.")
            self.start_response(event["status"], list(event.get("headers", ())))
            self.state = State.RESPONDING
        elif kind == "websocket.http.response.body" and self.state is State.RESPONDING:
            await self._send_body(event.get("body", b""), event.get("more_body", False))
        elif self.state is State.CLOSED:
            await self._drop()
        elif self.state is State.RESPONDING:
            raise RuntimeError(
                f"Expected ASGI message 'websocket.http.response.body' but got {kind!r}."
            )
        else:
            raise RuntimeError(f"{kind!r} cannot be sent in this state of the connection.")

    async def _accept(self, event: dict[str, Any]) -> None:
        if self._rejection is not None:
            self._respond(*self._rejection)
            raise ClientDisconnected
        headers = handshake.with_defaults(event.get("headers") or (), self.default_headers())
        if self._may_deflate and (agreed := deflate.negotiate(self.scope["headers"])):
            headers = [(b"sec-websocket-extensions", agreed[0]), *headers]
            self._framing.set_codec(agreed[1])
        head = handshake.acceptance(self.scope["headers"], event.get("subprotocol"), headers)
        self._timeouts.started_at = self._loop.time()
        await self.acquire_transport()
        if self._queue.disconnect is not None or self.transport is None:
            self._close_transport()
            await self._drop()
            return
        self.write_acceptance(head)
        self.state = State.OPEN
        self.log("connected")
        early, self._early = self._early, b""
        self._queue.resume_reading()
        if early:
            self._parse(early)

    async def acquire_transport(self) -> None:
        """Set `transport` when the handshake is accepted, in subclasses without one until then."""

    def write_acceptance(self, head: bytes) -> None:
        """Write the response that accepts the handshake. For subclasses that delay it."""
        self._flow.write(head)

    async def _send_body(self, body: bytes, more: bool) -> None:
        """Send a part of a denial response. After the last part, disconnect the application."""
        if self._response_head and not more:  # there is no other part
            self._response_head = handshake.with_length(self._response_head, len(body))
        if body:
            self.send_response_body(body, more=True)
        if self._flow.is_paused:
            await self._wait_until_writable()
        if not more and self.state is State.RESPONDING:
            self._disconnect(ABNORMAL_CLOSURE, "")
            self.send_response_body(b"", more=False)

    async def _drop(self) -> None:
        """Ignore an event after the end. Raise if the application has received the disconnect.

        Before that, an exception would prevent Channels from calling a consumer's disconnect().
        """
        self._dropped += 1
        if self._queue.has_delivered_disconnect or self._dropped > MAX_DROPPED_EVENTS:
            raise ClientDisconnected
        await asyncio.sleep(0)

    async def _wait_until_writable(self) -> None:
        await self._flow.wait_until_writable()
        if self.transport is None:
            await self._drop()

    def _send_now(self, text: str) -> bool:
        """The extension "echo.send_now"."""
        if self.state is not State.OPEN or self._flow.is_paused or self.transport is None:
            return False
        self._flow.write(self._framing.frame(framing.TEXT, text.encode()))
        return True

    def _close_by_application(self, event: dict[str, Any]) -> None:
        code = event.get("code") or 1000
        reason = event.get("reason") or ""
        if self.state is State.HANDSHAKE:
            self._respond(403, "Access denied")
        elif self.state is State.CLIENT_CLOSED:
            self._reply_to_close(code, reason)
        elif self.state is State.OPEN and self._queue.disconnect is not None:
            self._close_for_restart()
        elif self.state is State.OPEN:
            if code not in CLOSE_CODES:
                raise ValueError(f"{code!r} is not a code that a Close frame may carry.")
            self._close(code, reason)
            self._dropped = MAX_DROPPED_EVENTS  # make `_drop` raise from now on

    # The end

    def _enter(self, state: int) -> None:
        self.state = state
        self._timeouts.state_since = self._loop.time()

    def _disconnect(self, code: int, reason: str) -> None:
        """Send the application its disconnect, and call the "echo.on_end" callbacks. Idempotent."""
        queue = self._queue
        if queue.disconnect is not None:
            return
        queue.disconnect = {"type": "websocket.disconnect", "code": code, "reason": reason}
        for callback in self._on_end:
            try:
                callback(code)
            except Exception:
                self._log_application_error()
        queue.wake()
        self.log("disconnected" if self.state > State.RESPONDING else "rejected")

    def _close(self, code: int, reason: str) -> None:
        """Send a Close. The client has CLOSE_TIMEOUT for its reply."""
        close = framing.close_frame(code, reason)  # first, since it may raise
        self._enter(State.CLOSE_SENT)
        self._disconnect(code, reason)
        self._flow.write(close)
        self._queue.clear()
        if self._framing.has_more:  # the client's Close may have been read already
            self._parse_soon()
        else:
            self._queue.resume_reading()

    def _reply_to_close(self, code: int, reason: str) -> None:
        """Reply to the client's Close, with the application's code if valid, else the client's."""
        if self._client_close is None:
            self._flow.flush()
        else:
            own = code if code in CLOSE_CODES else self._client_close.code
            self._flow.write(framing.close_frame(own, reason))
        self._close_transport()

    def _close_when_finished(self) -> None:
        """Close the transport when the application has finished, after CLOSE_REPLY_TIMEOUT at most.

        Until then other processes may still count the connection.
        """
        if self._is_running():
            self._enter(State.CLOSED)
        else:
            self._close_transport()

    def _close_transport(self) -> None:
        if self._response_head:  # the application has sent no body
            self.send_response_body(b"", more=True)
        self._enter(State.CLOSED)
        if self.transport is not None:
            self.transport.close()

    def close_for_restart(self) -> None:
        """Close with 1012 and disconnect the application, because the server stops."""
        if self.state is State.HANDSHAKE:
            retry = [(b"retry-after", RETRY_AFTER)] if draining.is_set() else []
            self._respond(503, "Service Restart", retry)
        elif self.state is State.RESPONDING:
            self._enter(State.RESPONDING)
            self._disconnect(ABNORMAL_CLOSURE, "")
        elif self.state is State.OPEN and self._queue.disconnect is None:
            # Other processes may count the connection until the application has finished.
            self._queue.clear()
            self._disconnect(SERVICE_RESTART, "Service Restart")
            self._loop.call_later(CLOSE_REPLY_TIMEOUT, self._close_for_restart)

    def _close_for_restart(self) -> None:
        if self.state is State.OPEN:
            self._close(SERVICE_RESTART, "Service Restart")

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def cancel(self) -> None:
        """Abort the transport and cancel the application."""
        self._abort()
        if self._task is not None:
            self._task.cancel()

    # HTTP responses, each of which ends the connection

    def _respond(self, status: int, text: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        if self._queue.disconnect is not None:  # the client has disconnected
            self._close_transport()
            return
        self.state = State.RESPONDING
        self._disconnect(ABNORMAL_CLOSURE, "")
        body = text.encode()
        plain = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
        self.start_response(status, [(b"connection", b"close"), *plain, *headers])
        self.send_response_body(body, more=False)

    def start_response(self, status: int, headers: handshake.Headers) -> None:
        kept = handshake.with_defaults(headers, self.default_headers())
        self._response_head = handshake.response_head(status, kept)

    def send_response_body(self, body: bytes, more: bool) -> None:
        data = self._response_head + (b"" if self._is_head else body)
        self._response_head = b""
        if data:
            self._flow.write(data)
        if not more:
            self._close_transport()

    # The time limits

    def check_timeouts(self, now: float) -> None:
        """Enforce the time limits; `now` is the loop's time."""
        waited = now - self._timeouts.state_since
        if self.state is State.OPEN:
            self._check_open(now)
        elif self.state is State.HANDSHAKE:
            if self._timeouts.is_handshake_overdue(now):
                self._respond(503, "The application did not respond in time")
        elif self.state is State.CLIENT_CLOSED:
            if waited > CLOSE_TIMEOUT and self._flow.is_paused:
                self._abort()
            elif waited > (
                CLOSE_REPLY_TIMEOUT if self._queue.has_delivered_disconnect else CLOSE_TIMEOUT
            ):
                self._reply_to_close(framing.NO_CODE, "")
        elif self.state is State.RESPONDING and self._queue.disconnect is None:
            if self._flow.is_stalled(now):  # without a time limit for the application, as in HTTP
                self._abort()
        elif self.transport is not None:
            if self.state is State.CLOSED and not self.transport.is_closing():
                if waited > CLOSE_REPLY_TIMEOUT:
                    self._close_transport()
            elif waited > CLOSE_TIMEOUT:
                self._abort()
        elif self._is_running() and self._timeouts.is_application_overdue(now):
            logger.info("Application of %r did not finish in time: cancelled", self.scope["path"])
            self.cancel()

    def _check_open(self, now: float) -> None:
        timeouts = self._timeouts
        if self._flow.is_paused:
            if self._flow.is_stalled(now):
                self._abort()
        elif not self._queue.is_reading_paused and self._framing.tick() > MESSAGE_TIMEOUT:
            self._close(framing.POLICY_VIOLATION, "Message not finished in time")
            self._framing.drop()
        elif timeouts.is_too_old(now):
            self._close(1000, "")
        elif timeouts.has_received or self._queue.is_reading_paused:
            timeouts.received(now)
        elif timeouts.is_pong_overdue(now):
            logger.debug("%r did not reply to a ping in time", self.scope["path"])
            self._disconnect(ABNORMAL_CLOSURE, "")
            self._close(INTERNAL_ERROR, "keepalive ping timeout")
        elif timeouts.is_ping_due(now):
            timeouts.pinged_at = now
            self._flow.write(framing.frame(framing.PING, b""))

    def postpone_timeouts(self, seconds: float) -> None:
        """Extend all time limits by the time for which the event loop was blocked."""
        self._timeouts.postpone(seconds)
        self._flow.postpone(seconds)
