"""The framing by RFC 6455 and with the original program's reasons: bytes in, events out."""

import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator

import pytest
import websockets.utils

from echo.extensions import CLOSE_CODES
from echo.server import framing as module
from echo.server.framing import (
    NO_CODE,
    REPLY_BATCH_SIZE,
    Close,
    Event,
    Failure,
    Framing,
    close_frame,
)
from echo.server.framing import frame as server_frame
from tests.raw import BINARY, CLOSE, PING, PONG, TEXT, close_payload, frame, masked
from tests.reference import cut
from tests.servers import ROOT

MIB = 1 << 20
EDGES = [0, 1, 125, 126, 127, 65535, 65536]  # RFC 6455 §5.2: at the changes of a length's form
RSV_2_OR_3 = "Received frame had RSV bits 2 or 3 set"
RSV_1 = "Received frame had its compression bit (RSV1) set without compression"
FRAGMENTED_CONTROL = "Received fragmented control frame"
LONG_CONTROL = "Received control frame over 125 bytes"
UNEXPECTED, MISSING = "Unexpected continuation frame", "Missing continuation frame"
LENGTH = "Received a length not in its shortest form"
INVALID_CODE = "Received a Close frame with an invalid code"
INVALID_TEXT = Failure(1007, "Invalid UTF-8 in a text")
INVALID_REASON = Failure(1007, "Invalid UTF-8 in the reason of a Close frame")


@pytest.fixture(params=["C", "Python"], autouse=True)
def mask_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test with and without the C extension of `websockets`."""
    if request.param == "Python":
        monkeypatch.setattr(module, "apply_mask", websockets.utils.apply_mask)


def received(data: bytes, max_size: int = MIB) -> list[Event]:
    """Return the events of the bytes: the same as a whole, and byte by byte.

    Of many bytes, only the first 500 and the last ten come alone: to save time.
    """
    whole, single = Framing(max_size), Framing(max_size)
    events = whole.receive(data)
    size = len(data)
    pieces = cut(data, [*{*range(min(size, 500)), *range(max(size - 10, 0), size)}])
    assert [event for piece in pieces for event in single.receive(piece)] == events
    assert single.pongs == whole.pongs
    return events


def failed(data: bytes, reason: str) -> bool:
    """Return whether the only event is a protocol error with the reason."""
    return received(data + frame(TEXT, b"more")) == [Failure(1002, reason)]


# RFC 6455 §5.7: the examples that a client may send


def test_example_single_masked_text() -> None:
    assert received(bytes.fromhex("818537fa213d7f9f4d5158")) == ["Hello"]


def test_example_single_unmasked_text() -> None:
    assert failed(bytes.fromhex("810548656c6c6f"), "Received unmasked frame")


def test_example_fragmented_text() -> None:
    first, last = frame(TEXT, b"Hel", fin=False), frame(0, b"lo")

    assert received(first) == []
    assert received(first + last) == ["Hello"]


def test_example_ping_and_its_response() -> None:
    framing = Framing(MIB)

    assert framing.receive(bytes.fromhex("898537fa213d7f9f4d5158")) == []
    assert framing.pongs == [bytes.fromhex("8a0548656c6c6f")]


def test_example_256_bytes_and_64_kib() -> None:
    head = bytes.fromhex("82fe0100"), bytes.fromhex("82ff0000000000010000")
    mask = bytes.fromhex("37fa213d")

    assert Framing(MIB).receive(head[0] + mask + masked(bytes(256), mask)) == [bytes(256)]
    assert Framing(MIB).receive(head[1] + mask + masked(bytes(65536), mask)) == [bytes(65536)]


# Lengths


@pytest.mark.parametrize("size", EDGES)
def test_each_form_of_a_length(size: int) -> None:
    data = bytes(range(256)) * 257
    text = ("é" + "x" * size).encode()[:size] if size != 1 else b"x"

    assert received(frame(BINARY, data[:size])) == [data[:size]]
    assert received(frame(TEXT, text)) == [text.decode()]


@pytest.mark.parametrize(
    ("form", "length"), [(126, 0), (126, 125), (127, 0), (127, 125), (127, 65535)]
)
def test_length_not_in_its_shortest_form(form: int, length: int) -> None:
    extended = length.to_bytes(2 if form == 126 else 8, "big")

    assert failed(bytes([0x81, 0x80 | form]) + extended + bytes(4 + length), LENGTH)


def test_length_of_64_bits() -> None:
    """Its most significant bit must be 0 (RFC 6455 §5.2)."""
    head = bytes([0x82, 0xFF])
    framing = Framing(1 << 63)

    assert framing.receive(head + ((1 << 63) - 1).to_bytes(8, "big")) == []
    assert failed(head + (1 << 63).to_bytes(8, "big"), LENGTH)


# The first two bytes: validated on arrival


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("fin", [True, False])
def test_reserved_opcode(opcode: int, fin: bool) -> None:
    assert failed(frame(opcode, b"x", fin), f"Unknown opcode {opcode}")


@pytest.mark.parametrize("opcode", [0, TEXT, BINARY, 3, CLOSE, PING, PONG, 15])
@pytest.mark.parametrize("rsv", range(1, 8))
def test_reserved_bits(opcode: int, rsv: int) -> None:
    """They are validated before the opcode, as in the original program."""
    assert failed(frame(opcode, b"x", rsv=rsv), RSV_2_OR_3 if rsv & 3 else RSV_1)


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_fragmented_control_frame(opcode: int) -> None:
    assert failed(frame(opcode, fin=False), FRAGMENTED_CONTROL)


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
@pytest.mark.parametrize("size", [126, 65536])
def test_control_frame_over_125_bytes(opcode: int, size: int) -> None:
    assert failed(frame(opcode, bytes(size)), LONG_CONTROL)


@pytest.mark.parametrize("opcode", [0, TEXT, BINARY, CLOSE, PING, PONG])
@pytest.mark.parametrize("size", EDGES)
def test_unmasked_frame(opcode: int, size: int) -> None:
    begun = frame(TEXT, fin=False) if opcode == 0 else b""

    assert failed(begun + frame(opcode, bytes(size), mask=b""), "Received unmasked frame")


@pytest.mark.parametrize("fin", [True, False])
def test_continuation_of_nothing(fin: bool) -> None:
    assert failed(frame(0, b"x", fin), UNEXPECTED)


def test_continuation_after_a_whole_message() -> None:
    text, continuation = frame(TEXT, b"a"), frame(0, b"b")
    fragments = frame(TEXT, b"a", fin=False) + continuation

    assert received(text + continuation) == ["a", Failure(1002, UNEXPECTED)]
    assert received(fragments + continuation) == ["ab", Failure(1002, UNEXPECTED)]


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("fin", [True, False])
def test_message_inside_another(opcode: int, fin: bool) -> None:
    assert failed(frame(TEXT, b"a", fin=False) + frame(opcode, b"b", fin), MISSING)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xf1", RSV_2_OR_3),
        (b"\xc1", RSV_1),
        (b"\x83", "Unknown opcode 3"),
        (b"\x09", FRAGMENTED_CONTROL),
        (b"\x80", UNEXPECTED),
        (b"\x81\x00", "Received unmasked frame"),
        (b"\x89\xfe", LONG_CONTROL),
        (b"\x81\xfe\x00\x7d", LENGTH),
    ],
)
def test_frame_is_rejected_by_its_first_bytes(data: bytes, reason: str) -> None:
    assert Framing(MIB).receive(data[:-1]) == []
    assert Framing(MIB).receive(data) == [Failure(1002, reason)]


# Sizes: validated by the header alone


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize(("size", "limit"), [(1, 0), (101, 100), (126, 125), (200, 100)])
def test_too_large(opcode: int, size: int, limit: int) -> None:
    data = frame(opcode, bytes(size), mask=b"abcd")
    head = len(data) - size - 4

    assert Framing(limit).receive(data[: head - 1]) == []
    failure = Failure(1009, f"Message is too large: {size} > {limit}")
    assert Framing(limit).receive(data[:head]) == [failure]
    assert received(data, limit) == [failure]


@pytest.mark.parametrize("size", [0, 1, 100, 125, 126, 65536])
def test_maximum_size(size: int) -> None:
    assert received(frame(TEXT, b"x" * size), max_size=size) == ["x" * size]


def test_too_large_with_the_length_of_64_bits() -> None:
    data = bytes([0x81, 0xFF]) + (1 << 62).to_bytes(8, "big")

    reason = f"Message is too large: {1 << 62} > {MIB}"
    assert received(data) == [Failure(1009, reason)]


def test_fragments_are_summed() -> None:
    """The reason has the size of the message so far, and the limit."""
    data = frame(BINARY, bytes(60), fin=False) + frame(0, bytes(30), fin=False)

    assert received(data + frame(0, bytes(10)), 100) == [bytes(100)]
    assert received(data + frame(0, bytes(11)), 100) == [
        Failure(1009, "Message is too large: 101 > 100")
    ]


def test_control_frames_count_against_no_limit() -> None:
    framing = Framing(max_size=0)

    assert framing.receive(frame(TEXT, fin=False) + frame(PING, bytes(125)) + frame(0)) == [""]
    assert framing.pongs == [b"\x8a\x7d" + bytes(125)]
    assert received(frame(CLOSE, close_payload(1000, "bye")), 0) == [Close(1000, "bye")]


# Fragments


def test_control_frames_between_fragments() -> None:
    framing = Framing(MIB)
    data = [
        frame(TEXT, b"a", fin=False),
        frame(PING, b"1"),
        frame(0, b"b", fin=False),
        frame(PONG, b"2"),
        frame(0, fin=False),
        frame(PING, b"3"),
        frame(0, b"c"),
        frame(TEXT, b"d"),
    ]

    assert framing.receive(b"".join(data)) == ["abc", "d"]
    assert framing.pongs == [b"\x8a\x011", b"\x8a\x013"]


def test_close_between_fragments() -> None:
    data = frame(TEXT, b"a", fin=False) + frame(CLOSE, close_payload(1000)) + frame(0, b"b")

    assert received(data) == [Close(1000, "")]


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_fragments_of_nothing(opcode: int) -> None:
    data = frame(opcode, fin=False) + frame(0, fin=False) + frame(0)

    assert received(data) == ["" if opcode == TEXT else b""]


def test_binary_fragments_are_no_text() -> None:
    assert received(frame(BINARY, b"\xff", fin=False) + frame(0, b"\xc0")) == [b"\xff\xc0"]


# UTF-8 (RFC 6455 §8.1, RFC 3629)

VALID = ["é", "€", "😀", "\x00", "\x7f\x80\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff"]
VALID += ["κόσμε", "\ufeffx", "\ufffe"]
INVALID = {
    "a continuation alone": b"\x80",
    "overlong, 2 bytes": b"\xc0\x80",
    "overlong, 2 bytes of the last": b"\xc1\xbf",
    "overlong, 3 bytes": b"\xe0\x9f\xbf",
    "overlong, 4 bytes": b"\xf0\x8f\xbf\xbf",
    "a high surrogate": b"\xed\xa0\x80",
    "a low surrogate": b"\xed\xbf\xbf",
    "a pair of surrogates": b"\xed\xa0\xbd\xed\xb8\x80",
    "above U+10FFFF": b"\xf4\x90\x80\x80",
    "5 bytes": b"\xf8\x88\x80\x80\x80",
    "6 bytes": b"\xfc\x84\x80\x80\x80\x80",
    "0xFE": b"\xfe",
    "0xFF": b"\xff",
    "cut after 1 of 2": b"\xc3",
    "cut after 2 of 3": b"\xe2\x82",
    "cut after 3 of 4": b"\xf0\x9f\x98",
    "ASCII within": b"\xe2\x82x",
}


@pytest.mark.parametrize("text", VALID)
@pytest.mark.parametrize("padding", [0, 200])
def test_text_in_fragments_of_a_byte(text: str, padding: int) -> None:
    data = text.encode() + b"x" * padding
    fragments = [frame(0 if i else TEXT, data[i : i + 1], fin=False) for i in range(len(data))]

    assert received(frame(TEXT, data)) == [text + "x" * padding]
    assert received(b"".join(fragments) + frame(0)) == [text + "x" * padding]


@pytest.mark.parametrize("data", INVALID.values(), ids=INVALID)
@pytest.mark.parametrize("padding", [0, 200])
def test_invalid_text(data: bytes, padding: int) -> None:
    data = b"x" * padding + data
    fragments = [frame(0 if i else TEXT, data[i : i + 1], fin=False) for i in range(len(data))]

    assert received(frame(TEXT, data)) == [INVALID_TEXT]
    assert received(b"".join(fragments) + frame(0)) == [INVALID_TEXT]
    assert received(frame(BINARY, data)) == [data]


def test_invalid_text_fails_at_its_fragment() -> None:
    """Before the end of the message."""
    assert received(frame(TEXT, b"\xce\xba\xf4\x90", fin=False)) == [INVALID_TEXT]


def test_character_cut_at_the_end_of_a_message_is_no_part_of_the_next() -> None:
    cut = frame(TEXT, b"\xe2", fin=False) + frame(0, b"\x82")

    assert received(cut + frame(TEXT, b"\xac")) == [INVALID_TEXT]


# Close frames (RFC 6455 §5.5.1, §7.4)


@pytest.mark.parametrize("code", sorted({*range(990, 1100), 1100, 2000, 2999, 3000, 3999, 4999}))
def test_code_of_a_close(code: int) -> None:
    allowed = code in (1000, 1001, 1002, 1003, *range(1007, 1015)) or 3000 <= code < 5000
    data = frame(CLOSE, close_payload(code, "bye"))

    if allowed:
        assert received(data) == [Close(code, "bye")]
    else:
        assert failed(data, INVALID_CODE)


@pytest.mark.parametrize("code", [0, 1, 999, 5000, 65535])
def test_code_out_of_range(code: int) -> None:
    assert failed(frame(CLOSE, close_payload(code)), INVALID_CODE)


def test_close_without_a_code() -> None:
    assert received(frame(CLOSE)) == [Close(NO_CODE, "")]


def test_close_of_one_byte() -> None:
    assert failed(frame(CLOSE, b"\x03"), INVALID_CODE)


def test_reason_of_a_close() -> None:
    reason = "é" * 61 + "x"  # 123 bytes

    assert received(frame(CLOSE, close_payload(4000, reason))) == [Close(4000, reason)]


@pytest.mark.parametrize("data", INVALID.values(), ids=INVALID)
def test_invalid_reason_of_a_close(data: bytes) -> None:
    assert received(frame(CLOSE, close_payload(1000) + data)) == [INVALID_REASON]


@pytest.mark.parametrize("data", [frame(CLOSE), frame(3)], ids=["Close", "Failure"])
def test_nothing_comes_after_the_end(data: bytes) -> None:
    framing = Framing(MIB)
    more = frame(TEXT, b"a") + frame(PING) + frame(CLOSE) + frame(3)

    assert len(framing.receive(data + more)) == 1
    assert framing.receive(more) == []
    assert (framing.pongs, framing.has_more) == ([], False)


def test_close_frame_without_a_code() -> None:
    assert close_frame(NO_CODE, "dropped") == b"\x88\x00"


def test_close_frame_cuts_a_reason_between_characters() -> None:
    assert close_frame(1009, "é" * 100) == b"\x88\x7c" + struct.pack("!H", 1009) + "é".encode() * 61


def test_every_failure_can_be_sent() -> None:
    assert {1002, 1007, 1009} < CLOSE_CODES
    assert close_frame(1002, RSV_2_OR_3)[:2] == bytes([0x88, 2 + len(RSV_2_OR_3)])


@pytest.mark.parametrize("size", EDGES)
def test_frame_of_the_server(size: int) -> None:
    """The tests' own client writes the same, unmasked."""
    assert server_frame(BINARY, bytes(size)) == frame(BINARY, bytes(size), mask=b"")


# Pings


def test_each_ping_has_its_pong() -> None:
    framing = Framing(MIB)

    framing.receive(b"".join(frame(PING, bytes([i]) * i) for i in range(126)))

    assert framing.pongs == [bytes([0x8A, i]) + bytes([i]) * i for i in range(126)]


def test_unsolicited_pong_is_ignored() -> None:
    framing = Framing(MIB)

    assert framing.receive(frame(PONG, b"x") + frame(TEXT, b"a")) == ["a"]
    assert framing.pongs == []


# At most max_events at a time


def texts(count: int) -> bytes:
    return b"".join(frame(TEXT, str(number).encode()) for number in range(count))


def test_max_events_stops_and_nothing_is_lost() -> None:
    framing = Framing(MIB)

    assert framing.receive(texts(5), max_events=2) == ["0", "1"]
    assert framing.has_more
    assert framing.receive(frame(TEXT, b"5")[:3], max_events=3) == ["2", "3", "4"]
    assert framing.has_more  # the rest has not been looked at
    assert framing.receive(b"", max_events=2) == []
    assert not framing.has_more


def test_max_events_that_is_just_enough() -> None:
    framing = Framing(MIB)

    assert framing.receive(texts(2), max_events=2) == ["0", "1"]
    assert not framing.has_more


@pytest.mark.parametrize("max_events", [0, -1])
def test_max_events_of_zero(max_events: int) -> None:
    framing = Framing(MIB)

    assert framing.receive(texts(1), max_events=max_events) == []
    assert framing.has_more
    assert framing.receive(texts(1)) == ["0", "0"]
    assert not framing.has_more


@pytest.mark.parametrize("size", [3, 125, 126, 65536])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_half_a_frame_is_not_more(opcode: int, size: int) -> None:
    data = frame(opcode, b"x" * size)
    (message,) = Framing(MIB).receive(data)

    for place in {*range(1, 17), size, size + 5} & set(range(len(data))):
        framing = Framing(MIB)
        assert framing.receive(data + data[:place], max_events=2) == [message]
        assert not framing.has_more
        assert framing.receive(data[place:]) == [message]


def test_end_waits_for_the_next_call() -> None:
    framing = Framing(MIB)

    assert framing.receive(texts(1) + frame(CLOSE), max_events=1) == ["0"]
    assert framing.has_more
    assert framing.receive(b"", max_events=1) == [Close(NO_CODE, "")]
    assert not framing.has_more


# Replies


def reply(text: str) -> str | None:
    return None if text == "quiet" else f"re: {text}"


def test_replies_are_in_order() -> None:
    framing = Framing(MIB)
    long = "x" * 200
    data = [
        frame(TEXT, b"a"),
        frame(BINARY, b"b"),
        frame(TEXT, b"quiet"),
        frame(TEXT, b"c", fin=False),
        frame(0, b"d"),
        frame(TEXT, long.encode()),
        frame(PING, b"p"),
        frame(CLOSE),
    ]

    events = framing.receive(b"".join(data), 1, reply, lambda data: f"{len(data)} byte")

    assert events == [Close(NO_CODE, "")]
    answers = ["re: a", "1 byte", "re: cd", f"re: {long}"]
    assert framing.replies == [server_frame(TEXT, answer.encode()) for answer in answers]
    assert framing.pongs == [b"\x8a\x01p"]


def test_messages_without_a_reply_are_returned_if_asked_for() -> None:
    data = [frame(TEXT, b"a"), frame(BINARY, b"a"), frame(TEXT, b"ping"), texts(2)]
    data += [frame(TEXT, b"pi", fin=False), frame(0, b"ng"), frame(CLOSE)]
    framing = Framing(MIB)

    events = framing.receive(
        b"".join(data), reply={"ping": "pong", "1": ""}.get, returns_unreplied=True
    )

    assert events == ["a", b"a", "0", Close(NO_CODE, "")]
    assert framing.replies == [frame(TEXT, b"pong", mask=b""), b"\x81\x00", b"\x81\x04pong"]


def test_binary_without_a_reply_is_dropped() -> None:
    framing = Framing(MIB)

    assert framing.receive(frame(BINARY, b"b") + frame(TEXT, b"a"), reply=reply) == []
    assert framing.replies == [b"\x81\x05re: a"]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_reply_of_each_length(size: int) -> None:
    framing = Framing(MIB)

    framing.receive(
        frame(TEXT, b"a") + frame(BINARY), 1, lambda _: "x" * size, lambda _: "y" * size
    )

    assert framing.replies == [server_frame(TEXT, b"x" * size), server_frame(TEXT, b"y" * size)]


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_exception_in_a_reply_keeps_those_before_and_what_comes_after(opcode: int) -> None:
    framing = Framing(MIB)

    def raising(message: object) -> str:
        raise LookupError

    data = frame(TEXT, b"a") + frame(opcode, b"b" * (opcode == BINARY)) + frame(CLOSE)
    with pytest.raises(LookupError):
        framing.receive(data, 64, lambda text: text or raising(text), raising)

    assert framing.replies == [b"\x81\x01a"]
    assert framing.has_more
    assert framing.receive(b"") == [Close(NO_CODE, "")]


def test_reply_that_is_no_unicode_raises() -> None:
    framing = Framing(MIB)

    with pytest.raises(UnicodeEncodeError):
        framing.receive(texts(1), reply=lambda text: "\ud800")


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_long_replies_are_not_made_all_at_once(opcode: int) -> None:
    """Small messages may have large replies: parsing stops to write them, and continues."""
    framing = Framing(MIB)
    long = "x" * (REPLY_BATCH_SIZE // 4)
    data = frame(opcode, b"a") * 10
    made = []

    framing.receive(data, 64, lambda text: long, lambda binary: long)
    while framing.has_more:
        made.append(len(framing.replies))
        framing.replies.clear()
        framing.receive(b"", 64, lambda text: long, lambda binary: long)

    assert [*made, len(framing.replies)] == [4, 4, 2]


# Memory


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
def test_announced_size_takes_no_memory() -> None:
    framing = Framing(32 * MIB)

    framing.receive(bytes([0x81, 0xFF]) + (32 * MIB).to_bytes(8, "big") + b"maskx")

    assert tracemalloc.get_traced_memory()[1] < 100_000


@pytest.mark.usefixtures("traced")
def test_message_in_tiny_reads_takes_its_size() -> None:
    framing = Framing(MIB)
    data = frame(BINARY, bytes(50_000), mask=b"abcd")

    for start in range(0, len(data) - 2, 2):
        framing.receive(data[start : start + 2])

    assert tracemalloc.get_traced_memory()[0] < 300_000


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    ("opcode", "payload", "limit"),
    [
        (TEXT, b"", 20_000),
        (BINARY, b"", 20_000),
        (TEXT, "€".encode(), 100_000),
        (BINARY, b"ab", 100_000),
    ],
)
def test_tiny_fragments_take_their_size(opcode: int, payload: bytes, limit: int) -> None:
    framing = Framing(MIB)
    fragment = frame(0, payload, fin=False)
    framing.receive(frame(opcode, fin=False))

    for _ in range(50):
        framing.receive(fragment * 100)

    assert tracemalloc.get_traced_memory()[0] < limit


# Without the C extension


def test_masks_without_the_extension_of_websockets() -> None:
    code = (
        "import sys; sys.modules['websockets.speedups'] = None; sys.path.insert(0, '.');"
        "from echo.server import framing; import websockets.utils;"
        "assert framing.apply_mask is websockets.utils.apply_mask;"
        "print(framing.Framing(99).receive(bytes.fromhex('818537fa213d7f9f4d5158')))"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)

    assert (shown.stdout, shown.stderr) == ("['Hello']\n", "")
