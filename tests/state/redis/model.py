"""Random steps of several processes on a real Redis, compared with a model in Python.

    python -m tests.state.redis.model --steps 20000

runs at least that many steps of the machine and prints how many of each kind; `--seed` repeats a
run. Hypothesis minimises a sequence that breaks a promise, and prints it.

The scripts are the real ones but for one line: they take the time from a key, which the machine
sets, instead of TIME, so that each sequence of steps has one result. `Process` decides like
`Publisher` when to write its whole share. After each step, `World.check` compares:

- the totals, of objects and of members, with the sum of the shares;
- each read with the sum of the numbers that Redis has applied, of all processes with a lease;
- the members in each read with the newest info and the oldest time that Redis has applied;
- the connections of the members of an object with its count: they never add up to more;
- each known read with the promise to each process: if it has a lease by its own clock, its last
  numbers are included;
- a follower of the change feed with the reads.

The promise does not hold for a process in these cases, which the machine counts as excused:

- Redis has lost it, no process that writes remembers it, and it does not write in time: it hangs,
  its steps are lost, or its heartbeat is longer than that of the process that began the epoch.
- Redis has lost its lease, which is longer than that of the process that remembers it.
- Until its next write: older keys were restored under the same run id, or its share was lost, or a
  late step of it from an earlier epoch wrote an older share.

If a share was lost, totals are wrong from the end of its lease until the self-check.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from hashlib import sha1
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import redis
from hypothesis import HealthCheck, Phase, assume, settings
from hypothesis import seed as with_seed
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from echo.live.watcher import Watched
from echo.members import Presence, entry_name, parse_presence, split_entry
from echo.state.base import EXTRA, Listener
from echo.state.follower import Follower
from echo.state.redis import (
    health,
    member_scripts,
    read_scripts,
    reservations,
    scripts,
    selfcheck,
    write_scripts,
)
from echo.state.redis.client import RedisClient
from echo.state.redis.health import Health
from echo.state.redis.processes import Processes
from echo.state.redis.share import CATCH_UP_GRACE, RETRY_INTERVAL
from tests.redis_server import RedisServer

NAMES = ["a", "b", "c", "d", "e", "f", EXTRA]
KEYS = ["x", "y/z", "\u2028é"]  # of members
ENTRIES = [entry_name(name, key) for name in NAMES[:4] for key in KEYS]
SETTINGS = [(8.0, 1.0), (3.0, 1.0), (8.0, 1.0), (8.0, 2.5)]  # seconds: lease, heartbeat
MAX_PROCESSES = 5
MAX_LEASE, MAX_HEARTBEAT = 8.0, 2.5  # seconds
RECHECK_INTERVAL = 0.25  # seconds
TICK = 100  # µs that a step takes
START = 1_700_000_000_000_000  # µs
EVERYTHING = 1000  # names
REMEMBERED_STEPS = 40
# What Redis should have, besides its keys, in a snapshot.
SAVED = ["shares", "stored", "expected", "unproven", "has_lost_share", "has_lost_bucket"]
SAVED += ["is_registry_lost", "warm_up", "silence", "written", "longest_lease"]
SAVE_EVERY = 5  # steps between two snapshots


class Step:
    """A script and its arguments, as a process has sent them."""

    def __init__(self, script: scripts.Script, *rest: Any, **named: Any) -> None:
        self.script, self.rest, self.named = script, rest, named
        self.was_executed = False
        self.result: Any = None  # of RESERVE


class ClockedScript(scripts.Script):
    """A script that takes the time from the key `clock`."""

    def __init__(self, script: scripts.Script) -> None:
        self.keys, self.args = script.keys, script.args
        before, after = "redis.call('TIME')", "redis.call('HMGET', 'clock', 's', 'us')"
        # Small buckets: names move between them.
        sizes = f"bucket_size = {scripts.MAX_IN_ONE}, {scripts.BUCKET_SIZE}"
        text = script.text.replace(sizes, "bucket_size = 4, 1")
        self.set_text(text.replace(before, after))

    def set_text(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()


COUNT, COUNTS, MEMBERS, MEMBER_COUNT, MEMBER, WRITE, REMOVE, RESERVE, CHECK = map(
    ClockedScript,
    (
        read_scripts.COUNT,
        read_scripts.COUNTS,
        member_scripts.MEMBERS,
        member_scripts.MEMBER_COUNT,
        member_scripts.MEMBER,
        write_scripts.WRITE,
        write_scripts.REMOVE,
        reservations.RESERVE,
        selfcheck.CHECK,
    ),
)


def _micros(seconds: float) -> int:
    return int(seconds * 1_000_000)


Pairs = list[tuple[str, int | str]]  # counts by name, presences by entry name
Limited = tuple[str, int, int | str]  # an object: its name, count and limit


def groups_of(step: Step) -> Iterator[tuple[int, list[Limited]]]:
    """Yield the groups of a RESERVE: how many connections are wanted, and their objects."""
    rest = iter(step.rest)
    for wanted in rest:
        yield wanted, [(next(rest), next(rest), next(rest)) for _ in range(next(rest))]


def connections(value: int | str) -> int:
    return int(str(value).split(" ")[0])


def written(values: dict[str, int], pairs: Pairs, step: Step) -> dict[str, int]:
    """Return the numbers of connections in a share after a step with these pairs."""
    is_whole = step.script is WRITE and step.named["more"] != ""
    is_begin = step.script is WRITE and step.named["begin"]
    new = {} if is_begin else dict(values)
    given = {name for name, _ in pairs}
    for name, value in pairs:
        before, new[name] = new.get(name, 0), connections(value)
        of = split_entry(name)[0]
        if of not in given and not is_whole:
            new[of] = new.get(of, 0) + new[name] - before
    return {name: count for name, count in new.items() if count > 0}


class Share:
    """What Redis should have of one process in the current epoch."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.sequence = -1
        self.lease_end = 0  # µs
        self.is_complete = False


class Process:
    """A process that writes like `Publisher`, one step at a time."""

    def __init__(self, world: "World", number: int, lease: float, heartbeat: float) -> None:
        self.world = world
        self.id = f"p{number}"
        self.lease, self.heartbeat = lease, heartbeat
        self.warm_up = heartbeat + CATCH_UP_GRACE
        self.health, self.processes = Health(lease), Processes(self.id)
        self.epoch = ""
        self.visitors: dict[str, int] = {}  # connections without a member
        self.members: dict[str, Presence] = {}  # by entry name
        self.clock_error = number % 3 * 1_500_000  # µs
        self.dirty: set[str] = set()
        self.attempts = self.sequence = 0
        self.rest: list[Pairs] = []  # parts still to write
        self.begin = self.is_complete = False
        self.part_size = EVERYTHING
        self.last_attempt = 0.0
        self.is_hung = False  # also: has been killed
        # It hung, or a step was lost, since its last complete write.
        self.is_disturbed = False
        # Its numbers in the last step that Redis has applied, and the number of that step.
        self.applied: dict[str, int] = {}
        self.applied_sequence = -1

    def change(self, name: str, count: int, info: int | None = None) -> None:
        """Set the number of connections of a member, or of those that have none.

        The member gets another info with a join, or if one is given.
        """
        object_name, key = split_entry(name)
        self.dirty |= {object_name, name}
        if not key:
            self.visitors[name] = count
            return
        now = self.world.now + self.clock_error
        old = self.members.get(name) or Presence(0, now, 0, "{}")
        if count > old.connections or info is not None:
            changed = max(now, old.changed + 1)
            old = old._replace(changed=changed, info=f'{{"n m": {info or changed % 1000}}}')
        self.members[name] = old._replace(connections=count)
        if not count:
            del self.members[name]

    def count(self, name: str) -> int:
        keys = [presence for each, presence in self.members.items() if split_entry(each)[0] == name]
        return self.visitors.get(name, 0) + sum(presence.connections for presence in keys)

    def value(self, name: str) -> int | str:
        if "/" not in name:
            return self.count(name)
        return str(self.members[name]) if name in self.members else 0

    def has_lease(self) -> bool:
        return self.health.acknowledged is not None and not self.health.lease_has_expired()

    def due(self) -> float:
        """Return the time of its next write."""
        if self.health.is_outage:
            return self.last_attempt + RETRY_INTERVAL
        if self.health.acknowledged is None or self.rest or self.dirty or not self.is_complete:
            return self.world.seconds()
        wait = RECHECK_INTERVAL if self.processes.awaited else self.heartbeat
        return self.last_attempt + wait

    def next_write(self) -> Step:
        if not self.rest and not (self.has_lease() and self.is_complete):
            self.begin_whole()
        if not self.rest:  # members first, as in `Share`
            names = sorted(self.dirty, key=lambda name: ("/" not in name, name))
            self.rest = self.parts([(name, self.value(name)) for name in names])
            self.dirty = set()
        pairs = self.rest.pop(0)
        self.attempts += 1
        health, processes = self.health, self.processes
        return Step(
            WRITE,
            *(part for pair in pairs for part in pair),
            id=self.id,
            share=self.id,
            warm_up=_micros(self.warm_up),
            settle=_micros(min(RETRY_INTERVAL + CATCH_UP_GRACE + 0.1, self.warm_up)),
            lease=_micros(self.lease),
            begin=int(self.begin),
            more="" if self.is_complete else int(bool(self.rest)),
            acknowledged=self.sequence,
            sequence=self.attempts,
            remembered=",".join(processes.lease_ends) if self.begin else "",
            remembered_epoch=self.epoch,
            candidate=1,
            registry="" if processes.awaited or health.is_outage else processes.version,
            renew=0,
            size=self.world.size,
        )

    def begin_whole(self) -> None:
        names = [*NAMES, *self.members]
        self.rest = self.parts([(name, self.value(name)) for name in names if self.value(name)])
        self.begin, self.is_complete = True, False
        self.dirty = set()

    def parts(self, pairs: Pairs) -> list[Pairs]:
        size = self.part_size
        return [pairs[i : i + size] for i in range(0, len(pairs), size)] or [[]]

    def write(self, loss: str = "") -> bool:
        """Write, unless the request is lost; the reply may be lost. Return whether it succeeded."""
        self.last_attempt = self.world.seconds()
        step = self.next_write()
        named = step.named
        result = self.world.send(self, step, loss)
        if loss:
            self.lose({*step.rest[::2]})
            return False
        if result == scripts.WHOLE_NEEDED:
            self.world.seen["write: whole needed"] += 1
            self.health.is_outage = False
            self.begin_whole()
            return False
        epoch, _, _, _, version, members = result
        self.epoch = epoch.decode()
        if members is not None:
            live = [member.decode() for member in members]
            self.processes.set(version.decode(), live, after_outage=self.health.is_outage)
        self.sequence = named["sequence"]
        self.health.acknowledged = self.last_attempt
        self.health.is_outage = False
        self.begin, self.is_complete = False, named["more"] in ("", 0)
        self.world.unproven.discard(self.id)
        if self.is_complete:
            self.is_disturbed = False
        alive = {p for p, end in self.world.registry.items() if end > self.world.now}
        assert alive <= {*self.processes.lease_ends}, "the process does not know all live processes"
        return True

    def apply(self, pairs: Pairs, sequence: int, step: Step) -> None:
        """Redis has applied a step of this process."""
        self.applied = written(self.applied, pairs, step)
        self.applied_sequence = sequence

    def lose(self, names: set[str]) -> None:
        self.is_disturbed = self.health.is_outage = True
        self.dirty |= {*names, *(name for part in self.rest for name, _ in part)}
        self.rest = []

    def is_unknown(self) -> bool:
        """Return whether this process knows that it cannot read."""
        health = self.health
        return health.is_down() or health.lease_has_expired() or bool(self.processes.awaited)


class Subscriber:
    """Passes the change feed on as `Feed` does, and applies it as `Watcher` does."""

    def __init__(self, client: Any) -> None:
        self.subscription = client.pubsub()
        self.subscription.subscribe(scripts.CHANGES)
        assert self.subscription.get_message(timeout=5)["type"] == "subscribe"
        self.watched = Watched(None)
        self.seen: int | None = None
        self.is_held = False  # messages are on their way
        self.is_in_doubt = False  # older keys were restored: numbers may repeat
        self.follower = Follower(self, wake=lambda: None, follows=lambda name: True)
        self.read_at, self.members = 0, dict[str, Presence]()

    def listen(self, listener: Listener) -> Callable[[], None]:
        self.listener = listener
        return lambda: None

    def receive(self) -> None:
        """Receive all messages that Redis has published until now."""
        self.subscription.ping()
        while True:
            message = self.subscription.get_message(timeout=5)
            assert message is not None, "no reply to PING"
            if message["type"] == "pong":
                return
            number, *lines = message["data"].decode().split("\n")
            self._add(int(number), dict(zip(lines[::2], lines[1::2], strict=True)))

    def _add(self, number: int, changes: dict[str, str]) -> None:
        if self.seen is not None and not self.is_in_doubt:
            if changes:
                assert number == self.seen + 1, f"change {number} follows {self.seen}"
            assert number > self.seen
        assert min(map(connections, changes.values()), default=0) >= 0, f"negative: {changes}"
        counts = {name: int(count) for name, count in changes.items() if "/" not in name}
        members = {name: value for name, value in changes.items() if "/" in name}
        is_read = self.is_in_doubt or not changes
        self.listener(number, None if is_read else counts, {} if is_read else members)
        self.seen, self.is_in_doubt = number, False

    def follow(
        self, number: int, counts: dict[str, int] | None, members: dict[str, Presence]
    ) -> None:
        """Apply all changes; if necessary, after a read, which has had this result."""
        if self.is_held:
            return
        must_read, changes, member_changes = self.follower.take()
        if must_read or self.watched.counts is None:
            self.watched.set(number, None if counts is None else dict(counts))
            self.read_at, self.members = number, {**members}
        self.watched.update(changes)
        for entry, (at, value) in member_changes.items():
            presence = parse_presence(value)
            if at > self.read_at and presence is None:
                self.members.pop(entry, None)
            elif at > self.read_at and presence is not None:
                self.members[entry] = presence

    def compare(self, counts: dict[str, int], members: dict[str, Presence]) -> None:
        if not self.is_held and not self.is_in_doubt:
            assert self.watched.counts == counts, f"follower: {self.watched.counts}, not {counts}"
            assert self.members == members, f"follower: {self.members}, not {members}"


class World:
    """Redis, the processes, and what Redis should have."""

    def __init__(self, url: str, seen: Counter[str]) -> None:
        self.seen = seen  # how often what has happened
        self.now = START  # µs
        self.client = RedisClient(url)
        self.raw = redis.Redis.from_url(url)
        self.raw.flushall()
        self.subscriber = Subscriber(self.raw)
        self.processes: list[Process] = []
        self.all: dict[str, Process] = {}
        self.size = 2  # names in a slice
        self.history: list[Step] = []
        self.snapshots: list[tuple[Any, ...]] = []
        self.reader = 0
        # In the current epoch:
        self.epoch: bytes | None = None
        self.shares: dict[str, Share] = {}
        # The presence in the hash of the object, with any number of connections, by entry name.
        self.stored: dict[str, Presence] = {}
        self.expected: dict[str, int] = {}  # id -> lease end of processes that must be awaited
        self.registry: dict[str, int] = {}
        # The promises to these processes are broken until their next write: the keys were changed
        # in a way that only this write can detect.
        self.unproven: set[str] = set()
        # The totals include a share that was lost, or a part of one.
        self.has_lost_share = self.has_lost_bucket = self.is_registry_lost = False
        self.is_restarted = False  # the run id of Redis differs from that in the keys
        # Of the process that began the epoch; of all that have written since, the shortest; µs.
        self.warm_up = self.silence = 0
        self.written = 0  # time of the last write, µs
        self.longest_lease = 0  # of all that have written since, µs

    def close(self) -> None:
        self.subscriber.subscription.close()
        self.client.close()
        self.raw.close()

    def seconds(self) -> float:
        return self.now / 1_000_000

    def advance_to(self, seconds: float) -> None:
        """Let time pass; the processes that do not hang write when it is due."""
        while True:
            running = [p for p in self.processes if not p.is_hung]
            process = min(running, key=Process.due, default=None)
            if process is None or process.due() > seconds:
                break
            self.now = max(self.now, _micros(process.due()))
            process.write()
            self.seen["(heartbeat)"] += 1
        self.now = max(self.now, _micros(seconds))

    # Steps

    def send(self, process: Process, step: Step, loss: str = "") -> Any:
        if step.rest or step.script is not WRITE or step.named["begin"] or loss:
            self.history = [*self.history[-REMEMBERED_STEPS:], step]
        if loss == "request":
            return None
        return self.execute(step)

    def execute(self, step: Step) -> Any:
        script, named = step.script, step.named
        step.was_executed = True
        self.now += TICK
        registry_before, epoch_before = self.registry, self.epoch
        must_begin = script is WRITE and self.must_begin_epoch(named)
        result = self.run(script, *step.rest, **named)
        self.refresh()
        if self.epoch != epoch_before:
            self._begin_epoch(registry_before, named, is_lost=epoch_before is None)
        else:
            assert not must_begin, "the loss or the silence was not noticed"
        if script is WRITE:
            is_alone = {*self.registry} == {named["id"]} and result != scripts.WHOLE_NEEDED
            silence = max(self.silence, named["warm_up"]) if is_alone else self.silence
            self.written, self.silence = self.now, min(silence, named["warm_up"])
            self.longest_lease = max(self.longest_lease, named["lease"])
        process = self.all[named["id"]]
        if script is WRITE:
            self._apply_write(process, step, result, registry_before)
        elif script is REMOVE:
            if process.id in self.shares:
                self.shares[process.id].lease_end = 0
        elif script is RESERVE:
            self._apply_reserve(process, step, result)
        hashes = self.hashes()
        self.stored = {name: each for name, each in self.stored.items() if name in hashes}
        return result

    def run(self, script: scripts.Script, *rest: Any, **named: Any) -> Any:
        clock = {"s": self.now // 1_000_000, "us": self.now % 1_000_000}
        self.raw.hset("clock", mapping=clock)
        self.seen["(script)"] += 1
        return self.client.run(script, *rest, **named)

    def refresh(self) -> None:
        """Read the registry, the epoch and the change feed."""
        with self.raw.pipeline(transaction=False) as pipe:
            pipe.zrange(scripts.PROCESSES, 0, -1, withscores=True)
            pipe.hget(scripts.META, "epoch")
            pipe.hget(scripts.META, "server")
            registry, self.epoch, server = pipe.execute()
        self.is_restarted = server == b"another"
        self.registry = {process.decode(): int(end) for process, end in registry}
        self.subscriber.receive()

    def must_begin_epoch(self, named: dict[str, Any]) -> bool:
        others = [p for p, end in self.registry.items() if end > 0 and p != named["id"]]
        is_silent = bool(others) and self.now - self.written > self.silence
        share = self.shares.get(named["id"])
        is_older = (
            share is not None
            and share.is_complete
            and share.lease_end > self.now
            and share.sequence < named["acknowledged"]
            and not named["begin"]
        )
        return self.epoch is None or self.is_restarted or is_silent or is_older

    def _begin_epoch(
        self, registry_before: dict[str, int], named: dict[str, Any], is_lost: bool
    ) -> None:
        self.seen["(epoch)"] += 1
        self.shares.clear()
        self.stored.clear()
        self.unproven.clear()
        self.has_lost_share = self.has_lost_bucket = self.is_registry_lost = False
        lease = named["lease"] if is_lost else max(named["lease"], self.longest_lease)
        self.expected = {
            process: self.now + lease for process, end in registry_before.items() if end > 0
        }
        self.warm_up = self.silence = named["warm_up"]
        self.longest_lease = named["lease"]

    def _apply_write(
        self, process: Process, step: Step, result: Any, registry_before: dict[str, int]
    ) -> None:
        rest, named = step.rest, step.named
        share = self.shares.get(process.id)
        if share is not None and share.lease_end <= self.now:
            share = None  # it is being swept
        current, sequence = share.sequence if share else -1, named["sequence"]
        self.is_registry_lost = False
        if current > sequence:
            assert result == scripts.WHOLE_NEEDED, "a late write was applied"
            self.seen["write: late"] += 1
            return
        if result == scripts.WHOLE_NEEDED:
            return
        assert result[0] == self.epoch
        if current == sequence or self.registry.get(process.id, 0) <= self.now:
            self.seen["write: repeated"] += 1
            return
        if named["begin"]:
            share = Share()
            if named["remembered_epoch"] != self.epoch.decode():
                for other in filter(None, named["remembered"].split(",")):
                    if other not in registry_before and other not in self.expected:
                        self.expected[other] = self.registry.get(
                            other, self.now + _micros(MAX_LEASE)
                        )
        assert share is not None, "a part was applied without the begin of the share"
        pairs = list(zip(rest[::2], rest[1::2], strict=True))
        share.counts = written(share.counts, pairs, step)
        self._store(pairs)
        share.sequence, share.is_complete = sequence, not named["more"]
        share.lease_end = self.now + named["lease"]
        self.shares[process.id] = share
        if sequence > process.applied_sequence:
            process.apply(pairs, sequence, step)
        elif sequence < process.applied_sequence:
            self.seen["write: stale, applied"] += 1
            self.unproven.add(process.id)
        self.seen["write: applied"] += 1

    def _store(self, pairs: Pairs) -> None:
        """The newest info and the oldest time count while the member has any connection."""
        for name, value in pairs:
            presence = parse_presence(str(value)) if "/" in name else None
            if presence is None:
                continue
            old = self.stored.get(name, presence)
            newest = max(old, presence, key=lambda each: each.changed)
            self.stored[name] = newest._replace(since=min(old.since, presence.since))

    def _apply_reserve(self, process: Process, step: Step, result: int | bytes) -> None:
        if isinstance(result, int):
            assert result < 0
            share = self.shares.get(process.id)
            if share is not None and share.sequence == step.named["sequence"]:
                assert result != scripts.STALE, "repeated, with another result"
            self.seen["reserve: unknown"] += 1
            return
        self.require_all("reservation")
        share, named = self.shares[process.id], step.named
        if share.sequence == named["sequence"]:
            assert result == step.result, "repeated, with another result"
            self.seen["reserve: repeated"] += 1
            return
        assert share.sequence == named["acknowledged"], "a late reservation was applied"
        added: Counter[str] = Counter()
        for (wanted, objects), number in zip(groups_of(step), result.split(), strict=True):
            granted, full = divmod(int(number), scripts.MAX_OBJECTS)
            if not self.is_damaged():
                free = [
                    self.free(share, name, count, limit, added[name])
                    for name, count, limit in objects
                ]
                room = min(wanted, *free)
                assert granted == room, f"{granted} granted instead of {room}"
                assert free[full] == room or room == wanted, f"{objects[full]} is not full"
            self.seen["reserve: granted" if granted else "reserve: denied"] += 1
            self.seen["reserve: several objects"] += len(objects) > 1
            self.seen["reserve: shared objects"] += any(added[name] for name, *_ in objects)
            for name, *_ in objects:
                added[name] += granted
            if len(objects) > 1:
                added[EXTRA] += granted * (len(objects) - 1)
        step.result, share.sequence = result, named["sequence"]
        pairs: Pairs = [(name, share.counts.get(name, 0) + more) for name, more in added.items()]
        share.counts = written(share.counts, pairs, step)
        if share.sequence > process.applied_sequence:
            process.apply(pairs, share.sequence, step)

    def free(self, share: Share, name: str, count: int, limit: int | str, added: int) -> int:
        """Return how many connections the limit of the object allows to the process of the share.

        `added`: those that the same step has reserved for earlier groups. The count is never less
        than in the share: connections of members that have left since the last write may still be
        there.
        """
        if limit == "":
            return EVERYTHING
        local = share.counts.get(name, 0)
        others = self.truth().get(name, 0) - local
        return max(0, int(limit) - max(count, local) - others - added)

    # Losses

    def lose_all(self) -> None:
        self.shares.clear()
        self.stored.clear()
        self.expected.clear()
        self.unproven.clear()
        self.has_lost_share = self.has_lost_bucket = self.is_registry_lost = False
        self.refresh()

    def save(self) -> None:
        keys = [key for key in self.raw.keys("*") if key != b"clock"]
        dump = {key: self.raw.dump(key) for key in keys}
        state = {name: getattr(self, name) for name in SAVED}
        self.snapshots = [*self.snapshots[-3:], (dump, deepcopy(state))]

    def restore(self, number: int, is_restart: bool) -> None:
        dump, state = self.snapshots[number % len(self.snapshots)]
        self.raw.flushall()
        for key, value in dump.items():
            self.raw.restore(key, 0, value)
        if is_restart and scripts.META.encode() in dump:
            self.raw.hset(scripts.META, "server", "another")
        vars(self).update(deepcopy(state))
        if not is_restart:
            self.unproven = set(self.all)
        self.subscriber.is_in_doubt = True
        self.subscriber.listener(0, None, {})
        self.refresh()

    # Comparisons

    def is_damaged(self) -> bool:
        return self.has_lost_share or self.has_lost_bucket or self.is_registry_lost

    def sums(self) -> dict[str, int]:
        """Return the sums over all processes with a lease, of objects and of members."""
        sums: Counter[str] = Counter()
        for share in self.shares.values():
            if share.lease_end > self.now:
                sums.update(share.counts)
        return dict(sums)

    def truth(self) -> dict[str, int]:
        return {name: count for name, count in self.sums().items() if "/" not in name}

    def true_members(self) -> dict[str, Presence]:
        return {
            name: self.stored[name]._replace(connections=count)
            for name, count in self.sums().items()
            if "/" in name
        }

    def hashes(self) -> dict[str, Presence]:
        """Return the members in the hashes of the current epoch, by entry name."""
        with self.raw.pipeline(transaction=False) as pipe:
            for name in NAMES:
                pipe.hgetall(scripts.MEMBERS_OF + name)
            found = {}
            for name, stored in zip(NAMES, pipe.execute(), strict=True):
                if stored and stored.pop(b"") == self.epoch:
                    assert stored, f"the hash of the members of {name} is empty"
                    for key, value in stored.items():
                        presence = parse_presence(value.decode())
                        assert presence is not None
                        found[entry_name(name, key.decode())] = presence
            return found

    def require_all(self, what: str) -> None:
        """Fail if a read that is known now lacks a process that has a lease by its own clock."""
        assert not self.is_restarted and self.now - self.written <= self.silence, what
        for process in self.processes:
            if not process.has_lease() or process.id in self.unproven:
                continue
            share = self.shares.get(process.id)
            if share is not None and share.is_complete and share.lease_end > self.now:
                assert share.counts == process.applied, (
                    f"{process.id}: {share.counts} instead of {process.applied}"
                )
                continue
            is_expected = process.id in self.expected
            if is_expected and self.expected[process.id] <= self.now:
                # Redis has lost how long its lease is; another process has a shorter one.
                assert process.lease > min(each.lease for each in self.all.values())
                self.seen["(excused: longer lease)"] += 1
            elif is_expected or not process.is_disturbed:
                if not is_expected and self.warm_up < _micros(process.heartbeat + CATCH_UP_GRACE):
                    self.seen["(excused: longer heartbeat)"] += 1
                    continue
                raise AssertionError(f"{what} without {process.id}, which has a lease")
            else:
                self.seen["(excused: hung, and nobody remembers it)"] += 1

    def check(self) -> None:
        self.refresh()
        self.check_invariant()
        readers = [p for p in self.processes if not p.is_hung]
        if not readers:
            return
        self.reader += 1
        reader = readers[self.reader % len(readers)]
        self.read(reader)

    def check_invariant(self) -> None:
        totals = {k.decode(): v for k, v in self.raw.hgetall(scripts.TOTALS).items()}
        if totals.pop("/epoch", None) != self.epoch or self.epoch is None:
            return
        if self.is_restarted or self.is_damaged():
            return
        sums: Counter[str] = Counter()
        for process in self.registry:
            share = self.raw.hgetall(scripts.SHARE + process)
            if share.get(b"/epoch") == self.epoch:
                numbers = self.numbers_in(scripts.SHARE + process, share)
                sums.update(numbers)
                if self.registry[process] > self.now:
                    assert len(numbers) == int(share[b"/names"])
        found = {name: int(total) for name, total in totals.items()}
        found |= {name: presence.connections for name, presence in self.hashes().items()}
        assert found == dict(sums), f"totals are {found}, shares add up to {dict(sums)}"
        assert min(found.values(), default=1) > 0, found

    def numbers_in(self, key: str, share: dict[bytes, bytes]) -> dict[str, int]:
        """Return the numbers in all buckets of a share."""
        found = dict(share)
        for bucket in range(1, int(share.get(b"/buckets", 1))):
            more = self.raw.hgetall(f"{key}/{bucket}")
            more.pop(b"/epoch", None)
            assert not found.keys() & more.keys(), "a name is in two buckets"
            found |= more
        self.seen["(share of several buckets)"] += b"/buckets" in share
        return {name.decode(): int(n) for name, n in found.items() if not name.startswith(b"/")}

    def read(self, reader: Process) -> bool:
        """Read counts in this process, and compare them; return whether they are known."""
        result = self.run(COUNTS, id=reader.id, cursor=0, limit=EVERYTHING, size=1)
        is_known = not isinstance(result, int) and not reader.is_unknown()
        self.seen["(read: known)" if is_known else "(read: unknown)"] += 1
        if isinstance(result, int):
            name = NAMES[self.reader % len(NAMES)]
            assert self.run(COUNT, id=reader.id, name=name) == result
            assert self.run(MEMBERS, id=reader.id, name=name, cursor=0, limit=0, size=1) == result
            assert self.run(MEMBER_COUNT, id=reader.id, name=name) == result
            assert self.run(MEMBER, id=reader.id, name=name, key="x") == result
        if not is_known:
            self.subscriber.follow(0, None, {})
            return False
        self.require_all("read")
        if self.is_damaged():
            self.seen["(read: damaged)"] += 1
            return True
        truth = self.truth()
        counts = self.parse(result[3])
        assert counts == truth, f"read {counts} instead of {truth}"
        for name in NAMES[self.reader % 3 :: 3]:
            count, number = self.run(COUNT, id=reader.id, name=name)
            assert (count, number) == (truth.get(name, 0), result[1])
        assert self.read_parts(reader) == truth
        members = self.read_members(reader, truth, result[1])
        has_dead = any(end <= self.now for end in self.registry.values())
        self.subscriber.follow(result[1], counts, members)
        if not has_dead:
            self.subscriber.compare(counts, members)
        return True

    def read_members(
        self, reader: Process, counts: dict[str, int], last: int
    ) -> dict[str, Presence]:
        """Read the members of all objects, compare them, and return them by entry name."""
        truth = self.true_members()
        has_dead = any(end <= self.now for end in self.registry.values())
        members: dict[str, Presence] = {}
        for number, name in enumerate(NAMES):
            named = {"id": reader.id, "name": name}
            change, count, epoch, cursor, part = self.run(
                MEMBERS, **named, cursor=0, limit=EVERYTHING, size=1
            )
            assert (change, count, epoch) == (last, counts.get(name, 0), self.epoch)
            assert cursor == b"0"
            found = self.parse_members(part)
            assert sum(each.connections for each in found.values()) <= count, f"{found}, {count}"
            members |= {entry_name(name, key): presence for key, presence in found.items()}
            assert self.run(MEMBER_COUNT, **named) == [-1 if has_dead and part else len(found)]
            if number == self.reader % len(NAMES):
                cursor, parts = b"0", dict[str, Presence]()
                while not parts or cursor != b"0":
                    _, _, _, cursor, part = self.run(
                        MEMBERS, **named, cursor=cursor, limit=0, size=1
                    )
                    parts |= self.parse_members(part)
                    if cursor == b"0":
                        break
                assert parts == found
                for key in KEYS:
                    value = self.run(MEMBER, **named, key=key)[0].decode()
                    assert parse_presence(value) == found.get(key)
        assert members == truth, f"members {members} instead of {truth}"
        self.seen["(members read)"] += len(members)
        return members

    @staticmethod
    def parse_members(part: bytes) -> dict[str, Presence]:
        lines = part.decode().split("\n") if part else []
        pairs = zip(lines[::2], map(parse_presence, lines[1::2]), strict=True)
        return {key: presence for key, presence in pairs if presence is not None}

    def read_parts(self, reader: Process) -> dict[str, int]:
        counts: dict[str, int] = {}
        cursor: Any = b"0"
        while True:
            _, _, cursor, part = self.run(COUNTS, id=reader.id, cursor=cursor, limit=0, size=1)
            counts |= self.parse(part)
            if cursor == b"0":
                return counts

    @staticmethod
    def parse(part: bytes) -> dict[str, int]:
        lines = part.decode().split("\n") if part else []
        counts = dict(zip(lines[::2], lines[1::2], strict=True))
        counts.pop("/epoch", None)
        return {name: int(count) for name, count in counts.items() if int(count)}


has_running = precondition(lambda self: any(not p.is_hung for p in self.world.processes))
has_hung = precondition(lambda self: any(p.is_hung for p in self.world.processes))
numbers = st.integers(0, 100)
any_name = st.sampled_from([*NAMES, *ENTRIES])
some_names = st.lists(any_name, min_size=1, max_size=6, unique=True)
limits = st.dictionaries(  # of the objects of a connection, by name
    st.sampled_from(NAMES[:-1]), st.just("") | st.integers(1, 8), min_size=1, max_size=4
).filter(lambda each: any(each.values()))
groups = st.lists(st.tuples(limits, st.integers(1, 4)), min_size=1, max_size=3)
losses = st.sampled_from(["", "", "", "", "request", "reply"])
sizes = st.sampled_from([1, 2, 3, EVERYTHING])


class Machine(RuleBasedStateMachine):
    url: ClassVar[str]
    seen: ClassVar[Counter[str]] = Counter()

    @initialize()
    def begin(self) -> None:
        self.world = World(self.url, self.seen)
        self.patch = mock.patch.object(
            health, "time", SimpleNamespace(monotonic=self.world.seconds)
        )
        self.patch.start()
        self.started = 0
        for number in range(2):
            self._start(SETTINGS[number], {"a": 1, "b": 2, "a/x": 1})
        self.world.advance_to(self.world.seconds() + 4)
        self.world.save()

    def teardown(self) -> None:
        self.patch.stop()
        self.world.close()

    def _process(self, number: int, may_hang: bool = False) -> Process:
        found = [p for p in self.world.processes if may_hang or not p.is_hung]
        return found[number % len(found)]

    @precondition(lambda self: len(self.world.processes) < MAX_PROCESSES)
    @rule(kind=st.sampled_from(SETTINGS), names=some_names, count=st.integers(0, 3))
    def start(self, kind: tuple[float, float], names: list[str], count: int) -> None:
        self._start(kind, dict.fromkeys(names, count))
        self._count("start")

    @has_running
    @rule(number=numbers, name=any_name, count=st.integers(0, 2))
    def join_or_leave(self, number: int, name: str, count: int) -> None:
        process = self._process(number)
        process.change(name, count)
        process.write()
        self._count("join or leave")

    @has_running
    @rule(number=numbers, info=numbers)
    def set_info(self, number: int, info: int) -> None:
        process = self._process(number)
        assume(process.members)
        name = sorted(process.members)[info % len(process.members)]
        process.change(name, process.members[name].connections, info)
        process.write()
        self._count("set info")

    def _start(self, kind: tuple[float, float], counts: dict[str, int]) -> None:
        self.started += 1
        process = Process(self.world, self.started, *kind)
        for name, count in counts.items():
            process.change(name, count)
        self.world.processes.append(process)
        self.world.all[process.id] = process

    @has_running
    @rule(
        number=numbers,
        names=some_names,
        count=st.integers(0, 4),
        loss=losses,
        part_size=sizes,
        size=sizes,
    )
    def write(
        self, number: int, names: list[str], count: int, loss: str, part_size: int, size: int
    ) -> None:
        """Join or leave, and write the counts or the next part of the whole share."""
        process = self._process(number)
        for name in names:
            process.change(name, count)
        self.world.size, process.part_size = size, part_size
        process.write(loss)
        self._count("write", loss and f"lost {loss}")

    @has_running
    @rule(number=numbers, loss=losses, part_size=sizes)
    def write_again(self, number: int, loss: str, part_size: int) -> None:
        """A heartbeat, or the next part of the whole share."""
        process = self._process(number)
        process.part_size = part_size
        process.write(loss)
        self._count("heartbeat or part", loss and f"lost {loss}")

    @has_running
    @rule(number=numbers)
    def retry(self, number: int) -> None:
        """Run the last step of a process twice, as if the first reply was lost."""
        process = self._process(number)
        process.last_attempt = self.world.seconds()
        step = process.next_write()
        first = self.world.send(process, step)
        second = self.world.execute(step)
        assert (first == 0) == (second == 0)
        if first != 0:
            assert first[0] == second[0]
        process.lose({*step.rest[::2]})
        self._count("retry")

    @precondition(lambda self: self.world.history)
    @rule(number=st.integers(0, 4) | numbers)
    def late_step(self, number: int) -> None:
        step = self.world.history[-1 - number % len(self.world.history)]
        self._count("late step", "repeated" if step.was_executed else "")
        self.world.execute(step)

    @has_running
    @rule(
        number=numbers,
        groups=groups,
        loss=losses,
        unused=st.integers(0, 1),
        is_repeated=st.booleans(),
        change=st.integers(-2, 2),
        key=st.sampled_from([None, *KEYS]),
    )
    def reserve(
        self,
        number: int,
        groups: list[tuple[dict[str, int | str], int]],
        loss: str,
        unused: int,
        is_repeated: bool,
        change: int,
        key: str | None,
    ) -> None:
        """Reserve; perhaps the step is repeated after a write of another process.

        Perhaps connections join or leave just before. The reserved connections may be those of a
        member.
        """
        process = self._process(number)
        process.part_size = EVERYTHING
        while process.rest and process.write():
            pass
        if not process.write() or not process.is_complete or process.processes.awaited:
            return
        changed = {EXTRA, *(each for limits, _ in groups for each in limits)}
        process.dirty |= changed
        name = next(iter(groups[0][0]))
        present = [each for each in sorted(process.members) if split_entry(each)[0] == name]
        if present:
            before = process.members[present[0]].connections
            process.change(present[0], max(before + change, 0))
        else:
            process.change(name, max(process.visitors.get(name, 0) + change, 0))
        process.attempts += 1
        step = Step(
            RESERVE,
            *(
                value
                for limits, wanted in groups
                for values in (
                    (wanted, len(limits)),
                    *((each, process.count(each), limit) for each, limit in limits.items()),
                )
                for value in values
            ),
            id=process.id,
            share=process.id,
            extra=EXTRA,
            acknowledged=process.sequence,
            sequence=process.attempts,
        )
        result = self.world.send(process, step, loss)
        if isinstance(result, bytes) and not loss:
            process.sequence = process.attempts
        if is_repeated and loss != "request":
            other = self._process(number + 1)
            if other is not process:
                other.change(name, groups[0][1])
                other.write()
            self.world.execute(step)
        if loss:
            process.lose(changed)
        elif isinstance(result, bytes):
            for (limits, _), granted in zip(groups, result.split(), strict=True):
                used = max(int(granted) // scripts.MAX_OBJECTS - unused, 0)
                self._join(process, [*limits], used, key)
        self._count("reserve", loss and f"lost {loss}")

    def _join(self, process: Process, names: list[str], number: int, key: str | None) -> None:
        for each in names:
            if key is None:
                process.change(each, process.visitors.get(each, 0) + number)
            elif number:
                entry = entry_name(each, key)
                old = process.members.get(entry)
                process.change(entry, (old.connections if old else 0) + number)
        if len(names) > 1:
            more = number * (len(names) - 1)
            process.change(EXTRA, process.visitors.get(EXTRA, 0) + more)

    @has_running
    @rule(number=numbers, size=sizes)
    def exit(self, number: int, size: int) -> None:
        process = self._process(number)
        self.world.processes.remove(process)
        self.world.send(process, Step(REMOVE, id=process.id, share=process.id, size=size))
        self._count("exit")

    @has_running
    @rule(number=numbers)
    def hang(self, number: int) -> None:
        """From now on it writes nothing, as if it hung or had been killed."""
        process = self._process(number)
        process.is_hung = process.is_disturbed = True
        self._count("hang or die")

    @has_hung
    @rule(number=numbers)
    def resume(self, number: int) -> None:
        hung = [p for p in self.world.processes if p.is_hung]
        hung[number % len(hung)].is_hung = False
        self._count("resume")

    @has_running
    @rule(number=numbers, is_read=st.booleans())
    def lapse(self, number: int, is_read: bool) -> None:
        """A process hangs until its lease is over; at its return, its share may be swept partly."""
        process, world = self._process(number), self.world
        process.is_hung = process.is_disturbed = True
        world.size = 1
        world.advance_to(world.seconds() + process.lease + 0.1)
        if is_read:
            world.subscriber.listener(0, None, {})
        world.check()
        process.is_hung = False
        process.write()
        self._count("lapse")

    @has_hung
    @rule(number=numbers)
    def forget(self, number: int) -> None:
        """A process that hung was killed."""
        hung = [p for p in self.world.processes if p.is_hung]
        self.world.processes.remove(hung[number % len(hung)])
        self._count("kill")

    @rule(seconds=st.sampled_from([0.02, 0.1, 0.3, 0.7, 1.0, 1.4, 2.0, 2.9, 3.1, 5.0, 8.1]))
    def advance(self, seconds: float) -> None:
        self.world.advance_to(self.world.seconds() + seconds)
        self._count("time passes")

    @rule(seconds=st.sampled_from([0.5, 1.2, 1.5, 2.9, 3.1, 5.0, 9.0]), is_outage=st.booleans())
    def silence(self, seconds: float, is_outage: bool) -> None:
        """Nobody writes for a time: Redis was unreachable, or all processes were suspended."""
        self.world.now += _micros(seconds)
        for process in self.world.processes:
            process.is_disturbed = True
            if is_outage and process.due() < self.world.seconds():
                process.lose(set())
        self._count("silence")

    @has_running
    @rule(number=numbers, size=sizes)
    def self_check(self, number: int, size: int) -> None:
        process = self._process(number)
        wrong = []
        world = self.world

        def run(object: str, process_id: str, *names: str) -> list[str]:
            cursor, objects = b"0", []
            while True:
                world.now += TICK
                named = {"object": object, "process": process_id, "cursor": cursor, "size": size}
                cursor, found, part = world.run(CHECK, *names, id=process.id, **named)
                wrong.extend(found)
                objects += [each.decode() for each in part]
                if cursor == b"0":
                    return objects

        objects = run("", "")
        for each in process.processes.lease_ends:
            run("", each)
        if objects:
            for name in run("", "", *objects):
                run(name, "")
        self.world.refresh()
        if not self.world.is_damaged():
            assert wrong == []
        if wrong:  # the info and the time of a lost member are unknown until its next change
            self.world.stored |= self.world.hashes()
        registry = self.world.registry
        checked = {id for id, end in registry.items() if end > self.world.now}
        checked &= {*process.processes.lease_ends}
        if process.id in checked and checked == {*registry}:  # else the share of one was left out
            self.world.has_lost_share = False
        self._count("self-check", "repaired" if wrong else "")

    @rule(
        what=st.sampled_from(
            [
                *("FLUSHALL", "SCRIPT FLUSH", "share", "share", "members", "members", "bucket"),
                *(scripts.META, scripts.TOTALS, scripts.PROCESSES),
            ]
        ),
        number=numbers,
    )
    def lose(self, what: str, number: int) -> None:
        world = self.world
        if what == "FLUSHALL":
            world.raw.flushall()
        elif what == "SCRIPT FLUSH":
            world.raw.script_flush()
        elif what == "share":
            assume(world.processes)
            process = self._process(number, may_hang=True)
            if world.raw.delete(scripts.SHARE + process.id) and process.id in world.shares:
                del world.shares[process.id]
                world.unproven.add(process.id)
                world.has_lost_share = True
        elif what == "bucket":
            assume(world.processes)
            process = self._process(number, may_hang=True)
            key = f"{scripts.SHARE}{process.id}/1"
            world.has_lost_bucket |= bool(world.raw.delete(key))
        elif what == "members":
            name = NAMES[number % len(NAMES)]
            world.has_lost_share |= bool(world.raw.delete(scripts.MEMBERS_OF + name))
        else:
            world.raw.delete(what)
            world.is_registry_lost |= what == scripts.PROCESSES
        if what in ("FLUSHALL", scripts.META):
            world.lose_all()
        world.refresh()
        self._count(what if what.isupper() else f"DEL {what}")

    @rule(number=numbers, is_restart=st.booleans())
    def restore(self, number: int, is_restart: bool) -> None:
        assume(number < 25)
        self.world.restore(number, is_restart)
        self._count("restore", "restart" if is_restart else "same run id")

    @has_running
    @rule(number=numbers, name=any_name, is_restart=st.booleans())
    def lose_last_write(self, number: int, name: str, is_restart: bool) -> None:
        process = self._process(number)
        self.world.save()
        process.change(name, connections(process.value(name)) + 1)
        process.write()
        self.world.restore(-1, is_restart)
        self._count("last write is lost", "restart" if is_restart else "same run id")

    @precondition(lambda self: 0 < len(self.world.processes) < MAX_PROCESSES)
    @rule(names=some_names, seconds=st.sampled_from([0.0, 0.7, 0.9]))
    def flush_after_start(self, names: list[str], seconds: float) -> None:
        """All but a new process, which nobody remembers, write after FLUSHALL."""
        world = self.world
        self._start(SETTINGS[0], dict.fromkeys(names, 1))
        new = world.processes[-1]
        while not new.is_complete:
            new.write()
        world.raw.flushall()
        world.lose_all()
        for process in world.processes[:-1] * 2:
            if not process.is_hung:
                process.write()
        world.advance_to(world.seconds() + seconds)
        self._count("FLUSHALL", "after a start")

    @has_running
    @rule(
        number=numbers,
        seconds=st.sampled_from([1.4, 2.0, 2.8, 3.3, 5.0]),
        only_totals=st.booleans(),
    )
    def flush_while_one_hangs(self, number: int, seconds: float, only_totals: bool) -> None:
        process, world = self._process(number), self.world
        process.is_hung = process.is_disturbed = True
        if only_totals:
            world.raw.delete(scripts.TOTALS)
        else:
            world.raw.flushall()
            world.lose_all()
        world.advance_to(world.seconds() + seconds)
        world.check()
        process.is_hung = False
        self._count("totals" if only_totals else "FLUSHALL", "lost while one process hangs")

    @rule(is_read=st.booleans())
    def follow(self, is_read: bool) -> None:
        """The follower reads again, or its messages are delayed, or they arrive now."""
        if is_read:
            self.world.subscriber.listener(0, None, {})
        else:
            self.world.subscriber.is_held = not self.world.subscriber.is_held
        self._count("follower reads" if is_read else "feed is delayed, or catches up")

    @precondition(lambda self: self.world.processes)
    @rule(number=numbers)
    def calm(self, number: int) -> None:
        """If all live processes write, the sum is known at last."""
        assume(number < 50)
        world = self.world
        for process in world.processes:
            process.is_hung = False
        world.size = 2
        world.advance_to(world.seconds() + MAX_LEASE + 2 * (MAX_HEARTBEAT + 1))
        for process in world.processes:
            assert world.read(process), "still unknown"
        self._count("calm")

    @invariant()
    def check(self) -> None:
        if hasattr(self, "world"):
            self.world.check()
            if self.world.reader % SAVE_EVERY == 0:
                self.world.save()

    def _count(self, *kind: str) -> None:
        self.seen["steps"] += 1
        self.seen[": ".join(filter(None, kind))] += 1


def configure(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        # Small hashes are scanned as a whole, however small a slice is asked for.
        client.config_set("hash-max-ziplist-entries", 1)
    Machine.url = url


def run(steps: int, length: int, seed: int, shrink: bool = True) -> Counter[str]:
    """Run at least so many steps, `length` of them in each sequence; return what happened."""
    seen = Machine.seen
    seen.clear()
    while seen["steps"] < steps:
        run_state_machine_as_test(
            with_seed(seed)(Machine),
            settings=settings(
                max_examples=min(200, (steps - seen["steps"]) // length + 1),
                stateful_step_count=length,
                deadline=None,
                database=None,
                print_blob=False,
                phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
        seed += 1
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--length", type=int, default=50, help="steps in one sequence")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"--seed {options.seed}", flush=True)
    began = time.monotonic()
    with RedisServer() as server:
        configure(server.url)
        seen = run(options.steps, options.length, options.seed)
    for kind, number in sorted(seen.items(), key=lambda each: (each[0][0] == "(", each[0])):
        print(f"{number:8,} {kind}")
    print(f"{seen['steps']:,} steps in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
