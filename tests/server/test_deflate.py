"""permessage-deflate (RFC 7692): negotiation, the codec, and real clients on both servers."""

import itertools
import json
import os
import random
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from playwright.sync_api import Browser
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.sync.client import connect

from echo.server.deflate import Codec, negotiate
from echo.server.framing import INFLATED_BATCH_SIZE, Event, Failure, Framing
from tests.browser import new_page
from tests.raw import BINARY, CLOSE, PING, PONG, TEXT, UPGRADE, Client, close_payload, frame
from tests.reference import cut
from tests.servers import Server

SITE = "tests.sites.transport:application"
MIB = 1 << 20
COMPRESSED = 4  # RSV1
RSV_1 = "Received frame had its compression bit (RSV1) set"
OFFER = "permessage-deflate"
AGREED = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
LONG = json.dumps([{"name": f"é {number}", "id": number} for number in range(100)])


def deflated(message: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def inflated(payload: bytes, bits: int = 15) -> bytes:
    return zlib.decompressobj(wbits=-bits).decompress(payload + b"\0\0\xff\xff")


def compressed_frame(message: bytes, opcode: int = TEXT) -> bytes:
    return frame(opcode, deflated(message), rsv=COMPRESSED)


def new_framing(max_size: int = MIB) -> Framing:
    framing = Framing(max_size)
    framing.set_codec(Codec(12, 1024))
    return framing


def received(data: bytes, max_size: int = MIB) -> list[Event]:
    return new_framing(max_size).receive(data)


# The negotiation


def agreed(*offers: str) -> str | None:
    found = negotiate([(b"sec-websocket-extensions", offer.encode()) for offer in offers])
    return None if found is None else found[0].decode()


@pytest.mark.parametrize(
    ("offers", "response"),
    [
        ([OFFER], f"{AGREED}; server_max_window_bits=12"),
        # As Chromium, Firefox and Safari offer it.
        ([f"{OFFER}; client_max_window_bits"], f"{AGREED}; server_max_window_bits=12"),
        ([f"{OFFER}; server_max_window_bits=10"], f"{AGREED}; server_max_window_bits=10"),
        ([f'{OFFER}; server_max_window_bits="15"'], f"{AGREED}; server_max_window_bits=12"),
        # zlib cannot compress with a window of 8 bits.
        ([f"{OFFER}; server_max_window_bits=8"], None),
        ([f"{OFFER}; server_max_window_bits=8", OFFER], f"{AGREED}; server_max_window_bits=12"),
        ([f"{OFFER}; unknown=1, {OFFER}"], f"{AGREED}; server_max_window_bits=12"),
        ([f"{OFFER}; unknown=1"], None),
        (["x-webkit-deflate-frame"], None),
        ([f"{OFFER}; ="], None),
        (["é"], None),
        ([f"{OFFER}; client_max_window_bits" * 100], None),
        ([], None),
    ],
)
def test_response_to_offers(offers: list[str], response: str | None) -> None:
    assert agreed(*offers) == response


def test_connections_share_a_codec() -> None:
    headers = [(b"sec-websocket-extensions", OFFER.encode())]

    first, second = negotiate(headers), negotiate(headers)

    assert first is not None and second is not None
    assert first[1] is second[1]


@pytest.mark.parametrize("size", [-1, 125, 1.5, True, "1024", None])
def test_invalid_minimum(size: object) -> None:
    with (
        override_settings(ECHO_DEFLATE_MIN_SIZE=size),
        pytest.raises(ImproperlyConfigured, match="ECHO_DEFLATE_MIN_SIZE"),
    ):
        agreed(OFFER)


# Sending


def test_short_messages_are_not_compressed() -> None:
    codec = Codec(12, 100)

    assert codec.frame(TEXT, b"x" * 99) == b"\x81\x63" + b"x" * 99
    assert codec.frame(TEXT, b"x" * 100)[0] == 0xC1
    assert codec.frame(BINARY, b"x" * 100)[0] == 0xC2


@pytest.mark.parametrize("bits", range(9, 13))
def test_long_messages_fit_the_clients_window(bits: int) -> None:
    message = LONG.encode() * 50

    sent = Codec(bits, 1024).frame(TEXT, message)

    assert sent[:2] == b"\xc1\x7e"
    assert len(sent) < len(message) / 4
    assert inflated(sent[4:], bits) == message


def test_incompressible_messages_are_sent_as_they_are() -> None:
    message = os.urandom(2000)

    assert Codec(12, 1024).frame(BINARY, message) == b"\x82\x7e\x07\xd0" + message


def test_message_to_many_is_compressed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compress, calls = Codec._compress, []
    monkeypatch.setattr(
        Codec, "_compress", lambda self, payload: calls.append(1) or compress(self, payload)
    )
    codec = Codec(12, 1024)

    frames = {codec.frame(TEXT, LONG.encode()) for _ in range(10)}

    assert (len(frames), len(calls)) == (1, 1)
    assert codec.frame(BINARY, LONG.encode())[1:] == frames.pop()[1:]
    assert len(calls) == 1


def test_buffer_that_the_application_changes_is_compressed_again() -> None:
    codec, buffer = Codec(12, 1024), bytearray(2000)
    codec.frame(BINARY, buffer)

    buffer[:] = b"x" * 2000

    assert inflated(codec.frame(BINARY, buffer)[2:]) == buffer


# Receiving


def test_whole_and_fragmented_messages() -> None:
    payload = deflated(LONG.encode())
    fragments = frame(TEXT, payload[:10], fin=False, rsv=COMPRESSED) + frame(PING, b"between")
    fragments += frame(0, payload[10:20], fin=False) + frame(0, payload[20:])
    framing = new_framing()

    assert framing.receive(compressed_frame(LONG.encode())) == [LONG]
    assert framing.receive(compressed_frame(b"\xff\xfe", BINARY)) == [b"\xff\xfe"]
    assert framing.receive(fragments) == [LONG]
    assert framing.pongs == [b"\x8a\x07between"]
    assert framing.receive(frame(TEXT, b"\0", rsv=COMPRESSED) + frame(TEXT, b"plain")) == [
        "",
        "plain",
    ]


def test_fragments_that_are_compressed_one_by_one() -> None:
    compressor = zlib.compressobj(wbits=-15)
    pieces = [
        compressor.compress(LONG[start : start + 1000].encode())
        + compressor.flush(zlib.Z_SYNC_FLUSH)
        for start in range(0, len(LONG), 1000)
    ]

    data = frame(TEXT, pieces[0], fin=False, rsv=COMPRESSED)
    data += b"".join(frame(0, piece, fin=False) for piece in pieces[1:]) + frame(0)

    assert received(data) == [LONG]


def test_each_message_is_compressed_on_its_own() -> None:
    """RFC 7692 §7.2.3.4: a message may end with a final block, after which zlib reads no more."""
    compressor = zlib.compressobj(wbits=-15)
    final = compressor.compress(b"Hello") + compressor.flush() + b"\0"

    assert received(2 * frame(TEXT, final, rsv=COMPRESSED)) == ["Hello", "Hello"]


@pytest.mark.parametrize(
    ("data", "failure"),
    [
        (frame(PING, b"", rsv=COMPRESSED), f"{RSV_1} but begins no message"),
        (frame(CLOSE, b"", rsv=COMPRESSED), f"{RSV_1} but begins no message"),
        (frame(0, b"", rsv=COMPRESSED), f"{RSV_1} but begins no message"),
        (frame(3, b"", rsv=COMPRESSED), f"{RSV_1} but begins no message"),
        (
            frame(TEXT, b"x", fin=False) + frame(0, b"x", rsv=COMPRESSED),
            f"{RSV_1} but begins no message",
        ),
        (
            frame(TEXT, b"x", fin=False) + frame(TEXT, b"x", rsv=COMPRESSED),
            "Missing continuation frame",
        ),
        (frame(TEXT, b"x", rsv=COMPRESSED | 2), "Received frame had RSV bits 2 or 3 set"),
        (frame(TEXT, b"\xff" * 9, rsv=COMPRESSED), "Received a message that cannot be inflated"),
    ],
    ids=itertools.count(),  # the masks, which are in the data, are random
)
def test_protocol_errors(data: bytes, failure: str) -> None:
    assert received(data + frame(TEXT, b"more")) == [Failure(1002, failure)]


@pytest.mark.parametrize("fragmented", [False, True])
def test_utf8_is_validated_after_inflating(fragmented: bool) -> None:
    payload = deflated("é".encode()[:1] * 2)
    data = frame(TEXT, payload, rsv=COMPRESSED)
    if fragmented:
        data = frame(TEXT, payload[:1], fin=False, rsv=COMPRESSED) + frame(0, payload[1:])

    assert received(data) == [Failure(1007, "Invalid UTF-8 in a text")]


@pytest.mark.parametrize("message", [b"x" * 100_000, os.urandom(100_000)])
def test_limit_is_for_the_inflated_size(message: bytes) -> None:
    size = len(message)
    data = compressed_frame(message, BINARY)
    payload = deflated(message)
    fragments = frame(BINARY, payload[:70], fin=False, rsv=COMPRESSED) + frame(0, payload[70:])

    for sent in (data, fragments):
        assert received(sent, size) == [message]
        assert received(sent, size - 1) == [
            Failure(1009, f"Message is too large: inflated > {size - 1}")
        ]


def test_payload_larger_than_any_message_fails_at_its_head() -> None:
    whole = frame(BINARY, bytes(113_000), rsv=COMPRESSED)
    fragments = frame(BINARY, bytes(80_000), fin=False, rsv=COMPRESSED) + frame(0, bytes(33_000))

    for sent in (whole[:10], fragments[:-32_990]):
        assert received(sent, 100_000) == [
            Failure(1009, "Message is too large: 113000 > 100000"),
        ]


def test_bomb_takes_no_more_memory_than_the_largest_message() -> None:
    bomb = compressed_frame(bytes(64 * MIB), BINARY)
    framing = new_framing()
    tracemalloc.start()
    try:
        began = time.process_time()
        (failure,) = framing.receive(bomb)
        seconds = time.process_time() - began
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert failure == Failure(1009, f"Message is too large: inflated > {MIB}")
    assert peak < 4 * MIB
    assert seconds < 0.5


@pytest.mark.parametrize("fragmented", [False, True])
def test_inflating_many_messages_stops_for_other_connections(fragmented: bool) -> None:
    message = b"x" * (INFLATED_BATCH_SIZE // 2)
    data, payload = compressed_frame(message, BINARY), deflated(message)
    if fragmented:
        data = frame(BINARY, payload[:9], fin=False, rsv=COMPRESSED) + frame(0, payload[9:])
    framing = new_framing()

    events = [framing.receive(5 * data)]
    while framing.has_more:
        events.append(framing.receive(b""))

    assert events == [[message] * 2, [message] * 2, [message]]


def test_random_messages_in_random_pieces() -> None:
    source = random.Random(7)
    for _ in range(50):
        messages: list[Event] = []
        data = b""
        for _ in range(20):
            message = LONG[: source.choice((0, 1, 100, 1000, 3000))] * source.choice((1, 30))
            rsv = source.choice((0, COMPRESSED))
            payload = deflated(message.encode()) if rsv else message.encode()
            ends = sorted(source.choices(range(len(payload) + 1), k=source.choice((0, 0, 1, 5))))
            pieces = cut(payload, ends) if payload else [payload]
            for number, piece in enumerate(pieces):
                first, last = number == 0, number == len(pieces) - 1
                data += frame(TEXT if first else 0, piece, fin=last, rsv=rsv if first else 0)
                data += frame(PING) * source.choice((0, 0, 1))
            messages.append(message)
        framing = new_framing()
        events: list[Event] = []
        for piece in cut(data, sorted(source.choices(range(len(data)), k=20))):
            events += framing.receive(piece)
            while framing.has_more:
                events += framing.receive(b"")

        assert events == messages


def test_replies_of_the_extension_are_compressed() -> None:
    framing = new_framing()
    data = frame(TEXT, b"x") + frame(TEXT, b"x" * 200) + compressed_frame(b"xyz")

    assert framing.receive(data, reply=lambda text: LONG) == []

    assert [reply[0] for reply in framing.replies] == [0xC1] * 3
    assert {inflated(reply[4:]) for reply in framing.replies} == {LONG.encode()}


# Real servers and clients


@pytest.fixture(scope="module", params=["daphne", "uvicorn"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    options = ("--websocket-deflate",) if request.param == "daphne" else ()
    with Server(request.param, SITE, options) as server:
        yield server


@pytest.mark.parametrize(
    "offer",
    [
        ClientPerMessageDeflateFactory(),
        ClientPerMessageDeflateFactory(server_max_window_bits=9, client_max_window_bits=9),
        ClientPerMessageDeflateFactory(True, True, 15, 15),
    ],
)
def test_client_of_websockets(server: Server, offer: ClientPerMessageDeflateFactory) -> None:
    url = f"ws://127.0.0.1:{server.port}/loop/foo/websocket"
    with connect(url, compression=None, extensions=[offer]) as client:
        assert len(client.protocol.extensions) == 1
        messages = ["é", "é" * 600, LONG, LONG * 20, os.urandom(70_000), b""]
        for message in [*messages, [LONG[:999], LONG[999:]]]:
            client.send(message)
            assert client.recv() == ("".join(message) if isinstance(message, list) else message)


MESSAGES_OF_A_PAGE = """
([url, text]) => new Promise((resolve) => {
    const socket = new WebSocket(url);
    socket.onopen = () => socket.send(text);
    socket.onmessage = (event) => { resolve([socket.extensions, event.data]); socket.close(); };
    socket.onclose = (event) => resolve([event.code]);
})
"""


@pytest.mark.long
def test_browser(server: Server, browser: Browser) -> None:
    page = new_page(browser)
    page.goto(f"http://127.0.0.1:{server.port}/")

    found = page.evaluate(
        MESSAGES_OF_A_PAGE, [f"ws://127.0.0.1:{server.port}/loop/foo/websocket", LONG]
    )

    assert found == [f"{AGREED}; server_max_window_bits=12", LONG]


def opened(server: Server, app: str = "loop", offer: str = OFFER) -> Client:
    client = Client(server.port)
    headers = {**UPGRADE, "Sec-WebSocket-Extensions": offer}
    answer = client.ask(f"/{app}/foo/websocket", headers)
    assert answer.header("Sec-WebSocket-Extensions") == f"{AGREED}; server_max_window_bits=12"
    return client


def test_frames_on_the_wire(server: Server) -> None:
    with opened(server) as client:
        client.send(frame(TEXT, LONG.encode()) + compressed_frame(b"short"))
        client.send(frame(PING, b"x" * 100) + frame(CLOSE, close_payload(1000)))
        frames = [client.frame_with_rsv() for _ in range(4)]

    assert sorted(found[:2] for found in frames) == [
        (0, TEXT),
        (0, CLOSE),
        (0, PONG),
        (COMPRESSED, TEXT),
    ]
    (text,) = (payload for rsv, _, payload in frames if rsv)
    assert inflated(text).decode() == LONG


def test_bomb_is_closed_with_1009(server: Server) -> None:
    largest = 16 * MIB if server.kind == "uvicorn" else MIB
    with opened(server) as client:
        before = server.forget_peak()
        client.send(compressed_frame(bytes(32 * MIB), BINARY))

        assert client.closing() == (1009, f"Message is too large: inflated > {largest}")
        assert server.memory("VmHWM") - before < 2 * largest + 8 * MIB


def test_message_to_a_group_is_compressed(server: Server) -> None:
    with opened(server) as first, opened(server) as second:
        server.get("/push/foo")

        for client in (first, second):
            rsv, opcode, payload = client.frame_with_rsv()
            assert (rsv, opcode, inflated(payload)) == (COMPRESSED, TEXT, b"x" * 65_536)


def test_broken_messages_are_closed_with_1002_and_1007(server: Server) -> None:
    with opened(server) as client:
        client.send(frame(TEXT, b"\xff" * 9, rsv=COMPRESSED))
        assert client.closing() == (1002, "Received a message that cannot be inflated")
    with opened(server) as client:
        client.send(compressed_frame(b"\xff"))
        assert client.closing() == (1007, "Invalid UTF-8 in a text")


@pytest.mark.parametrize(
    ("kind", "options"), [("daphne", ()), ("uvicorn", ("--ws-per-message-deflate", "false"))]
)
def test_server_that_does_not_compress(kind: str, options: tuple[str, ...]) -> None:
    with Server(kind, SITE, options) as server, Client(server.port) as client:
        headers = {**UPGRADE, "Sec-WebSocket-Extensions": OFFER}
        answer = client.ask("/loop/foo/websocket", headers)
        assert answer.header("Sec-WebSocket-Extensions") is None

        client.send(compressed_frame(b"x"))
        assert client.closing() == (1002, f"{RSV_1} without compression")


def test_settings(tmp_path: Path) -> None:
    ours = "ECHO_WEBSOCKET_DEFLATE = True\nECHO_DEFLATE_MIN_SIZE = 126\n"
    (tmp_path / "compressing.py").write_text(f"from project.settings import *\n{ours}")
    env = {"DJANGO_SETTINGS_MODULE": "compressing", "PYTHONPATH": str(tmp_path)}
    with Server("runserver", **env) as server, Client(server.port) as client:
        client.ask("/foo/websocket", {**UPGRADE, "Sec-WebSocket-Extensions": OFFER})
        client.send_text("x" * 107)
        client.send_text("x" * 108)

        assert client.text() == "[Durable Object]: " + "x" * 107
        rsv, _, payload = client.frame_with_rsv()
        assert rsv == COMPRESSED
        assert inflated(payload) == b"[Durable Object]: " + b"x" * 108
