from collections.abc import Iterator

import pytest

from echo.state.memory import MemoryState
from tests.servers import Server


@pytest.fixture
def state() -> MemoryState:
    return MemoryState()


@pytest.fixture(scope="session")
def site() -> Iterator[Server]:
    """The demo on stock Daphne, one for all tests that leave it as they found it."""
    with Server("stock-daphne") as server:
        yield server
