"""The time that Redis itself takes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

SLOW = 200  # µs: shorter steps are not the longest


@dataclass
class Taken:
    """What Redis did within a `with` block."""

    steps: int = 0  # scripts
    microseconds: float = 0.0  # of these scripts
    cpu: float = 0.0  # seconds of its process, with reading from and writing to sockets


@contextmanager
def taken(client: Any) -> Iterator[Taken]:
    """Measure what Redis does in the block, from its own statistics."""
    before = _state_of(client)
    result = Taken()
    yield result
    after = _state_of(client)
    result.steps, result.microseconds, result.cpu = (
        int(after[0] - before[0]),
        after[1] - before[1],
        after[2] - before[2],
    )


@contextmanager
def longest_step(client: Any, result: list[float]) -> Iterator[None]:
    """Append the milliseconds of the longest script of the block to the list."""
    client.config_set("slowlog-log-slower-than", SLOW)
    client.config_set("slowlog-max-len", 100_000)
    client.slowlog_reset()
    yield
    entries = client.slowlog_get(-1)
    scripts = [each["duration"] for each in entries if each["command"].startswith(b"EVALSHA")]
    result.append(max(scripts, default=SLOW) / 1000)
    client.config_set("slowlog-log-slower-than", -1)


def used_memory(client: Any) -> int:
    return int(client.info("memory")["used_memory"])


def _state_of(client: Any) -> tuple[float, float, float]:
    scripts = client.info("commandstats").get("cmdstat_evalsha", {"calls": 0, "usec": 0})
    cpu = client.info("cpu")
    return scripts["calls"], scripts["usec"], cpu["used_cpu_user"] + cpu["used_cpu_sys"]
