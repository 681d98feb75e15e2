"""Redis loses keys."""

import asyncio
import time

import pytest

from echo.exceptions import StateUnavailable
from echo.state.redis import scripts
from echo.state.redis.write_scripts import WRITE
from tests.faults.link import REPLIES, REQUESTS
from tests.states import (
    HEARTBEAT,
    LEASE,
    SLACK,
    WARM_UP,
    argument,
    counts_or_unknown,
    known,
    linked_state,
    redis_state,
    share,
)
from tests.waiting import eventually


async def test_lost_share_is_written_again(two, client):
    here, there = two
    await here.join("foo")

    client.delete(share(here))

    assert counts_or_unknown(there) == "unknown" or there.counts() == {"foo": 1}
    assert known(there) == {"foo": 1}
    eventually(
        lambda: client.hgetall(share(here)).keys(), {b"/epoch", b"/sequence", b"/names", b"foo"}
    )


async def test_missing_share_of_a_live_process_is_not_0(redis_url, client):
    with redis_state(redis_url) as here, redis_state(redis_url) as other:
        await other.join("foo")
        client.delete(share(other))

        end = time.monotonic() + 2 * WARM_UP
        results = set()
        while time.monotonic() < end:
            results.add(str(counts_or_unknown(here)))

        assert results <= {"unknown", "{'foo': 1}"}
        eventually(lambda: counts_or_unknown(here), {"foo": 1})


async def test_lost_process_is_awaited_until_its_lease_is_over(redis_url, client):
    """Another process remembers that it was alive before Redis lost its data."""
    with redis_state(redis_url) as here, linked_state(redis_url) as (lost, link):
        await lost.join("foo")
        eventually(here.health.is_new, False)  # knows of the other by then
        link.refuse()
        client.flushall()
        flushed = time.monotonic()
        results = set()
        while time.monotonic() < flushed + LEASE - SLACK:
            results.add(str(counts_or_unknown(here)))

        assert results == {"unknown"}
        eventually(lambda: counts_or_unknown(here), {}, deadline=4 * SLACK)
        link.accept()
        eventually(lambda: counts_or_unknown(here), {"foo": 1})


async def test_older_share_is_written_again(two, client):
    """As after a restart from an old snapshot, or a failover that lost the last writes."""
    here, there = two
    await here.join("foo")
    old = client.hgetall(share(here))
    await here.join("foo")
    await here.join("bar")

    client.delete(share(here))
    client.hset(share(here), mapping=old)

    eventually(lambda: counts_or_unknown(there), {"foo": 2, "bar": 1})
    eventually(lambda: client.hget(share(here), "bar"), b"1")


async def test_process_that_the_registry_lost_is_written_again(two, client):
    here, there = two
    await here.join("foo")

    client.zrem(scripts.PROCESSES, here.id)

    eventually(lambda: counts_or_unknown(there), {"foo": 1})


@pytest.mark.parametrize("key", [scripts.PROCESSES, scripts.META])
async def test_lost_registry_is_not_0(two, client, key):
    """A Redis with `maxmemory-policy allkeys-lru` may drop any key."""
    here, there = two
    await here.join("foo")

    client.delete(key)
    results = [counts_or_unknown(there) for _ in range(200)]

    assert [result for result in results if result not in ("unknown", {"foo": 1})] == []
    assert known(there) == {"foo": 1}


async def test_leases_that_expire_all_at_once_are_not_0(two, client):
    """As when the clock of Redis jumps, or Redis hangs for longer than the lease."""
    here, there = two
    await here.join("foo")
    for _ in range(5):
        client.zadd(scripts.PROCESSES, {here.id: 1, there.id: 1})
        end = time.monotonic() + 2 * WARM_UP
        results = set()
        while time.monotonic() < end:
            results.update((str(counts_or_unknown(here)), str(counts_or_unknown(there))))

        assert results - {"unknown", "{'foo': 1}"} == set()
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


async def test_flush_is_not_0(two, client):
    here, there = two
    await here.join("foo")
    for _ in range(5):
        client.flushall()
        flushed = time.monotonic()
        results = set()
        while time.monotonic() < flushed + 2 * WARM_UP:
            results.add(str(counts_or_unknown(there)))
            results.add(str(counts_or_unknown(here)))

        assert results - {"unknown", "{'foo': 1}"} == set()
        assert known(there) == known(here) == {"foo": 1}


async def test_keys_are_not_read_during_the_warm_up(redis_url, client):
    """Some process may not have written yet."""
    with redis_state(redis_url, heartbeat=LEASE / 3) as state:
        eventually(state.health.is_new, False)
        client.flushall()
        with pytest.raises(StateUnavailable, match="has lost all counts; the processes will write"):
            state.count("foo")
        eventually(lambda: client.exists(scripts.META), 1)
        with pytest.raises(StateUnavailable, match="The counts on Redis are new, or all leases"):
            state.counts()

        assert known(state) == {}


async def test_flushed_scripts_are_loaded_again(two, client):
    here, there = two
    await here.join("foo")

    client.script_flush()

    assert there.counts() == {"foo": 1}
    await here.join("foo")
    assert there.counts() == {"foo": 2}


@pytest.mark.parametrize("is_applied", [False, True])
async def test_whole_share_begins_anew_if_a_part_of_it_is_lost(
    redis_url, client, monkeypatch, is_applied
):
    monkeypatch.setattr("echo.state.redis.share.BATCH_SIZE", 2)
    names = ["a", "b", "c", "d", "e"]
    parts = []  # that others follow

    def is_second_part(request):
        """The client sends it again at once, if it has no reply."""
        if argument(request, WRITE, "more") == b"1":
            parts.append(request)
            return len(parts) in (2, 3)
        return False

    with redis_state(redis_url) as there, linked_state(redis_url) as (here, link):
        await asyncio.gather(*map(here.join, names))
        link.hold(REPLIES if is_applied else REQUESTS, is_second_part)
        client.flushall()

        eventually(lambda: len(parts) > 3, True)
        assert known(there) == known(here) == dict.fromkeys(names, 1)
        link.release()
        assert known(there) == known(here) == dict.fromkeys(names, 1)
