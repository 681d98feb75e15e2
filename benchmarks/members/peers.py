"""What lists of members cost beside a peer, and how long they contain those of a dead process."""

import signal
from collections.abc import Iterator
from statistics import median

from benchmarks import redis_server
from benchmarks.members.clusters import CLUSTERS, seconds_until_gone

LISTS = 100
LIMIT = 20.0  # seconds
Values = Iterator[tuple[str, float]]


def lists(subject: str, size: int) -> Values:
    """Yield the median milliseconds to list the members of all processes."""
    with redis_server.running() as url, CLUSTERS[subject](url, size) as processes:
        found = [processes[0].list_members() for _ in range(LISTS)]
        if any(each["found"] != size for each in found):
            raise AssertionError("a list is not complete")
        yield f"list-{size}", median(each["ms"] for each in found)


def deaths(subject: str, size: int) -> Values:
    """Yield the seconds until the members of a killed or a hanging process are gone.

    And the number of lists that failed meanwhile.
    """
    for name, number in (("killed", signal.SIGKILL), ("stopped", signal.SIGSTOP)):
        with redis_server.running() as url, CLUSTERS[subject](url, size) as processes:
            seconds, failed = seconds_until_gone(processes, number, size, LIMIT)
            yield f"{name}-{size}", seconds
            yield f"{name}-failed-{size}", failed
