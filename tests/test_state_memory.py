"""What every state object holds to; the fixture `state` tells which."""

import asyncio
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from echo.state import get_state
from echo.state.memory import MemoryState


def test_object_without_connections_has_the_count_0(state):
    assert state.count("foo") == 0


async def test_join_counts_a_connection_and_leave_uncounts_it(state):
    await state.join("foo")
    await state.join("foo")
    assert state.count("foo") == 2

    state.leave("foo")
    assert state.count("foo") == 1

    state.leave("foo")
    assert state.count("foo") == 0


async def test_counts_are_of_each_object_alone(state):
    for name in ("foo", "foo", "bar", "été"):
        await state.join(name)

    assert state.counts() == {"foo": 2, "bar": 1, "été": 1}


async def test_counts_have_no_object_without_connections(state):
    await state.join("foo")
    await state.join("bar")

    state.leave("foo")

    assert state.counts() == {"bar": 1}


async def test_counts_are_a_copy(state):
    await state.join("foo")

    state.counts()["foo"] = 7

    assert state.counts() == {"foo": 1}


async def test_reading_changes_nothing(state):
    state.count("foo")
    await state.acount("foo")

    assert state.counts() == {}


async def test_async_twins_tell_the_same(state):
    await state.join("foo")

    assert (await state.acount("foo"), await state.acounts()) == (1, {"foo": 1})


async def test_leave_without_a_join_never_makes_a_count_negative(state):
    with pytest.raises(KeyError):
        state.leave("foo")

    assert (state.count("foo"), state.counts()) == (0, {})


async def test_leave_never_waits(state):
    """It may be called without an event loop: while one is closing, or from a destructor."""
    await state.join("foo")

    await asyncio.to_thread(state.leave, "foo")

    assert state.count("foo") == 0


async def test_names_that_were_used_once_leave_no_memory(state):
    for number in range(100_000):
        await state.join(f"name-{number}")
        state.leave(f"name-{number}")

    assert state.counts() == {}
    assert [
        kept for kept in vars(state).values() if isinstance(kept, (dict, set, list)) and kept
    ] == []


async def test_joins_and_leaves_of_many_threads_are_all_counted(state):
    names = ["foo", "bar", "baz"]

    def come_and_go(seed):
        chance = random.Random(seed)
        here = Counter()
        for _ in range(3000):
            name = chance.choice(names)
            if here[name] and chance.random() < 0.5:
                state.leave(name)
                here[name] -= 1
            else:
                asyncio.run_coroutine_threadsafe(state.join(name), loop).result()
                here[name] += 1
            assert state.count(name) >= here[name]
            assert all(count > 0 for count in state.counts().values())
        return here

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(8) as threads:
        tasks = [loop.run_in_executor(threads, come_and_go, seed) for seed in range(8)]
        here = sum(await asyncio.gather(*tasks), Counter())

    assert state.counts() == dict(+here)


def test_joins_of_many_event_loops_are_all_counted(state):
    async def join():
        for _ in range(1000):
            await state.join("foo")

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(asyncio.run, join()) for _ in range(8)]:
            done.result()

    assert state.counts() == {"foo": 8000}


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc"))))
def test_counts_are_those_who_joined_and_have_not_left(steps):
    async def run():
        state, here = MemoryState(), Counter()
        for joins, name in steps:
            if joins:
                await state.join(name)
                here[name] += 1
            elif here[name]:
                state.leave(name)
                here[name] -= 1
            assert state.counts() == dict(+here)
            assert state.count(name) == here[name]

    asyncio.run(run())


def test_state_of_this_process_is_one_for_all_threads():
    with ThreadPoolExecutor(8) as threads:
        states = set(threads.map(lambda _: get_state(), range(100)))

    assert states == {get_state()}


def test_memory_state_sees_the_connections_of_its_process_only():
    assert MemoryState.shared is False
