"""Where a case of the original's is answered otherwise, and why."""

import re
from typing import Any

USAGE = {"status_line": "HTTP/1.1 200 OK", "body_len": 269}
EXPECTED_UPGRADE = {"status_line": "HTTP/1.1 426 Upgrade Required", "body_len": 42}
COUNT_OF_0 = {"status_line": "HTTP/1.1 200 OK", "body_len": 72}
SWITCHED = {"status_line": "HTTP/1.1 101 Switching Protocols", "headers": []}
WELL_FORMED: dict[str, Any] = {}  # any answer of HTTP's, without a traceback


def closed(code: int | None, reason: str | None = None) -> dict[str, Any]:
    """Return an observation: a Close with the code (and, where given, the reason), then FIN."""
    frame = {"op": "close", "code": code}
    if reason is not None:
        frame["reason"] = reason
    return {"frames": [frame], "tcp": "server sent FIN"}


BY_PATH = "objects are told by the path; the query is the site's own"
STRICT = "RFC 6455 §5"
UTF8 = "RFC 6455 §8.1"
CODES = "RFC 6455 §7.4"
NOT_OURS = "what Daphne and Django do"
COMPRESSED = closed(1002, "Received frame had its compression bit (RSV1) set without compression")
LATER = "Received control frame over 125 bytes"

# Ours on purpose: id -> why, and what is observed instead.
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "http.ws.upgrade.query": (BY_PATH, SWITCHED),
    "http.ws.upgrade.query-ends-with": (BY_PATH, USAGE),
    "http.ws.upgrade.badkey.short": (
        "RFC 6455 §4.2.1",
        {"status_line": "HTTP/1.1 400 Bad Request"},
    ),
    "http.ws.upgrade.badkey.notbase64": (
        "RFC 6455 §4.2.1",
        {"status_line": "HTTP/1.1 400 Bad Request"},
    ),
    "http.ws.upgrade.http10": ("the answer is HTTP/1.1, as RFC 6455 §4.2.2 has it", SWITCHED),
    "http.path.GET /a/b/getCurrentConnections": (BY_PATH, USAGE),
    "http.path.GET /websocket?x=1": (BY_PATH, EXPECTED_UPGRADE),
    "http.path.GET /websocket?": (BY_PATH, EXPECTED_UPGRADE),
    "http.path.GET /getCurrentConnections?x=1": (BY_PATH, COUNT_OF_0),
    "http.path.GET //websocket": (BY_PATH, USAGE),
    "http.path.GET //getCurrentConnections": (BY_PATH, USAGE),
    "http.path.GET /foo%2Fwebsocket": (
        "Django decodes a path before it is matched",
        EXPECTED_UPGRADE,
    ),
    "http.path.GET /?/websocket": (BY_PATH, USAGE),
    "http.path.GET /foo/../websocket": (BY_PATH, USAGE),
    "http.path.GET /a/%2e%2e/websocket": (BY_PATH, USAGE),
    "http.path.GET /a?b=/../websocket": (BY_PATH, USAGE),
    "http.path.GET /getCurrentConnections#frag": (BY_PATH, USAGE),
    "http.path.GET /#/getCurrentConnections": (BY_PATH, COUNT_OF_0),
    "http.path.OPTIONS *": (NOT_OURS, WELL_FORMED),
    "http.path.relative": (NOT_OURS, WELL_FORMED),
    "http.path.GET /café/getCurrentConnections": (
        NOT_OURS,
        {"status_line": "HTTP/1.1 400 Bad Request"},
    ),
    "http.method.unknown.FOO": (NOT_OURS, WELL_FORMED),
    "http.method.unknown.get": (NOT_OURS, WELL_FORMED),
    "http.count.http10.keepalive": (
        "Twisted closes each connection of HTTP/1.0",
        {"status_line": "HTTP/1.0 200 OK", "body_len": 72, "tcp_after": "server sent FIN"},
    ),
    "http.count.accept-json": (
        "JSON for who asks for it",
        {"status_line": "HTTP/1.1 200 OK", "body": '{"name": "foo", "connections": 0}'},
    ),
    "handshake.nested-path": (BY_PATH, USAGE),
    "handshake.origin.other": (
        "other origins are refused",
        {"status_line": "HTTP/1.1 403 Forbidden"},
    ),
    "handshake.origin.null": (
        "other origins are refused",
        {"status_line": "HTTP/1.1 403 Forbidden"},
    ),
    "msg.ping.three": (
        "nothing is lost",
        {"frames": [{"op": "pong", "payload": p} for p in "123"], "tcp": "still open"},
    ),
    "msg.bad.utf8.ff": (UTF8, closed(1007)),
    "msg.bad.utf8.mid": (UTF8, closed(1007)),
    "msg.bad.utf8.truncated": (UTF8, closed(1007)),
    "msg.bad.utf8.toolarge": (UTF8, closed(1007)),
    "msg.bad.rsv-ping": (STRICT, COMPRESSED),
    "msg.bad.unmasked": (STRICT, closed(1002, "Received unmasked frame")),
    "msg.bad.unmasked-close": (STRICT, closed(1002, "Received unmasked frame")),
    "msg.bad.unmasked-ping": (STRICT, closed(1002, "Received unmasked frame")),
    "msg.bad.pong126": (STRICT, closed(1002, LATER)),
    "msg.bad.close126": (STRICT, closed(1002, LATER)),
    "msg.bad.nonminimal16": (STRICT, closed(1002)),
    "msg.bad.nonminimal64": (STRICT, closed(1002)),
    "msg.bad.http-on-ws": (STRICT, COMPRESSED),
    "msg.bad.text-then-bad": (
        "what came before the error is answered",
        {
            "frames": [
                {"op": "text", "payload": "[Durable Object]: ok"},
                {"op": "close", "code": 1002, "reason": "Unknown opcode 3"},
            ],
            "tcp": "server sent FIN",
        },
    ),
    "msg.fragmented.33MiB": (
        "an orderly end, not a reset",
        closed(1009, "Message is too large: 1048576 > 0"),
    ),
    "handshake.deflate.use": (
        "the reason in our words",
        {
            "frames": [
                {"op": "text", "payload": "[Durable Object]: plain"},
                *COMPRESSED["frames"],
            ],
            "tcp": "server sent FIN",
        },
    ),
    "handshake.deflate.bomb": ("the reason in our words", COMPRESSED),
    "handshake.deflate.broken": ("the reason in our words", COMPRESSED),
    "close.nocode": ("a clean end for the browser", closed(None)),
    "close.1000.reason-badutf8": (UTF8, closed(1007)),
    **{
        f"close.{code}": (CODES, closed(1002))
        for code in ("1004", "1015", "1016", "2000", "2999", "999", "1", "0", "1byte")
    },
}

# What stock Daphne cannot do: patterns of ids, and why. The wider ones come last.
STOCK = [
    (
        r"http\.ws\.noupgrade\.|http\.ws\.upgrade\.(h2c|h2c\.only|token-version|empty)$"
        r"|http\.path\.GET (/websocket\??|/websocket\?x=1|/foo%2Fwebsocket)$|http\.keepalive\.426",
        "its 426 is an 'Unknown Status'",
    ),
    (
        r"http\.ws\.upgrade\.(upper|query-ends-with|root|unknown.*|count\.nokey)$"
        r"|handshake\.(nested-path|origin\..*)$|many\.paths",
        "a handshake that is not accepted gets a bare 403, or an error of its own",
    ),
    (
        r"http\.ws\.upgrade\.(HEAD|POST.*|PUT|DELETE|bare.*|emptykey|badkey.*|.*version.*)$",
        "it refuses broken handshakes in words of its own",
    ),
    (r"http\.ws\.upgrade\.(no-connection|connection-keepalive)$", "it needs Connection: Upgrade"),
    (r"http\.path\.absolute-form", "it takes an absolute URI for a path"),
    (r"handshake\.early-frame$", "it drops what comes with the handshake"),
    (r"msg\.(text\.32MiB(-1)?|fragmented\.32MiB)$", "its limit also breaks the longer echo"),
    (r"end\.fin\.after-text$", "it does not answer a client that has half closed"),
    (
        r"msg\.bad\.|msg\..*33MiB|msg\.header-only|handshake\.deflate\.(use|bomb|broken)",
        "it ends a connection that breaks the protocol without a Close frame of that reason",
    ),
    (
        r"http\.ws\.upgrade\.(?!query$|http10$)|close\.|end\.fin\.after-close|many\.1000|msg\.frag\.close-between",
        "it answers each Close with 1000 and no reason",
    ),
]


def stock_reason(case: str) -> str | None:
    """Return why stock Daphne fails the case; None if it does not."""
    for pattern, reason in STOCK:
        if re.match(pattern, case):
            return reason
    return None
