"""WebSocket framing of the server's side (RFC 6455 §5-§8), sans-I/O: bytes in, events out.

Uses no socket, event loop or framework. Strict: if the RFC forbids the input, the connection fails
with the RFC's close code and a reason.
"""

import codecs
from collections.abc import Callable
from typing import NamedTuple, Protocol

from websockets.frames import apply_mask  # type: ignore[attr-defined]  # in C if available

from echo.extensions import CLOSE_CODES, MAX_REASON_BYTES

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
RSV1 = 0x40  # in the first byte of a compressed message's first frame (RFC 7692 §6)
NO_CODE = 1005  # RFC 6455 §7.1.5: the Close frame has no code
PROTOCOL_ERROR, INVALID_TEXT, POLICY_VIOLATION, TOO_LARGE = 1002, 1007, 1008, 1009
TRY_LATER = 1013
NO_LIMIT = 1 << 62
# Frames per call: one may take 3 µs, and all other connections wait until the call returns.
MAX_FRAMES = range(256)
MAX_EMPTY_FRAGMENTS = 4096  # of one message
REPLY_BATCH_SIZE = 256 * 1024  # bytes of long replies after which a call stops
INFLATED_BATCH_SIZE = 256 * 1024  # bytes of inflated messages after which a call stops


class Budget:
    """The total size of the unfinished messages of all connections of a process, in bytes.

    While it exceeds the limit, connections that hold more than EXEMPT_SIZE fail.
    """

    EXEMPT_SIZE = 64 * 1024  # bytes: the memory suffices for very many such connections

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0


BUDGET = Budget(128 * 1024 * 1024)


class NotNow(Exception):
    """A message is not inflated in this call, which has inflated much already."""


class Close(NamedTuple):
    """The client's Close frame; the code is NO_CODE if the frame has none."""

    code: int
    reason: str


class Failure(NamedTuple):
    """The client violated the protocol: send a Close with this code and reason, read no more."""

    code: int
    reason: str


Event = str | bytes | Close | Failure  # a text, a binary message, or the end
TextReply = Callable[[str], str | None]
BinaryReply = Callable[[bytes], str | None]


class MessageCodec(Protocol):
    """Compresses and inflates the messages of connections that have negotiated compression."""

    def frame(self, opcode: int, payload: bytes) -> bytes:
        """Return the frame of a message, compressed or not."""

    def inflate(self, payload: bytes, max_size: int) -> bytes | Failure:
        """Return the message of a compressed payload, unless it fails."""


class Framing:
    """The parser of one connection's frames.

    Collects frames to send in `pongs` and `replies`. The caller writes them, pongs first, and
    clears both lists. After a Close or a Failure all input is ignored.
    """

    def __init__(self, max_size: int, budget: Budget | None = None) -> None:
        self.max_size = max_size  # of a message, in bytes
        self._budget = budget or Budget(NO_LIMIT)
        self._held = 0  # bytes charged to the budget
        self._age = 0  # ticks for which the same message has been unfinished
        self.pongs: list[bytes] = []
        self.replies: list[bytes] = []
        # Received, but not parsed yet. One buffer: a list of many small ones would be expensive.
        self._rest = bytearray()
        self._missing = 0  # bytes still to receive before parsing can continue
        # Whether `receive` has stopped before the end of its input, and must be called again.
        self.has_more = False
        self._message: _Fragments | None = None
        self._ended = False
        self._fast = 0x80 + min(125, max_size)  # largest second byte of a frame on the fast path
        self._codec: MessageCodec | None = None
        self._inflated = 0  # bytes of messages since NotNow was last raised
        # Returns the frame of a message to send.
        self.frame: Callable[[int, bytes], bytes] = frame

    def set_codec(self, codec: MessageCodec) -> None:
        """Compress and inflate messages from now on: the client has agreed to it."""
        self._codec, self.frame = codec, codec.frame

    def receive(
        self,
        data: bytes,
        max_events: int = NO_LIMIT,
        reply: TextReply | None = None,
        binary_reply: BinaryReply | None = None,
        returns_unreplied: bool = False,
    ) -> list[Event]:
        """Parse the bytes, after those of earlier calls, and return at most `max_events` events.

        Stops early after MAX_FRAMES, so that a flood of tiny frames does not block other
        connections, and after REPLY_BATCH_SIZE or INFLATED_BATCH_SIZE. The rest is kept for the
        next call, whose `data` may be empty.

        If `reply` (and `binary_reply`) are given, they are called with the messages instead of
        returning these. Their results are added to `replies`, in order. Their exceptions propagate;
        earlier replies and the rest of the bytes are kept. If `returns_unreplied`, messages without
        a reply are returned.
        """
        if self._rest:
            self._rest += data
            self._missing -= len(data)
            if self._missing > 0:
                return self._hold()
            data = bytes(self._rest)
            self._rest.clear()
            self.has_more = False
            if self._message is None and data[0] & 0x80:
                self._age = 0  # a whole message
        events: list[Event] = []
        position, size, fast = 0, len(data), self._fast
        long = 0  # bytes of the long replies
        try:
            for _ in MAX_FRAMES:
                if position >= size or len(events) >= max_events or self._ended:
                    break
                # Fast path, for nearly every frame: a short, whole, masked, final text.
                if (
                    data[position] == 0x81
                    and position + 6 <= size
                    and 0x80 <= (second := data[position + 1]) <= fast
                    and self._message is None
                ):
                    start = position + 6
                    end = start + second - 0x80
                    if end > size:
                        self._missing = end - size
                        break
                    try:
                        text = apply_mask(data[start:end], data[position + 2 : start]).decode()
                    except UnicodeDecodeError:
                        events.append(self._fail(INVALID_TEXT, "Invalid UTF-8 in a text"))
                        break
                    position = end
                    if reply is None:
                        events.append(text)
                    elif (replied := reply(text)) is not None:
                        payload = replied.encode()
                        if (length := len(payload)) < 126:
                            self.replies.append(_SHORT_TEXT[length] + payload)
                        else:
                            self.replies.append(self.frame(TEXT, payload))
                            long += length
                            if long >= REPLY_BATCH_SIZE:
                                break
                    elif returns_unreplied:
                        events.append(text)
                    continue
                consumed, event = self._receive_frame(data, position)
                if not consumed:
                    if event is not None:
                        events.append(event)
                    break
                position += consumed
                if reply is not None and isinstance(event, str | bytes):
                    replied_size = self._reply_to(event, reply, binary_reply)
                    if replied_size is None and returns_unreplied:
                        events.append(event)
                    long += replied_size or 0
                    if long >= REPLY_BATCH_SIZE:
                        break
                elif event is not None:
                    events.append(event)
        except NotNow:
            self._missing = 0
        finally:
            if position < size and not self._ended:
                self._rest += memoryview(data)[position:]
                self.has_more = self._missing <= 0
        if position < size or self._message is not None or self._held:
            events += self._hold()
        return events

    def _hold(self) -> list[Event]:
        """Charge the unfinished bytes to the budget. Fail if the budget is exceeded."""
        held = len(self._rest) + (self._message.size if self._message is not None else 0)
        self._budget.used += held - self._held
        self._held = held
        if self._budget.used <= self._budget.limit or held <= Budget.EXEMPT_SIZE or self._ended:
            return []
        self.drop()
        return [self._fail(TRY_LATER, "Unfinished messages of all clients use too much memory")]

    def drop(self) -> None:
        """Free all unfinished bytes and ignore further input: the connection has ended."""
        self._budget.used -= self._held
        self._held = 0
        self._rest = bytearray()
        self.has_more = False
        self._message = None
        self._ended = True
        self.replies.clear()

    def tick(self) -> int:
        """Return the number of successive calls in which the same message is unfinished."""
        is_unfinished = self._message is not None or (self._rest and self._missing > 0)
        self._age = self._age + 1 if is_unfinished else 0
        return self._age

    def _receive_frame(self, data: bytes, position: int) -> tuple[int, Event | None]:
        """Return the size of the frame at the position, and the event that it completes, if any.

        If the size is 0, parsing ends: the frame is incomplete, or the event is a Failure.
        """
        have = len(data) - position
        first = data[position]
        if problem := self._validate_first(first):
            return 0, self._fail(PROTOCOL_ERROR, problem)
        if have < 2:
            return self._wait(2 - have)
        second = data[position + 1]
        length = second & 0x7F
        if problem := _validate_second(first, second):
            return 0, self._fail(PROTOCOL_ERROR, problem)
        head = 6 if length < 126 else 8 if length == 126 else 14
        if have < head - 4:
            return self._wait(head - 4 - have)
        if length > 125:
            extended = int.from_bytes(data[position + 2 : position + head - 4], "big")
            if extended < (126 if length == 126 else 1 << 16) or extended >> 63:
                return 0, self._fail(PROTOCOL_ERROR, "Received a length not in its shortest form")
            length = extended
        size = length + (self._message.size if self._message else 0)
        if size > self.max_size and not first & 8 and size > self._max_received(first):
            reason = f"Message is too large: {size} > {self.max_size}"
            return 0, self._fail(TOO_LARGE, reason)
        total = head + length
        if have < total:
            return self._wait(total - have)
        start = position + head
        payload = apply_mask(data[start : start + length], data[start - 4 : start])
        return total, self._frame_received(first, payload)

    def _max_received(self, first: int) -> int:
        """Return the maximum size of the message as received. The inflated one is limited later.

        Deflate enlarges what it cannot compress: zlib's deflateBound() has an eighth at most.
        """
        compressed = first & RSV1 or (self._message is not None and self._message.is_compressed)
        return self.max_size + self.max_size // 8 + 64 if compressed else self.max_size

    def _wait(self, missing: int) -> tuple[int, None]:
        self._missing = missing
        return 0, None

    def _validate_first(self, first: int) -> str | None:
        """Return the error in a frame's first byte, in the original program's words."""
        opcode = first & 0x0F
        if first & 0x30:
            return "Received frame had RSV bits 2 or 3 set"
        if first & 0x40 and (self._codec is None or opcode not in (TEXT, BINARY)):
            place = "without compression" if self._codec is None else "but begins no message"
            return f"Received frame had its compression bit (RSV1) set {place}"
        if opcode not in _OPCODES:
            return f"Unknown opcode {opcode}"
        if opcode & 8:
            return None if first & 0x80 else "Received fragmented control frame"
        if opcode == CONTINUATION:
            return None if self._message else "Unexpected continuation frame"
        return "Missing continuation frame" if self._message else None

    def _frame_received(self, first: int, payload: bytes) -> Event | None:
        opcode = first & 0x4F  # with RSV1 for a compressed message
        if opcode == PING:
            self.pongs.append(frame(PONG, payload))
            return None
        if opcode == PONG:
            return None
        if opcode == CLOSE:
            return self._close_received(payload)
        final = bool(first & 0x80)
        try:
            if opcode != CONTINUATION and final:
                self._age = 0
                if opcode == TEXT:
                    return payload.decode()
                return payload if opcode == BINARY else self._inflate(opcode, payload)
            if self._message is None:
                self._message = _Fragments(opcode)
            if final and self._message.is_compressed:
                self._check_inflated()  # before the message changes
            self._message.add(payload, final)
            if self._message.empty > MAX_EMPTY_FRAGMENTS:
                return self._fail(POLICY_VIOLATION, "Too many empty fragments")
            if not final:
                return None
            message, self._message = self._message, None
            self._age = 0
            if message.is_compressed:
                return self._inflate(message.opcode, bytes(message.data))
            return message.whole()
        except UnicodeDecodeError:
            return self._fail(INVALID_TEXT, "Invalid UTF-8 in a text")

    def _inflate(self, opcode: int, payload: bytes) -> Event:
        """Return the message of a compressed payload. Raises UnicodeDecodeError or NotNow."""
        assert self._codec is not None
        self._check_inflated()
        inflated = self._codec.inflate(payload, self.max_size)
        if isinstance(inflated, Failure):
            return self._fail(*inflated)
        self._inflated += len(inflated)
        return inflated.decode() if opcode == RSV1 | TEXT else inflated

    def _check_inflated(self) -> None:
        if self._inflated >= INFLATED_BATCH_SIZE:
            self._inflated = 0
            raise NotNow

    def _close_received(self, payload: bytes) -> Close | Failure:
        if not payload:
            self._ended = True
            return Close(NO_CODE, "")
        code = int.from_bytes(payload[:2], "big")
        if code not in CLOSE_CODES:  # also true for a payload of one byte
            return self._fail(PROTOCOL_ERROR, "Received a Close frame with an invalid code")
        try:
            reason = payload[2:].decode()
        except UnicodeDecodeError:
            return self._fail(INVALID_TEXT, "Invalid UTF-8 in the reason of a Close frame")
        self._ended = True
        return Close(code, reason)

    def _reply_to(
        self, message: str | bytes, reply: TextReply, binary_reply: BinaryReply | None
    ) -> int | None:
        """Add the reply to `replies`; return its size, or None if there is no reply."""
        if isinstance(message, str):
            replied = reply(message)
        else:
            replied = binary_reply(message) if binary_reply else None
        if replied is None:
            return None
        payload = replied.encode()
        self.replies.append(self.frame(TEXT, payload))
        return len(payload)

    def _fail(self, code: int, reason: str) -> Failure:
        self._ended = True
        return Failure(code, reason)


class _Fragments:
    """A message of several frames. Each fragment of a text is validated on arrival.

    Kept in one buffer: there may be many fragments, tiny or empty. A compressed message is kept
    compressed, and validated when it is whole.
    """

    def __init__(self, opcode: int) -> None:
        self.opcode = opcode  # with RSV1 if the message is compressed
        self.data = bytearray()
        self.empty = 0  # number of empty fragments
        self._decoder = codecs.getincrementaldecoder("utf-8")() if opcode == TEXT else None

    @property
    def size(self) -> int:  # bytes
        return len(self.data)

    @property
    def is_compressed(self) -> bool:
        return bool(self.opcode & RSV1)

    def add(self, payload: bytes, final: bool) -> None:
        self.data += payload
        self.empty += not payload
        if self._decoder is not None:
            self._decoder.decode(payload, final)

    def whole(self) -> str | bytes:
        return bytes(self.data) if self._decoder is None else self.data.decode()


def _validate_second(first: int, second: int) -> str | None:
    if not second & 0x80:
        return "Received unmasked frame"
    if first & 8 and second & 0x7F > 125:
        return "Received control frame over 125 bytes"
    return None


def frame(opcode: int, payload: bytes) -> bytes:
    """Return a frame as servers send it: unmasked and final. The opcode may have RSV1 added."""
    length = len(payload)
    if length < 126:
        return _SHORT[opcode][length] + payload
    if length < 1 << 16:
        return bytes((0x80 | opcode, 126)) + length.to_bytes(2, "big") + payload
    return bytes((0x80 | opcode, 127)) + length.to_bytes(8, "big") + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """Return a Close frame, empty for NO_CODE. Reasons over 123 bytes are truncated."""
    if code == NO_CODE:
        return frame(CLOSE, b"")
    truncated = reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore").encode()
    return frame(CLOSE, code.to_bytes(2, "big") + truncated)


_OPCODES = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
# The first two bytes of a final, unmasked frame, by opcode and length.
_SHORT = {
    opcode: [bytes((0x80 | opcode, n)) for n in range(126)]
    for opcode in (*_OPCODES, RSV1 | TEXT, RSV1 | BINARY)
}
_SHORT_TEXT = _SHORT[TEXT]
