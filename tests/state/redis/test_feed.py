"""The change feed: each change arrives once, or all counts are read again."""

import asyncio
import time
from collections import Counter
from contextlib import ExitStack

import pytest

from echo.state.redis import scripts
from echo.state.redis.feed import LOST_AFTER
from tests.states import HEARTBEAT, WARM_UP, known, messages, redis_state
from tests.waiting import DEADLINE, SECOND, eventually


@pytest.fixture
def listening(two):
    """The calls of a listener in another process than the one that changes."""
    here, there = two
    calls = []
    there.listen(lambda number, counts, members: calls.append(counts))
    eventually(lambda: calls, [None])
    return here, calls


async def test_change_in_another_process_arrives_soon(listening):
    here, calls = listening
    took = []
    for number in range(50):
        await here.join(f"foo-{number}")
        joined = time.monotonic()
        eventually(lambda: calls[-1], {f"foo-{number}": 1})
        took.append(time.monotonic() - joined)

    assert sorted(took)[25] < 0.05 * SECOND
    assert calls == [None, *({f"foo-{number}": 1} for number in range(50))]


async def test_change_before_the_subscription_is_not_missed(two, caplog):
    here, there = two
    calls = []
    await here.join("foo")
    there.listen(lambda number, counts, members: calls.append(counts))
    await asyncio.sleep(3 * LOST_AFTER)
    await here.join("bar")

    eventually(lambda: calls[-1:], [{"bar": 1}])
    assert calls[:-1] in ([None], [None, None])
    assert messages(caplog) == []


async def test_counts_are_read_once_after_a_gap(listening, client):
    here, calls = listening
    await here.join("foo")
    eventually(lambda: calls[-1], {"foo": 1})
    client.hincrby(scripts.META, "change", 3)  # as if three messages were lost

    await here.join("bar")
    await here.join("baz")

    eventually(lambda: calls[-1], {"baz": 1})
    assert calls == [None, {"foo": 1}, None, {"baz": 1}]


async def test_counts_are_read_after_a_lost_connection(listening, client):
    here, calls = listening
    await here.join("foo")
    eventually(lambda: calls[-1], {"foo": 1})

    client.client_kill_filter(_type="pubsub")
    await here.join("bar")

    # Once when the connection is lost, and once when the feed has subscribed again.
    eventually(lambda: calls[:4], [None, {"foo": 1}, None, None])
    await here.join("baz")
    eventually(lambda: calls[4:], [{"baz": 1}])


async def test_counts_are_read_after_a_loss_of_all_keys(listening, client):
    here, calls = listening
    await here.join("foo")
    eventually(lambda: calls[-1], {"foo": 1})

    client.flushall()

    eventually(lambda: calls[2:3], [None])
    assert known(here) == {"foo": 1}
    assert {"foo": 0} not in calls


async def test_idle_processes_send_only_heartbeats(redis_url, client):
    processes, seconds = 5, 10 * HEARTBEAT
    with ExitStack() as stack:
        states = [stack.enter_context(redis_state(redis_url)) for _ in range(processes)]
        for state in states:
            await state.join("foo")
            calls = []
            for _ in range(100):
                state.listen(lambda number, counts, members, calls=calls: calls.append(number))
            eventually(lambda calls=calls: bool(calls), True)
        await asyncio.sleep(2 * WARM_UP)  # until each has seen all others

        commands = observed(client, seconds)

    assert set(commands) == {"EVALSHA"}
    assert 0 < commands["EVALSHA"] <= processes * (seconds / HEARTBEAT + 1)


def observed(client, seconds):
    """Return how often each command was sent within that time."""
    commands = Counter()
    with client.monitor() as monitor:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            command = monitor.next_command()
            if command["client_type"] != "lua":
                commands[command["command"].split()[0].upper()] += 1
    return commands


async def test_feed_ends_with_its_last_listener(two, client):
    here, _ = two
    removes = [here.listen(lambda number, counts, members: None) for _ in range(3)]
    eventually(lambda: client.pubsub_numsub(scripts.CHANGES)[0][1], 1)

    for remove in removes:
        remove()

    eventually(lambda: client.pubsub_numsub(scripts.CHANGES)[0][1], 0, deadline=DEADLINE)
