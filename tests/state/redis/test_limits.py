"""Limits that several processes share."""

import asyncio
import time
from contextlib import ExitStack

import pytest

from echo.state.base import EXTRA, total_of
from echo.state.redis import reservations, scripts, waiter
from echo.state.redis.client import RedisClient
from echo.state.redis.reservations import RESERVE
from echo.state.redis.state import RedisState
from tests.states import HEARTBEAT, LEASE, known, linked_state, redis_state, share
from tests.waiting import DEADLINE, eventually


async def test_limit_is_exact_for_all_processes_together(redis_url):
    with ExitStack() as stack:
        states = [stack.enter_context(redis_state(redis_url)) for _ in range(4)]
        for number in range(10):
            joins = [state.join(f"foo-{number}", limit=13) for state in states for _ in range(10)]

            granted = await asyncio.gather(*joins)

            assert sum(granted) == 13
            assert [state.count(f"foo-{number}") for state in states] == [13] * 4


async def test_limit_admits_one_connection_for_each_that_leaves(two):
    here, there = two
    assert await here.join("foo", limit=1)
    assert not await there.join("foo", limit=1)

    here.leave("foo")
    await here.settled()

    assert await there.join("foo", limit=1)
    assert not await here.join("foo", limit=1)


async def test_limit_is_of_local_connections_while_redis_is_down(own_redis):
    with redis_state(own_redis.url) as here, redis_state(own_redis.url) as there:
        own_redis.stop()
        eventually(lambda: (here.health.is_outage, there.health.is_outage), (True, True))

        granted = [await state.join("foo", limit=2) for state in (here, there) for _ in range(3)]

        assert granted == [True, True, False] * 2


async def test_limit_is_exact_during_the_warm_up(redis_url):
    with ExitStack() as stack:
        states = [RedisState(redis_url, LEASE, HEARTBEAT) for _ in range(4)]
        for state in states:
            stack.callback(state.close)

        granted = await asyncio.gather(*(state.join("foo", limit=100) for state in states * 100))

        assert sum(granted) == 100
        assert [known(state) for state in states] == [{"foo": 100}] * 4


@pytest.mark.parametrize("occupied", [0, 40])
async def test_limit_is_exact_when_redis_has_lost_all(redis_url, client, occupied):
    with ExitStack() as stack:
        states = [stack.enter_context(redis_state(redis_url)) for _ in range(4)]
        for number in range(occupied):
            await states[number % 4].join("foo", limit=100)
        client.flushall()

        granted = await asyncio.gather(*(state.join("foo", limit=100) for state in states * 100))

        assert sum(granted) == 100 - occupied
        assert [known(state) for state in states] == [{"foo": 100}] * 4


async def test_limit_is_of_local_connections_if_the_sum_stays_unknown(redis_url, client):
    """Redis has lost a process whose lease goes on."""
    with redis_state(redis_url) as here, linked_state(redis_url, 60 * LEASE) as (_lost, link):
        eventually(here.health.is_new, False)
        link.refuse()
        client.flushall()
        began = time.monotonic()

        granted = await asyncio.gather(*(here.join("foo", limit=2) for _ in range(3)))

        assert sorted(granted) == [False, True, True]
        assert LEASE < time.monotonic() - began < LEASE + DEADLINE


async def test_join_that_is_cancelled_during_the_warm_up_is_not_counted(two, client):
    here, there = two
    client.flushall()
    joining = asyncio.ensure_future(here.join("foo", limit=2))
    await asyncio.sleep(0)
    joining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await joining

    assert await there.join("foo", limit=2)

    assert known(here) == known(there) == {"foo": 1}


async def test_reservation_never_creates_a_lost_share(two, client, redis_url):
    """It would not be in the totals."""
    here, there = two
    acknowledged = client.hget(share(here), "/sequence")
    client.delete(share(here))

    result = RedisClient(redis_url).run(
        RESERVE,
        *(1, 1, "foo", 0, 10),
        share=here.id,
        id=there.id,
        extra=EXTRA,
        acknowledged=acknowledged,
        sequence=1_000_000,
    )

    assert (result, client.exists(share(here))) in [(scripts.STALE, 0), (scripts.WARMING_UP, 1)]


async def test_several_limits_are_exact_for_all_processes_together(redis_url, monkeypatch):
    monkeypatch.setattr(waiter, "JOIN_TIMEOUT", DEADLINE)  # the machine may be busy
    objects = [(("room", 25), (f"user-{n % 4}", 9), (f"ip-{n % 2}", 13)) for n in range(40)]
    with ExitStack() as stack:
        states = [stack.enter_context(redis_state(redis_url)) for _ in range(4)]

        full = await asyncio.gather(*(s.join_all(each) for s in states for each in objects))

        assert full.count(None) == 25
        for state in states:
            counts = state.counts()
            assert counts["room"] == 25
            users, addresses = ({n: c for n, c in counts.items() if n[0] == i} for i in "ui")
            assert sum(users.values()) == sum(addresses.values()) == 25
            assert max(users.values()) <= 9
            assert max(addresses.values()) <= 13
            assert total_of(state.snapshot()[1]) == (len(counts), 25)


async def test_several_limits_are_of_local_connections_while_redis_is_down(own_redis):
    with redis_state(own_redis.url) as state:
        own_redis.stop()
        eventually(lambda: state.health.is_outage, True)

        full = [await state.join_all((("foo", 5), ("user-1", 2))) for _ in range(3)]
        own_redis.start()

        assert full == [None, None, "user-1"]
        eventually(lambda: known(state), {"foo": 2, "user-1": 2})
        assert total_of(state.snapshot()[1]) == (2, 2)


async def test_reservation_changes_no_connection_that_is_still_to_be_written(two, client):
    """Otherwise the total would lack some of its objects, or have too many, until the write."""
    here, there = two
    await here.join_all((("foo", None), ("user-1", None)))
    here._local.add((("foo", None), ("user-2", None)))  # not written yet

    result = here._publisher.steps.client.run(
        RESERVE,
        *(4, 2, "foo", 2, 5, "user-3", 0, 7),
        share=here.id,
        id=here.id,
        extra=EXTRA,
        acknowledged=client.hget(share(here), "/sequence"),
        sequence=1_000_000,
    )

    assert divmod(int(result), scripts.MAX_OBJECTS) == (3, 0)
    counts = there.snapshot()[1]
    assert counts == {"foo": 4, "user-1": 1, "user-3": 3, EXTRA: 4}
    assert total_of(counts) == (3, 4)
    here._local.leave_all(("foo", "user-2"))


async def test_lease_is_renewed_while_many_joins_are_decided(two, monkeypatch):
    here, there = two
    monkeypatch.setattr(reservations, "MAX_SECONDS", 0.01)
    objects = [(("foo", 1000), (f"user-{number}", 1)) for number in range(500)]

    full = await asyncio.gather(*(here.join_all(each) for each in objects))

    assert set(full) == {None}
    assert there.count("foo") == 500
