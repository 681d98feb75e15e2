"""Leases: a process exits, is killed, hangs."""

import asyncio
import os
import subprocess
import sys
import time

import pytest

from echo.exceptions import StateUnavailable
from echo.state.redis import scripts
from tests.states import (
    HEARTBEAT,
    LEASE,
    SLACK,
    counts_or_unknown,
    known,
    linked_state,
    redis_state,
    share,
)
from tests.waiting import eventually


async def test_close_deletes_the_share_at_once(redis_url, client):
    with redis_state(redis_url) as there:
        with redis_state(redis_url) as here:
            await here.join("foo")
            assert there.counts() == {"foo": 1}

        assert there.counts() == {}
        assert client.exists(share(here)) == 0
        assert client.zrange(scripts.PROCESSES, 0, -1) == [there.id.encode()]


async def test_calls_after_close_change_nothing(redis_url, client):
    with redis_state(redis_url) as there, redis_state(redis_url) as here:
        here.close()
        here.close()
        await here.join("foo")

        assert there.counts() == {}
        assert client.exists(share(here)) == 0


def test_killed_process_is_left_out_after_its_lease(redis_url):
    with redis_state(redis_url) as there:
        child = other_process(redis_url, "asyncio.run(state.join('foo')); print('joined')")
        try:
            assert child.stdout.readline() == b"joined\n"
            assert there.counts() == {"foo": 1}
        finally:
            child.kill()
            child.wait()
            child.stdout.close()

        eventually(lambda: counts_or_unknown(there), {}, deadline=LEASE + SLACK)


def other_process(url, what):
    """Run Python with a `state`, until it is killed."""
    lines = [
        "import asyncio, time",
        "from echo.state.redis.state import RedisState",
        f"state = RedisState({url!r}, {LEASE}, {HEARTBEAT})",
        what,
        "time.sleep(600)",
    ]
    command = [sys.executable, "-uc", "\n".join(lines)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ)


async def test_process_cut_off_from_redis_is_left_out_and_returns_with_true_counts(redis_url):
    """It writes nothing before its event loop could process the disconnects meanwhile."""
    with redis_state(redis_url) as there, linked_state(redis_url) as (here, link):
        await here.join("foo")
        await here.join("foo")
        link.refuse()
        eventually(lambda: counts_or_unknown(there), {}, deadline=LEASE + SLACK)

        with pytest.raises(StateUnavailable):
            here.counts()
        here.leave("foo")  # a disconnect meanwhile
        link.accept()

        eventually(lambda: counts_or_unknown(there), {"foo": 1})
        assert known(here) == {"foo": 1}


async def test_id_of_a_dead_process_is_deleted(redis_url, client):
    with redis_state(redis_url) as state:
        client.zadd(scripts.PROCESSES, {"dead": time.time_ns() // 1000 - 1})

        eventually(lambda: set(client.zrange(scripts.PROCESSES, 0, -1)), {state.id.encode()})
        assert state.counts() == {}


async def test_heartbeats_renew_the_lease_of_an_idle_process(two, client):
    here, there = two
    await here.join("foo")
    end = time.monotonic() + 1.5 * LEASE
    while time.monotonic() < end:
        assert there.counts() == {"foo": 1}
        await asyncio.sleep(0.02)
