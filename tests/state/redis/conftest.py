import pytest
import redis

from tests.faults.redis_server import OwnRedis
from tests.states import redis_state
from tests.waiting import SECOND


@pytest.fixture
def two(redis_url):
    with redis_state(redis_url) as here, redis_state(redis_url) as there:
        yield here, there


@pytest.fixture
def steady(redis_url):
    """Two states for which a machine that stands still for 2 seconds is no loss."""
    lease, heartbeat = 20 * SECOND, 2 * SECOND
    with (
        redis_state(redis_url, lease, heartbeat) as here,
        redis_state(redis_url, lease, heartbeat) as there,
    ):
        yield here, there


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def own_redis():
    with OwnRedis() as server:
        yield server
