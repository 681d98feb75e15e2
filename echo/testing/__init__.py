"""Fixtures for the tests of a site: its application on a real socket, and connections to it.

A site has them by `pytest_plugins = ["echo.testing"]` in its topmost conftest.py.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack

import pytest
from django.test.utils import modify_settings

from echo.exceptions import StateUnavailable
from echo.objects import get_object
from echo.testing.server import HOST, EchoServer
from echo.testing.websocket import Connection

DEADLINE = 5.0  # seconds for a count to become what is expected

Connect = Callable[..., Connection]
AssertCount = Callable[..., None]


@pytest.fixture(scope="session")
def echo_server() -> Iterator[EchoServer]:
    """The site's ASGI_APPLICATION on a free port, with its static files: it has `url` and `port`.

    It runs in a thread of the test process, so that settings, patches and counts are the same.
    A test whose consumers or views use the database asks for `transactional_db` too.
    """
    server = EchoServer()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def _echo_server_of_one_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let the server answer this test, and end what connections the test leaves open."""
    if "echo_server" not in request.fixturenames:
        yield
        return
    server: EchoServer = request.getfixturevalue("echo_server")
    if "transactional_db" in request.fixturenames:
        # Emptied after the connections have ended: an application may write at its end.
        request.getfixturevalue("transactional_db")
    with modify_settings(ALLOWED_HOSTS={"append": HOST}):
        yield
        server.end_connections()


@pytest.fixture
def connect(echo_server: EchoServer) -> Iterator[Connect]:
    """Return a function that opens a WebSocket: `connect("/ws/lobby/")`.

    Its options are `headers`, a dict, and `subprotocols`, a list. All are closed after the test.
    """
    with ExitStack() as opened:

        def connect(
            path: str,
            headers: Mapping[str, str] | None = None,
            subprotocols: Sequence[str] = (),
        ) -> Connection:
            url = f"ws://{HOST}:{echo_server.port}{path}"
            return opened.enter_context(Connection(url, headers, subprotocols))

        yield connect


@pytest.fixture
def assert_count() -> AssertCount:
    """Return a function that waits until an object has so many connections: `("lobby", 2)`."""

    def assert_count(name: str, expected: int, deadline: float = DEADLINE) -> None:
        __tracebackhide__ = True
        end = time.monotonic() + deadline
        while (found := _count(name)) != expected:
            if time.monotonic() > end:
                told = "not known" if found is None else found
                pytest.fail(
                    f"The count of the object {name!r} should be {expected}; "
                    f"after {deadline:g} s it is {told}."
                )
            time.sleep(0.01)

    return assert_count


def _count(name: str) -> int | None:
    try:
        return get_object(name).count()
    except StateUnavailable:
        return None
