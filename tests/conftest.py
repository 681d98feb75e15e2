import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from echo.state.memory import MemoryState
from tests.raw import Client
from tests.redis_server import RedisServer
from tests.servers import Server
from tests.tls import make_certificate
from tests.wire.tally import Tally

# A shell starts what runs in its background with SIGINT ignored, which servers would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # not in a worker of pytest-xdist, which tells nobody
        config.pluginmanager.register(Tally("wire/test_wire.py::test_case"))


# Files for the suites of other packages, which tests/strangers runs with settings of their own.
collect_ignore = ["strangers/support"]

pytest_plugins = ["echo.testing", "tests.browser", "tests.limits"]


@pytest.fixture(autouse=True)
def closed_clients() -> Iterator[None]:
    """Close the clients that a test leaves open, as one that fails does.

    The traceback of a failure keeps their sockets until a later test runs, which then fails by a
    ResourceWarning of which it knows nothing.
    """
    before = set(Client.all)
    yield
    for client in Client.all - before:
        client.socket.close()
    Client.all.intersection_update(before)


@pytest.fixture
def state() -> MemoryState:
    return MemoryState()


@pytest.fixture(scope="session")
def site() -> Iterator[Server]:
    """The demo on stock Daphne, one for all tests that leave it as they found it."""
    with Server("stock-daphne") as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One Redis for all tests that leave it running; `redis_url` has it empty."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    redis_server.flush()
    return redis_server.url


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of localhost, and its key."""
    return make_certificate(tmp_path)
