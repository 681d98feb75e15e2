"""Handshakes that no browser sends."""

from tests.raw import UPGRADE

UPGRADE_LINES = b"".join(f"{name}: {value}\r\n".encode() for name, value in UPGRADE.items())
HOST = b"Host: 127.0.0.1\r\n"


def handshake_with(lines: bytes, path: bytes = b"/foo/websocket") -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\n" + HOST + UPGRADE_LINES + lines + b"\r\n"


HOSTILE = {
    "an escaped comma": handshake_with(b"Sec-WebSocket-Protocol: a%2Cb\r\n"),
    "bytes in a subprotocol": handshake_with(b"Sec-WebSocket-Protocol: \xff\xfe,,\x80\r\n"),
    "bytes in an origin": handshake_with(b"Origin: http://\xff\xfe\r\n"),
    "an origin of nothing": handshake_with(b"Origin: ://[\r\n"),
    "bytes in a host": b"GET /foo/websocket HTTP/1.1\r\nHost: \xff[\r\n" + UPGRADE_LINES + b"\r\n",
    "no host": b"GET /foo/websocket HTTP/1.1\r\n" + UPGRADE_LINES + b"\r\n",
    "many headers": handshake_with(b"X-A: b\r\n" * 5000),
    "a huge header": handshake_with(b"X-A: " + b"b" * 1_000_000 + b"\r\n"),
    "a huge path": handshake_with(b"", b"/" + b"a" * 100_000 + b"/websocket"),
    "a huge name": handshake_with(b"", b"/" + b"a" * 5000 + b"/websocket"),
    "a null in a header": handshake_with(b"X-A: a\x00b\r\n"),
    "a null in a path": handshake_with(b"", b"/%00/websocket"),
    "bytes in a path": handshake_with(b"", b"/\x80\xff/websocket"),
    "no UTF-8 in a path": handshake_with(b"", b"/%ff%fe/websocket"),
    "half an escape in a path": handshake_with(b"", b"/%e/%/websocket"),
    "line breaks in a path": handshake_with(b"", b"/%0d%0aX:%20y/websocket"),
    "a whole URL": handshake_with(b"", b"http://127.0.0.1/foo/websocket"),
    "only a host": handshake_with(b"", b"http://127.0.0.1"),
    "an asterisk": handshake_with(b"", b"*"),
    "bytes in a query": handshake_with(b"", b"/foo/websocket?\x80\xff"),
    "bytes in a version": b"GET /foo/websocket HTTP/1.\xff\r\n" + HOST + UPGRADE_LINES + b"\r\n",
    "an old version": b"GET /foo/websocket HTTP/1.0\r\n" + HOST + UPGRADE_LINES + b"\r\n",
    "a bare line feed": handshake_with(b"X-A: a\nX-B: c\r\n"),
    "a bare carriage return": handshake_with(b"X-A: a\rX-B: c\r\n"),
    "a folded header": handshake_with(b"X-A: a\r\n b\r\n"),
    "a header without a name": handshake_with(b": a\r\n"),
    "a header without a colon": handshake_with(b"nothing\r\n"),
    "bytes in a header's name": handshake_with(b"X-\xff: a\r\n"),
    "an underscore in a name": handshake_with(b"Sec_WebSocket_Key: a\r\n"),
    "a body": handshake_with(b"Content-Length: 3\r\n") + b"abc",
    "a body in chunks": handshake_with(b"Transfer-Encoding: chunked\r\n")
    + b"3\r\nabc\r\n0\r\n\r\n",
    "a chunk without an end": handshake_with(b"Transfer-Encoding: chunked\r\n")
    + b"ffffffffffff\r\n",
    "two lengths": handshake_with(b"Content-Length: 3\r\nContent-Length: 4\r\n") + b"abcd",
    "a negative length": handshake_with(b"Content-Length: -1\r\n"),
    "two keys": handshake_with(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
    "two upgrades": handshake_with(b"Upgrade: websocket\r\n"),
    "another upgrade": handshake_with(b"").replace(b": websocket", b": h2c"),
    "an expectation": handshake_with(b"Expect: 100-continue\r\n"),
    "extensions": handshake_with(b'Sec-WebSocket-Extensions: a; b="\xff,;=\r\n'),
    "only half": handshake_with(b"")[:-2],
    "noise": bytes(range(256)) * 40 + b"\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two requests": handshake_with(b"") + handshake_with(b""),
}
