"""What servers and applications share: ASGI extensions, scope keys, limits, and how servers end.

A server offers an extension as a callable in `scope["extensions"]`. The callables must be called on
the connection's event loop.
"""

import inspect
import signal
import threading
from collections.abc import Callable
from typing import Any

# `scope["extensions"][ON_END](callback)`: the server calls `callback(code)` as soon as the
# connection has ended, even if the application is busy. If the connection has ended already, the
# server calls it at once.
ON_END = "echo.on_end"
# `scope["extensions"][REPLY](reply, reply_to_binary)`: while parsing, the server calls one of these
# functions with each message instead of delivering a `websocket.receive` event. It sends the text
# that the function returns, if any.
REPLY = "echo.reply"
# `scope["extensions"][AUTO_REPLY](reply)`: while parsing, even if the application is busy, the
# server calls `reply(text)` with each text. If that returns a text, the server sends it instead of
# delivering an event. If the client reads slowly, the server may deliver the event nevertheless.
AUTO_REPLY = "echo.auto_reply"
# `scope["extensions"][SEND_NOW](text)`: sends the text and returns True; returns False if the
# connection is not open, or the client reads so slowly that the text would have to wait.
SEND_NOW = "echo.send_now"
SendNow = Callable[[str], bool]

# The scope's key for the name of the object of a counted application.
NAME = "echo.name"
# The scope's key for the connection of a counted application in the group of its object.
CONNECTION = "echo.connection"

# The codes that a Close frame may carry (RFC 6455 §7.4 and the IANA registry).
CLOSE_CODES = {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}
MAX_REASON_BYTES = 123  # of a Close frame (RFC 6455 §5.5)

# Set while the server of this process drains: it rejects handshakes, and closes its connections one
# after the other. The health view then returns 503.
draining = threading.Event()


def uvicorn_server() -> Any:
    """Return uvicorn's server, or None if it does not handle the signals of this process."""
    # A method of the server. While the server drains, echo.server.registry wraps it.
    handler = inspect.unwrap(signal.getsignal(signal.SIGTERM))  # type: ignore[arg-type]
    return getattr(handler, "__self__", None)
