"""The counts of several processes, on Redis; scripts.py describes the keys.

Each process writes one share, its own, and holds a lease that it renews. A count is the sum over
the shares of all live processes.
"""

import logging
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from echo.exceptions import StateUnavailable
from echo.log import is_due
from echo.members import MemberList, NewMember, Presence, entry_name, parse_presence
from echo.state.base import EXTRA, Listener, Objects, State
from echo.state.memory import MemoryState
from echo.state.redis import scripts
from echo.state.redis.client import CONNECTION_ERRORS, ERRORS, RedisClient
from echo.state.redis.feed import Feed
from echo.state.redis.ledger import RedisLedger
from echo.state.redis.member_scripts import MEMBER, MEMBER_COUNT, MEMBERS, MEMBERS_OF_OBJECTS
from echo.state.redis.publisher import RECHECK_INTERVAL, Publisher
from echo.state.redis.read_scripts import COUNT, COUNTS
from echo.state.redis.selfcheck import SelfCheck
from echo.state.redis.threads import ReadThreads
from echo.state.redis.waiter import LimitedJoin, Waiter

logger = logging.getLogger(__name__)

# If a read takes longer than the threshold, Redis has hung. Handshakes may have proceeded meanwhile
# (JOIN_TIMEOUT), and their writes may come after the read. So repeat the read after the delay.
SLOW_READ_THRESHOLD, REREAD_DELAY = 0.05, 0.1  # seconds
MAX_NAMES_AT_ONCE = 5000  # if there are more, counts are read in parts
MAX_MEMBERS_AT_ONCE = 1000  # the same for the members of an object
PART_SIZE = 1000  # names
MEMBERS_PART_SIZE = 250  # with infos of 1 KiB, Redis needs about 3 ms
MAX_ATTEMPTS = 5  # to read all parts while epochs end

UNKNOWN = {
    scripts.LOST: "Redis has lost all counts; the processes will write them again.",
    scripts.WARMING_UP: (
        "The counts on Redis are new, or all leases may have expired at once: all processes will "
        "have written their counts within {warm_up:.1f} s."
    ),
    scripts.AWAITING: "Processes that were alive have not written their counts again yet.",
    scripts.NO_LEASE: "Redis has lost the lease of this process, which will write it again.",
}


class RedisState(State):
    """Writes the counts of this process to Redis, and reads the sums over all processes.

    One thread writes; reads run in the thread of the caller. Reads raise StateUnavailable if the
    sum is unknown: Redis is down; or it was flushed or restarted, and some processes may not have
    written again. In a process that has just started, and so may be the first, reads wait for the
    sum instead: about a second, or for the length of a lease if processes were killed.
    """

    shared = True

    def __init__(self, url: str, lease: float, heartbeat: float) -> None:
        super().__init__()
        self._local = MemoryState()
        self._lease = lease  # seconds
        self.id = secrets.token_hex(8)  # of this process, in the keys on Redis
        self._threads = ReadThreads()
        # Not the client of the writes, so that many reads never delay them.
        self._reads = RedisClient(url)
        self._publisher = Publisher(
            url, self.id, self._local, lease, heartbeat, on_doubt=self._on_doubt
        )
        self.health = self._publisher.health
        self._feed = Feed(RedisClient(url), self._publisher.share)
        self.ledger = RedisLedger(self._publisher)

    # Joining and leaving

    async def join_all(self, objects: Objects, member: NewMember | None = None) -> str | None:
        """Count one more connection: when this returns, all processes see it.

        Waits like `Publisher.publish`. If there is a limit, also waits until the sum is known:
        about a second after a start, or after Redis has lost data. While Redis is down, limits
        apply only to the connections of this process.
        """
        if any(limit is not None for _, limit in objects):
            return await self._join_within(objects, member)
        names, key = [name for name, _ in objects], _key(member)
        try:
            if member is None and len(objects) == 1:
                self._local.add(objects)
                await self._publisher.publish(Waiter(), *names)
            else:
                add = partial(self._local.add, objects, member)
                await self._publisher.publish(Waiter(), *_names(names, key), change=add)
        except BaseException:  # cancelled: the caller will not call leave
            self.leave_all(names, key)
            raise
        return None

    async def _join_within(self, objects: Objects, member: NewMember | None) -> str | None:
        publisher, names, key = self._publisher, [name for name, _ in objects], _key(member)
        until = time.monotonic() + self._lease + publisher.share.warm_up
        join = LimitedJoin(objects, member, until)
        try:
            await publisher.publish(join)
            granted = publisher.queue.abandon(join)
            if granted and member is not None:  # Redis has the counts, but not the member
                await publisher.publish(Waiter(), *_names(names, key))
        except BaseException:
            if publisher.queue.abandon(join):
                self.leave_all(names, key)
            raise
        if granted is not None:
            return None if granted else join.full
        if not self.health.is_down() and is_due("limit"):
            logger.warning("Redis is too slow to check limits; they apply per process.")
        add = partial(self._local.add, objects, member)
        full: str | None = publisher.mark(*_names(names, key), change=add)
        return full

    def leave_all(self, names: Sequence[str], key: str | None = None) -> None:
        if key is None and len(names) == 1:
            self._local.leave(names[0])
            self._publisher.mark(names[0])
        else:
            leave = partial(self._local.leave_all, names, key)
            self._publisher.mark(*_names(names, key), change=leave)

    def set_info(self, name: str, key: str, info: str, newer_than: int = 0) -> bool:
        change = partial(self._local.set_info, name, key, info, newer_than)
        return bool(self._publisher.mark(name, entry_name(name, key), change=change))

    def local_member(self, name: str, key: str) -> Presence | None:
        return self._local.member(name, key)

    async def settled(self) -> None:
        """Return when Redis has all earlier changes. Waits like `Publisher.publish`."""
        if self._publisher.queue.has_unwritten():
            await self._publisher.publish(Waiter())

    def listen(self, listener: Listener) -> Callable[[], None]:
        return self._feed.add(listener)

    def check(self) -> list[str]:
        try:
            check = SelfCheck(partial(self._reads.run, id=self.id), self._publisher.share.processes)
            return [total for part in check.slices() for total in part]
        except ERRORS as error:
            raise StateUnavailable(f"Redis does not respond: {error}") from error

    def close(self) -> None:
        """Withdraw the counts of this process at once, and stop. Later calls have no effect."""
        super().close()
        self._feed.close()
        self._publisher.close()
        self._threads.close()
        self._reads.close()

    # Reading, after all earlier changes of this process

    def snapshot(self, name: str | None = None) -> tuple[int, dict[str, int]]:
        """Return the number of the last change, and the counts after it: of one object, or of all.

        All counts are of the same moment, unless there are more than MAX_NAMES_AT_ONCE: then they
        are read in parts, one after the other.
        """
        self._publisher.wait_until_written(name)
        if name is not None:
            count, number = self._read(COUNT, name=name)
            return number, {name: count}
        for _ in range(MAX_ATTEMPTS):
            epochs: set[bytes] = set()
            numbers: list[int] = []
            counts: dict[str, int] = {}
            cursor = b"0"
            while not epochs or (cursor != b"0" and len(epochs) == 1):
                epoch, number, cursor, part = self._read(
                    COUNTS, cursor=cursor, limit=MAX_NAMES_AT_ONCE, size=PART_SIZE
                )
                epochs.add(epoch)
                numbers.append(number)
                counts |= _parse(part)
            if len(epochs) == 1:
                return numbers[0], {each: count for each, count in counts.items() if count > 0}
        raise StateUnavailable("Redis lost the counts while they were read; try again.")

    async def asnapshot(self, name: str | None = None) -> tuple[int, dict[str, int]]:
        return await self._threads.run(self.snapshot, name)

    def members(self, name: str) -> MemberList:
        """Return the members of the object.

        They and the count are of the same moment, unless there are more than MAX_MEMBERS_AT_ONCE
        members: then they are read in parts, one after the other.
        """
        self._publisher.wait_until_written(name)
        for _ in range(MAX_ATTEMPTS):
            number, count, epoch, cursor, part = self._read(
                MEMBERS,
                name=name,
                cursor=0,
                limit=MAX_MEMBERS_AT_ONCE,
                size=MEMBERS_PART_SIZE,
            )
            members = _parse_members(part)
            last_epoch = epoch
            while cursor != b"0" and last_epoch == epoch:
                _, _, last_epoch, cursor, part = self._read(
                    MEMBERS, name=name, cursor=cursor, limit=0, size=MEMBERS_PART_SIZE
                )
                members |= _parse_members(part)
            if last_epoch == epoch:
                return MemberList(number, count, members)
        raise StateUnavailable("Redis lost the members while they were read; try again.")

    async def amembers(self, name: str) -> MemberList:
        return await self._threads.run(self.members, name)

    def members_of(self, names: Collection[str]) -> dict[str, Presence]:
        self._publisher.wait_until_written()
        for _ in range(MAX_ATTEMPTS):
            rest = list(names)
            epochs: set[bytes] = set()
            members: dict[str, Presence] = {}
            cursor = b"0"
            while rest and len(epochs) < 2:
                epoch, finished, cursor, part = self._read(
                    MEMBERS_OF_OBJECTS,
                    *rest[:MEMBERS_PART_SIZE],
                    cursor=cursor,
                    size=MEMBERS_PART_SIZE,
                )
                epochs.add(epoch)
                members |= _parse_members(part)
                del rest[:finished]
            if len(epochs) < 2:
                return members
        raise StateUnavailable("Redis lost the members while they were read; try again.")

    def member_count(self, name: str) -> int:
        self._publisher.wait_until_written(name)
        count = int(self._read(MEMBER_COUNT, name=name)[0])
        # Redis cannot tell how many of them have connections in live processes only.
        return len(self.members(name).members) if count < 0 else count

    async def amember_count(self, name: str) -> int:
        return await self._threads.run(self.member_count, name)

    def member(self, name: str, key: str) -> Presence | None:
        self._publisher.wait_until_written(name)
        return parse_presence(self._read(MEMBER, name=name, key=key)[0].decode())

    async def amember(self, name: str, key: str) -> Presence | None:
        return await self._threads.run(self.member, name, key)

    def _read(self, script: scripts.Script, *rest: str, **named: Any) -> Any:
        """Return the result of the script. In a new process, wait until the sum is known."""
        while True:
            unknown_reason = self._publisher.unknown_reason()
            if unknown_reason is None:
                result = self._run(script, *rest, **named)
                # Check again: this process may have lost Redis during the read.
                unknown_reason = self._publisher.unknown_reason()
                if isinstance(result, int):
                    self._publisher.queue.wake()  # a write may begin a new epoch
                    unknown_reason = UNKNOWN[result].format(warm_up=self._publisher.share.warm_up)
                if unknown_reason is None:
                    return result
            if not self.health.is_new():
                raise StateUnavailable(unknown_reason)
            time.sleep(RECHECK_INTERVAL)

    def _run(self, script: scripts.Script, *rest: str, **named: Any) -> Any:
        began = time.monotonic()
        try:
            result = self._reads.run(script, *rest, id=self.id, **named)
            if time.monotonic() - began > SLOW_READ_THRESHOLD:
                time.sleep(REREAD_DELAY)
                result = self._reads.run(script, *rest, id=self.id, **named)
        except Exception as error:
            self._on_read_failure(error)
            raise StateUnavailable(f"Redis does not respond: {error}") from error
        return result

    def _on_read_failure(self, error: Exception) -> None:
        """Log an error that the publisher does not log, such as a missing permission to read."""
        if not (isinstance(error, CONNECTION_ERRORS) or self.health.is_down()) and is_due("read"):
            logger.warning("Redis rejected a read: %s", error)

    def _on_doubt(self) -> None:
        self._reads.drop()
        self._feed.notify()


def _parse(part: bytes) -> dict[str, int]:
    """Return the counts from alternating lines of names and counts, `b"foo\\n2\\nbar\\n1"`."""
    lines = part.decode().split("\n") if part else []
    counts = dict(zip(lines[::2], map(int, lines[1::2]), strict=True))
    counts.pop("/epoch", None)
    return counts


def _parse_members(part: bytes) -> dict[str, Presence]:
    """Return the members from alternating lines of keys and presences."""
    lines = part.decode().split("\n") if part else []
    pairs = zip(lines[::2], map(parse_presence, lines[1::2]), strict=True)
    return {key: presence for key, presence in pairs if presence is not None}


def _names(names: Sequence[str], key: str | None) -> list[str]:
    """Return the names whose values change with a connection of the member to these objects."""
    changed = [*names, EXTRA] if len(names) > 1 else [*names]
    return changed if key is None else changed + [entry_name(name, key) for name in names]


def _key(member: NewMember | None) -> str | None:
    return None if member is None else member[0]
