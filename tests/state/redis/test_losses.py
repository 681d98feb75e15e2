"""Redis loses keys, in every way that it may."""

import asyncio
import time

import pytest

from echo.exceptions import StateUnavailable
from echo.state.redis import scripts
from tests.states import (
    HEARTBEAT,
    LEASE,
    SLACK,
    YOUTH,
    known,
    redis_state,
    share,
    stands_still,
    told,
)
from tests.waiting import eventually


async def test_share_that_is_lost_is_written_anew(two, client):
    here, there = two
    await here.join("foo")

    client.delete(share(here))

    assert told(there) == "unknown" or there.counts() == {"foo": 1}
    assert known(there) == {"foo": 1}
    assert client.hgetall(share(here)).keys() == {b"", b"foo"}


async def test_missing_share_of_a_live_process_is_no_0(redis_url, client):
    with redis_state(redis_url) as here, redis_state(redis_url) as dead:
        await dead.join("foo")
        dead._writer._redis.run = stands_still
        client.delete(share(dead))

        for read in (lambda: here.count("foo"), here.counts):
            with pytest.raises(StateUnavailable, match="has lost the counts of a process"):
                read()
        del dead._writer._redis.run
        eventually(lambda: told(here), {"foo": 1})


async def test_share_of_an_older_time_is_written_anew(two, client):
    """As after a restart from an old snapshot, or a failover that lost the last writes."""
    here, there = two
    await here.join("foo")
    old = client.hgetall(share(here))
    await here.join("foo")
    await here.join("bar")

    client.delete(share(here))
    client.hset(share(here), mapping=old)
    client.pexpire(share(here), 60_000)

    eventually(there.counts, {"foo": 2, "bar": 1}, deadline=HEARTBEAT + SLACK)
    assert client.pttl(share(here)) <= LEASE * 1000


async def test_process_that_the_registry_lost_is_written_anew(two, client):
    here, there = two
    await here.join("foo")

    client.zrem(scripts.PROCESSES, here._id)

    eventually(there.counts, {"foo": 1}, deadline=HEARTBEAT + SLACK)


@pytest.mark.parametrize("key", [scripts.PROCESSES, scripts.BORN])
async def test_registry_that_is_lost_is_no_answer_of_0(two, client, key):
    """A Redis with `maxmemory-policy allkeys-lru` may drop any key."""
    here, there = two
    await here.join("foo")

    client.delete(key)
    answers = [told(there) for _ in range(200)]

    assert [answer for answer in answers if answer not in ("unknown", {"foo": 1})] == []
    assert known(there) == {"foo": 1}


async def test_leases_that_end_all_at_once_are_no_answer_of_0(two, client):
    """As when the clock of Redis jumps, or Redis stands still for longer than the lease."""
    here, there = two
    await here.join("foo")
    for _ in range(5):
        client.zadd(scripts.PROCESSES, {here._id: 1, there._id: 1})
        end = time.monotonic() + 2 * YOUTH
        answers = set()
        while time.monotonic() < end:
            answers.update((str(told(here)), str(told(there))))

        assert answers - {"unknown", "{'foo': 1}"} == set()
        assert known(there) == known(here) == {"foo": 1}


async def test_lease_is_that_of_the_process_that_holds_it(redis_url):
    """As in a deploy that changes ECHO_LEASE_SECONDS: old and new processes run side by side."""
    with (
        redis_state(redis_url, 100 * LEASE, 10 * HEARTBEAT) as here,
        redis_state(redis_url, LEASE / 10, HEARTBEAT / 2) as there,
    ):
        await asyncio.gather(here.join("foo"), there.join("foo"))
        end = time.monotonic() + LEASE
        while time.monotonic() < end:
            assert here.counts() == there.counts() == {"foo": 2}
            await asyncio.sleep(0.01)


async def test_flush_is_no_answer_of_0(two, client):
    here, there = two
    await here.join("foo")
    for _ in range(5):
        client.flushall()
        flushed = time.monotonic()
        answers = set()
        while time.monotonic() < flushed + 2 * YOUTH:
            answers.add(str(told(there)))
            answers.add(str(told(here)))

        assert answers - {"unknown", "{'foo': 1}"} == set()
        assert known(there) == known(here) == {"foo": 1}


async def test_keys_that_are_young_are_not_read(redis_url, client):
    """Some process may not have written yet."""
    with redis_state(redis_url, heartbeat=LEASE / 3) as state:
        eventually(state._writer.is_new, False)
        client.flushall()
        with pytest.raises(StateUnavailable, match="has lost the counts; the processes write"):
            state.count("foo")
        eventually(lambda: client.exists(scripts.BORN), 1)
        with pytest.raises(StateUnavailable, match="The counts on Redis are new, or all leases"):
            state.counts()

        assert known(state) == {}


async def test_scripts_that_are_flushed_are_loaded_anew(two, client):
    here, there = two
    await here.join("foo")

    client.script_flush()

    assert there.counts() == {"foo": 1}
    await here.join("foo")
    assert there.counts() == {"foo": 2}
