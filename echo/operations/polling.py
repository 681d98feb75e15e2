"""Reading a value repeatedly until it is as expected."""

import time
from collections.abc import Callable
from typing import TypeVar

from echo.exceptions import StateUnavailable

T = TypeVar("T")


def poll(
    read: Callable[[], T],
    is_final: Callable[[T], bool],
    timeout: float,
    interval: float = 0.05,
) -> T:
    """Call `read` until its result is final or the timeout, in seconds, has passed.

    Returns the last result. While `read` raises StateUnavailable, it is called again; after the
    timeout the exception is raised.
    """
    end = time.monotonic() + timeout
    while True:
        try:
            value = read()
        except StateUnavailable:
            if time.monotonic() > end:
                raise
        else:
            if is_final(value) or time.monotonic() > end:
                return value
        time.sleep(interval)
