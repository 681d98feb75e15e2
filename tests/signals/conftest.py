from collections.abc import Iterator

import pytest

from tests.faults.link import Link
from tests.redis_server import RedisServer
from tests.signals.senders import Two, two_processes


@pytest.fixture
def link(redis_server: RedisServer) -> Iterator[Link]:
    with Link(redis_server.port) as link:
        yield link


@pytest.fixture
def two(redis_url: str, link: Link) -> Iterator[Two]:
    """Two processes, of which the first, the leader, uses the link to Redis."""
    with two_processes(link.url, redis_url) as two:
        yield two
