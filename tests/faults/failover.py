"""A replica is promoted, by an operator or a managed service, or by Sentinel."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.link import REPLIES, Link
from tests.faults.processes import reads_between
from tests.faults.redis_server import OwnRedis, Sentinel, is_linked
from tests.faults.services import OWN_LAYER, require_no_wrong_count, steady
from tests.faults.site import LEASE, Sampler, Site
from tests.faults.table import row
from tests.waiting import DEADLINE, eventually

LAG = 0.2  # seconds from the new primary to its replica


@row(
    "A replica is promoted, its primary demoted; the connections to that stay open",
    "exact or 503 while connections come and go; exact <= 3 s after; sampled: 0 wrong counts",
    small={"rounds": 5},
)
def demote(rounds: int = 20) -> str:
    return promote(rounds, only_idle=False)


@row(
    "A replica is promoted, its primary demoted; only idle connections to that stay open",
    "exact or 503 while connections come and go; exact <= 3 s after; sampled: 0 wrong counts",
)
def demote_for_reads(rounds: int = 20) -> str:
    return promote(rounds, only_idle=True)


def promote(rounds: int, only_idle: bool) -> str:
    with (
        OwnRedis() as layer,
        primary_and_replica() as (primary, replica),
        Link(primary.port) as link,
        Link(replica.port) as behind,
        Site(link.url, LAYER_URL=layer.url, **OWN_LAYER) as site,
        primary.client() as client,
        replica.client() as client_of_replica,
    ):
        behind.delays[REPLIES] = LAG
        steady(site)
        pairs = [tuple(site.servers), tuple(reversed(site.servers))]
        time.sleep(2.5)  # connections that only read are idle now
        busy = [one["id"] for one in client.client_list("normal") if int(one["idle"]) < 2]
        own = str(client.client_id())
        with Sampler(site, "foo") as sampler:
            client_of_replica.replicaof("NO", "ONE")
            client.replicaof("127.0.0.1", behind.port)
            link.target = replica.port
            for number in busy:
                if only_idle and number != own:
                    client.client_kill_filter(_id=number)
            end = time.monotonic() + 3
            reads = []
            while time.monotonic() < end:
                reads += reads_between(site, pairs, "bar")
            site.seconds_until_exact(0.5)
            reads_after = reads_between(site, pairs * rounds, "bar")
        samples = require_no_wrong_count(sampler, site.truth()["foo"])
        wrong = [(read, true) for read, true in reads if read not in (true, None)]
        assert not wrong, f"{len(wrong)} of {len(reads)} reads are wrong: {wrong[:5]}"
        wrong = [(read, true) for read, true in reads_after if read != true]
        assert not wrong, f"after 3 s, {len(wrong)} of {len(reads_after)} are wrong: {wrong[:5]}"
        return f"{samples}; {len(reads)} reads during, {len(reads_after)} after it, 0 wrong"


@row(
    "Sentinel promotes a replica after its primary was killed",
    "exact <= lease + 2 s after the failover; sampled: 0 wrong counts",
)
def sentinel() -> str:
    with (
        OwnRedis() as layer,
        primary_and_replica() as (primary, replica),
        Sentinel(primary) as watching,
    ):
        eventually(watching.replicas, 1, 3 * DEADLINE)  # it asks the primary each 10 s
        with Site(watching.url, LAYER_URL=layer.url, **OWN_LAYER) as site:
            steady(site)
            with Sampler(site, "foo") as sampler:
                primary.stop()
                began = time.monotonic()
                eventually(watching.primary, replica.port, 3 * DEADLINE)
                failover = time.monotonic() - began
                seconds = site.seconds_until_exact(LEASE + 2)
                time.sleep(1)
            samples = require_no_wrong_count(sampler, site.truth()["foo"])
            return f"failover after {failover:.1f} s, exact {seconds:.2f} s after it; {samples}"


@contextmanager
def primary_and_replica() -> Iterator[tuple[OwnRedis, OwnRedis]]:
    at_once = ("--repl-diskless-sync-delay", "0")
    with OwnRedis(*at_once) as primary, OwnRedis(*at_once) as replica:
        with replica.client() as client:
            client.replicaof("127.0.0.1", primary.port)
        eventually(lambda: is_linked(replica), True)
        yield primary, replica
