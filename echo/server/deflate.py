"""permessage-deflate (RFC 7692) with the implementation of `websockets`.

Without context takeover: each message is compressed on its own. So a connection holds no state of
zlib between two messages, all connections share a codec, and a message to a group is compressed
once for all its receivers.
"""

from functools import cache, lru_cache

from django.conf import settings
from websockets.exceptions import (
    InvalidHeader,
    NegotiationError,
    PayloadTooBig,
    ProtocolError,
)
from websockets.extensions.permessage_deflate import (
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from websockets.frames import Frame, Opcode
from websockets.headers import build_extension, parse_extension

from echo.server import framing, handshake
from echo.server.framing import RSV1, Failure

DEFAULT_MIN_SIZE = 1024  # bytes, if no settings are configured
# zlib allocates 32 KiB for a message. With its defaults, 15 and 8, JSON gets 3 % smaller, but
# allocating 256 KiB takes longer than compressing 1 KiB. Level 3 takes 60 % of the time of level 6,
# for 9 % more bytes.
WINDOW_BITS = 12
SETTINGS = {"level": 3, "memLevel": 5}
MAX_WINDOW_BITS = 15
MAX_OFFERS = 1024  # bytes of the client's offers; browsers send fewer than 100
MAX_KEPT = 1 << 20  # bytes of a message that is kept for its next receiver

_factory = ServerPerMessageDeflateFactory(
    server_no_context_takeover=True,
    client_no_context_takeover=True,
    server_max_window_bits=WINDOW_BITS,
)


def negotiate(headers: handshake.Headers) -> "tuple[bytes, Codec] | None":
    """Return the header value of the response and the codec, or None to compress nothing."""
    offers = b", ".join(handshake.values(headers, b"sec-websocket-extensions"))
    agreed = _first_acceptable(offers) if 0 < len(offers) <= MAX_OFFERS else None
    return None if agreed is None else (agreed[0], _codec(agreed[1], _min_size()))


@lru_cache(maxsize=32)  # browsers send few different ones
def _first_acceptable(offers: bytes) -> tuple[bytes, int] | None:
    """Return the response to the first acceptable offer, and the bits of the server's window."""
    try:
        extensions = parse_extension(offers.decode("latin-1"))
    except InvalidHeader:
        return None
    for name, parameters in extensions:
        if name == _factory.name:
            try:
                accepted, extension = _factory.process_request_params(parameters, [])
            except NegotiationError:
                continue
            return build_extension([(name, accepted)]).encode(), extension.local_max_window_bits
    return None


def _min_size() -> int:
    if not settings.configured:
        return DEFAULT_MIN_SIZE
    from echo.conf import conf

    return conf.ECHO_DEFLATE_MIN_SIZE


class Codec:
    """Compresses and inflates whole messages. Has no state of a connection."""

    def __init__(self, window_bits: int, min_size: int) -> None:
        self._window_bits = window_bits  # of compressed messages
        self._min_size = min_size  # bytes of a message; a shorter one is not compressed
        # The last message and its compressed form: the next receiver of a group gets the same.
        self._last: tuple[bytes, bytes] = (b"", b"")

    def frame(self, opcode: int, payload: bytes) -> bytes:
        """Return the frame of a message: compressed unless it is short or would be larger."""
        if len(payload) < self._min_size:
            return framing.frame(opcode, payload)
        message, compressed = self._last  # one read: other threads may have event loops as well
        if message != payload:
            compressed = self._compress(payload)
            if len(payload) <= MAX_KEPT:
                self._last = bytes(payload), compressed  # a bytearray may change
        if len(compressed) >= len(payload):
            return framing.frame(opcode, payload)
        return framing.frame(opcode | RSV1, compressed)

    def _compress(self, payload: bytes) -> bytes:
        extension = PerMessageDeflate(True, True, MAX_WINDOW_BITS, self._window_bits, SETTINGS)
        return bytes(extension.encode(Frame(Opcode.BINARY, payload)).data)

    def inflate(self, payload: bytes, max_size: int) -> bytes | Failure:
        """Return the message, or the failure if it is invalid or has more than `max_size` bytes."""
        extension = PerMessageDeflate(True, True, MAX_WINDOW_BITS, MAX_WINDOW_BITS)
        compressed = Frame(Opcode.BINARY, payload, rsv1=True)
        try:
            # One byte more: zlib needs room in its output to reach the end of the input.
            message = bytes(extension.decode(compressed, max_size=max_size + 1).data)
        except PayloadTooBig:
            message = None
        except ProtocolError:
            return Failure(framing.PROTOCOL_ERROR, "Received a message that cannot be inflated")
        if message is None or len(message) > max_size:
            return Failure(framing.TOO_LARGE, f"Message is too large: inflated > {max_size}")
        return message


_codec = cache(Codec)
