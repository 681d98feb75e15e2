"""The personal data in Redis: docs/howto/security.md, "Members"."""

from collections.abc import Iterator

import pytest
import redis

from echo.state.redis import scripts
from tests.states import linked_state, redis_state
from tests.waiting import eventually

KEY, INFO = "key-of-ada", '{"name":"Ada Lovelace"}'
TWO_DAYS = 2 * scripts.MAX_AGE


@pytest.fixture
def client(redis_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def data(client: "redis.Redis") -> dict[str, list[str]]:
    """Return which of key and info each Redis key contains, if any; without the process's id."""
    found = {}
    for key in client.scan_iter():
        text = str(client.hgetall(key) if client.type(key) == "hash" else client.dump(key))
        contained = [each for each in (KEY, INFO) if each in text]
        if contained:
            found[":".join(key.split(":")[:3])] = contained
            assert 0 < client.ttl(key) <= TWO_DAYS
    return found


async def test_share_has_the_key_and_the_hash_of_the_object_also_the_info(
    redis_url: str, client: "redis.Redis"
) -> None:
    with redis_state(redis_url) as state:
        await state.join("lobby", member=(KEY, INFO))
        assert data(client) == {"{echo}:2:share": [KEY], "{echo}:2:members": [KEY, INFO]}

        state.leave("lobby", KEY)
        await state.settled()
        assert data(client) == {}


async def test_other_process_deletes_what_a_dead_one_has_left(
    redis_url: str, client: "redis.Redis"
) -> None:
    with redis_state(redis_url) as other, linked_state(redis_url) as (dead, link):
        await dead.join("lobby", member=(KEY, INFO))
        link.refuse()
        assert data(client) != {}

        eventually(lambda: data(client), {})
        assert other.member_count("lobby") == 0


async def test_feed_publishes_the_info(redis_url: str, client: "redis.Redis") -> None:
    with redis_state(redis_url) as state, client.pubsub() as feed:
        feed.subscribe(scripts.CHANGES)
        assert feed.get_message(timeout=5)["type"] == "subscribe"

        await state.join("lobby", member=(KEY, INFO))

        message = feed.get_message(timeout=5)["data"]
        assert f"lobby/{KEY}" in message and INFO in message
