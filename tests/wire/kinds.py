"""The servers that the transcript is replayed on, and what is known not to hold on each."""

from fnmatch import fnmatchcase
from typing import NamedTuple

import pytest

from tests.waiting import SECOND
from tests.wire.data import Case

LIMIT = str(32 * 1024 * 1024)  # bytes of a message, as in the original
OF_DAPHNE = ("--websocket-max-message-size", LIMIT, "--websocket-max-frame-size", LIMIT)
# The original compresses nothing.
OF_UVICORN = ("--ws-max-size", LIMIT, "--ws-per-message-deflate", "false")

FAILURES = (AssertionError, ConnectionError, TimeoutError)  # anything else is a mistake of ours
Failures = dict[str, tuple[str, ...]]  # reason -> patterns of ids


class Kind(NamedTuple):
    """How a server is started, and what is expected to fail on it."""

    options: tuple[str, ...]
    slack: float  # seconds from the end of a connection until it is out of the count
    failures: Failures


# The first reason that has a pattern for an id is the one.
ON_STOCK_DAPHNE: Failures = {
    "its reason phrase for 426 is 'Unknown Status'": (
        "http.ws.noupgrade.[GHPO]*",
        "http.ws.upgrade.h2c*",
        "http.ws.upgrade.token-version",
        "http.ws.upgrade.empty",
        "http.path.GET /websocket[?]*",
        "http.path.GET /foo%2Fwebsocket",
        "http.keepalive.426-then-upgrade",
    ),
    "autobahn refuses handshakes with other statuses, its text in the reason phrase": (
        "http.ws.upgrade.HEAD",
        "http.ws.upgrade.P*",
        "http.ws.upgrade.DELETE",
        "http.ws.upgrade.bare*",
        "http.ws.upgrade.*key*",
        "http.ws.upgrade.*version*",
        "handshake.deflate.bad-param",
        "handshake.deflate.two-offers",
    ),
    "autobahn asks for 'Connection: Upgrade'": (
        "http.ws.upgrade.no-connection",
        "http.ws.upgrade.connection-keepalive",
    ),
    "it cannot answer a handshake but by 101 or its own 403": (
        "http.ws.upgrade.upper",
        "http.ws.upgrade.query-ends-with",
        "http.ws.upgrade.root",
        "http.ws.upgrade.unknown",
        "handshake.nested-path",
        "handshake.origin.*",
        "many.paths-share-one-object",
    ),
    "it takes an absolute URI for a path": ("http.path.absolute-form*",),
    "Twisted ends each connection of HTTP/1.0": ("http.count.http10.keepalive",),
    "it loses frames that come with the handshake": ("handshake.early-frame",),
    "it loses texts that a Close or FIN follows at once": (
        "close.text-then-close",
        "close.100texts-then-close",
        "end.fin.after-text",
    ),
    "its limit is for what it sends, too: no echo within 17 bytes of it": ("msg.*.32MiB*",),
    "it resets the connection where a Close should tell 1002, 1007 or 1009": (
        "msg.bad.*",
        "msg.*.33MiB",
        "msg.header-only.*",
        "handshake.deflate.*",
        "close.1000.reason-badutf8",
        "close.1byte",
        *(f"close.{code}" for code in (0, 1, 999, 1004, 1015, 1016, 2000, 2999)),
    ),
    "autobahn takes 1014 for a code that may not be sent": ("close.1014",),
    "it answers each Close with 1000 and no reason": (
        "http.ws.upgrade.*",
        "count.text.[123]",
        "handshake.*",
        "msg.*",
        "close.*",
        "end.fin.after-close",
        "many.*",
    ),
}
ON_DAPHNE: Failures = {
    "Twisted ends each connection of HTTP/1.0": ("http.count.http10.keepalive",),
}
ON_UVICORN_WITH_OUR_HTTP: Failures = {
    "uvicorn asks for 'Connection: Upgrade'": (
        "http.ws.upgrade.bare",
        "http.ws.upgrade.no-connection",
        "http.ws.upgrade.connection-keepalive",
    ),
    "uvicorn answers HTTP/1.0 with HTTP/1.1": ("http.count.http10*",),
    "after the answer to a handshake it ends the connection": (
        "http.ws.upgrade.upper",
        "http.ws.upgrade.query-ends-with",
        "http.ws.upgrade.root",
        "http.ws.upgrade.unknown*",
        "http.ws.upgrade.count.nokey",
        "handshake.nested-path",
    ),
}
ON_UVICORN: Failures = {
    **ON_UVICORN_WITH_OUR_HTTP,
    "uvicorn loses frames that come with the handshake": ("handshake.early-frame",),
}

SERVERS = {
    "stock-daphne": Kind(OF_DAPHNE, SECOND, ON_STOCK_DAPHNE),
    "daphne": Kind(OF_DAPHNE, 0, ON_DAPHNE),
    "daphne-twisted": Kind(OF_DAPHNE, 0, ON_DAPHNE),
    "daphne-tls": Kind(OF_DAPHNE, 0, ON_DAPHNE),
    "uvicorn": Kind(OF_UVICORN, 0, ON_UVICORN),
    "uvicorn-http": Kind(OF_UVICORN, 0, ON_UVICORN_WITH_OUR_HTTP),
}


def marks(kind: str, case: Case) -> list[pytest.MarkDecorator]:
    """Return the marks of a case. If one that is known to fail holds, the table is wrong.

    After the handshake, both paths of a server are the same, and so are all cases with TLS: these
    are left out of CI.
    """
    is_after = kind in ("daphne-twisted", "uvicorn-http") and case["id"].startswith("msg.")
    left_out = [pytest.mark.long] if is_after or kind == "daphne-tls" else []
    for reason, patterns in SERVERS[kind].failures.items():
        if any(fnmatchcase(case["id"], pattern) for pattern in patterns):
            known = pytest.mark.xfail(strict=True, raises=FAILURES, reason=reason)
            return [known, *left_out]
    return left_out
