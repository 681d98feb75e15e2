"""The site of `transport`, with BODY_CHECK_INTERVAL of one second."""

from echo.server.daphne import http
from tests.sites.transport import application

__all__ = ["application"]

http.BODY_CHECK_INTERVAL = 1.0
