"""What a cluster's processes have been told of the counts: one of them announces, for all."""

from collections.abc import Mapping
from typing import Any

from echo.exceptions import StateUnavailable
from echo.state.ledger import Ledger
from echo.state.redis import scripts
from echo.state.redis.client import ERRORS, RedisClient

KEYS = [scripts.ANNOUNCER, scripts.ANNOUNCED]


class RedisLedger(Ledger):
    """As `Ledger`, on Redis: whoever is next to announce goes on where the last one ended.

    `lead` and `record` raise StateUnavailable while Redis is away. For one thread.
    """

    def __init__(self, connection: RedisClient, process: str, lease: float) -> None:
        super().__init__()
        self._redis = connection
        self._process = process
        self._lease = int(lease * 1000)  # milliseconds
        self.renew_interval = lease / 3
        self._was_vacant = False
        # Of the last note: by whom, and a number. None while another process announces.
        self._stamp: bytes | None = None
        self._notes = 0

    def lead(self) -> bool:
        # Who has just lost its post to a flush of Redis takes it up before others see it twice.
        may_claim = self._was_vacant or self._stamp is not None
        answer = self._run(scripts.LEAD, self._process, self._lease, int(may_claim))
        self._was_vacant = answer == scripts.VACANT
        if isinstance(answer, int):
            self._stamp = None
            return False
        if answer != self._stamp:
            self._catch_up(answer)
        return True

    def _catch_up(self, stamp: bytes) -> None:
        """Take over what another process noted, or note again what Redis has lost."""
        own = not stamp or stamp.startswith(self._process.encode())
        if self._stamp is not None and own:
            self._record(self.recorded, whole=True)
            return
        noted = self._run(scripts.NOTED)
        pairs = zip(noted[::2], noted[1::2], strict=True)
        self.recorded = {name.decode(): int(count) for name, count in pairs if name}
        self._stamp = stamp

    def record(self, changes: Mapping[str, int | None]) -> bool:
        return self._record(changes) and super().record(changes)

    def _record(self, changes: Mapping[str, int | None], whole: bool = False) -> bool:
        self._notes += 1
        stamp = f"{self._process}:{self._notes}"
        pairs = [part for name, n in changes.items() for part in (name, "" if n is None else n)]
        if not self._run(scripts.NOTE, self._process, stamp, int(whole), *pairs):
            self._stamp = None
            return False
        self._stamp = stamp.encode()
        return True

    def _run(self, script: str, *args: object) -> Any:
        try:
            return self._redis.run(script, KEYS, args)
        except ERRORS as error:
            raise StateUnavailable(f"Redis does not answer: {error}") from error
