"""Faults of the network between a site and its Redis."""

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from tests.faults.limit import LIMIT, close_all, open_at_once
from tests.faults.link import Fault, Link
from tests.faults.processes import FOUR
from tests.faults.redis_server import OwnRedis
from tests.faults.services import OWN_LAYER, require_no_wrong_count, steady
from tests.faults.site import LEASE, Sampler, Site
from tests.faults.table import row
from tests.raw import UPGRADE, Client

FAR = 0.04  # seconds to Redis, and as many back


@row(
    "All packets between 8 processes and Redis are lost for 3.5 s, 15 times",
    "exact or 503, exact again <= 5 s; sampled at 50 Hz: 0 wrong counts",
)
def partition(times: int = 15, processes: int = 8) -> str:
    kinds = (FOUR * 2)[:processes]
    with (
        OwnRedis() as redis,
        Link(redis.port) as link,
        Site(link.url, kinds, LAYER_URL=redis.url, **OWN_LAYER) as site,
    ):
        steady(site, 10)
        seconds = []
        with Sampler(site, "foo") as sampler:
            for _ in range(times):
                time.sleep(random.random())  # the heartbeats are at any moment
                link.cut()
                time.sleep(LEASE + 0.5)
                link.mend()
                seconds.append(site.seconds_until_exact(5))
                time.sleep(0.5)
        samples = require_no_wrong_count(sampler, site.truth()["foo"])
        return f"exact again after {max(seconds):.2f} s at most; {samples}"


@row(
    "Redis is 40 ms away from a process that has just started",
    "its first handshakes count before their 101, and none passes a full limit",
    small={"times": 1},
)
def far_away(times: int = 5) -> str:
    with (
        OwnRedis() as redis,
        Link(redis.port, FAR) as link,
        Site(redis.url, ["daphne"], LAYER_URL=redis.url, LIMIT="20", **OWN_LAYER) as site,
    ):
        near = site.servers[0]
        kinds = ("uvicorn", "daphne") * times
        reads = []
        for number in range(times):
            far = site.start(kinds[number], ECHO_STATE_URL=link.url)
            site.open(far, f"first-{number}")
            reads.append(site.readers[near].read(f"first-{number}"))
            far.process.terminate()
            site.forget(far)
        site.open_many(near, ["full"] * 20)
        far = site.start("uvicorn", ECHO_STATE_URL=link.url)
        with ThreadPoolExecutor(15) as threads:
            statuses = Counter(threads.map(status_of_handshake, [far.port] * 15))
    text = f"read in another process after the 101: {reads}; at the full limit: {dict(statuses)}"
    assert set(reads) <= {1, None}, text
    assert statuses == {503: 15}, text
    return text


def status_of_handshake(port: int, name: str = "full") -> int:
    """Return the status of a handshake; the connection is closed."""
    with Client(port) as client:
        return int(client.ask(f"/{name}/websocket", UPGRADE).status_line.split()[1])


@row(
    "A reply of Redis to each of 4 processes is lost during 400 handshakes at the limit of 100",
    "exactly 100 accepted, the others 503",
    small={"times": 1},
)
def lost_reply(times: int = 5) -> str:
    return handshakes_at(Fault.LOST, times)


@row(
    "The connections of 4 processes to Redis are reset during 400 handshakes at the limit of 100",
    "exactly 100 accepted, the others 503",
    small={"times": 1},
)
def reset_connections(times: int = 5) -> str:
    return handshakes_at(Fault.RESET, times)


def handshakes_at(fault: Fault, times: int) -> str:
    limit = {"LIMIT": str(LIMIT)}
    statuses = []
    with (
        OwnRedis() as redis,
        Link(redis.port) as link,
        Site(link.url, FOUR, LAYER_URL=redis.url, **limit, **OWN_LAYER) as site,
    ):
        for _ in range(times):
            statuses.append(open_at_once(site, 400, begin=lambda: link.arm(fault)))
            link.arm(None)
            close_all(site)
    text = "; ".join(f"{one[101]} x 101, {one[503]} x 503" for one in statuses)
    assert statuses == times * [Counter({101: LIMIT, 503: 400 - LIMIT})], text
    return text
