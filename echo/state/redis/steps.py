"""Runs the steps of this process on Redis, one after the other."""

import time
from math import inf
from typing import Any

from echo.state.redis.client import CONNECTION_ERRORS, RedisClient
from echo.state.redis.health import Health
from echo.state.redis.scripts import Script

# If Redis usually replies within SOON, a reply that takes LATE is lost: try again at once.
SOON, LATE = 0.05, 0.1  # seconds


class Steps:
    """Runs scripts for one process. Only one thread at a time may call `run`."""

    def __init__(self, url: str, process_id: str, health: Health) -> None:
        self.process_id = process_id
        self._health = health
        self.client = RedisClient(url, on_reply=health.count_reply)
        self._hasty = RedisClient(url, timeout=LATE, on_reply=health.count_reply, is_shared=False)
        self._last_took = inf  # seconds of the last step

    def run(self, script: Script, *rest: Any, **named: Any) -> Any:
        """Run the script with the id of the process. Raises one of ERRORS.

        If the reply is lost, runs it again at once: all steps are absolute.
        """
        self._health.step_began = began = time.monotonic()
        try:
            result = self._run(script, *rest, id=self.process_id, **named)
        finally:
            self._health.step_began = None
        self._health.count_reply()
        self._last_took = time.monotonic() - began
        return result

    def _run(self, script: Script, *rest: Any, **named: Any) -> Any:
        client = self._hasty if self._last_took < SOON else self.client
        try:
            return client.run(script, *rest, **named)
        except CONNECTION_ERRORS:
            self._last_took = inf
            self.client.drop()  # a new connection: an idle one may be broken as well
            return self.client.run(script, *rest, **named)

    def close(self) -> None:
        self.client.close()
        self._hasty.close()
