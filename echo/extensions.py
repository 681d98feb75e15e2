"""The ASGI extensions of this project's servers, and its key in the scope.

A server offers an extension as a callable in `scope["extensions"]`. All of them must be called on
the event loop of the connection.
"""

from collections.abc import Callable

# `scope["extensions"][ON_END](callback)`: the server calls `callback(code)` as soon as it knows
# that the connection has ended, even if the application is busy.
ON_END = "echo.on_end"
# `scope["extensions"][REPLY](reply, reply_to_binary)`: the server answers messages where it parses
# them, without a `websocket.receive` event.
REPLY = "echo.reply"
# `scope["extensions"][SEND_NOW](text)`: sends the text and returns True, or returns False if the
# client reads so slowly that it would have to wait.
SEND_NOW = "echo.send_now"
SendNow = Callable[[str], bool]

# The key in the scope of a counted application: the name of its object.
NAME = "echo.name"
