"""Random frames, valid or not and cut anywhere, compared with the `websockets` package."""

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from echo.server.framing import Framing
from tests.raw import masked
from tests.reference import Outcome, cut, expected, observed

MAX_SIZE = 300  # bytes: small, so that many messages exceed it
EDGES = [0, 1, 124, 125, 126, 127, 290, 299, 300, 301, 65535, 65536]

# No deadlines: a slow machine is not a failure.
quick = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])

texts = st.one_of(
    st.text(max_size=40).map(str.encode),
    st.sampled_from(["é€😀" * 3, "\ud7ff\ue000\U0010ffff", "x" * 130]).map(str.encode),
)
payloads = st.one_of(
    texts,
    st.binary(max_size=20),
    st.sampled_from([b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"a\xff"]),
    st.sampled_from(EDGES).map(lambda size: b"x" * size),
)
codes = st.one_of(
    st.integers(0, 65535),
    st.sampled_from([999, 1000, *range(1003, 1018), 1100, 2999, 3000, 3999, 4000, 4999, 5000]),
)
closes = st.one_of(
    st.just(b""),
    st.binary(max_size=1),
    st.builds(
        lambda code, reason: code.to_bytes(2, "big") + reason[:123],
        codes,
        st.one_of(texts, st.binary(max_size=5)),
    ),
)
masks = st.one_of(st.just(bytes(4)), st.binary(min_size=4, max_size=4))


def encoded(
    first: int, payload: bytes, mask: bytes | None, form: int = 0, announced: int | None = None
) -> bytes:
    """Return a frame whose length has 2 or 8 bytes if `form` is 126 or 127."""
    length = len(payload) if announced is None else announced
    form = max(form, 127 if length > 65535 else 126 if length > 125 else 0)
    extended = length.to_bytes({126: 2, 127: 8}[form], "big") if form else b""
    bit = 0 if mask is None else 0x80
    head = bytes([first, bit | (form or length)]) + extended
    return head + (payload if mask is None else mask + masked(payload, mask))


@st.composite
def controls(draw: st.DrawFn) -> bytes:
    opcode = draw(st.sampled_from([9, 10]))
    return encoded(0x80 | opcode, draw(payloads)[:125], draw(masks))


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A message in fragments that may split characters, with pings between them."""
    whole = draw(st.one_of(texts, payloads))
    places = draw(st.lists(st.integers(0, len(whole)), max_size=4))
    pieces = cut(whole, places)
    frames = []
    for number, piece in enumerate(pieces):
        opcode = 0 if number else draw(st.sampled_from([1, 1, 2]))
        fin = 0x80 if number == len(pieces) - 1 else 0
        frames.append(encoded(fin | opcode, piece, draw(masks)))
        frames += draw(st.lists(controls(), max_size=1))
    return b"".join(frames)


wild = st.builds(
    encoded,
    st.one_of(st.integers(0, 255), st.sampled_from([0x00, 0x01, 0x80, 0x81, 0x88, 0x89])),
    st.one_of(payloads, closes),
    st.one_of(masks, masks, masks, st.none()),
    st.sampled_from([0, 0, 0, 126, 127]),
    st.one_of(st.none(), st.none(), st.sampled_from([*EDGES, 1 << 32, (1 << 63) - 1, 1 << 63])),
)
close_frames = st.builds(encoded, st.just(0x88), closes, masks)
streams = st.builds(
    lambda parts, tail: b"".join(parts) + tail,
    st.lists(st.one_of(messages(), messages(), controls(), wild, close_frames), max_size=8),
    st.binary(max_size=3),
)


def note(outcome: Outcome) -> None:
    event(f"end: {outcome.end if isinstance(outcome.end, int | None) else 'Close'}")


@quick
@given(streams, st.lists(st.integers(0, 400), max_size=6), st.integers(1, 4))
def test_same_messages_pongs_and_end(data: bytes, places: list[int], room: int) -> None:
    wanted = expected(data, MAX_SIZE)
    note(wanted)

    assert observed(Framing(MAX_SIZE), cut(data, places), room) == wanted


@quick
@given(streams)
def test_same_byte_by_byte_and_as_a_whole(data: bytes) -> None:
    whole, single = Framing(MAX_SIZE), Framing(MAX_SIZE)

    events = whole.receive(data)

    assert [event for byte in data for event in single.receive(bytes([byte]))] == events
    assert single.pongs == whole.pongs
    assert single.has_more is whole.has_more is False


@quick
@given(streams, st.lists(st.integers(0, 400), max_size=6))
def test_replies_are_those_to_the_events(data: bytes, places: list[int]) -> None:
    """With a reply function, replies are in order, and only the end is an event."""
    events = Framing(MAX_SIZE).receive(data)
    framing = Framing(MAX_SIZE)
    seen: list[str | bytes] = []

    ends = [
        end
        for piece in cut(data, places)
        for end in framing.receive(piece, 1, lambda text: seen.append(text), seen.append)
    ]

    assert seen == [event for event in events if isinstance(event, str | bytes)]
    assert ends == [event for event in events if not isinstance(event, str | bytes)]
