"""Decides joins within a limit that all processes share."""

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial

from redis.exceptions import ResponseError

from echo.log import is_due
from echo.state.base import EXTRA, Objects
from echo.state.memory import MemoryState
from echo.state.redis import scripts
from echo.state.redis.lua import CHANGE, CLOCK, OWN_SHARE, REQUIRE_KNOWN
from echo.state.redis.scripts import MAX_OBJECTS, READ_KEYS, Script
from echo.state.redis.share import Share
from echo.state.redis.steps import Steps
from echo.state.redis.waiter import LimitedJoin, Waiter
from echo.state.redis.write_queue import WriteQueue

logger = logging.getLogger(__name__)

# Seconds after which other joins are decided in the next round: in between, the lease is renewed.
MAX_SECONDS = 0.2
MAX_NAMES = 250  # in one step, which blocks Redis for about 2 ms

Group = tuple[Objects, list[LimitedJoin]]  # the joins to the same objects

# Reserve connections of groups that have the same objects: of each group in turn, as many of the
# wanted ones as the limits of all its objects allow. Returns a string with a number for each group:
# MAX_OBJECTS * its connections + the index of the object that allows the fewest. A repeated step
# returns the same; a late step, after a newer one of the process, reserves nothing.
#
# `extra`: the name for the objects of a connection beyond its first. Then, for each group, how many
# connections are wanted, the number of objects, and for each object its name, the count of the
# process, and the limit or "".
RESERVE = Script(
    f"{READ_KEYS} share",
    "id extra acknowledged sequence",
    CLOCK
    + CHANGE
    + OWN_SHARE
    + REQUIRE_KNOWN
    + f"""
if own[1] == epoch and own[2] == sequence then return redis.call('HGET', share, '/granted') end
if own[1] ~= epoch or own[2] ~= acknowledged then return -5 end
add_buckets((#ARGV - first + 1) / 3)
-- Not the given counts: connections that have joined or left since the last write are still to be
-- written, together with their members and other objects.
local reserved = {{}}
local function add(name, number)
  reserved[name] = (reserved[name] or 0) + number
  add_to_share(name, number)
  change_total(name, number)
end
local results, further, i = {{}}, 0, first
while ARGV[i] do
  local granted, objects, full = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), 0
  for n = 0, objects - 1 do
    local at = i + 2 + 3 * n
    local name, count, limit = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    if limit then
      count = count + (reserved[name] or 0)
      local bucket = bucket_key(share, bucket_of(name, buckets))
      local previous = tonumber(redis.call('HGET', bucket, name) or 0)
      local others = live(name, tonumber(redis.call('HGET', totals, name) or 0)) - previous
      local free = math.max(0, limit - math.max(count, previous) - others)
      if free < granted then granted, full = free, n end
    end
  end
  if granted > 0 then
    for n = 0, objects - 1 do add(ARGV[i + 2 + 3 * n], granted) end
    further = further + (objects - 1) * granted
  end
  results[#results + 1] = text({MAX_OBJECTS} * granted + full)
  i = i + 2 + 3 * objects
end
if further > 0 then add(extra, further) end
local result = table.concat(results, ' ')
redis.call('HSET', share, '/sequence', sequence, '/granted', result, '/names', names)
if #changed > 0 then publish() end
return result
""",
)


class Reservations:
    """Reserves connections on Redis, after all earlier changes of this process are written."""

    def __init__(self, steps: Steps, share: Share, queue: WriteQueue, local: MemoryState) -> None:
        self._steps, self._share, self._queue, self._local = steps, share, queue, local

    def decide(self, waiters: list[Waiter]) -> dict[LimitedJoin, None]:
        """Decide on the joins among the waiters. Return those that are not decided, in order."""
        by_objects: defaultdict[Objects, list[LimitedJoin]] = defaultdict(list)
        for waiter in waiters:
            if isinstance(waiter, LimitedJoin) and not waiter.abandoned:
                by_objects[waiter.objects].append(waiter)
        undecided: list[LimitedJoin] = []
        began = time.monotonic()
        for groups in _batches(by_objects.items()):
            if time.monotonic() - began > MAX_SECONDS:
                undecided += _joins(groups)
            else:
                undecided += self._decide(groups)
        return dict.fromkeys(undecided)

    def _decide(self, groups: list[Group]) -> list[LimitedJoin]:
        try:
            results = self._reserve(groups)
        except ResponseError as error:  # for example a missing permission
            if is_due("limit"):
                message = "Redis rejected a limit check; limits apply per process: %s"
                logger.warning(message, error)
            return []
        if results is None:
            now = time.monotonic()
            return [join for join in _joins(groups) if now < join.until]
        for (objects, joins), result in zip(groups, results, strict=True):
            granted, full = divmod(result, scripts.MAX_OBJECTS)
            for join in joins:
                join.full = objects[full][0]
                add = partial(self._add, join) if granted > 0 else None
                granted -= self._queue.decide(join, add)
        return []

    def _add(self, join: LimitedJoin) -> bool:
        objects = tuple([(name, None) for name, _ in join.objects])
        return self._local.add(objects, join.member) is None

    def _reserve(self, groups: list[Group]) -> list[int] | None:
        """Reserve up to a connection for each join. Return the result of RESERVE for each group.

        Returns None if the sum is unknown.
        """
        if self._share.processes.awaited:
            return None
        names = {name for objects, _ in groups for name, _ in objects}
        # The next write corrects reservations that are not used.
        self._queue.add(*names, EXTRA)
        counts = self._local.values(names)
        args: list[str | int] = []
        for objects, joins in groups:
            args += (len(joins), len(objects))
            for name, limit in objects:
                args += (name, counts[name], limit or "")
        share, sequence = self._share, self._share.next_sequence()
        result = self._steps.run(
            RESERVE,
            *args,
            share=self._steps.process_id,
            extra=EXTRA,
            acknowledged=share.sequence,
            sequence=sequence,
        )
        if isinstance(result, int):
            return None
        share.sequence, share.has_reserved = sequence, True
        return [int(each) for each in result.split()]


def _joins(groups: list[Group]) -> list[LimitedJoin]:
    return [join for _, joins in groups for join in joins]


def _batches(groups: Iterable[Group]) -> Iterator[list[Group]]:
    """Divide the groups into lists with few names."""
    batch: list[Group] = []
    size = 0
    for group in groups:
        batch.append(group)
        size += len(group[0])
        if size >= MAX_NAMES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
