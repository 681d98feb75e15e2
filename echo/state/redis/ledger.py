"""The ledger that all processes share on Redis, and the election of its leader."""

from collections.abc import Mapping
from typing import Any

from echo.exceptions import StateUnavailable
from echo.state.ledger import Ledger
from echo.state.redis import scripts
from echo.state.redis.client import ERRORS, RedisClient

KEYS = [scripts.LEADER, scripts.LEDGER]


class RedisLedger(Ledger):
    """A Ledger on Redis: a new leader continues where the previous one stopped. Not thread-safe.

    `lead` and `record` raise StateUnavailable while Redis is down.
    """

    def __init__(self, client: RedisClient, process_id: str, lease: float) -> None:
        super().__init__()
        self._client = client
        self._process_id = process_id
        self._lease_ms = int(lease * 1000)
        self.renew_interval = lease / 3
        self._had_no_leader = False
        # Process id and number of the last record, or None if another process is the leader.
        self._stamp: bytes | None = None
        self._records = 0

    def lead(self) -> bool:
        # If a flush of Redis removed the leader, that process becomes the leader again at once.
        # Another process becomes the leader only after it has found none twice in a row.
        may_become = self._had_no_leader or self._stamp is not None
        result = self._run(scripts.LEAD, self._process_id, self._lease_ms, int(may_become))
        self._had_no_leader = result == scripts.NO_LEADER
        if isinstance(result, int):
            self._stamp = None
            return False
        if result != self._stamp:
            self._synchronize(result)
        return True

    def _synchronize(self, stamp: bytes) -> None:
        """Read the ledger of the previous leader, or write it again if Redis has lost it."""
        is_lost = not stamp or stamp.startswith(self._process_id.encode())
        if self._stamp is not None and is_lost:
            self._write(self.recorded, whole=True)
            return
        result = self._run(scripts.RECORDED)
        pairs = zip(result[::2], result[1::2], strict=True)
        self.recorded = {name.decode(): int(count) for name, count in pairs if name}
        self._stamp = stamp

    def record(self, changes: Mapping[str, int | None]) -> bool:
        return self._write(changes) and super().record(changes)

    def _write(self, changes: Mapping[str, int | None], whole: bool = False) -> bool:
        self._records += 1
        stamp = f"{self._process_id}:{self._records}"
        pairs = [part for name, n in changes.items() for part in (name, "" if n is None else n)]
        if not self._run(scripts.RECORD, self._process_id, stamp, int(whole), *pairs):
            self._stamp = None
            return False
        self._stamp = stamp.encode()
        return True

    def _run(self, script: str, *args: object) -> Any:
        try:
            return self._client.run(script, KEYS, args)
        except ERRORS as error:
            raise StateUnavailable(f"Redis does not respond: {error}") from error
