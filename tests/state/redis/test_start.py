"""The first reads of a process: it may be the only one, or the first after a loss."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest

from echo.state.redis import scripts
from echo.state.redis.state import RedisState
from tests.servers import ROOT
from tests.states import counts_or_unknown, known, linked_state, redis_state
from tests.waiting import DEADLINE, SECOND, eventually

LEASE, HEARTBEAT = 3.0, 1.0  # seconds, as by default
WARM_UP = 1.3  # seconds that a new process waits at most
SETTLE = 0.65  # seconds that it waits if all have exited in order
NOBODY = "False 0 {}\n"
READ = """
import django
django.setup()
from echo.objects import connected_objects, get_object
print(get_object("foo").is_occupied(), get_object("foo").count(), connected_objects())
"""
HOLD = """
import asyncio, time
import django
django.setup()
from echo.state import get_state
asyncio.run(get_state().join("foo"))
print("joined", flush=True)
time.sleep(600)
"""


def python(code, url):
    """Start Python in a site on that Redis, with the defaults of all other settings."""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "project.settings", "ECHO_STATE_URL": url},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_from_a_shell(url):
    """Return the output of a process that starts, reads the counts once, and exits."""
    with python(READ, url) as process:
        try:
            return "".join(process.communicate(timeout=6 * DEADLINE))
        finally:
            process.kill()


@contextmanager
def holder(url):
    """Run a process that has a connection of "foo"."""
    process = python(HOLD, url)
    try:
        assert process.stdout.readline() == "joined\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def state_of(url, lease=LEASE):
    return closing(RedisState(url, lease, HEARTBEAT))


def first_read(url):
    """Return the counts or "unknown", as a new process reads them, and the seconds it took."""
    with state_of(url) as state:
        began = time.monotonic()
        counts = counts_or_unknown(state)
        return counts, time.monotonic() - began


# Nothing was lost


def test_shell_reads_0_on_a_redis_that_was_never_used(redis_url):
    assert read_from_a_shell(redis_url) == NOBODY


def test_shell_reads_0_when_all_processes_have_exited_in_order(redis_url):
    with state_of(redis_url) as state:
        asyncio.run(state.join("foo"))

    assert read_from_a_shell(redis_url) == NOBODY


def test_shell_reads_0_when_all_processes_were_killed_and_leases_have_expired(redis_url, client):
    with holder(redis_url) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(LEASE)

        assert read_from_a_shell(redis_url) == NOBODY
        assert client.zrange(scripts.PROCESSES, 0, -1) == []


def test_shell_reads_the_count_of_a_live_process_at_once(redis_url):
    with holder(redis_url):
        known_by(redis_url)

        assert read_from_a_shell(redis_url) == "True 1 {'foo': 1}\n"
        counts, seconds = first_read(redis_url)
        assert (counts, seconds < 0.3 * SECOND) == ({"foo": 1}, True)


def known_by(url):
    with state_of(url) as state:
        return known(state)


def test_first_count_waits_only_the_settle_time_when_all_have_exited_in_order(redis_url):
    known_by(redis_url)
    counts, seconds = first_read(redis_url)

    assert counts == {}
    assert SETTLE * 0.9 < seconds < SETTLE + 0.4 * SECOND


def test_first_count_waits_for_a_killed_process_until_a_lease_is_over(redis_url, client):
    """It may be alive: nobody knows whether it was killed or Redis was unreachable."""
    with holder(redis_url) as process:
        known_by(redis_url)
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(LEASE)

        counts, seconds = first_read(redis_url)
        assert (counts, seconds < LEASE + 0.6 * SECOND) == ({}, True)
        counts, seconds = first_read(redis_url)  # now the killed process has been deleted
        assert (counts, seconds < SETTLE + 0.4 * SECOND) == ({}, True)


@pytest.mark.parametrize("is_used", [False, True])
def test_counts_of_a_full_start_are_never_unknown(redis_url, is_used):
    if is_used:
        known_by(redis_url)
    states = [RedisState(redis_url, LEASE, HEARTBEAT) for _ in range(4)]
    try:
        with ThreadPoolExecutor(16) as threads:
            assert list(threads.map(counts_or_unknown, states * 4)) == [{}] * 16
    finally:
        for state in states:
            state.close()


def test_redis_that_is_down_is_an_error_at_once_in_a_new_process_too(own_redis):
    own_redis.stop()

    counts, seconds = first_read(own_redis.url)

    assert (counts, seconds < 0.3 * SECOND) == ("unknown", True)


# Live processes that write again are never left out


NEVER_0 = ({"foo": 1}, "unknown")


@pytest.mark.parametrize(
    "lease_of_another",
    [None, *(pytest.param(each, marks=pytest.mark.long) for each in (LEASE, 60))],
)
async def test_new_process_does_not_read_0_after_redis_hung(own_redis, lease_of_another):
    """All leases have expired, or all but a long one, and each live process writes again."""
    url = own_redis.url
    with redis_state(url, LEASE, HEARTBEAT) as here:
        await here.join("foo")
        other = lease_of_another and RedisState(url, lease_of_another, HEARTBEAT)
        try:
            if other:
                assert known(other) == {"foo": 1}
            own_redis.hang()
            await asyncio.sleep(LEASE + 0.2)
            with ThreadPoolExecutor() as threads:
                own_redis.resume()
                reads = [threads.submit(first_read, url) for _ in range(4)]
                results = [read.result()[0] for read in reads]
        finally:
            own_redis.resume()
            if other:
                other.close()

        assert [result for result in results if result not in NEVER_0] == []
        assert known(here) == {"foo": 1}


async def test_lease_that_expired_in_a_silence_is_not_dead_though_another_lasts(redis_url):
    """No step reaches Redis for a while; then a process starts, and the others continue."""
    with (
        linked_state(redis_url, LEASE, HEARTBEAT) as (here, its_link),
        linked_state(redis_url, 60, HEARTBEAT) as (there, other_link),
    ):
        await here.join("foo")
        assert known(there) == {"foo": 1}
        for link in (its_link, other_link):
            link.refuse()
        await asyncio.sleep(LEASE + 0.2)
        with ThreadPoolExecutor() as threads:
            read = threads.submit(first_read, redis_url)
            await asyncio.sleep(0.2)
            for link in (its_link, other_link):
                link.accept()
            counts, _ = read.result()

        assert counts in NEVER_0
        assert known(here) == {"foo": 1}


async def test_process_that_started_while_redis_hung_is_not_left_out(own_redis):
    """Redis has no data of it: all processes before it have exited in order."""
    url = own_redis.url
    known_by(url)
    own_redis.hang()
    try:
        with state_of(url) as here:
            await here.join("foo")  # without Redis
            eventually(here.health.is_down, True)
            own_redis.resume()
            counts, _ = await asyncio.to_thread(first_read, url)

            assert counts in NEVER_0
            assert known(here) == {"foo": 1}
    finally:
        own_redis.resume()


async def test_snapshot_from_before_all_processes_is_not_0(own_redis):
    url = own_redis.url
    known_by(url)
    own_redis.save()
    with redis_state(url, LEASE, HEARTBEAT) as here:
        await here.join("foo")
        own_redis.stop()
        await asyncio.sleep(LEASE)
        own_redis.start()
        counts, _ = await asyncio.to_thread(first_read, url)

        assert counts in NEVER_0
        assert known(here) == {"foo": 1}


@pytest.mark.parametrize(
    "keys",
    [
        [scripts.PROCESSES],
        *(pytest.param([each], marks=pytest.mark.long) for each in (scripts.META, "*")),
    ],
)
async def test_lost_registry_does_not_look_like_an_empty_one(redis_url, client, keys):
    with redis_state(redis_url, LEASE, HEARTBEAT) as here:
        await here.join("foo")
        for _ in range(3):
            await asyncio.sleep(0.2)  # between two heartbeats
            client.delete(*(client.keys("*") if keys == ["*"] else keys))
            counts, _ = await asyncio.to_thread(first_read, redis_url)

            assert counts in NEVER_0
            assert known(here) == {"foo": 1}


async def test_process_that_exits_after_a_loss_does_not_hide_the_loss(redis_url, client):
    with redis_state(redis_url, LEASE, HEARTBEAT) as here:
        await here.join("foo")
        leaving = RedisState(redis_url, LEASE, HEARTBEAT)
        known(leaving)
        client.flushall()
        leaving.close()

        counts, _ = await asyncio.to_thread(first_read, redis_url)

        assert counts in NEVER_0
        assert known(here) == {"foo": 1}


# The clock of Redis. It cannot be set here, so all that Redis holds is moved the other way.


def jump(client, seconds):
    """Shift all times in the keys, as a jump of the clock of Redis would."""
    with client.pipeline() as step:
        for process in client.zrangebyscore(scripts.PROCESSES, "(0", "inf"):
            step.zincrby(scripts.PROCESSES, -seconds * 1_000_000, process)
        for field in ("known_from", "written"):
            step.hincrby(scripts.META, field, -seconds * 1_000_000)
        step.execute()


@pytest.mark.parametrize(
    "seconds",
    [-2, 3600, *(pytest.param(each, marks=pytest.mark.long) for each in (2, 4, -3600))],
)
async def test_jump_of_the_clock_gives_no_wrong_count(redis_url, client, seconds):
    with (
        redis_state(redis_url, LEASE, HEARTBEAT) as here,
        redis_state(redis_url, LEASE, HEARTBEAT) as there,
    ):
        await here.join("foo")
        for _ in range(3):
            known(there)
            jump(client, seconds)
            counts, _ = await asyncio.to_thread(first_read, redis_url)

            assert counts in NEVER_0
            assert counts_or_unknown(there) in NEVER_0
            assert known(here, WARM_UP + SECOND) == {"foo": 1}


async def test_killed_process_is_left_out_after_its_lease_if_the_clock_jumps_back(
    redis_url, client
):
    with redis_state(redis_url, LEASE, HEARTBEAT) as there, holder(redis_url) as process:
        assert there.counts() == {"foo": 1}
        process.kill()
        jump(client, -3600)

        eventually(lambda: counts_or_unknown(there), {}, deadline=LEASE + SECOND)
