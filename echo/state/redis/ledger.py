"""The ledger that all processes share on Redis."""

from collections.abc import Mapping
from typing import Any

from echo.exceptions import StateUnavailable
from echo.state.ledger import Ledger
from echo.state.redis import scripts
from echo.state.redis.client import ERRORS
from echo.state.redis.publisher import Publisher


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
        lines = self._run(scripts.RECORDED).decode().split("\n")
        recorded = dict(zip(lines[::2], lines[1::2], strict=False))
        recorded_epoch = recorded.pop("/epoch", "")
        copied_epoch = self._share.copied_epoch or epoch
        if epoch in (copied_epoch, recorded_epoch):
            recorded.pop("", None)  # of an empty ledger
            self.recorded = {name: int(count) for name, count in recorded.items()}
            self._epoch = epoch
        else:
            self._write(self.recorded, whole=True)
        self._share.copied_epoch = copied_epoch

    def record(self, changes: Mapping[str, int | None]) -> bool:
        if not self._write(changes):
            self._was_leader = False
            return False
        return super().copy(changes)

    def copy(self, changes: Mapping[str, int | None]) -> bool:
        # Without a leader, nobody sends the signals of these changes.
        return self._share.leader == scripts.OTHER_LEADER and super().copy(changes)

    def _write(self, changes: Mapping[str, int | None], whole: bool = False) -> bool:
        epoch = self._share.epoch
        pairs = [part for name, n in changes.items() for part in (name, "" if n is None else n)]
        if not self._run(scripts.RECORD, *pairs, epoch=epoch, whole=int(whole)):
            return False
        self._epoch = epoch
        return True

    def _run(self, script: scripts.Script, *rest: object, **named: Any) -> Any:
        steps = self._publisher.steps
        try:
            return steps.client.run(script, *rest, id=steps.process_id, **named)
        except ERRORS as error:
            raise StateUnavailable(f"Redis does not respond: {error}") from error
