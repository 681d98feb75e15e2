"""The site of `transport`, on a server that waits for a body for one second only."""

from echo.server.daphne import http
from tests.sites.transport import application

__all__ = ["application"]

http.BODY_CHECK_INTERVAL = 1.0
