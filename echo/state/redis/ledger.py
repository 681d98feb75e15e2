"""The ledger that all processes share on Redis."""

from collections.abc import Mapping
from typing import Any

from echo.exceptions import StateUnavailable
from echo.members import parse_presence
from echo.state.ledger import Ledger, Recorded
from echo.state.redis import scripts
from echo.state.redis.client import ERRORS
from echo.state.redis.publisher import Publisher
from echo.state.redis.scripts import Script
from echo.state.redis.share import BATCH_SIZE

# Record counts and presences in the ledger and return 1; return 0 if the caller is not the leader.
# `whole`: "1" to replace the whole ledger. `epoch`: "" if further parts follow. Then names and
# counts, "name/key" and presences ("": vacated, or left).
RECORD = Script(
    "leader_key ledger",
    "id epoch whole",
    """
if redis.call('GET', leader_key) ~= id then return 0 end
if whole == '1' then redis.call('UNLINK', ledger) end
for i = first, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', ledger, ARGV[i])
  else
    redis.call('HSET', ledger, ARGV[i], ARGV[i + 1])
  end
end
if epoch ~= '' then redis.call('HSET', ledger, '/epoch', epoch) end
redis.call('EXPIRE', ledger, max_age)
return 1
""",
)

# The next cursor, and the part of the ledger at the cursor: alternating lines of names and values.
RECORDED = Script(
    "ledger",
    "cursor size#",
    """
local part = redis.call('HSCAN', ledger, cursor, 'COUNT', size)
return {part[1], table.concat(part[2], '\\n')}
""",
)


class RedisLedger(Ledger):
    """A Ledger on Redis: a new leader continues where the previous one stopped. Not thread-safe.

    The other candidates keep a copy of what the leader has recorded, for the case that Redis loses
    the ledger and the leader dies. `lead` and `record` raise StateUnavailable while Redis is down.
    """

    def __init__(self, publisher: Publisher) -> None:
        super().__init__()
        self._publisher = publisher
        self._share = publisher.share
        self._was_leader = False
        self._epoch = ""  # in which `recorded` was last read or written

    def lead(self) -> bool:
        share, health = self._share, self._publisher.health
        if not share.epoch:
            return False
        is_leader = share.leader == scripts.IS_LEADER and not health.lease_has_expired()
        if share.copied_epoch is None or (is_leader and not self._was_leader):
            self._synchronize(share.epoch)
        elif is_leader and self._epoch != share.epoch:  # Redis may have lost the ledger
            self._write(self.recorded, whole=True)
        self._was_leader = is_leader
        return is_leader

    def _synchronize(self, epoch: str) -> None:
        """Read the ledger; if it is older than the copy, keep the copy and write it."""
        recorded: dict[str, str] = {}
        cursor = b""
        while cursor != b"0":
            cursor, part = self._run(RECORDED, cursor=cursor or b"0", size=BATCH_SIZE)
            lines = part.decode().split("\n") if part else []
            recorded |= zip(lines[::2], lines[1::2], strict=True)
        recorded_epoch = recorded.pop("/epoch", "")
        copied_epoch = self._share.copied_epoch or epoch
        if epoch in (copied_epoch, recorded_epoch):
            self.recorded = {
                name: parse_presence(value) or 0 if "/" in name else int(value)
                for name, value in recorded.items()
            }
            self._epoch = epoch
        else:
            self._write(self.recorded, whole=True)
        self._share.copied_epoch = copied_epoch

    def record(self, changes: Mapping[str, Recorded | None]) -> bool:
        if not self._write(changes):
            self._was_leader = False
            return False
        return super().copy(changes)

    def copy(self, changes: Mapping[str, Recorded | None]) -> bool:
        # Without a leader, nobody sends the signals of these changes.
        return self._share.leader == scripts.OTHER_LEADER and super().copy(changes)

    def _write(self, changes: Mapping[str, Recorded | None], whole: bool = False) -> bool:
        epoch = self._share.epoch
        items = list(changes.items())
        for first in range(0, len(items) or 1, BATCH_SIZE):
            part = items[first : first + BATCH_SIZE]
            pairs = [s for name, value in part for s in (name, "" if value is None else str(value))]
            is_last = first + BATCH_SIZE >= len(items)
            named = {"epoch": epoch if is_last else "", "whole": int(whole and first == 0)}
            if not self._run(RECORD, *pairs, **named):
                return False
        self._epoch = epoch
        return True

    def _run(self, script: Script, *rest: object, **named: Any) -> Any:
        steps = self._publisher.steps
        try:
            return steps.client.run(script, *rest, id=steps.process_id, **named)
        except ERRORS as error:
            raise StateUnavailable(f"Redis does not respond: {error}") from error
