"""The site's own application on a real socket, in a thread of the test process."""

import asyncio
from collections.abc import Coroutine
from threading import Event, Thread
from typing import Any

from asgiref.sync import sync_to_async
from channels.routing import get_default_application
from daphne.server import twisted_loop
from django.apps import apps
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.db import connections as databases
from django.db.backends.base.base import BaseDatabaseWrapper

from echo.server.daphne.server import Server
from echo.server.registry import get_open_connections

HOST = "127.0.0.1"
TIMEOUT = 10.0  # seconds to start, and for each thing that it is told to do


class EchoServer:
    """A server of ASGI_APPLICATION, from now until `stop`, with this project's transport.

    There is one in a process, and none after it: Twisted's reactor starts only once.
    """

    def __init__(self) -> None:
        ready = Event()
        self._server = Server(
            application,
            [f"tcp:port=0:interface={HOST}"],  # a port that is free
            signal_handlers=False,
            verbosity=0,
            ready_callable=ready.set,
        )
        self._thread = Thread(target=self._run, name="echo-server", daemon=True)
        self._thread.start()
        if not ready.wait(TIMEOUT):
            raise RuntimeError(f"The server did not start within {TIMEOUT:g} s.")
        self.port: int = self._server.listening_addresses[0][1]

    @property
    def url(self) -> str:
        """`http://127.0.0.1:54321`, without a slash at its end."""
        return f"http://{HOST}:{self.port}"

    def end_connections(self) -> None:
        """Close what WebSockets are left with 1012; return when their applications have ended."""
        self._call(_end_connections())

    def stop(self) -> None:
        """End the server in good order, and wait for it."""
        twisted_loop.call_soon_threadsafe(self._server.stop)
        self._thread.join(TIMEOUT)

    def _run(self) -> None:
        try:
            self._server.run()
        finally:
            twisted_loop.close()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, twisted_loop).result(TIMEOUT)


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Run the site's application as the settings have it now, with its static files."""
    site = get_default_application()
    if scope["type"] == "http" and apps.is_installed("django.contrib.staticfiles"):
        site = ASGIStaticFilesHandler(site)
    await site(scope, receive, send)


async def _end_connections() -> None:
    await get_open_connections().stop()
    await sync_to_async(_close_databases)()


def _close_databases() -> None:
    """Close those of this thread: they would keep a test database from being dropped.

    SQLite's own `close` leaves one in memory open, which the next test may have no right to use.
    """
    for database in databases.all(initialized_only=True):
        BaseDatabaseWrapper.close(database)
