"""What `websockets` makes of the bytes of a client, where ours differs on purpose: named here.

`websockets.protocol.Protocol` judges frames; this module cuts the bytes into frames, and
gives it each of them alone, so that the judgements can be compared one by one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from websockets.frames import Opcode
from websockets.protocol import OPEN, SERVER, Protocol

from echo.server.framing import NO_CODE, Close, Failure, Framing

PROTOCOL_ERROR, INVALID_TEXT, TOO_LARGE = 1002, 1007, 1009
END = int | Close | None  # the code of a failure, the client's Close, or nothing yet


@dataclass
class Outcome:
    messages: list[str | bytes] = field(default_factory=list)
    pongs: list[bytes] = field(default_factory=list)  # whole frames
    end: END = None


class Header(NamedTuple):
    """As much of a frame's header as is there; None for what is not."""

    first: int
    second: int | None
    length: int | None
    is_shortest: bool
    frame: bytes | None

    @property
    def is_control(self) -> bool:
        return bool(self.first & 8)


def headers(data: bytes) -> Iterator[Header]:
    """Cut the bytes into frames; the last may be incomplete."""
    while data:
        first, second = data[0], data[1] if len(data) > 1 else None
        code = (second or 0) & 0x7F
        more = {126: 2, 127: 8}.get(code, 0)
        if second is None or len(data) < 2 + more:
            yield Header(first, second, None, True, None)
            return
        length = int.from_bytes(data[2 : 2 + more], "big") if more else code
        least = {126: 126, 127: 65536}.get(code, 0)
        size = 2 + more + (4 if second & 0x80 else 0) + length
        frame = data[:size] if len(data) >= size else None
        yield Header(first, second, length, least <= length < 1 << 63, frame)
        data = data[size:]


def expected(data: bytes, max_size: int) -> Outcome:
    """Return what ours should make of the bytes, by the judgement of `websockets`."""
    outcome = Outcome()
    reference = Protocol(SERVER, state=OPEN, max_size=None)
    parts: list[bytes] = []
    opcode = 0
    for header in headers(data):
        outcome.end = judge_header(header, reference.current_size, max_size)
        if outcome.end is not None or header.frame is None:
            break
        if header.first & 0x0F == Opcode.CLOSE:
            # Difference: a Close between the fragments of a message (RFC 6455 §5.4 allows it).
            reference.current_size = None
        reference.receive_data(header.frame)
        outcome.end = code_of_failure(reference, header)
        events = reference.events_received()
        if outcome.end is not None or not events:
            break
        (event,) = events
        if event.opcode is Opcode.CLOSE:
            close = reference.close_rcvd
            outcome.end = Close(int(close.code), close.reason)
            break
        if event.opcode is Opcode.PING:
            outcome.pongs += reference.data_to_send()
        if header.is_control:
            continue
        if event.opcode is not Opcode.CONT:
            parts, opcode = [], event.opcode
        parts.append(bytes(event.data))
        if opcode is Opcode.TEXT and not is_text(b"".join(parts), event.fin):
            outcome.end = INVALID_TEXT
            break
        if event.fin:
            whole = b"".join(parts)
            outcome.messages.append(whole.decode() if opcode is Opcode.TEXT else whole)
    return outcome


def judge_header(header: Header, current_size: int | None, max_size: int) -> int | None:
    """Return the code with which ours fails before any payload is there.

    Difference: `websockets` looks at most of it when the whole frame is there.
    """
    too_long = header.is_control and ((header.second or 0) & 0x7F) > 125
    twin = bytes([header.first, 0x80 if header.second is None else header.second & 0x80])
    if too_long:
        twin = twin[:1] + bytes([twin[1] | 126, 0, 126])
    # A frame with the same header, but for its length, and with nothing in it but zeros.
    probe = Protocol(SERVER, state=OPEN, max_size=None)
    is_close = header.first & 0x0F == Opcode.CLOSE
    probe.current_size = None if is_close else current_size
    probe.receive_data(twin + bytes(4) + (bytes(126) if too_long else b""))
    if probe.close_sent is not None and probe.parser_exc is not None:
        return int(probe.close_sent.code)
    # Difference: `websockets` takes a length that is not in its shortest form (RFC 6455 §5.2).
    if not header.is_shortest:
        return PROTOCOL_ERROR
    # Difference: `websockets` limits control frames, too, to what is left of the message.
    left = max_size - (current_size or 0)
    if header.length is not None and header.length > left and not header.is_control:
        return TOO_LARGE
    return None


def code_of_failure(reference: Protocol, header: Header) -> int | None:
    """Return the code with which `websockets` fails for a whole frame."""
    if reference.parser_exc is None:
        return None
    code = int(reference.close_sent.code)
    # Difference: of a Close whose code and reason are both wrong, ours tells of the code.
    if code == INVALID_TEXT and not is_code(header.frame):
        return PROTOCOL_ERROR
    return code


def is_code(frame: bytes) -> bool:
    """Return whether `websockets` takes the code of a Close frame when it has no reason."""
    mask, payload = frame[2:6], frame[6:8]
    reference = Protocol(SERVER, state=OPEN, max_size=None)
    reference.receive_data(bytes([0x88, 0x82]) + mask + payload)
    return reference.parser_exc is None


def is_text(data: bytes, final: bool) -> bool:
    """Return whether it is UTF-8, or may still become it.

    Difference: `websockets` decodes a text when all of its fragments are there, or not at all.
    """
    # Python's incremental decoder waits for a surrogate's last byte (bugs.python.org/issue24214).
    if not final and data[-2:-1] == b"\xed" and 0xA0 <= data[-1] < 0xC0:
        data = data[:-2]
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return not final and error.reason == "unexpected end of data"
    return True


def observed(framing: Framing, pieces: list[bytes], room: int) -> Outcome:
    """Return what ours makes of the bytes, read in pieces, at most `room` events at a time."""
    outcome = Outcome()
    for piece in pieces:
        events = framing.receive(piece, room)
        assert len(events) <= room
        while framing.has_more:
            more = framing.receive(b"", room)
            assert len(more) <= room
            events += more
        for event in events:
            assert outcome.end is None, "nothing comes after the end"
            if isinstance(event, Failure):
                assert len(event.reason.encode()) <= 123
                outcome.end = event.code
            elif isinstance(event, Close):
                assert event.code != NO_CODE or event.reason == ""
                outcome.end = event
            else:
                outcome.messages.append(event)
    outcome.pongs = framing.pongs
    return outcome


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Return the bytes in pieces, cut at the places (which may lie outside)."""
    ends = [*sorted(places), len(data)]
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
