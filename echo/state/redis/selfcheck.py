"""Compares the totals with the sums of the shares, and repairs a difference."""

import logging
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

from echo.members import split_entry
from echo.state.base import EXTRA
from echo.state.redis import scripts
from echo.state.redis.processes import Processes
from echo.stats import process_stats

logger = logging.getLogger(__name__)

INTERVAL = 60.0  # seconds between two checks
SLICE_INTERVAL = 0.2  # seconds between two slices, which block Redis for some milliseconds
LOOKUPS = 5000  # in one slice: names times processes
BATCH_SIZE = 500  # objects whose members one slice checks


class SelfCheck:
    """Checks all totals once per INTERVAL, a slice after each write, in one of the processes.

    The process with the smallest id does it. Not thread-safe.
    """

    def __init__(self, run: Callable[..., Any], processes: Processes) -> None:
        self._run, self._processes = run, processes
        self._due = time.monotonic() + INTERVAL
        self._slices: Iterator[list[str]] | None = None

    def step(self) -> None:
        """Check the next slice, if a check is due."""
        if time.monotonic() < self._due or not self._processes.is_first():
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
        processes = list(self._processes.lease_ends)
        objects = yield from self._scan()
        for process in processes:
            yield from self._scan(process=process)
        while objects:
            batch = objects[:BATCH_SIZE]
            _, found, rest = self._check(*batch)
            yield found
            if rest == batch:  # the first one has too many members for one step
                yield from self._scan(object=batch[0])
                rest = batch[1:]
            objects = [*rest, *objects[BATCH_SIZE:]]

    def _scan(self, **scanned: str) -> Generator[list[str], None, list[str]]:
        """Check the totals in one hash, and return the objects in it that have members."""
        objects: list[str] = []
        cursor = b"0"
        while True:
            cursor, found, part = self._check(cursor=cursor, **scanned)
            objects += part
            yield found
            if cursor == b"0":
                return objects

    def _check(
        self, *names: str, object: str = "", process: str = "", cursor: bytes = b"0"
    ) -> tuple[bytes, list[str], list[str]]:
        size = max(LOOKUPS // max(len(self._processes.lease_ends), 1), 10)
        cursor, wrong, objects = self._run(
            scripts.CHECK, *names, object=object, process=process, cursor=cursor, size=size
        )
        found = _describe(wrong)
        if found:
            process_stats.wrong_totals += len(found)
            logger.error("Totals on Redis were wrong and are repaired: %s", found)
        return cursor, found, [name.decode() for name in objects]


def _describe(wrong: list[bytes]) -> list[str]:
    """Return the wrong totals without the keys of members, which are personal data."""
    found = []
    for entry, total, expected in zip(wrong[::3], wrong[1::3], wrong[2::3], strict=True):
        name, key = split_entry(entry.decode())
        what = f"a member of {name!r}" if key else repr(name)
        if name == EXTRA:
            what = "further objects of connections"
        found.append(f"{what}: {int(total)} instead of {int(expected)}")
    return found
