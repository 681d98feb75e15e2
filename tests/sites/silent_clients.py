"""The site of `transport`, on which a connection may be idle for a second only."""

from echo.server.daphne.http import HTTPFactory
from tests.sites.transport import application

__all__ = ["application"]


class OneSecond:
    """Replaces the time limit that Twisted's factory sets."""

    def __get__(self, factory, owner):
        return 1.0

    def __set__(self, factory, value):
        pass


HTTPFactory.timeOut = OneSecond()
