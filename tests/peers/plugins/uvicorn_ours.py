"""A pytest plugin, `-p uvicorn_ours`: our class in the place of `WebSocketsSansIOProtocol`.

It knows the installed `echo` and uvicorn only, since it runs among uvicorn's tests.
"""

import asyncio
from math import inf

import pytest
from uvicorn.protocols.websockets import websockets_sansio_impl

from echo.server.connection import State
from echo.server.uvicorn import WebSocketProtocol


class Peer(WebSocketProtocol):
    """Ours, with those attributes of uvicorn's classes that its tests look at."""

    close_timeout = 0.0  # some set it; ours is a constant

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._first_transport = self.transport

    def finished(self) -> None:
        super().finished()
        self.transport = self._first_transport  # ours drops it, uvicorn's keep it

    @property
    def close_timer(self) -> bool | None:
        return True if self.state == State.CLOSE_SENT and self.transport else None

    @property
    def ping_timer(self) -> bool | None:
        return True if self._timeouts._limits.ping_interval < inf else None

    @property
    def ping_sent_at(self) -> float:
        return self._timeouts.pinged_at or 0.0


# Before the tests import it: what names uvicorn's class, as text or by import, gets ours.
websockets_sansio_impl.WebSocketsSansIOProtocol = Peer


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    others = [item for item in items if "wsproto" in item.name]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]
