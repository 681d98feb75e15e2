"""What only the state on Redis has. Two states stand for two processes."""

import asyncio
import logging
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from math import inf
from threading import Barrier, Event

import pytest
import redis

import echo.state.redis
import echo.state.redis.writer
from echo import log
from echo.exceptions import StateUnavailable
from echo.signals.sender import Announcer
from echo.state.redis import scripts
from echo.state.redis.client import Servers
from echo.state.redis.state import AT_ONCE, SLOW_READ, RedisState
from echo.state.redis.writer import JOIN_TIMEOUT
from echo.stats import process_stats
from tests.faults.redis_server import Cluster, OwnRedis
from tests.faults.site import Site
from tests.redis_server import require_version
from tests.servers import ROOT
from tests.states import HEARTBEAT, LEASE, YOUTH, known, redis_state, told
from tests.waiting import DEADLINE, SECOND, eventually

PASSWORD = "s3cr3t-of-ours"
SLACK = 0.5 * SECOND  # for a machine that is busy
AWAY = "Redis is away: counts are unknown until it is back, connections go on ("


@pytest.fixture
def two(redis_url):
    with redis_state(redis_url) as here, redis_state(redis_url) as there:
        yield here, there


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def own_redis():
    with OwnRedis() as server:
        yield server


def share(state):
    return scripts.SHARE + state._id


def messages(caplog):
    return [record.getMessage() for record in caplog.records if record.name.startswith("echo")]


# Two processes


async def test_counts_of_all_processes_are_added_up(two):
    here, there = two
    for state in (here, there, there):
        await state.join("foo")
    await there.join("bar")

    assert here.count("foo") == there.count("foo") == 3
    assert here.counts() == there.counts() == {"foo": 3, "bar": 1}
    assert await here.acounts() == {"foo": 3, "bar": 1}


async def test_join_is_seen_elsewhere_when_it_returns_and_leave_when_it_is_settled(two):
    here, there = two
    for _ in range(200):
        await here.join("foo")
        assert there.count("foo") == 1

        here.leave("foo")
        await here.settled()
        assert there.count("foo") == 0


async def test_connection_that_moves_between_processes_is_never_seen_in_none(two):
    """It is at the next one before it leaves the last: no sum of two moments is the answer."""
    here, _ = two
    await here.join("foo")
    end = time.monotonic() + SECOND
    answers = set()

    def read():
        while time.monotonic() < end:
            answers.update((here.count("foo"), here.counts()["foo"]))

    reader = asyncio.ensure_future(asyncio.to_thread(read))
    while time.monotonic() < end:
        for first, second in (two, two[::-1]):
            await second.join("foo")
            first.leave("foo")
            await first.settled()
    await reader

    assert answers == {1, 2}


async def test_read_sees_what_happened_here_before(two):
    here, _ = two
    for number in range(200):
        await here.join(f"foo-{number}")
        here.leave(f"foo-{number}")
        assert (here.count(f"foo-{number}"), here.counts()) == (0, {})


async def test_leave_is_seen_elsewhere_soon_even_if_nobody_waits(two):
    here, there = two
    await here.join("foo")

    here.leave("foo")

    eventually(there.counts, {}, deadline=SLACK)


async def test_many_names_are_written_in_steps(two):
    here, there = two
    names = [f"name-{number}" for number in range(12_345)]

    await asyncio.gather(*map(here.join, names))

    assert there.counts() == dict.fromkeys(names, 1)


@pytest.fixture
def in_parts(monkeypatch):
    """As with very many names, which are not read in one step."""
    monkeypatch.setattr(echo.state.redis.state, "AT_ONCE", 3)
    monkeypatch.setattr(echo.state.redis.state, "PART", 1)


@pytest.mark.usefixtures("in_parts")
async def test_counts_that_are_read_in_parts_are_whole(two):
    here, there = two
    names = ["été", "a b", *(f"name-{number}" for number in range(1000))]
    await asyncio.gather(*map(here.join, names), *map(there.join, names[::2]))

    assert there.counts() == dict.fromkeys(names, 1) | dict.fromkeys(names[::2], 2)


@pytest.mark.usefixtures("in_parts")
async def test_process_that_ends_while_parts_are_read_is_left_out(two, redis_url, monkeypatch):
    here, there = two
    with redis_state(redis_url) as ending:
        await asyncio.gather(
            *(state.join(f"n{n}") for state in (here, ending) for n in range(1000))
        )
        run = there._reads.run

        def run_and_end(script, keys, args):
            answer = run(script, keys, args)
            if script == scripts.PART and ending._writer.share.encode() in keys:
                ending.close()
            return answer

        monkeypatch.setattr(there._reads, "run", run_and_end)
        assert there.counts() == {f"n{n}": 1 for n in range(1000)}


async def test_limit_is_exact_for_all_processes_together(redis_url):
    with ExitStack() as stack:
        states = [stack.enter_context(redis_state(redis_url)) for _ in range(4)]
        for number in range(10):
            joins = [state.join(f"foo-{number}", limit=13) for state in states for _ in range(10)]

            granted = await asyncio.gather(*joins)

            assert sum(granted) == 13
            assert [state.count(f"foo-{number}") for state in states] == [13] * 4


async def test_limit_lets_one_in_for_each_that_leaves(two):
    here, there = two
    assert await here.join("foo", limit=1)
    assert not await there.join("foo", limit=1)

    here.leave("foo")
    await here.settled()

    assert await there.join("foo", limit=1)
    assert not await here.join("foo", limit=1)


async def test_limit_is_of_own_connections_while_redis_is_away(own_redis):
    with redis_state(own_redis.url) as here, redis_state(own_redis.url) as there:
        own_redis.stop()
        eventually(lambda: (here._writer._outage, there._writer._outage), (True, True))

        granted = [await state.join("foo", limit=2) for state in (here, there) for _ in range(3)]

        assert granted == [True, True, False] * 2


def state_without(server, command):
    """Return a state whose user may do all but that command."""
    log._last.clear()
    with server.client() as client:
        client.execute_command(
            "ACL", "SETUSER", "some", "on", ">pass", "~*", "+@all", f"-{command}"
        )
    url = server.url.replace("//", "//some:pass@")
    return closing(RedisState(url, LEASE, HEARTBEAT))


async def test_limit_that_redis_may_not_judge_is_logged_once_and_no_outage(own_redis, caplog):
    with state_without(own_redis, "hmget") as state:
        granted = [await state.join("foo", limit=2) for _ in range(3)]

    assert granted == [True, True, False]
    (warning,) = messages(caplog)
    assert warning.startswith("Redis does not judge limits; each process does: ")


async def test_redis_that_refuses_to_be_read_is_logged_once(own_redis, caplog):
    with state_without(own_redis, "hlen") as state:
        eventually(lambda: (told(state), len(messages(caplog))), ("unknown", 1))
        assert [told(state) for _ in range(3)] == ["unknown"] * 3

    (warning,) = messages(caplog)
    assert warning.startswith("Redis refuses to be read: ")


async def test_limit_is_exact_also_while_redis_is_young(redis_url):
    with ExitStack() as stack:
        states = [RedisState(redis_url, LEASE, HEARTBEAT) for _ in range(4)]
        for state in states:
            stack.callback(state.close)

        granted = await asyncio.gather(*(state.join("foo", limit=100) for state in states * 100))

        assert sum(granted) == 100
        assert [known(state) for state in states] == [{"foo": 100}] * 4


@pytest.mark.parametrize("occupied", [0, 40])
async def test_limit_is_exact_also_when_redis_has_lost_all(redis_url, client, occupied):
    with ExitStack() as stack:
        states = [stack.enter_context(redis_state(redis_url)) for _ in range(4)]
        for number in range(occupied):
            await states[number % 4].join("foo", limit=100)
        client.flushall()

        granted = await asyncio.gather(*(state.join("foo", limit=100) for state in states * 100))

        assert sum(granted) == 100 - occupied
        assert [known(state) for state in states] == [{"foo": 100}] * 4


async def test_limit_that_redis_cannot_judge_for_long_is_of_own_connections(two):
    here, _ = two
    here._writer._unsure_until = inf
    began = time.monotonic()

    granted = await asyncio.gather(*(here.join("foo", limit=2) for _ in range(3)))

    assert sorted(granted) == [False, True, True]
    assert LEASE < time.monotonic() - began < LEASE + DEADLINE


async def test_who_gives_up_waiting_for_a_young_redis_is_not_counted(two, client):
    here, there = two
    client.flushall()
    joining = asyncio.ensure_future(here.join("foo", limit=2))
    await asyncio.sleep(0)
    joining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await joining

    assert await there.join("foo", limit=2)

    assert known(here) == known(there) == {"foo": 1}


def test_reservation_never_makes_a_share_that_was_lost(two, client):
    """It would have no lease, and stay for ever if its process ended now."""
    here, _ = two
    keys = [scripts.PROCESSES, scripts.BORN, scripts.SHARE + "lost"]

    known = [*here._writer.common, scripts.SHARE]

    answer = client.eval(scripts.RESERVE, 3, *keys, *known, "foo", 0, 1, 10, 0)

    assert (answer, client.exists(keys[2])) == (scripts.MISSING, 0)


# Doing something once


def test_key_is_claimed_by_one_process(two):
    here, there = two

    assert (here.claim("foo", 60), there.claim("foo", 60)) == (True, False)
    here.release("foo")
    assert (there.claim("foo", 60), here.claim("foo", 60)) == (True, False)


def test_claim_whose_answer_was_lost_is_still_the_first(two, monkeypatch):
    here, _ = two
    run = here._reads.run
    monkeypatch.setattr(here._reads, "run", lambda *step: (run(*step), run(*step))[1])

    assert here.claim("foo", 60)


def test_key_is_claimed_in_each_process_while_redis_is_away(own_redis, caplog):
    with redis_state(own_redis.url) as here, redis_state(own_redis.url) as there:
        own_redis.stop()

        claimed = [state.claim("foo", 60) for state in (here, there, here, there)]

    assert claimed == [True, True, False, False]
    assert "Whether it was done elsewhere is not known: " in caplog.text


# What Redis may lose


async def test_share_that_is_lost_is_written_anew(two, client):
    here, there = two
    await here.join("foo")

    client.delete(share(here))

    assert told(there) == "unknown" or there.counts() == {"foo": 1}
    assert known(there) == {"foo": 1}
    assert client.hgetall(share(here)).keys() == {b"", b"foo"}


async def test_missing_share_of_a_live_process_is_no_0(redis_url, client):
    with redis_state(redis_url) as here, redis_state(redis_url) as dead:
        await dead.join("foo")
        dead._writer._redis.run = stands_still
        client.delete(share(dead))

        for read in (lambda: here.count("foo"), here.counts):
            with pytest.raises(StateUnavailable, match="has lost the counts of a process"):
                read()
        del dead._writer._redis.run
        eventually(lambda: told(here), {"foo": 1})


async def test_share_of_an_older_time_is_written_anew(two, client):
    """As after a restart from an old snapshot, or a failover that lost the last writes."""
    here, there = two
    await here.join("foo")
    old = client.hgetall(share(here))
    await here.join("foo")
    await here.join("bar")

    client.delete(share(here))
    client.hset(share(here), mapping=old)
    client.pexpire(share(here), 60_000)

    eventually(there.counts, {"foo": 2, "bar": 1}, deadline=HEARTBEAT + SLACK)
    assert client.pttl(share(here)) <= LEASE * 1000


async def test_process_that_the_registry_lost_is_written_anew(two, client):
    here, there = two
    await here.join("foo")

    client.zrem(scripts.PROCESSES, here._id)

    eventually(there.counts, {"foo": 1}, deadline=HEARTBEAT + SLACK)


@pytest.mark.parametrize("key", [scripts.PROCESSES, scripts.BORN])
async def test_registry_that_is_lost_is_no_answer_of_0(two, client, key):
    """A Redis with `maxmemory-policy allkeys-lru` may drop any key."""
    here, there = two
    await here.join("foo")

    client.delete(key)
    answers = [told(there) for _ in range(200)]

    assert [answer for answer in answers if answer not in ("unknown", {"foo": 1})] == []
    assert known(there) == {"foo": 1}


async def test_leases_that_end_all_at_once_are_no_answer_of_0(two, client):
    """As when the clock of Redis jumps, or Redis stands still for longer than the lease."""
    here, there = two
    await here.join("foo")
    for _ in range(5):
        client.zadd(scripts.PROCESSES, {here._id: 1, there._id: 1})
        end = time.monotonic() + 2 * YOUTH
        answers = set()
        while time.monotonic() < end:
            answers.update((str(told(here)), str(told(there))))

        assert answers - {"unknown", "{'foo': 1}"} == set()
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


async def test_flush_is_no_answer_of_0(two, client):
    here, there = two
    await here.join("foo")
    for _ in range(5):
        client.flushall()
        flushed = time.monotonic()
        answers = set()
        while time.monotonic() < flushed + 2 * YOUTH:
            answers.add(str(told(there)))
            answers.add(str(told(here)))

        assert answers - {"unknown", "{'foo': 1}"} == set()
        assert known(there) == known(here) == {"foo": 1}


async def test_keys_that_are_young_are_not_read(redis_url, client):
    """Some process may not have written yet."""
    with redis_state(redis_url, heartbeat=LEASE / 3) as state:
        eventually(state._writer.is_new, False)
        client.flushall()
        with pytest.raises(StateUnavailable, match="has lost the counts; the processes write"):
            state.count("foo")
        eventually(lambda: client.exists(scripts.BORN), 1)
        with pytest.raises(StateUnavailable, match="The counts on Redis are new, or all leases"):
            state.counts()

        assert known(state) == {}


async def test_scripts_that_are_flushed_are_loaded_anew(two, client):
    here, there = two
    await here.join("foo")

    client.script_flush()

    assert there.counts() == {"foo": 1}
    await here.join("foo")
    assert there.counts() == {"foo": 2}


# What comes late: the process has given a step up, and Redis takes it all the same


class GivenUp:
    """Gives up the writing steps that are `wanted`; Redis gets them from `arrive`, or at once."""

    def __init__(self, state, wanted, at_once=False):
        self.steps = []
        self._state, self._wanted, self._at_once = state, wanted, at_once
        self._run, state._writer._redis.run = state._writer._redis.run, self._run_or_give_up

    def _run_or_give_up(self, *step):
        if not self._wanted(*step):
            return self._run(*step)
        self.steps.append(step)
        if self._at_once:
            self._run(*step)
        raise redis.TimeoutError("given up")

    def end(self):
        self._wanted = lambda *step: False
        eventually(lambda: self._state._writer._outage, False)

    def arrive(self):
        return [self._run(*step) for step in self.steps]


class Repeated:
    """Makes each step twice, as the client of a cluster does if the first answer is lost."""

    def __init__(self, state):
        self.answers = []
        self._run, state._writer._redis.run = state._writer._redis.run, self._run_twice

    def _run_twice(self, *step):
        self.answers.append([self._run(*step), self._run(*step)])
        return self.answers[-1][-1]


def is_write(script, keys, args):
    return script == scripts.WRITE


def is_whole_write(script, keys, args):
    return script == scripts.WRITE and args[6] == 1


def is_reservation(script, keys, args):
    return script == scripts.RESERVE


@pytest.mark.parametrize("wanted", [is_write, is_whole_write])
async def test_write_that_comes_after_its_retry_changes_nothing(two, client, wanted):
    here, there = two
    given_up = GivenUp(here, wanted)
    client.delete(share(here))  # the next write is of the whole share
    await here.join("foo")
    eventually(lambda: here._writer._outage, True)
    here.leave("foo")
    given_up.end()
    assert known(there) == {}

    answers = given_up.arrive()

    assert set(answers) == {0}
    assert there.counts() == {}


async def test_reservation_that_comes_after_the_next_write_changes_nothing(two):
    here, there = two
    given_up = GivenUp(here, is_reservation)
    assert await here.join("foo", limit=9)
    given_up.end()
    here.leave("foo")
    await here.settled()
    assert known(there) == {}

    answers = given_up.arrive()

    assert set(answers) == {scripts.MISSING}
    assert there.counts() == {}


async def test_reservation_without_an_answer_for_one_who_has_left_is_taken_back(two):
    here, there = two
    given_up = GivenUp(here, is_reservation, at_once=True)
    join = asyncio.ensure_future(here.join("foo", limit=9))
    await asyncio.sleep(0)  # it has begun
    eventually(lambda: len(given_up.steps), 1)
    join.cancel()
    with pytest.raises(asyncio.CancelledError):
        await join
    given_up.end()

    assert known(there) == known(here) == {}


@pytest.mark.parametrize("limit", [None, 9])
async def test_step_that_is_repeated_has_the_answer_of_the_first(two, client, limit):
    here, there = two
    repeated = Repeated(here)
    client.delete(share(here))

    assert await here.join("foo", limit)

    eventually(lambda: told(there), {"foo": 1})
    assert repeated.answers
    assert all(first == second for first, second in repeated.answers)


# Leases


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


def stands_still(*args):
    raise redis.ConnectionError("stands still")


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


# Outages


async def test_outage_is_one_warning_when_it_begins_and_one_when_it_ends(own_redis, caplog):
    caplog.set_level(logging.WARNING)
    with redis_state(own_redis.url) as state:
        await state.join("foo")
        own_redis.stop()
        for _ in range(20):
            await state.join("foo")
        eventually(lambda: state._writer._outage, True)
        own_redis.start()
        assert known(state) == {"foo": 21}

    begin, end = messages(caplog)
    assert begin.startswith(AWAY)
    assert end == "Redis is back."


async def test_reads_while_redis_is_away_raise(own_redis):
    with redis_state(own_redis.url) as state:
        own_redis.stop()

        for read in (lambda: state.count("foo"), state.counts):
            with pytest.raises(StateUnavailable) as caught:
                read()
            assert isinstance(caught.value.__cause__, redis.RedisError | None)
        for read in (state.acount("foo"), state.acounts()):
            with pytest.raises(StateUnavailable):
                await read


async def test_reads_after_a_restart_raise_until_all_have_written(own_redis):
    with redis_state(own_redis.url) as here, redis_state(own_redis.url) as there:
        await here.join("foo")
        for _ in range(3):
            own_redis.stop()
            own_redis.start()
            end = time.monotonic() + 3 * YOUTH
            answers = set()
            while time.monotonic() < end:
                answers.update((str(told(here)), str(told(there))))

            assert answers == {"unknown", "{'foo': 1}"}


async def test_restart_from_an_old_snapshot_is_no_old_answer(own_redis):
    with redis_state(own_redis.url) as here, redis_state(own_redis.url) as there:
        await here.join("foo")
        await there.join("old")
        own_redis.save()
        there.leave("old")
        await here.join("foo")
        await here.settled()
        own_redis.stop()
        own_redis.start()
        with redis_state(own_redis.url) as late:  # meets it for the first time
            answers = {str(told(state)) for state in (here, there, late) for _ in range(100)}

        assert answers - {"unknown", "{'foo': 2}"} == set()
        assert known(here) == known(there) == {"foo": 2}


async def test_join_waits_a_moment_for_a_redis_that_hangs_and_then_not_at_all(own_redis):
    with redis_state(own_redis.url) as state:
        own_redis.hang()
        try:
            waited = await seconds(state.join("foo"))
            assert JOIN_TIMEOUT * 0.9 < waited < JOIN_TIMEOUT + SLACK / 5
            assert await seconds(state.join("foo", limit=9)) < JOIN_TIMEOUT + SLACK / 5
            eventually(lambda: state._writer._outage, True)

            known_outage = [await seconds(state.join("foo")) for _ in range(100)]
            known_outage += [await seconds(state.settled()) for _ in range(100)]
            assert max(known_outage) < SLACK / 5
            assert told(state) == "unknown"
        finally:
            own_redis.resume()
        assert known(state) == {"foo": 102}


async def test_step_that_waits_for_long_is_an_outage_whatever_the_client_tries(two):
    here, _ = two
    run, pause = here._writer._redis.run, Event()
    here._writer._redis.run = lambda *step: (pause.wait(DEADLINE), run(*step))[1]
    try:
        eventually(here._writer.is_away, True)
        assert await seconds(here.join("foo")) < SLACK / 5
        began = time.monotonic()
        assert told(here) == "unknown"
        assert time.monotonic() - began < SLACK / 5
    finally:
        here._writer._redis.run = run
        pause.set()

    eventually(lambda: told(here), {"foo": 1})


@pytest.mark.parametrize("stall", [0.3, 0.4, 0.6])
async def test_read_that_was_slow_sees_those_who_did_not_wait(own_redis, stall):
    """Redis stands still, shorter than an outage; a heartbeat is on its way, and a join behind."""
    with redis_state(own_redis.url, LEASE, LEASE / 2) as here, redis_state(own_redis.url) as there:
        for number in range(3):
            own_redis.hang()
            try:
                here._writer.beat_soon()
                eventually(lambda: (here._writer._urgent, here._writer._is_writing), (False, True))
                await here.join("foo")
                read = asyncio.ensure_future(asyncio.to_thread(told, there))
                await asyncio.sleep(stall - JOIN_TIMEOUT + SLOW_READ)
            finally:
                own_redis.resume()

            assert await read in ({"foo": number + 1}, "unknown")
            assert known(there) == known(here) == {"foo": number + 1}


async def test_many_who_read_while_redis_stands_still_are_no_outage(own_redis):
    with redis_state(own_redis.url) as here, redis_state(own_redis.url) as there:
        await there.join("foo")
        outages = process_stats.outages
        barrier = Barrier(200 + 1)

        def read():
            barrier.wait()
            return here.count("foo")

        with ThreadPoolExecutor(200) as executor:
            answers = [executor.submit(read) for _ in range(200)]
            own_redis.hang()
            try:
                barrier.wait()
                here._writer.beat_soon()
                await asyncio.sleep(0.3)
            finally:
                own_redis.resume()

        assert {answer.result() for answer in answers} == {1}
        assert process_stats.outages == outages


async def test_error_that_nobody_foresaw_is_an_outage_and_ends(two, caplog):
    here, there = two
    run = here._writer._redis.run

    def fail(*step):
        raise ZeroDivisionError("not foreseen")

    here._writer._redis.run = fail
    await here.join("foo")
    eventually(lambda: here._writer._outage, True)
    here._writer._redis.run = run

    assert known(here) == known(there) == {"foo": 1}
    assert "ZeroDivisionError: not foreseen" in caplog.text


def test_redis_that_does_not_tell_when_it_was_started_is_refused():
    with pytest.raises(redis.RedisError, match="has no run_id and uptime_in_seconds"):
        Servers(print).see("host:6379", "# Server\r\nredis_version:7.0.0\r\n")


SERVED = "# Server\r\nrun_id:{}\r\nuptime_in_seconds:100\r\n"
REPLICATED = "# Replication\r\nmaster_replid:{}\r\nmaster_replid2:{}\r\n"
NEVER = "0" * 40


@pytest.mark.parametrize("is_met_before", [False, True])
def test_server_that_was_a_replica_is_young_whatever_its_uptime(is_met_before):
    """Also for a process that has known no other: it may start just after a failover."""
    ages = []
    servers = Servers(ages.append)
    replica = SERVED.format("replica")
    if is_met_before:
        servers.see("there", replica + REPLICATED.format("old", NEVER))
    servers.see("elsewhere", SERVED.format("other") + REPLICATED.format("other", NEVER))
    servers.see("there", replica + REPLICATED.format("new", "old"))
    servers.see("there", replica + REPLICATED.format("new", "old"))

    assert ages == [99] * (1 + is_met_before) + [0]


def test_server_that_was_started_again_is_young_whatever_its_uptime():
    ages = []
    servers = Servers(ages.append)
    for run in ("first", "first", "second"):
        servers.see("here", SERVED.format(run))

    assert ages == [99, 0]


async def seconds(awaitable):
    began = time.monotonic()
    await awaitable
    return time.monotonic() - began


async def test_leave_never_waits_for_a_redis_that_hangs(own_redis):
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


def test_end_while_redis_hangs_takes_few_seconds(own_redis):
    state = RedisState(own_redis.url, LEASE, HEARTBEAT)
    known(state)
    own_redis.hang()
    try:
        began = time.monotonic()
        state.close()
        assert time.monotonic() - began < 2.5 * SECOND
    finally:
        own_redis.resume()


# Redis of all kinds


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
async def test_redis_by_its_url(redis_server, scheme):
    redis_server.flush()
    with redis_state(redis_server.url.replace("redis:", f"{scheme}:")) as state:
        await state.join("foo")

        assert state.counts() == {"foo": 1}


async def test_redis_by_a_unix_socket():
    options = ("--unixsocket", "{folder}/socket")
    with (
        OwnRedis(*options) as server,
        redis_state(f"unix://{server.directory.name}/socket") as state,
    ):
        await state.join("foo")

        assert server.size() == 3
        assert state.counts() == {"foo": 1}


@pytest.fixture
def certificate(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -keyout {key} -out {certificate}"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    return key, certificate


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
async def test_redis_by_tls(certificate, scheme):
    require_version(7)
    key, certificate = certificate
    options = f"--port 0 --tls-port {{port}} --tls-cert-file {certificate} --tls-key-file {key}"
    url = f"rediss://127.0.0.1:{{port}}/0?ssl_ca_certs={certificate}"
    with (
        OwnRedis(*options.split(), "--tls-auth-clients", "no", url=url) as server,
        redis_state(server.url.replace("rediss:", f"{scheme}:")) as state,
    ):
        await state.join("foo")

        assert state.counts() == {"foo": 1}


@pytest.mark.slow
async def test_redis_cluster():
    """All keys are of one slot, and the options of the URL are the client's."""
    require_version(7)
    with Cluster() as cluster:
        url = f"{cluster.url}&health_check_interval=5"
        with redis_state(url) as here, redis_state(url) as there:
            await here.join("foo")
            await there.join("foo")

            assert here.counts() == there.counts() == {"foo": 2}
            assert await here.join("foo", limit=2) is False


def test_options_of_a_url_are_kept_for_a_cluster():
    state = RedisState("rediss://h/?cluster=true&ssl_ca_certs=/a.pem", LEASE, HEARTBEAT)

    assert (state._writer._redis._cluster, state._writer._redis._url) == (
        True,
        "rediss://h/?ssl_ca_certs=/a.pem",
    )


# Credentials


@pytest.mark.parametrize(
    "user",
    [
        f"app:{PASSWORD}",  # of a Redis that is not there
        f"app:{PASSWORD}-wrong",
        f":{PASSWORD}-wrong",
        f"mute:{PASSWORD}",  # may log in, and nothing else
    ],
)
async def test_no_message_has_a_credential(user, caplog):
    caplog.set_level(logging.DEBUG)
    acl = f"--requirepass {PASSWORD} --user app on >{PASSWORD} ~* +@all --user mute on >{PASSWORD}"
    with OwnRedis(*acl.split(), url=f"redis://app:{PASSWORD}@127.0.0.1:{{port}}/0") as server:
        if user == f"app:{PASSWORD}":
            server.stop()
        state = RedisState(f"redis://{user}@127.0.0.1:{server.port}/0", LEASE, HEARTBEAT)
        try:
            with pytest.raises(StateUnavailable) as caught:
                state.count("foo")
            await state.join("foo")
            eventually(lambda: state._writer._outage, True)
            with pytest.raises(StateUnavailable):
                state.counts()
        finally:
            state.close()

    texts = [str(caught.value), repr(caught.value.__cause__), repr(state), *messages(caplog)]
    assert any("Redis is away" in text for text in texts)
    assert [text for text in texts if "s3cr3t" in text] == []


@pytest.fixture
def url_of_user_with_few_rights():
    """The URL of a Redis, with a user who has the rights that the docs tell."""
    lines = (ROOT / "docs" / "howto" / "security.md").read_text().splitlines()
    steps = [line.split() for line in lines if line.startswith("ACL SETUSER echo ")]
    assert len(steps) == 4
    with OwnRedis() as server:
        with server.client() as client:
            for step in steps:
                client.execute_command(*step)
        yield f"redis://echo:secret@127.0.0.1:{server.port}/0"


@pytest.mark.parametrize("at_once", [AT_ONCE, 1])
async def test_user_with_few_rights_is_enough(url_of_user_with_few_rights, monkeypatch, at_once):
    monkeypatch.setattr(echo.state.redis.state, "AT_ONCE", at_once)
    url = url_of_user_with_few_rights
    with redis_state(url) as here, redis_state(url) as there:
        announced = Announcer(here)
        await here.join("foo")
        await there.join("foo", limit=9)
        await here.join("bar")

        assert there.counts() == here.counts() == {"foo": 2, "bar": 1}
        assert there.count("foo") == 2
        eventually(lambda: announced.look(0), True)
        announced.look(1)


def test_user_with_few_rights_is_enough_for_the_channel_layer(url_of_user_with_few_rights):
    with Site(url_of_user_with_few_rights) as site:
        clients = [site.open(server) for server in site.servers]
        command = [sys.executable, "manage.py", "echo_send", "foo", "to all"]
        env = {**os.environ, "ECHO_STATE_URL": url_of_user_with_few_rights}
        sent = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)

        assert (sent.returncode, sent.stderr) == (0, "")
        assert [client.text() for client in clients] == ["to all"] * 2


async def test_read_only_replica_is_an_outage(own_redis, caplog):
    with OwnRedis("--replicaof", "127.0.0.1", str(own_redis.port)) as replica:
        state = RedisState(replica.url, LEASE, HEARTBEAT)
        try:
            await state.join("foo")
            eventually(lambda: state._writer._outage, True)
            assert told(state) == "unknown"
        finally:
            state.close()

    (warning,) = messages(caplog)
    assert warning.startswith(AWAY)
    assert "read only replica" in warning


# Forks


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
async def test_forked_child_has_a_state_of_its_own(redis_url, settings):
    """It neither counts its parent's connections again nor takes its parent's share away."""
    from echo.state import get_state

    settings.ECHO_STATE_URL = redis_url
    settings.ECHO_HEARTBEAT_SECONDS = HEARTBEAT
    parent = get_state()
    try:
        known(parent)
        await parent.join("foo")
        reading, writing = os.pipe()
        if not (child := os.fork()):
            own = get_state()
            os.write(writing, repr((own is parent, known(own))).encode())
            own.close()
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as answer:
            assert answer.read() == b"(False, {'foo': 1})"
        assert os.waitpid(child, 0)[1] == 0
        assert parent.counts() == {"foo": 1}
    finally:
        parent.close()


def test_forked_child_ends_whatever_its_parent_was_doing(redis_url):
    """Even if another thread of the parent held the state's lock at that moment."""
    lines = [
        "import os, sys",
        "import django",
        "django.setup()",
        "from echo.state import get_state",
        "state = get_state()",
        "with state._writer._work:",
        "    state._writer._start()",
        "    if not (child := os.fork()):",
        "        sys.exit(3)",
        "print(os.waitpid(child, 0)[1])",
    ]
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join(lines)],
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "project.settings",
            "ECHO_STATE_URL": redis_url,
        },
        capture_output=True,
        timeout=20 * SECOND,
    )

    assert (child.stdout, child.stderr) == (b"768\n", b"")
