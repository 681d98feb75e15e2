"""The threads that read for event loops."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from echo.exceptions import StateUnavailable
from echo.state.redis.threads import MAX_THREADS, ReadThreads
from tests.redis_server import RedisServer
from tests.servers import ROOT
from tests.states import redis_state
from tests.waiting import DEADLINE, SECOND, eventually


@pytest.fixture
def threads():
    threads = ReadThreads()
    yield threads
    threads.close()


def names():
    return {each.name for each in threading.enumerate() if each.name.startswith("echo-read")}


@pytest.fixture(autouse=True)
def none_is_left():
    yield
    eventually(names, set())


async def test_many_counts_while_redis_hangs_do_not_delay_other_threads():
    with RedisServer() as server, redis_state(server.url) as state:
        server.hang()
        try:
            # As small as on a machine with one core.
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(5))
            reads = [asyncio.ensure_future(state.acount("foo")) for _ in range(200)]
            await asyncio.sleep(0.1)

            began = time.monotonic()
            for _ in range(10):
                await asyncio.to_thread(lambda: None)
            took = time.monotonic() - began

            assert took < 0.3 * SECOND
            assert not any(read.done() for read in reads)
            results = await asyncio.gather(*reads, return_exceptions=True)
            assert {type(result) for result in results} == {StateUnavailable}
        finally:
            server.resume()


async def test_reads_have_few_threads_whatever_their_number(threads):
    assert await asyncio.gather(*(threads.run(lambda: 7) for _ in range(1000))) == [7] * 1000

    assert names() <= {f"echo-read-{number}" for number in range(MAX_THREADS)}


async def test_reads_one_after_the_other_share_threads(threads):
    for _ in range(100):
        await threads.run(lambda: None)

    # Another one starts only if the others have not yet noticed that their reads are over.
    assert len(names()) < MAX_THREADS


async def test_exception_of_a_read_is_raised(threads):
    with pytest.raises(StateUnavailable, match="why"):
        await threads.run(_fail)


def _fail():
    raise StateUnavailable("why")


async def test_read_that_is_cancelled_before_it_starts_does_not_run(threads):
    made, go = [], threading.Event()
    busy = [asyncio.ensure_future(threads.run(go.wait, DEADLINE)) for _ in range(MAX_THREADS)]
    waiting = asyncio.ensure_future(threads.run(made.append, 1))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(*busy)
    await threads.run(lambda: None)

    assert (waiting.cancelled(), made) == (True, [])


async def test_reads_after_close_raise(redis_url):
    with redis_state(redis_url) as state:
        assert await state.acount("foo") == 0
        state.close()

        with pytest.raises(StateUnavailable):
            await state.acount("foo")


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
async def test_forked_child_reads_on_threads_of_its_own(threads):
    await threads.run(lambda: None)
    with threads._lock:  # as if another thread held it
        child = os.fork()
        if not child:
            loop = asyncio.new_event_loop()
            asyncio._set_running_loop(None)
            result = loop.run_until_complete(asyncio.wait_for(threads.run(lambda: 7), 5))
            os._exit(result)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


EXIT = """
import asyncio, os, signal, sys, time
import django
django.setup()
from echo.exceptions import StateUnavailable
from echo.state import get_state

async def main():
    state = get_state()
    await state.acount("foo")
    os.kill(int(sys.argv[1]), signal.SIGSTOP)
    reads = [asyncio.ensure_future(state.acount("foo")) for _ in range(100)]
    await asyncio.sleep(0.1)

asyncio.run(main())
print(time.time(), flush=True)
"""


def test_exit_does_not_wait_for_all_reads_of_a_hanging_redis():
    with RedisServer() as server:
        env = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "project.settings",
            "ECHO_STATE_URL": server.url,
        }
        ended = subprocess.run(
            [sys.executable, "-c", EXIT, str(server.process.pid)],
            env=env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=6 * DEADLINE,
        )
        took = time.time() - float(ended.stdout)

    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False)
    assert took < 4 * SECOND
