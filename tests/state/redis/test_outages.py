"""Redis is down, hangs, or is restarted."""

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import redis

from echo.exceptions import StateUnavailable
from echo.state.redis.client import TIMEOUT, RedisClient
from echo.state.redis.state import SLOW_READ_THRESHOLD, RedisState
from echo.state.redis.waiter import JOIN_TIMEOUT
from echo.stats import process_stats
from tests.faults.link import REPLIES, Link
from tests.states import (
    DOWN,
    HEARTBEAT,
    LEASE,
    SLACK,
    WARM_UP,
    counts_or_unknown,
    known,
    messages,
    redis_state,
    seconds,
)
from tests.waiting import SECOND, eventually


async def test_outage_is_one_warning_when_it_begins_and_one_when_it_ends(own_redis, caplog):
    caplog.set_level(logging.WARNING)
    with redis_state(own_redis.url) as state:
        await state.join("foo")
        own_redis.stop()
        for _ in range(20):
            await state.join("foo")
        eventually(lambda: state.health.is_outage, True)
        own_redis.start()
        assert known(state) == {"foo": 21}

    begin, end = messages(caplog)
    assert begin.startswith(DOWN)
    assert end == "Redis is back."


async def test_reads_raise_while_redis_is_down(own_redis):
    with redis_state(own_redis.url) as state:
        own_redis.stop()

        for read in (lambda: state.count("foo"), state.counts):
            with pytest.raises(StateUnavailable) as caught:
                read()
            assert isinstance(caught.value.__cause__, redis.RedisError | None)
        for read in (state.acount("foo"), state.acounts()):
            with pytest.raises(StateUnavailable):
                await read


async def test_reads_raise_after_a_restart_until_all_processes_have_written(own_redis):
    with redis_state(own_redis.url) as here, redis_state(own_redis.url) as there:
        await here.join("foo")
        eventually(lambda: here.health.is_new() or there.health.is_new(), False)
        for _ in range(3):
            own_redis.stop()
            own_redis.start()
            end = time.monotonic() + 3 * WARM_UP
            results = set()
            while time.monotonic() < end:
                results.update((str(counts_or_unknown(here)), str(counts_or_unknown(there))))

            assert results == {"unknown", "{'foo': 1}"}


async def test_restart_from_an_old_snapshot_gives_no_old_count(own_redis):
    with redis_state(own_redis.url) as here, redis_state(own_redis.url) as there:
        await here.join("foo")
        await there.join("old")
        own_redis.save()
        there.leave("old")
        await here.join("foo")
        await here.settled()
        own_redis.stop()
        own_redis.start()
        with redis_state(own_redis.url) as late:  # sees the server for the first time
            results = {
                str(counts_or_unknown(state)) for state in (here, there, late) for _ in range(100)
            }

        assert results - {"unknown", "{'foo': 2}"} == set()
        assert known(here) == known(there) == {"foo": 2}


async def test_join_waits_for_a_hanging_redis_only_until_the_outage_is_known(own_redis):
    with redis_state(own_redis.url) as state:
        own_redis.hang()
        try:
            waited = await seconds(state.join("foo"))
            assert JOIN_TIMEOUT * 0.9 < waited < JOIN_TIMEOUT + SLACK / 5
            assert await seconds(state.join("foo", limit=9)) < JOIN_TIMEOUT + SLACK / 5
            eventually(lambda: state.health.is_outage, True)

            known_outage = [await seconds(state.join("foo")) for _ in range(100)]
            known_outage += [await seconds(state.settled()) for _ in range(100)]
            assert max(known_outage) < SLACK / 5
            assert counts_or_unknown(state) == "unknown"
        finally:
            own_redis.resume()
        assert known(state) == {"foo": 102}


async def test_step_that_takes_too_long_is_an_outage_whatever_the_client_tries(redis_server):
    """The step includes a new connection, which takes two round trips to select a database."""
    with Link(redis_server.port) as link, redis_state(f"{link.url[:-1]}1") as here:
        link.delays[REPLIES] = 0.9 * TIMEOUT
        eventually(here.health.is_down, True)
        assert await seconds(here.join("foo")) < SLACK / 5
        began = time.monotonic()
        assert counts_or_unknown(here) == "unknown"
        assert time.monotonic() - began < SLACK / 5

        link.delays[REPLIES] = 0
        eventually(lambda: counts_or_unknown(here), {"foo": 1})


@pytest.mark.parametrize(
    "stall", [0.3, *(pytest.param(each, marks=pytest.mark.long) for each in (0.4, 0.6))]
)
async def test_slow_read_sees_joins_that_did_not_wait(own_redis, stall):
    """Redis hangs, too briefly for an outage, during a write that a join follows."""
    with redis_state(own_redis.url, LEASE, LEASE / 2) as here, redis_state(own_redis.url) as there:
        for number in range(3):
            own_redis.hang()
            try:
                joining = asyncio.ensure_future(here.join("bar"))
                await asyncio.sleep(0)
                eventually(lambda: here.health.step_began is not None, True)
                here.leave("bar")
                await here.join("foo")
                await joining
                read = asyncio.ensure_future(asyncio.to_thread(counts_or_unknown, there))
                await asyncio.sleep(stall - JOIN_TIMEOUT + SLOW_READ_THRESHOLD)
            finally:
                own_redis.resume()

            assert await read in ({"foo": number + 1}, "unknown")
            assert known(there) == known(here) == {"foo": number + 1}


async def test_many_reads_while_redis_hangs_are_no_outage(own_redis):
    with redis_state(own_redis.url) as here, redis_state(own_redis.url) as there:
        await there.join("foo")
        outages = process_stats.outages
        barrier = Barrier(200 + 1)

        def read():
            barrier.wait()
            return here.count("foo")

        with ThreadPoolExecutor(200) as executor:
            results = [executor.submit(read) for _ in range(200)]
            own_redis.hang()
            try:
                barrier.wait()
                joining = asyncio.ensure_future(here.join("bar"))
                await asyncio.sleep(0.3)
            finally:
                own_redis.resume()
            await joining

        assert {result.result() for result in results} == {1}
        assert process_stats.outages == outages


async def test_unexpected_error_is_an_outage_and_ends(two, caplog, monkeypatch):
    here, there = two
    run = RedisClient.run

    def fail(client, *step, **named):
        if named["id"] == here.id:
            raise ZeroDivisionError("not foreseen")
        return run(client, *step, **named)

    with monkeypatch.context() as patches:
        patches.setattr(RedisClient, "run", fail)
        await here.join("foo")
        eventually(lambda: here.health.is_outage, True)

    assert known(here) == known(there) == {"foo": 1}
    assert "ZeroDivisionError: not foreseen" in caplog.text


async def test_leave_never_waits_for_a_hanging_redis(own_redis):
    with redis_state(own_redis.url) as state:
        await state.join("foo")
        own_redis.hang()
        try:
            began = time.monotonic()
            state.leave("foo")
            assert time.monotonic() - began < SLACK / 5
        finally:
            own_redis.resume()
        assert known(state) == {}


def test_close_while_redis_hangs_takes_few_seconds(own_redis):
    state = RedisState(own_redis.url, LEASE, HEARTBEAT)
    known(state)
    own_redis.hang()
    try:
        began = time.monotonic()
        state.close()
        assert time.monotonic() - began < 2.5 * SECOND
    finally:
        own_redis.resume()
