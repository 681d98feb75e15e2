"""The opening handshake (RFC 6455 §4.2) and the HTTP responses that reject it, sans-I/O."""

import re
from binascii import Error, a2b_base64, b2a_base64
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha1
from http import HTTPStatus
from ipaddress import ip_address
from typing import NamedTuple

Headers = list[tuple[bytes, bytes]]

MAX_PLAIN_SIZE = 16_384  # bytes of a plain handshake, as in Twisted's HTTPChannel

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
_TOKEN = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")  # RFC 9110 §5.6.2
_NOT_IN_A_VALUE = re.compile(rb"[\r\n\0]")
# A handshake in a stricter syntax than RFC 9112, §3 and §5. Names have no underscore: Daphne leaves
# such headers out of scopes.
_PLAIN = re.compile(
    rb"GET (/[!-~]*) HTTP/1\.1\r\n((?:[-!#$%&'*+.^`|~0-9A-Za-z]+:[\t -~]*\r\n){1,100})\r\n"
)
_UPGRADE = re.compile(rb"\r\nUpgrade:[\t ]*websocket[\t ]*\r\n", re.IGNORECASE)
# These announce a body, ask for a 100 response, or are left out of Daphne's scopes.
_UNUSUAL = {b"content-length", b"transfer-encoding", b"expect", b"daphne-root-path"}
_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}


class Rejection(NamedTuple):
    """The HTTP response to a handshake that cannot be accepted."""

    status: int
    text: str
    headers: Headers


class PlainHandshake(NamedTuple):
    """A handshake whose request has nothing unusual."""

    uri: bytes
    headers: Headers
    size: int  # bytes


def parse(data: bytes) -> PlainHandshake | None:
    """Return the handshake at the start of the data, or None if an HTTP server must parse it."""
    found = _PLAIN.match(data)
    if found is None or found.end() > MAX_PLAIN_SIZE or _UPGRADE.search(found[0]) is None:
        return None
    fields = [line.partition(b":") for line in found[2].split(b"\r\n")[:-1]]
    headers = [(name.lower(), value.strip(b" \t")) for name, _, value in fields]
    names = dict(headers)
    if len(names) < len(headers) or not _UNUSUAL.isdisjoint(names):
        return None
    return PlainHandshake(found[1], headers, found.end())


def is_upgrade(headers: Headers) -> bool:
    """Return whether the request has exactly one `Upgrade` header, with the value `websocket`.

    As in the original program, lists and versions (`websocket, h2c`, `websocket/13`) do not match.
    """
    return [value.strip().lower() for value in values(headers, b"upgrade")] == [b"websocket"]


def asks_for_upgrade(headers: Headers) -> bool:
    """Return whether `Connection` has the token `upgrade` (RFC 6455 §4.2.1, RFC 9110 §7.6.1)."""
    connection = dict(headers).get(b"connection", b"")
    return b"upgrade" in [token.strip() for token in connection.lower().split(b",")]


def values(headers: Headers, name: bytes) -> list[bytes]:
    """Return the values of all headers with that name, which must be in lower case."""
    return [value for key, value in headers if key == name]


def validate(method: str, headers: Headers) -> Rejection | None:
    """Return the rejection if the handshake is invalid, else None.

    If the original program has a text for the error, the rejection has the same text.
    """
    if method != "GET":
        return _error(400, "WebSocket must be initiated with a GET request.")
    fields = _joined(headers)
    if fields.get(b"sec-websocket-version", b"").strip() != b"13":
        version = [
            (b"sec-websocket-version", b"13"),
            (b"upgrade", b"websocket"),  # RFC 9110 §15.5.22
            (b"connection", b"upgrade"),
        ]
        return _error(426, "The requested WebSocket version is not supported.", version)
    key = fields.get(b"sec-websocket-key", b"").strip()
    if not key:
        return _error(400, "Missing Sec-WebSocket-Key")
    if not _is_key(key):
        return _error(400, "Sec-WebSocket-Key must be 16 bytes in base64")
    if len(fields) < len(headers):
        for name in (b"host", b"origin"):
            if len(values(headers, name)) > 1:
                return _error(400, f"More than one {name.decode().title()} header")
    return None


def _joined(headers: Headers) -> dict[bytes, bytes]:
    """Return the value of each header, in which those of a repeated header are joined by commas."""
    fields = dict(headers)
    if len(fields) < len(headers):
        fields = {name: b",".join(values(headers, name)) for name in fields}
    return fields


def _error(status: int, text: str, headers: Headers | None = None) -> Rejection:
    return Rejection(status, f"ERROR: {text}", headers or [])


def _is_key(key: bytes) -> bool:
    try:
        return len(a2b_base64(key, strict_mode=True)) == 16
    except Error:
        return False


def subprotocols(headers: Headers) -> list[str]:
    """Return the subprotocols that the client offers, in its order of preference."""
    offers = b",".join(values(headers, b"sec-websocket-protocol"))
    if not offers:
        return []
    return [offer.strip().decode("latin-1") for offer in offers.split(b",") if offer.strip()]


def is_address(value: bytes) -> bool:
    """Return whether the value is a client address as proxies send it, with or without port.

    An IPv6 address with a port is in brackets (RFC 7239 §6). Proxies that listen on a Unix socket
    have no address: nginx sends `unix:`, others `unknown`.
    """
    if value in (b"unix:", b"unknown"):
        return True
    text = value.decode("latin-1")
    if with_port := re.fullmatch(r"\[(.*)\](?::[0-9]+)?|([0-9.]+):[0-9]+", text):
        text = with_port[1] or with_port[2] or ""
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text  # an IPv6 zone, which may be any text


def with_defaults(headers: Iterable[tuple[bytes, bytes]], defaults: Headers) -> Headers:
    """Return the application's headers, and the default headers that it has not set."""
    explicit = list(headers)
    if not explicit:
        return defaults
    names = {bytes(name).lower() for name, _ in explicit}
    return [*((name, value) for name, value in defaults if name.lower() not in names), *explicit]


def acceptance(request_headers: Headers, subprotocol: str | None, headers: Headers) -> bytes:
    """Return the 101 response. Raises ValueError if a header is not valid HTTP."""
    key = dict(request_headers)[b"sec-websocket-key"].strip()
    accept = b2a_base64(sha1(key + _GUID).digest(), newline=False)
    if subprotocol is not None:
        headers = [(b"sec-websocket-protocol", subprotocol.encode()), *headers]
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n" + _lines(headers) + b"\r\n"
    )


def response_head(status: int, headers: Headers) -> bytes:
    """Return the status line and headers of a response after which the connection closes.

    Raises ValueError if a header is not valid HTTP.
    """
    status_line = b"HTTP/1.1 %d %s\r\n" % (status, phrase(status))
    kept = [h for h in headers if h[0].lower() != b"connection" or h[1].lower() == b"upgrade"]
    return status_line + b"Connection: close\r\n" + _lines(kept) + b"\r\n"


def with_length(head: bytes, size: int) -> bytes:
    """Return the head of a response with the length of its body, unless the body has none."""
    has_length = b"\r\nContent-Length: " in head or b"\r\nTransfer-Encoding: " in head
    if has_length or head.startswith((b"HTTP/1.1 204 ", b"HTTP/1.1 304 ")):  # RFC 9110 §8.6
        return head
    return head.removesuffix(b"\r\n") + b"Content-Length: %d\r\n\r\n" % size


def phrase(status: int) -> bytes:
    """Return the reason phrase of a status: `b"Upgrade Required"`."""
    return _PHRASES.get(status, b"Unknown Status")


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    lines = []
    for name, value in headers:
        spelled = _spelled(name)
        if spelled is None or _NOT_IN_A_VALUE.search(value):
            raise ValueError(f"{name!r}: {value!r} is not a valid HTTP header.")
        lines.append(b"%s: %s\r\n" % (spelled, value))
    return b"".join(lines)


@lru_cache(maxsize=64)
def _spelled(name: bytes) -> bytes | None:
    """Return the name in its usual case, for clients that compare it case-sensitively.

    Return None if it is not a valid name.
    """
    if not _TOKEN.fullmatch(name):
        return None
    return name.title().replace(b"Websocket", b"WebSocket")
