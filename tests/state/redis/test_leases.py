"""Leases: a process ends, is killed, stands still."""

import asyncio
import os
import subprocess
import sys
import time

import pytest

from echo.exceptions import StateUnavailable
from echo.state.redis import scripts
from tests.states import HEARTBEAT, LEASE, SLACK, known, redis_state, share, stands_still, told
from tests.waiting import eventually


async def test_orderly_end_takes_the_share_away_at_once(redis_url, client):
    with redis_state(redis_url) as there:
        with redis_state(redis_url) as here:
            await here.join("foo")
            assert there.counts() == {"foo": 1}

        assert there.counts() == {}
        assert client.exists(share(here)) == 0
        assert client.zrange(scripts.PROCESSES, 0, -1) == [b"", there._id.encode()]


async def test_calls_after_the_end_change_nothing(redis_url, client):
    with redis_state(redis_url) as there, redis_state(redis_url) as here:
        here.close()
        here.close()
        await here.join("foo")

        assert there.counts() == {}
        assert client.exists(share(here)) == 0


def test_process_that_is_killed_is_out_after_its_lease(redis_url):
    with redis_state(redis_url) as there:
        child = other_process(redis_url, "asyncio.run(state.join('foo')); print('joined')")
        try:
            assert child.stdout.readline() == b"joined\n"
            assert there.counts() == {"foo": 1}
        finally:
            child.kill()
            child.wait()
            child.stdout.close()

        eventually(lambda: told(there), {}, deadline=LEASE + SLACK)


def other_process(url, what):
    """Run Python with a `state` of its own, which stays until it is killed."""
    lines = [
        "import asyncio, time",
        "from echo.state.redis.state import RedisState",
        f"state = RedisState({url!r}, {LEASE}, {HEARTBEAT})",
        what,
        "time.sleep(600)",
    ]
    command = [sys.executable, "-uc", "\n".join(lines)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ)


async def test_process_that_stood_still_is_out_and_comes_back_with_what_is_true(redis_url):
    """It tells nothing until its event loop could hear who has left meanwhile."""
    with redis_state(redis_url) as there, redis_state(redis_url) as here:
        await here.join("foo")
        await here.join("foo")
        run, here._writer._redis.run = here._writer._redis.run, stands_still
        eventually(lambda: told(there), {}, deadline=LEASE + SLACK)

        with pytest.raises(StateUnavailable):
            here.counts()
        here.leave("foo")  # what the event loop hears first
        here._writer._redis.run = run

        eventually(lambda: told(there), {"foo": 1})
        assert known(here) == {"foo": 1}


async def test_id_of_a_dead_process_is_taken_away_when_it_is_over(redis_url, client):
    with redis_state(redis_url) as state:
        client.zadd(scripts.PROCESSES, {"dead": time.time_ns() // 1000 - 1})

        eventually(lambda: set(client.zrange(scripts.PROCESSES, 0, -1)), {b"", state._id.encode()})
        assert state.counts() == {}


async def test_heartbeats_keep_a_quiet_process_in(two, client):
    here, there = two
    await here.join("foo")
    end = time.monotonic() + 1.5 * LEASE
    while time.monotonic() < end:
        assert there.counts() == {"foo": 1}
        await asyncio.sleep(0.02)
