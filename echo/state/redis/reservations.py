"""Decides joins within a limit that all processes share."""

import logging
import time
from collections import defaultdict
from functools import partial

from redis.exceptions import ResponseError

from echo.log import is_due
from echo.state.memory import MemoryState
from echo.state.redis import scripts
from echo.state.redis.share import Share
from echo.state.redis.steps import Steps
from echo.state.redis.waiter import Waiter
from echo.state.redis.write_queue import WriteQueue

logger = logging.getLogger(__name__)


class Reservations:
    """Reserves connections on Redis, after all earlier changes of this process are written."""

    def __init__(self, steps: Steps, share: Share, queue: WriteQueue, local: MemoryState) -> None:
        self._steps, self._share, self._queue, self._local = steps, share, queue, local

    def decide(self, waiters: list[Waiter]) -> set[Waiter]:
        """Decide which waiters may join within their limit; return those not decided yet."""
        groups: defaultdict[tuple[str, int], list[Waiter]] = defaultdict(list)
        for waiter in waiters:
            if waiter.limit is not None and waiter.name is not None and not waiter.abandoned:
                groups[waiter.name, waiter.limit].append(waiter)
        undecided: set[Waiter] = set()
        for (name, limit), group in groups.items():
            try:
                granted = self._reserve(name, limit, len(group))
            except ResponseError as error:  # for example a missing permission
                if is_due("limit"):
                    message = "Redis rejected a limit check; limits apply per process: %s"
                    logger.warning(message, error)
                continue
            if granted < 0:  # the sum is unknown
                now = time.monotonic()
                undecided.update(waiter for waiter in group if now < waiter.until)
                continue
            for waiter in group:
                join = partial(self._local.add, name, member=waiter.member) if granted > 0 else None
                granted -= self._queue.decide(waiter, join)
        return undecided

    def _reserve(self, name: str, limit: int, wanted: int) -> int:
        """Reserve up to `wanted` connections. Return their number, or < 0 if the sum is unknown."""
        if self._share.processes.awaited:
            return scripts.AWAITING
        self._queue.add(name)  # the next write corrects a reservation that is not used
        share, sequence = self._share, self._share.next_sequence()
        granted = self._steps.run(
            scripts.RESERVE,
            share=self._steps.process_id,
            name=name,
            count=self._local.count(name),
            wanted=wanted,
            limit=limit,
            acknowledged=share.sequence,
            sequence=sequence,
        )
        if granted >= 0:
            share.sequence, share.has_reserved = sequence, True
        return int(granted)
