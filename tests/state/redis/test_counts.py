"""The counts of several processes. Two states stand for two processes."""

import asyncio
import time

import pytest

from echo.state.redis.read_scripts import COUNTS
from tests.faults.link import REPLIES
from tests.states import SLACK, argument, known, linked_state, redis_state
from tests.waiting import DEADLINE, SECOND, eventually


async def test_counts_of_all_processes_are_added_up(two):
    here, there = two
    for state in (here, there, there):
        await state.join("foo")
    await there.join("bar")

    assert here.count("foo") == there.count("foo") == 3
    assert here.counts() == there.counts() == {"foo": 3, "bar": 1}
    assert await here.acounts() == {"foo": 3, "bar": 1}


async def test_other_process_sees_a_join_when_it_returns_and_a_leave_when_settled(two):
    here, there = two
    for _ in range(200):
        await here.join("foo")
        assert there.count("foo") == 1

        here.leave("foo")
        await here.settled()
        assert there.count("foo") == 0


async def test_connection_that_moves_between_processes_is_never_missing(two):
    """It joins the next process before it leaves the last: no sum mixes two moments."""
    here, _ = two
    await here.join("foo")
    end = time.monotonic() + SECOND
    results = set()

    def read():
        while time.monotonic() < end:
            results.update((here.count("foo"), here.counts()["foo"]))

    reader = asyncio.ensure_future(asyncio.to_thread(read))
    while time.monotonic() < end:
        for first, second in (two, two[::-1]):
            await second.join("foo")
            first.leave("foo")
            await first.settled()
    await reader

    assert results == {1, 2}


async def test_read_sees_all_earlier_changes_of_its_process(two):
    here, _ = two
    for number in range(200):
        await here.join(f"foo-{number}")
        here.leave(f"foo-{number}")
        assert (here.count(f"foo-{number}"), here.counts()) == (0, {})


async def test_other_process_sees_a_leave_soon_without_settled(two):
    here, there = two
    await here.join("foo")

    here.leave("foo")

    eventually(there.counts, {}, deadline=SLACK)


async def test_many_names_are_written_in_steps(two, monkeypatch):
    # On a busy machine a step may take longer than a handshake waits for it.
    monkeypatch.setattr("echo.state.redis.waiter.JOIN_TIMEOUT", DEADLINE)
    here, there = two
    names = [f"name-{number}" for number in range(12_345)]

    await asyncio.gather(*map(here.join, names))

    assert known(there) == dict.fromkeys(names, 1)


@pytest.fixture
def in_parts(monkeypatch):
    """Read in parts, as with very many names."""
    monkeypatch.setattr("echo.state.redis.state.MAX_NAMES_AT_ONCE", 3)
    monkeypatch.setattr("echo.state.redis.state.PART_SIZE", 1)


@pytest.mark.usefixtures("in_parts")
async def test_counts_read_in_parts_are_complete(two):
    here, there = two
    names = ["été", "a b", *(f"name-{number}" for number in range(1000))]
    await asyncio.gather(*map(here.join, names), *map(there.join, names[::2]))

    assert there.counts() == dict.fromkeys(names, 1) | dict.fromkeys(names[::2], 2)


@pytest.mark.usefixtures("in_parts")
async def test_process_may_exit_while_parts_are_read(redis_url):
    with (
        redis_state(redis_url) as here,
        linked_state(redis_url) as (there, link),
        redis_state(redis_url) as ending,
    ):
        await asyncio.gather(
            *(state.join(f"n{n}") for state in (here, ending) for n in range(1000))
        )
        parts = []

        def end_before_third_part(request):
            if argument(request, COUNTS, "cursor") is not None:
                parts.append(request)
                if len(parts) == 3:
                    ending.close()
            return False

        link.hold(REPLIES, end_before_third_part)
        counts = there.counts()

        assert len(parts) > 3
        assert set(counts.values()) <= {1, 2}
        assert there.counts() == {f"n{n}": 1 for n in range(1000)}
