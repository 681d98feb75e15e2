"""The site's own application on a real socket, in a thread of the test process."""

import asyncio
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
TIMEOUT = 10.0  # seconds to start, to close the connections and to stop


class EchoServer:
    """A server of ASGI_APPLICATION, until `stop`, with this app's transport.

    There can be only one per process, because Twisted's reactor cannot be restarted.
    """

    def __init__(self) -> None:
        ready = Event()
        self._server = Server(
            application,
            [f"tcp:port=0:interface={HOST}"],  # 0: a free port
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
        """`http://127.0.0.1:54321`, without a trailing slash."""
        return f"http://{HOST}:{self.port}"

    def close_connections(self) -> None:
        """Close all WebSockets with 1012, and return when their applications have finished."""
        closing = asyncio.run_coroutine_threadsafe(_close_connections(), twisted_loop)
        closing.result(TIMEOUT)

    def stop(self) -> None:
        """Stop the server, and wait for its thread."""
        twisted_loop.call_soon_threadsafe(self._server.stop)
        self._thread.join(TIMEOUT)

    def _run(self) -> None:
        try:
            self._server.run()
        finally:
            twisted_loop.close()


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Run the application of the current settings, with its static files."""
    site = get_default_application()
    if scope["type"] == "http" and apps.is_installed("django.contrib.staticfiles"):
        site = ASGIStaticFilesHandler(site)
    await site(scope, receive, send)


async def _close_connections() -> None:
    await get_open_connections().stop()
    await sync_to_async(_close_databases)()


def _close_databases() -> None:
    """Close the database connections of this thread: a test database in use cannot be dropped.

    Calls the base class's `close`. That of the SQLite backend ignores in-memory databases, which
    tests without the mark `django_db` may not use.
    """
    for database in databases.all(initialized_only=True):
        BaseDatabaseWrapper.close(database)
