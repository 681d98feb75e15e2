"""A limit for every test: what takes longer shows all stacks, and the other tests go on.

At LIMIT, pytest-timeout raises in the main thread (its method `signal`). The traceback shows the
line of the test, even where Playwright runs it in a greenlet, and the fixtures are torn down. Its
method `thread` would end the process and leave all servers running. Only if that does not help,
because the test cannot be interrupted or its teardown waits forever, the process ends.
"""

import asyncio
import faulthandler
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from types import FrameType

import pytest

from tests.waiting import DEADLINE

LIMIT = 18 * DEADLINE  # seconds for a test with its fixtures: three times what a busy machine took
GRACE = 3 * DEADLINE  # seconds from LIMIT to the end of the process
STDERR = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[STDERR] = os.dup(2)  # of the process: during a test, pytest captures sys.stderr


def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[STDERR])


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.get_closest_marker("timeout") is None:
        item.add_marker(pytest.mark.timeout(LIMIT, method="signal"))


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item: pytest.Item) -> Iterator[object]:
    """Show where the tasks of the event loop wait: a traceback and pytest-timeout do not."""
    result = yield
    fail = signal.getsignal(signal.SIGALRM)

    def show_and_fail(signum: int, frame: FrameType | None) -> None:
        with suppress(RuntimeError):  # no event loop runs
            for task in asyncio.all_tasks():
                print_stack(task)
        fail(signum, frame)

    signal.signal(signal.SIGALRM, show_and_fail)
    return result


def print_stack(task: asyncio.Task[object]) -> None:
    """Print all frames of a task that waits; `Task.print_stack` prints the outermost one."""
    print(f"Stack of {task.get_name()}:")
    coroutine = task.get_coro()
    while frame := getattr(coroutine, "cr_frame", None):
        code = frame.f_code
        print(f'  File "{code.co_filename}", line {frame.f_lineno}, in {code.co_qualname}')
        coroutine = coroutine.cr_await


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[object]:
    marker = item.get_closest_marker("timeout")
    end_process_after(marker.args[0] + GRACE, item)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Limit the teardown: when a test fails, pytest and pytest-timeout stop their timers."""
    marker = item.get_closest_marker("timeout")
    end_process_after(marker.args[0], item)
    return (yield)


def end_process_after(seconds: float, item: pytest.Item) -> None:
    faulthandler.dump_traceback_later(seconds, exit=True, file=item.config.stash[STDERR])
