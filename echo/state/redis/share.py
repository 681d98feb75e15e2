"""Writes the share of this process to Redis, and renews its lease."""

import time
from collections.abc import Mapping
from math import inf

from redis.exceptions import RedisError

from echo.members import split_entry
from echo.state.redis import scripts
from echo.state.redis.health import Health
from echo.state.redis.processes import Processes
from echo.state.redis.steps import Steps
from echo.state.redis.write_scripts import WRITE

# Counts, and presences as strings, by name or entry name.
Values = Mapping[str, int | str]

Part = list[tuple[str, int | str]]

BATCH_SIZE = 500  # names in one step, which blocks Redis for some milliseconds
MAX_ATTEMPTS = 3  # to write the whole share, while new epochs begin
RENEWAL_INTERVAL = 3600.0  # seconds between two renewals of the maximum age of the keys
RETRY_INTERVAL = 0.25  # seconds between attempts while Redis is down
# After a process was suspended or lost its connection, its event loop has this time to process the
# missed disconnects before the counts are written again.
CATCH_UP_GRACE = 0.3  # seconds
# This process detects the end of the warm-up on Redis one step and one interval later.
WARM_UP_SLACK = 0.2  # seconds


class Share:
    """The share of this process, and what Redis returned at the last write. Not thread-safe."""

    def __init__(self, steps: Steps, health: Health, lease: float, heartbeat: float) -> None:
        self._steps = steps
        self._health = health
        self.processes = Processes(steps.process_id)
        # In seconds, see scripts.py. Each live process writes within a warm-up; after an outage of
        # Redis, within the settle time.
        self.warm_up = heartbeat + CATCH_UP_GRACE
        settle = min(RETRY_INTERVAL + CATCH_UP_GRACE + 0.1, self.warm_up)
        times = {"warm_up": self.warm_up, "settle": settle, "lease": lease}
        self._times = {name: int(seconds * 1_000_000) for name, seconds in times.items()}
        self._is_complete = False  # whether all parts of the share have been written
        self._attempts = 0  # numbers the steps that write, so that Redis can detect late ones
        self.sequence = 0  # the number of the last acknowledged one
        self.epoch, self.change = "", 0
        self.has_dead = False  # whether Redis has shares of dead processes
        self.has_reserved = False  # whether connections were counted before their members
        self.leader = scripts.NO_LEADER  # or OTHER_LEADER, IS_LEADER
        # The epoch since which this process has a copy of the ledger; with one, it may lead.
        self.copied_epoch: str | None = None
        self._renewed = -inf  # time.monotonic() of the last renewal of the maximum age

    def write(self, values: Values) -> bool:
        """Write the values of these names; return False if Redis needs the whole share.

        Raises one of ERRORS.
        """
        pairs = list(values.items())
        # Members first, and of these the ones that have left: a step without the count of their
        # object changes it by their difference, so that their connections never add up to more
        # than the count.
        if len(pairs) > BATCH_SIZE:
            pairs.sort(key=lambda pair: ("/" not in pair[0], pair[1] != 0))
        parts = _parts(pairs)
        if self.has_reserved and len(parts) > 1:
            parts = [_with_counts(part, values) for part in parts]
        return self._is_complete and self._write(parts, whole=False)

    def write_whole(self, values: Values) -> None:
        """Replace the share by these values. Raises one of ERRORS."""
        self._is_complete = False
        for _ in range(MAX_ATTEMPTS):
            if self._write(_parts(list(values.items())), whole=True):
                self._is_complete = True
                return
        raise RedisError("New epochs began while the counts of this process were written.")

    def is_renewal_due(self) -> bool:
        """Return whether the next write is to renew the maximum age of its keys."""
        return time.monotonic() - self._renewed > RENEWAL_INTERVAL

    def _write(self, parts: list[Part], whole: bool) -> bool:
        began, is_renewal = time.monotonic(), self.is_renewal_due()
        for number, part in enumerate(parts, 1):
            more = int(number < len(parts)) if whole else ""
            if not self._write_part(part, whole and number == 1, more, is_renewal):
                return False
        if is_renewal:
            self._renewed = began
        return True

    def _write_part(self, part: Part, begin: bool, more: int | str, is_renewal: bool) -> bool:
        health, processes = self._health, self.processes
        began = time.monotonic()
        needs_processes = bool(processes.awaited) or health.is_outage
        sequence = self.next_sequence()
        result = self._steps.run(
            WRITE,
            *(value for pair in part for value in pair),
            share=self._steps.process_id,
            **self._times,
            begin=int(begin),
            more=more,
            acknowledged=self.sequence,
            sequence=sequence,
            remembered=",".join(processes.lease_ends) if begin else "",
            remembered_epoch=self.epoch,
            candidate=self._candidate(),
            registry="" if needs_processes else processes.version,
            renew=int(is_renewal),
            size=scripts.SLICE,
        )
        if result == scripts.WHOLE_NEEDED:
            return False
        epoch, self.change, has_dead, self.leader, version, live = result
        self.epoch, self.has_dead = epoch.decode(), bool(has_dead)
        if live is not None:
            processes.set(
                version.decode(), [value.decode() for value in live], after_outage=health.is_outage
            )
        if health.acknowledged is None:
            seconds = self._times["lease"] / 1_000_000 + self.warm_up + WARM_UP_SLACK
            health.new_until = time.monotonic() + seconds
        self.sequence, health.acknowledged = sequence, began
        return True

    def next_sequence(self) -> int:
        self._attempts += 1
        return self._attempts

    def _candidate(self) -> int:
        if self.copied_epoch is None:
            return 0
        if self.leader == scripts.IS_LEADER:
            return 3
        return 1 if self.copied_epoch == self.epoch else 2


def _parts(pairs: Part) -> list[Part]:
    return [pairs[first : first + BATCH_SIZE] for first in range(0, len(pairs) or 1, BATCH_SIZE)]


def _with_counts(part: Part, values: Values) -> Part:
    """Add the counts of the objects that the members in the part belong to.

    Redis has counted reserved connections before, and must not derive their count again.
    """
    names = {split_entry(name)[0] for name, value in part if "/" in name and value != 0}
    return list({**dict(part), **{name: values[name] for name in names & values.keys()}}.items())
