"""The process that sends the signals stops or dies, and Redis loses what was sent."""

import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.clock import clock
from tests.faults.processes import say_goodbye
from tests.faults.redis_server import OwnRedis
from tests.faults.services import OWN_LAYER
from tests.faults.site import LEASE, Site
from tests.faults.table import row
from tests.servers import Server
from tests.waiting import eventually

MAX_DELAY = 4 * LEASE  # seconds: a lease, a new leader, and the delay of `object_vacated`, 3 s


@row(
    "kill -9 of the process that sends the signals, and FLUSHALL",
    "no living object is announced again, and the dead ones are vacated once",
)
def kill_leader() -> str:
    with OwnRedis() as redis, site_with_signals(redis) as (site, leader):

        def kill_and_flush() -> None:
            site.kill(leader)
            redis.flush()
            close_baz(site)

        return signals_after(kill_and_flush, site, ["vacated baz", "vacated foo"])


@row(
    "The process that sends the signals stands still (SIGSTOP) for 4.5 s, and FLUSHALL",
    "no living object is announced again, and the dead ones are vacated once",
)
def stop_leader() -> str:
    with OwnRedis() as redis, site_with_signals(redis) as (site, leader):

        def stop_and_flush() -> None:
            leader.process.send_signal(signal.SIGSTOP)
            try:
                redis.flush()
                close_baz(site)
                time.sleep(LEASE + 1.5)
            finally:
                leader.process.send_signal(signal.SIGCONT)

        return signals_after(stop_and_flush, site, ["vacated baz"])


@row(
    "The clock of Redis is ahead by 60 s; the process that sends the signals is killed then",
    "no living object is announced again, and the dead ones are vacated once",
)
def kill_leader_ahead() -> str:
    with (
        clock() as its_clock,
        OwnRedis(executable=its_clock.executable) as redis,
        site_with_signals(redis) as (site, leader),
    ):

        def kill() -> None:
            its_clock.set(60)
            time.sleep(LEASE)
            site.kill(leader)
            its_clock.set(0)
            close_baz(site)

        return signals_after(kill, site, ["vacated baz", "vacated foo"])


OCCUPIED = ["occupied bar 1", "occupied baz 1", "occupied foo 1"]


@contextmanager
def site_with_signals(redis: OwnRedis) -> Iterator[tuple[Site, Server]]:
    """Yield a site of three processes, one object on each, and the process that sends signals.

    The object of that process is "foo".
    """
    with tempfile.NamedTemporaryFile() as file:
        env = {"application": "tests.sites.signals:application", "SIGNALS_FILE": file.name}
        with Site(redis.url, ["daphne"], LAYER_URL=redis.url, **env, **OWN_LAYER) as site:
            [leader] = site.servers
            site.open(leader, "foo")
            eventually(lambda: sent(site), ["occupied foo 1"])
            for kind, name in (("uvicorn", "bar"), ("daphne", "baz")):
                site.open(site.start(kind), name)
            eventually(lambda: sent(site), OCCUPIED)
            yield site, leader


def sent(site: Site) -> list[str]:
    """Return the signals that any process has received, except the changes, sorted."""
    lines = Path(site.env["SIGNALS_FILE"]).read_text().splitlines()
    return sorted(line for line in lines if not line.startswith("changed"))


def signals_after(fault: Callable[[], None], site: Site, vacated: list[str]) -> str:
    """Return the signals after the fault, if no other object than these is vacated."""
    fault()
    expected = OCCUPIED + vacated
    end = time.monotonic() + MAX_DELAY
    while sent(site) != expected and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(1)  # for what should not be sent
    assert sent(site) == expected, f"sent: {sent(site)}, not {expected}"
    return ", ".join(expected)


def close_baz(site: Site) -> None:
    say_goodbye(site.clients[site.servers[-1]].pop()[0])
