"""The ASGI extensions of this package's servers, and its key in the scope.

A server offers an extension as a callable in `scope["extensions"]`. The callables must be called on
the connection's event loop.
"""

from collections.abc import Callable

# `scope["extensions"][ON_END](callback)`: the server calls `callback(code)` as soon as the
# connection has ended, even if the application is busy. If it has ended already, at once.
ON_END = "echo.on_end"
# `scope["extensions"][REPLY](reply, reply_to_binary)`: the server calls these functions for each
# message where it parses it, instead of delivering a `websocket.receive` event, and sends the text
# that they return, if any.
REPLY = "echo.reply"
# `scope["extensions"][SEND_NOW](text)`: sends the text and returns True; returns False if the
# connection is not open, or the client reads so slowly that the text would have to wait.
SEND_NOW = "echo.send_now"
SendNow = Callable[[str], bool]

# The scope's key for the name of the object of a counted application.
NAME = "echo.name"
