"""The site of `transport`, with small limits on unfinished messages, without garbage collector."""

import gc

from echo.server import connection, framing

connection.MESSAGE_TIMEOUT = 2
framing.BUDGET.limit = 4 << 20
gc.disable()

from tests.sites.transport import application  # noqa: E402, F401
