"""The large share of a process that has died or exited."""

import asyncio
import time

import pytest

from echo.state.redis import scripts
from tests.faults.redis_server import OwnRedis
from tests.states import LEASE, SLACK, counts_or_unknown, known, linked_state, redis_state, share
from tests.waiting import DEADLINE, SECOND, eventually

SLICE = 100  # names
NAMES = [f"name-{number}" for number in range(3000)]
MANY = [f"name-{number}" for number in range(100_000)]
SLOW = 0.05 * SECOND  # seconds of a step; usually about 0.005


@pytest.fixture
def small_slices(monkeypatch):
    monkeypatch.setattr(scripts, "SLICE", SLICE)


async def join_all(state, names):
    await asyncio.gather(*map(state.join, names))
    await state.settled()


def sizes_of(client, keys):
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.hlen(key)
        return pipe.execute()


def sizes_and_counts(client, reader, dead):
    """Read until the share is deleted; return its sizes and the sums that were read."""
    results = []
    keys = client.keys(f"{share(dead)}*")  # of its buckets
    end = time.monotonic() + DEADLINE
    while (size := sum(sizes_of(client, keys))) > 0:
        assert time.monotonic() < end, f"still {size} names"
        counts = counts_or_unknown(reader)
        results.append((size, counts if counts == "unknown" else sum(counts.values())))
    return results


@pytest.mark.usefixtures("small_slices")
async def test_dead_process_is_left_out_of_reads_at_once_and_swept_in_slices(redis_url, client):
    with redis_state(redis_url) as here, linked_state(redis_url) as (dead, link):
        await join_all(dead, NAMES)
        assert here.counts() == dict.fromkeys(NAMES, 1)
        link.refuse()

        results = sizes_and_counts(client, here, dead)

        whole = results[0][0]
        being_swept = [(size, total) for size, total in results if size < whole]
        assert {total for _, total in results} <= {len(NAMES), 0}
        assert {total for _, total in being_swept} == {0}
        assert len({size for size, _ in being_swept}) > len(NAMES) / SLICE / 3
        eventually(lambda: client.hgetall(scripts.TOTALS).keys(), {b"/epoch"})
        assert client.zrange(scripts.PROCESSES, 0, -1) == [here.id.encode()]


@pytest.mark.usefixtures("small_slices")
async def test_process_that_exits_is_left_out_of_reads_at_once(redis_url, client):
    with redis_state(redis_url) as here:
        with redis_state(redis_url) as leaving:
            await join_all(leaving, NAMES)
            assert here.counts() == dict.fromkeys(NAMES, 1)

        assert here.counts() == {}
        assert client.exists(share(leaving)) == 1
        eventually(lambda: client.exists(share(leaving)), 0)
        assert client.hgetall(scripts.TOTALS).keys() == {b"/epoch"}


@pytest.mark.usefixtures("small_slices")
async def test_writes_go_on_while_a_share_is_swept(redis_url, client):
    with redis_state(redis_url) as here, redis_state(redis_url) as there:
        with redis_state(redis_url) as leaving:
            await join_all(leaving, NAMES)
        number = 0
        while client.exists(share(leaving)):
            number += 1
            await asyncio.gather(*(state.join(NAMES[number]) for state in (here, there)))
            assert here.count(NAMES[number]) == 2

        assert number > 0
        assert there.counts() == dict.fromkeys(NAMES[1 : number + 1], 2)


@pytest.mark.slow
@pytest.mark.long
async def test_no_step_holds_redis_for_long_with_100_000_names_in_a_dead_share():
    options = ("--slowlog-log-slower-than", str(int(SLOW * 1_000_000)))
    with OwnRedis(*options) as server, server.client() as client:
        # The lease is long enough for the writes of a busy machine.
        with redis_state(server.url, 5 * LEASE) as here, linked_state(server.url) as (dead, link):
            await join_all(dead, MANY)
            eventually(lambda: counts_or_unknown(here) == dict.fromkeys(MANY, 1), True)
            link.refuse()
            eventually(lambda: counts_or_unknown(here), {}, deadline=DEADLINE + LEASE + SLACK)
            eventually(lambda: client.exists(share(dead)), 0, deadline=6 * DEADLINE)
            assert known(here) == {}

        # Some steps may be slow on a machine that is busy; one for all names takes a second.
        slow = [each["duration"] / 1_000_000 for each in client.slowlog_get(100)]
        assert len(slow) < 10
        assert max(slow, default=0) < 0.5 * SECOND
