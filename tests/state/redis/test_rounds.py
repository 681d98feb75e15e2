"""Joins and leaves that share writes, waits and reservations."""

import asyncio
import gc
import weakref
from threading import Event

import pytest

from echo.state.redis.reservations import RESERVE
from echo.state.redis.waiter import JOIN_TIMEOUT
from echo.state.redis.write_queue import WriteQueue
from tests.states import SLACK, known, redis_state, seconds
from tests.waiting import DEADLINE, eventually


@pytest.fixture
def steps(steady, monkeypatch):
    """The scripts that the first of the two states has run, with their further arguments."""
    here, _ = steady
    steps, run = [], here._publisher.steps.run

    def record(script, *rest, **named):
        steps.append((script, rest))
        return run(script, *rest, **named)

    monkeypatch.setattr(here._publisher.steps, "run", record)
    return steps


async def test_connections_share_writes(steady, steps):
    here, there = steady

    async def come_and_go(number):
        for _ in range(20):
            await here.join(f"foo-{number % 7}")
            here.leave(f"foo-{number % 7}")
            await here.settled()

    await asyncio.gather(*map(come_and_go, range(50)))

    assert there.counts() == {}
    assert len(steps) < 200  # for 2,000 joins and leaves


async def test_connections_do_not_wait_for_others_when_the_event_loop_is_idle(steady, monkeypatch):
    monkeypatch.setattr("echo.state.redis.write_queue.MAX_PAUSE", DEADLINE)
    here, there = steady

    for number in range(20):
        await asyncio.gather(here.join("foo"), here.join("bar"))
        assert there.counts() == {"foo": number + 1, "bar": number + 1}


async def test_changes_that_nobody_waits_for_share_writes(steady, steps, monkeypatch):
    monkeypatch.setattr("echo.state.redis.write_queue.MAX_PAUSE", DEADLINE)
    here, there = steady
    await asyncio.gather(*[here.join(f"foo-{number}") for number in range(50)])
    del steps[:]

    for number in range(50):
        here.leave(f"foo-{number}")
        await asyncio.sleep(0.001)
    written = len(steps)
    await here.settled()

    assert written <= 2
    assert there.counts() == {}


async def test_joins_with_limits_of_their_own_share_reservations(steady, steps):
    here, there = steady
    objects = [(("room", 90), (f"user-{number}", 1)) for number in range(100)]

    full = await asyncio.gather(*map(here.join_all, objects))

    assert [full.count(None), full.count("room")] == [90, 10]
    assert there.counts() == {"room": 90, **{f"user-{number}": 1 for number in range(90)}}
    assert [script for script, _ in steps].count(RESERVE) <= 3


async def test_settled_waits_for_the_write_under_way_and_no_other(steady, steps, monkeypatch):
    here, there = steady
    await here.join("foo")
    eventually(here._publisher.queue.has_unwritten, False)
    is_writing, go, run = Event(), Event(), here._publisher.steps.run

    def hold(script, *rest, **named):
        is_writing.set()
        go.wait(DEADLINE)
        return run(script, *rest, **named)

    monkeypatch.setattr(here._publisher.steps, "run", hold)
    del steps[:]
    here.leave("foo")
    assert is_writing.wait(DEADLINE)
    settling = asyncio.ensure_future(here.settled())
    await asyncio.sleep(0)

    go.set()
    await settling

    assert there.count("foo") == 0
    assert [rest for _, rest in steps] == [("foo", 0)]


async def test_each_join_waits_as_long_as_a_hanging_redis_may_reply(own_redis):
    with redis_state(own_redis.url) as state:
        own_redis.hang()
        try:
            joins = [asyncio.ensure_future(seconds(state.join("foo")))]
            await asyncio.sleep(JOIN_TIMEOUT / 2)
            joins.append(asyncio.ensure_future(seconds(state.join("foo"))))

            for waited in await asyncio.gather(*joins):
                assert JOIN_TIMEOUT * 0.9 < waited < JOIN_TIMEOUT + SLACK / 5
        finally:
            own_redis.resume()
        assert known(state) == {"foo": 2}


def test_state_keeps_no_event_loop(redis_url):
    with redis_state(redis_url) as state:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(state.join("foo"))
        loop.close()
        kept = weakref.ref(loop)
        del loop

        def is_kept():
            gc.collect()
            return kept() is not None

        eventually(is_kept, False)
        state.leave("foo")


async def test_read_waits_for_a_change_that_was_made_during_a_round_of_other_names():
    queue = WriteQueue()
    queue.add("foo")
    queue.begin_round(timeout=0)
    queue.add("bar")

    reading = asyncio.create_task(
        asyncio.to_thread(queue.wait_until_written, "bar", is_first=False, timeout=DEADLINE)
    )
    await asyncio.sleep(0.05)
    queue.end_round(is_written=True)
    await asyncio.sleep(0.05)
    assert not reading.done()

    assert queue.begin_round(timeout=0).names == {"bar"}
    queue.end_round(is_written=True)
    assert await reading
