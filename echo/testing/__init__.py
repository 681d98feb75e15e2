"""Fixtures for the tests of a site: its application on a real socket, and connections to it.

To load them, write `pytest_plugins = ["echo.testing"]` in the topmost conftest.py.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack

import pytest
from django.test.utils import modify_settings

from echo.exceptions import StateUnavailable
from echo.members import Key, check_key
from echo.objects import get_object
from echo.operations.polling import poll
from echo.operations.websocket import ClientWebSocket as ClientWebSocket
from echo.testing.server import HOST, EchoServer

COUNT_TIMEOUT = 5.0  # seconds to wait for the expected count or members

Connect = Callable[..., ClientWebSocket]
AssertCount = Callable[..., None]
AssertMembers = Callable[..., None]


@pytest.fixture(scope="session")
def echo_server() -> Iterator[EchoServer]:
    """Run the site's ASGI_APPLICATION on a free port, with its static files.

    The fixture has `url` and `port`. The server runs in a thread of the test process, so it shares
    the test's settings, patches and counts. If consumers or views use the database, the test needs
    the fixture `transactional_db`.
    """
    server = EchoServer()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def _echo_server_of_one_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Allow the server's Host during the test, and close the test's connections after it."""
    if "echo_server" not in request.fixturenames:
        yield
        return
    server: EchoServer = request.getfixturevalue("echo_server")
    if "transactional_db" in request.fixturenames:
        # Request the fixture here, so that it flushes the database after this one has closed the
        # connections: until then, consumers may write.
        request.getfixturevalue("transactional_db")
    with modify_settings(ALLOWED_HOSTS={"append": HOST}):
        yield
        server.close_connections()


@pytest.fixture
def connect(echo_server: EchoServer) -> Iterator[Connect]:
    """Return a function that opens a WebSocket: `connect("/ws/lobby/")`.

    Its options are `headers`, a dict, and `subprotocols`, a list. The WebSockets are closed after
    the test.
    """
    with ExitStack() as opened:

        def connect(
            path: str,
            headers: Mapping[str, str] | None = None,
            subprotocols: Sequence[str] = (),
        ) -> ClientWebSocket:
            url = f"ws://{HOST}:{echo_server.port}{path}"
            return opened.enter_context(ClientWebSocket(url, headers, subprotocols))

        yield connect


@pytest.fixture
def assert_count() -> AssertCount:
    """Return a function that waits for a count: `assert_count("lobby", 2)`."""

    def assert_count(name: str, expected: int, deadline: float = COUNT_TIMEOUT) -> None:
        __tracebackhide__ = True
        _wait_for(f"count of the object {name!r}", get_object(name).count, expected, deadline)

    return assert_count


@pytest.fixture
def assert_members() -> AssertMembers:
    """Return a function that waits for members: `assert_members("lobby", [ada.pk, bob.pk])`.

    The keys are those of all members, in any order.
    """

    def assert_members(name: str, keys: Iterable[Key], deadline: float = COUNT_TIMEOUT) -> None:
        __tracebackhide__ = True

        def read() -> list[str]:
            return sorted(str(member.key) for member in get_object(name).members())

        expected = sorted(map(check_key, keys))
        _wait_for(f"list of members of the object {name!r}", read, expected, deadline)

    return assert_members


def _wait_for(subject: str, read: Callable[[], object], expected: object, deadline: float) -> None:
    __tracebackhide__ = True
    found: object
    try:
        found = poll(read, expected.__eq__, deadline, interval=0.01)
    except StateUnavailable:
        found = "unknown"
    if found != expected:
        pytest.fail(f"The {subject} should be {expected}; after {deadline:g} s it is {found}.")
