"""WebSocket framing of the server's side (RFC 6455 §5-§8), sans-I/O: bytes in, events out.

Knows no socket, no event loop and no framework. Strict: what the RFC forbids ends the
connection with the code that it names, and a reason.
"""

import codecs
from collections.abc import Callable
from typing import NamedTuple

from websockets.frames import apply_mask  # type: ignore[attr-defined]  # in C if available

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NO_CODE = 1005  # RFC 6455 §7.1.5: the Close frame had no code
PROTOCOL_ERROR, INVALID_TEXT, POLICY_VIOLATION, TOO_LARGE = 1002, 1007, 1008, 1009
TRY_LATER = 1013
# RFC 6455 §7.4 and the IANA registry: what a Close frame may carry.
CODES = {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}
ALL = 1 << 62  # events: no limit
# The frames of one call: some may take 3 µs each, and all others wait meanwhile.
FRAMES_AT_ONCE = range(256)
MAX_EMPTY = 4096  # empty fragments of a message
REPLIES_AT_ONCE = 256 * 1024  # bytes of long replies to collect before they are to be written


class Budget:
    """The bytes that all connections of a process hold of unfinished messages.

    Beyond the limit a connection fails that takes part with more than SMALL.
    """

    SMALL = 64 * 1024  # bytes: of those there is room for very many

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0


BUDGET = Budget(128 * 1024 * 1024)


class Close(NamedTuple):
    """The client's Close frame; the code is NO_CODE where it had none."""

    code: int
    reason: str


class Failure(NamedTuple):
    """The client broke the protocol: close with this code and reason, and read no more."""

    code: int
    reason: str


Event = str | bytes | Close | Failure  # a text, a binary message, or an end
TextReply = Callable[[str], str | None]
BinaryReply = Callable[[bytes], str | None]


class Framing:
    """The frames of one connection.

    Bytes to send collect in `pongs` and `replies`; the caller writes the pongs first, and
    clears both. After a Close or a Failure all input is dropped.
    """

    __slots__ = (
        "_age",
        "_budget",
        "_ended",
        "_fast",
        "_held",
        "_message",
        "_missing",
        "_rest",
        "has_more",
        "max_size",
        "pongs",
        "replies",
    )

    def __init__(self, max_size: int, budget: Budget | None = None) -> None:
        self.max_size = max_size  # bytes of a message
        self._budget = budget or Budget(ALL)
        self._held = 0  # bytes of the budget
        self._age = 0  # times that `grow_older` has seen the message that is unfinished
        self.pongs: list[bytes] = []
        self.replies: list[bytes] = []
        # Read, but not a whole frame yet; one piece, since many small ones would be costly.
        self._rest = bytearray()
        self._missing = 0  # bytes until it is worth another look
        # Whether the last call stopped at its `room`, or because it was enough: call again.
        self.has_more = False
        self._message: _Fragments | None = None
        self._ended = False
        self._fast = 0x80 + min(125, max_size)  # the second byte of a frame on the fast path

    def receive(
        self,
        data: bytes,
        room: int = ALL,
        reply: TextReply | None = None,
        binary_reply: BinaryReply | None = None,
    ) -> list[Event]:
        """Return what the bytes, with those before them, amount to: at most `room` events.

        What is left over waits for the next call, which may bring no bytes: also what is
        beyond FRAMES_AT_ONCE, so that a flood of tiny frames leaves time to others. With
        `reply` (and `binary_reply`) messages are no events: they are answered into `replies`
        in their order; what these functions raise is raised, the replies so far and what is
        left over kept. About REPLIES_AT_ONCE are made in one call: see `has_more`.
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
            for _ in FRAMES_AT_ONCE:
                if position >= size or len(events) >= room or self._ended:
                    break
                # Nearly every frame: a short, whole, masked text, and no message half received.
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
                    elif (answer := reply(text)) is not None:
                        payload = answer.encode()
                        if (length := len(payload)) < 126:
                            self.replies.append(_SHORT_TEXT[length] + payload)
                        else:
                            self.replies.append(frame(TEXT, payload))
                            long += length
                            if long >= REPLIES_AT_ONCE:
                                break
                    continue
                consumed, event = self._receive_frame(data, position)
                if not consumed:
                    if event is not None:
                        events.append(event)
                    break
                position += consumed
                if reply is not None and isinstance(event, str | bytes):
                    long += self._answer(event, reply, binary_reply)
                    if long >= REPLIES_AT_ONCE:
                        break
                elif event is not None:
                    events.append(event)
        finally:
            if position < size and not self._ended:
                self._rest += memoryview(data)[position:]
                self.has_more = self._missing <= 0
        if position < size or self._message is not None or self._held:
            events += self._hold()
        return events

    def _hold(self) -> list[Event]:
        """Take what is unfinished from the budget, or fail where that is used up."""
        held = len(self._rest) + (self._message.size if self._message is not None else 0)
        self._budget.used += held - self._held
        self._held = held
        if self._budget.used <= self._budget.limit or held <= Budget.SMALL or self._ended:
            return []
        self.drop()
        return [self._fail(TRY_LATER, "Too much is unfinished of the messages of all clients")]

    def drop(self) -> None:
        """Free what is unfinished, and take no more: the connection is over."""
        self._budget.used -= self._held
        self._held = 0
        self._rest = bytearray()
        self.has_more = False
        self._message = None
        self._ended = True
        self.replies.clear()

    def grow_older(self) -> int:
        """Return how many calls of this have seen the same message, not finished by its client."""
        is_unfinished = self._message is not None or (self._rest and self._missing > 0)
        self._age = self._age + 1 if is_unfinished else 0
        return self._age

    def _receive_frame(self, data: bytes, position: int) -> tuple[int, Event | None]:
        """Return the size of the frame that begins there, and its event if it completes one.

        A size of 0 means that nothing more can be done: the frame is not whole
        yet, or the event is a Failure.
        """
        have = len(data) - position
        first = data[position]
        if problem := self._judge_first(first):
            return 0, self._fail(PROTOCOL_ERROR, problem)
        if have < 2:
            return self._wait(2 - have)
        second = data[position + 1]
        length = second & 0x7F
        if problem := _judge_second(first, second):
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
        if size > self.max_size and not first & 8:
            reason = f"Message is too large: {size} > {self.max_size}"
            return 0, self._fail(TOO_LARGE, reason)
        total = head + length
        if have < total:
            return self._wait(total - have)
        start = position + head
        payload = apply_mask(data[start : start + length], data[start - 4 : start])
        return total, self._frame_received(first, payload)

    def _wait(self, missing: int) -> tuple[int, None]:
        self._missing = missing
        return 0, None

    def _judge_first(self, first: int) -> str | None:
        """Return what is wrong with a frame's first byte, in the original's words."""
        opcode = first & 0x0F
        if first & 0x30:
            return "Received frame had RSV bits 2 or 3 set"
        if first & 0x40:
            return "Received frame had its compression bit (RSV1) set without compression"
        if opcode not in _OPCODES:
            return f"Unknown opcode {opcode}"
        if opcode & 8:
            return None if first & 0x80 else "Received fragmented control frame"
        if opcode == CONTINUATION:
            return None if self._message else "Unexpected continuation frame"
        return "Missing continuation frame" if self._message else None

    def _frame_received(self, first: int, payload: bytes) -> Event | None:
        opcode = first & 0x0F
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
                return payload.decode() if opcode == TEXT else payload
            if self._message is None:
                self._message = _Fragments(opcode)
            self._message.add(payload, final)
            if self._message.empty > MAX_EMPTY:
                return self._fail(POLICY_VIOLATION, "Too many empty fragments")
        except UnicodeDecodeError:
            return self._fail(INVALID_TEXT, "Invalid UTF-8 in a text")
        if not final:
            return None
        message, self._message = self._message, None
        self._age = 0
        return message.whole()

    def _close_received(self, payload: bytes) -> Close | Failure:
        if not payload:
            self._ended = True
            return Close(NO_CODE, "")
        code = int.from_bytes(payload[:2], "big")
        if code not in CODES:  # nor is a single byte
            return self._fail(PROTOCOL_ERROR, "Received a Close frame with an invalid code")
        try:
            reason = payload[2:].decode()
        except UnicodeDecodeError:
            return self._fail(INVALID_TEXT, "Invalid UTF-8 in the reason of a Close frame")
        self._ended = True
        return Close(code, reason)

    def _answer(
        self, message: str | bytes, reply: TextReply, binary_reply: BinaryReply | None
    ) -> int:
        if isinstance(message, str):
            answer = reply(message)
        else:
            answer = binary_reply(message) if binary_reply else None
        if answer is None:
            return 0
        payload = answer.encode()
        self.replies.append(frame(TEXT, payload))
        return len(payload)

    def _fail(self, code: int, reason: str) -> Failure:
        self._ended = True
        return Failure(code, reason)


class _Fragments:
    """A message that comes in several frames; text is judged as it comes.

    It is kept in one piece: fragments may be many, and tiny or empty.
    """

    def __init__(self, opcode: int) -> None:
        self._data = bytearray()
        self.empty = 0  # fragments
        self._decoder = codecs.getincrementaldecoder("utf-8")() if opcode == TEXT else None

    @property
    def size(self) -> int:  # bytes
        return len(self._data)

    def add(self, payload: bytes, final: bool) -> None:
        self._data += payload
        self.empty += not payload
        if self._decoder is not None:
            self._decoder.decode(payload, final)

    def whole(self) -> str | bytes:
        return bytes(self._data) if self._decoder is None else self._data.decode()


def _judge_second(first: int, second: int) -> str | None:
    if not second & 0x80:
        return "Received unmasked frame"
    if first & 8 and second & 0x7F > 125:
        return "Received control frame over 125 bytes"
    return None


def frame(opcode: int, payload: bytes) -> bytes:
    """Return a whole frame as a server sends it: unmasked, unfragmented."""
    length = len(payload)
    if length < 126:
        return _SHORT[opcode][length] + payload
    if length < 1 << 16:
        return bytes((0x80 | opcode, 126)) + length.to_bytes(2, "big") + payload
    return bytes((0x80 | opcode, 127)) + length.to_bytes(8, "big") + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """Return a Close frame; NO_CODE gives an empty one, a reason over 123 bytes is cut."""
    if code == NO_CODE:
        return frame(CLOSE, b"")
    cut = reason.encode()[:123].decode(errors="ignore").encode()
    return frame(CLOSE, code.to_bytes(2, "big") + cut)


_OPCODES = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
# The first two bytes of a whole, unmasked frame, by opcode and length.
_SHORT = {opcode: [bytes((0x80 | opcode, n)) for n in range(126)] for opcode in _OPCODES}
_SHORT_TEXT = _SHORT[TEXT]
