"""Compares the totals with the sums of the shares, and repairs a difference."""

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

from echo.state.redis import scripts
from echo.state.redis.members import Members
from echo.stats import process_stats

logger = logging.getLogger(__name__)

INTERVAL = 60.0  # seconds between two checks
SLICE_INTERVAL = 0.2  # seconds between two slices, which block Redis for some milliseconds
LOOKUPS = 5000  # in one slice: names times processes


class SelfCheck:
    """Checks all totals once per INTERVAL, a slice after each write, in one of the processes.

    The process with the smallest id does it. Not thread-safe.
    """

    def __init__(self, run: Callable[..., Any], members: Members) -> None:
        self._run, self._members = run, members
        self._due = time.monotonic() + INTERVAL
        self._slices: Iterator[list[str]] | None = None

    def step(self) -> None:
        """Check the next slice, if a check is due."""
        if time.monotonic() < self._due or not self._members.is_first():
            return
        if self._slices is None:
            self._slices = self.slices()
        is_over = next(self._slices, None) is None
        self._due = time.monotonic() + (INTERVAL if is_over else SLICE_INTERVAL)
        if is_over:
            self._slices = None

    def slices(self) -> Iterator[list[str]]:
        """Check a slice at each iteration, and yield its wrong totals: `"'foo': 3 instead of 2"`.

        Raises one of ERRORS.
        """
        members = list(self._members.lease_ends)
        size = max(LOOKUPS // max(len(members), 1), 10)
        for process in ["", *members]:
            cursor = b"0"
            while True:
                cursor, *wrong = self._run(scripts.CHECK, process=process, cursor=cursor, size=size)
                triples = zip(wrong[::3], wrong[1::3], wrong[2::3], strict=True)
                found = [
                    f"{name.decode()!r}: {int(total)} instead of {int(expected)}"
                    for name, total, expected in triples
                ]
                if found:
                    process_stats.wrong_totals += len(found)
                    logger.error("Totals on Redis were wrong and are repaired: %s", found)
                yield found
                if cursor == b"0":
                    break
