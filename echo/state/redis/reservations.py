"""Decides joins within a limit that all processes share."""

import logging
import time
from collections import defaultdict
from functools import partial

from redis.exceptions import ResponseError

from echo.log import is_due
from echo.state.base import EXTRA, Objects
from echo.state.memory import MemoryState
from echo.state.redis import scripts
from echo.state.redis.lua import CHANGE, CLOCK, REQUIRE_KNOWN
from echo.state.redis.scripts import MAX_OBJECTS, READ_KEYS, Script
from echo.state.redis.share import Share
from echo.state.redis.steps import Steps
from echo.state.redis.waiter import Waiter
from echo.state.redis.write_queue import WriteQueue

logger = logging.getLogger(__name__)

# Seconds after which other joins are decided in the next round: in between, the lease is renewed.
MAX_SECONDS = 0.2

# Reserve as many of the wanted connections as the limits of all their objects allow. Returns
# MAX_OBJECTS * their number + the index of the object that allows the fewest. A repeated step
# returns the same; a late step, after a newer one of the process, reserves nothing.
#
# `extra`: the name for the objects of a connection beyond its first. Then, for each object, its
# name, the count of the process, and the limit or "".
RESERVE = Script(
    f"{READ_KEYS} share",
    "id wanted# extra acknowledged sequence",
    CLOCK
    + CHANGE
    + REQUIRE_KNOWN
    + f"""
local own = redis.call('HMGET', share, '/epoch', '/sequence', '/granted')
if own[1] == epoch and own[2] == sequence then return tonumber(own[3]) end
if own[1] ~= epoch or own[2] ~= acknowledged then return -5 end
local granted, full = wanted, 0
for i = first, #ARGV, 3 do
  local name, count, limit = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  if limit then
    local previous = tonumber(redis.call('HGET', share, name) or 0)
    local others = live(name, tonumber(redis.call('HGET', totals, name) or 0)) - previous
    local free = math.max(0, limit - math.max(count, previous) - others)
    if free < granted then granted, full = free, (i - first) / 3 end
  end
end
local result = {MAX_OBJECTS} * granted + full
redis.call('HSET', share, '/sequence', sequence, '/granted', result)
-- Not the given counts: connections that have joined or left since the last write are still to be
-- written, together with their members and other objects.
local function add(name, number)
  redis.call('HINCRBY', share, name, number)
  change_total(name, number)
end
if granted > 0 then
  for i = first, #ARGV, 3 do add(ARGV[i], granted) end
  local further = (#ARGV - first + 1) / 3 - 1
  if further > 0 then add(extra, further * granted) end
  publish()
end
return result
""",
)


class Reservations:
    """Reserves connections on Redis, after all earlier changes of this process are written."""

    def __init__(self, steps: Steps, share: Share, queue: WriteQueue, local: MemoryState) -> None:
        self._steps, self._share, self._queue, self._local = steps, share, queue, local

    def decide(self, waiters: list[Waiter]) -> set[Waiter]:
        """Decide which waiters may join within their limits; return those not decided yet."""
        groups: defaultdict[Objects, list[Waiter]] = defaultdict(list)
        for waiter in waiters:
            if waiter.objects and not waiter.abandoned:
                groups[waiter.objects].append(waiter)
        undecided: set[Waiter] = set()
        began = time.monotonic()
        for objects, group in groups.items():
            if time.monotonic() - began > MAX_SECONDS:
                undecided.update(group)
                continue
            try:
                result = self._reserve(objects, len(group))
            except ResponseError as error:  # for example a missing permission
                if is_due("limit"):
                    message = "Redis rejected a limit check; limits apply per process: %s"
                    logger.warning(message, error)
                continue
            if result < 0:  # the sum is unknown
                now = time.monotonic()
                undecided.update(waiter for waiter in group if now < waiter.until)
                continue
            granted, full = divmod(result, scripts.MAX_OBJECTS)
            for waiter in group:
                waiter.full = objects[full][0]
                join = partial(self._add, waiter) if granted > 0 else None
                granted -= self._queue.decide(waiter, join)
        return undecided

    def _add(self, waiter: Waiter) -> bool:
        objects = tuple((name, None) for name, _ in waiter.objects)
        return self._local.add(objects, waiter.member) is None

    def _reserve(self, objects: Objects, wanted: int) -> int:
        """Reserve up to `wanted` connections. Return the result of RESERVE: < 0 if not possible."""
        if self._share.processes.awaited:
            return scripts.AWAITING
        names = [name for name, _ in objects]
        # The next write corrects a reservation that is not used.
        self._queue.add(*names, *([EXTRA] if len(names) > 1 else []))
        counts = self._local.values(names)
        share, sequence = self._share, self._share.next_sequence()
        result = self._steps.run(
            RESERVE,
            *(v for name, limit in objects for v in (name, counts[name], limit or "")),
            share=self._steps.process_id,
            wanted=wanted,
            extra=EXTRA,
            acknowledged=share.sequence,
            sequence=sequence,
        )
        if result >= 0:
            share.sequence, share.has_reserved = sequence, True
        return int(result)
