"""The site of `transport`, on a server that waits for a body for one second only."""

from echo.server.daphne import server as daphne
from tests.sites.transport import application

__all__ = ["application"]

daphne.BODY_PERIOD = 1.0
