"""Processes that are simulated: they write shares by the state's own script, and do nothing else.

`echo` may be that of an older commit, whose script has other arguments.
"""

from collections.abc import Iterable, Mapping
from importlib import import_module
from itertools import islice
from typing import Any

from echo.state.redis import scripts
from echo.state.redis.client import RedisClient

BATCH_SIZE = 2000  # names in one step
WARM_UP, SETTLE, LEASE = 1.3, 0.65, 3600.0  # seconds: those of a process, and a long lease


class SimulatedProcess:
    """A process in the registry of Redis, which stays alive without heartbeats."""

    def __init__(self, client: RedisClient, number: int) -> None:
        self._client = client
        self._id = f"{number:016x}"  # the real ones check the totals only if theirs is the lowest
        self._sequence = 0
        self._version = ""  # of the registry, which Redis lists if it has another one

    def write(self, counts: Mapping[str, int]) -> None:
        """Write the counts of some objects; the first time, begin a share."""
        pairs = iter(counts.items())
        while (part := list(islice(pairs, BATCH_SIZE))) or not self._sequence:
            self._sequence += 1
            if not self._write([value for pair in part for value in pair]):
                raise AssertionError("Redis asks the simulated process for its whole share")

    def _write(self, pairs: list[Any]) -> Any:
        begin = int(self._sequence == 1)
        numbers = {"acknowledged": self._sequence - 1, "sequence": self._sequence}
        if hasattr(scripts, "TOTALS"):
            result = self._client.run(
                _write_script(),
                *pairs,
                share=self._id,
                id=self._id,
                warm_up=int(WARM_UP * 1e6),
                settle=int(SETTLE * 1e6),
                lease=int(LEASE * 1e6),
                begin=begin,
                **numbers,
                **{"more": 0, "remembered": "", "remembered_epoch": "", "candidate": 0},
                # `members` in older commits
                **{"registry": self._version, "members": self._version},
                **{"renew": begin, "size": scripts.SLICE},
            )
            if result:
                self._version = result[4]
            return result
        old: Any = scripts
        client: Any = self._client
        keys = [old.PROCESSES, old.EPOCH, old.SHARE + self._id]
        times = [int(each * 1000) for each in (WARM_UP, SETTLE, LEASE)]
        return client.run(old.WRITE, keys, [self._id, *times, *numbers.values(), begin, *pairs])


def _write_script() -> Any:
    in_older_commits = getattr(scripts, "WRITE", None)
    return in_older_commits or import_module("echo.state.redis.write_scripts").WRITE


def client_of(url: str) -> RedisClient:
    """Return a client as the state has."""
    if hasattr(scripts, "TOTALS"):
        return RedisClient(url)
    module: Any = import_module("echo.state.redis.restarts")
    client: Any = RedisClient
    return client(url, module.RestartDetector(lambda age: None))  # type: ignore[no-any-return]


def share_out(
    processes: list[SimulatedProcess], objects: Iterable[int], connections: int = 1
) -> None:
    """Write each object in one of the processes: `object-7` in the eighth."""
    shares: list[dict[str, int]] = [{} for _ in processes]
    for number in objects:
        shares[number % len(shares)][f"object-{number}"] = connections
    for process, counts in zip(processes, shares, strict=True):
        process.write(counts)
