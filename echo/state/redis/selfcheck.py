"""Compares the totals with the sums of the shares, and repairs a difference."""

import logging
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

from echo.members import split_entry
from echo.state.base import EXTRA
from echo.state.redis.lua import CHANGE, CLOCK
from echo.state.redis.processes import Processes
from echo.state.redis.scripts import READ_KEYS, Script
from echo.stats import process_stats

logger = logging.getLogger(__name__)

INTERVAL = 60.0  # seconds between two checks
SLICE_INTERVAL = 0.2  # seconds between two slices, which block Redis for some milliseconds
LOOKUPS = 5000  # in one slice: names times processes
BATCH_SIZE = 500  # objects whose members one slice checks

# Check the invariant for a part of the totals: those of all objects; those of the members of
# `object`; those of the share of `process`; or those of the members of further objects. Repairs
# each wrong total. Returns the next cursor, a list of each wrong name, its total and the sum, and a
# list of objects: those with members; of the further objects, those that are too many for the step.
CHECK = Script(
    READ_KEYS,
    "id object process cursor size#",
    CLOCK
    + CHANGE
    + """
if not epoch or not is_alive(id) then return {'0', {}, {}} end  -- a write will begin a new epoch
local shares, wrong, objects = {}, {}, {}
for _, each in ipairs(ids('-inf', '+inf')) do
  local key = share_prefix .. each
  local found = redis.call('HMGET', key, '/epoch', '/buckets')
  if found[1] == epoch then shares[#shares + 1] = {key, tonumber(found[2] or 1)} end
end
local function check(name, total)
  local sum = 0
  total = tonumber(total)
  for _, share in ipairs(shares) do
    local bucket = bucket_key(share[1], bucket_of(name, share[2]))
    local found = redis.call('HMGET', bucket, '/epoch', name)
    -- Without a bucket that was evicted, the sum is unknown: the process begins a new epoch.
    if found[1] ~= epoch then return redis.call('HDEL', share[1], '/epoch') end
    sum = sum + (found[2] or 0)
  end
  if sum == total then return end
  change_total(name, sum - total)
  for _, each in ipairs({name, text(total), text(sum)}) do wrong[#wrong + 1] = each end
end
local function check_members(name, entries)
  for i = 1, #entries, 2 do
    local key, total = entries[i], string.match(entries[i + 1], '^%d+')
    if key ~= '' then check(name .. '/' .. key, total) end
  end
end
local function has_members(name)
  return redis.call('HGET', members_prefix .. name, '') == epoch
end
local part, scanned = {'0', {}}, process == '' and first > #ARGV and totals
if object ~= '' then scanned = has_members(object) and members_prefix .. object end
if scanned then part = redis.call('HSCAN', scanned, cursor, 'COUNT', size) end
if object ~= '' then
  check_members(object, part[2])
  part[2] = {}
end
if process ~= '' then  -- names without a total; the others are checked with the totals
  local share = share_prefix .. process
  local bucket, buckets = tonumber(cursor), tonumber(redis.call('HGET', share, '/buckets') or 1)
  repeat
    local entries = redis.call('HGETALL', bucket_key(share, bucket))
    for i = 1, #entries, 2 do
      local name = entries[i]
      local of, key = string.match(name, '^([^/]+)/(.+)$')
      local hash = of and has_members(of) and members_prefix .. of or not of and totals
      local is_number = string.sub(name, 1, 1) ~= '/'
      if is_number and not (hash and redis.call('HGET', hash, key or name)) then check(name, 0) end
    end
    bucket, size = bucket + 1, size - #entries / 2
  until bucket >= buckets or size <= 0
  part[1] = bucket < buckets and text(bucket) or '0'
end
for i = 1, #part[2], 2 do
  local name = part[2][i]
  if name ~= '/epoch' then
    check(name, redis.call('HGET', totals, name) or 0)
    if has_members(name) then objects[#objects + 1] = name end
  end
end
for i = first, #ARGV do
  local name = ARGV[i]
  size = size - redis.call('HLEN', members_prefix .. name)
  if size < 0 then
    objects[#objects + 1] = name
  elseif has_members(name) then
    check_members(name, redis.call('HGETALL', members_prefix .. name))
  end
end
publish()
return {part[1], wrong, objects}
""",
)


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
            CHECK, *names, object=object, process=process, cursor=cursor, size=size
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
