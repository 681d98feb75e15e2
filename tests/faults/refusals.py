"""Redis refuses writes, and still serves reads."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import redis as redis_py

from tests.faults.processes import say_goodbye
from tests.faults.redis_server import OwnRedis
from tests.faults.services import OWN_LAYER, steady
from tests.faults.shares import THREE
from tests.faults.site import Site
from tests.faults.table import row


@row(
    "Redis refuses writes for 1.5 s, 5 times each: OOM, NOREPLICAS, MISCONF",
    "exact or 503 while connections come and go; exact <= 2 s after",
    small={"times": 1, "seconds": 0.4},
)
def refuse_writes(times: int = 5, seconds: float = 1.5) -> str:
    with (
        OwnRedis() as redis,
        Site(redis.url, THREE, LAYER_URL=redis.url, **OWN_LAYER) as site,
        redis.client() as client,
    ):
        snapshot = Path(redis.directory.name, "dump.rdb")
        refusals: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "OOM": (
                lambda: client.config_set("maxmemory", 1),
                lambda: client.config_set("maxmemory", 0),
            ),
            "NOREPLICAS": (
                lambda: client.config_set("min-replicas-to-write", 1),
                lambda: client.config_set("min-replicas-to-write", 0),
            ),
            "MISCONF": (
                lambda: fail_to_save(client, snapshot),
                lambda: save_again(client, snapshot),
            ),
        }
        steady(site, 5)
        results, exact, any_wrong = [], [], []
        for refusal, (begin, end) in refusals.items():
            reads = []
            for _ in range(times):
                time.sleep(random.random())  # the heartbeats are at any moment
                begin()
                try:
                    reads += come_and_go(site, seconds)
                finally:
                    end()
                exact.append(site.seconds_until_exact(2))
            known = [(count, truth) for count, truth in reads if count is not None]
            wrong = [pair for pair in known if pair[0] != pair[1]]
            results.append(f"{refusal}: {len(reads)} reads, {len(known)} known, {len(wrong)} wrong")
            any_wrong += wrong
        text = f"{'; '.join(results)}; exact again after {max(exact):.2f} s at most"
        assert not any_wrong, f"{text}; read and true: {any_wrong[:5]}"
        return text


def come_and_go(site: Site, seconds: float) -> list[tuple[int | None, int]]:
    """Open and close connections in turn; after each, read in every process.

    Returns each count that was read, with the true one.
    """
    reads = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        server = random.choice(site.servers)
        if site.clients[server] and random.random() < 0.5:
            say_goodbye(site.clients[server].pop()[0])
        else:
            site.open(server)
        truth = site.truth()["foo"]
        reads += [(one["foo"], truth) for one in site.counts(["foo"])]
    return reads


def fail_to_save(client: "redis_py.Redis", snapshot: Path) -> None:
    """Let a snapshot fail: its file is a folder. Redis then refuses writes."""
    (snapshot / "in-the-way").mkdir(parents=True)
    client.config_set("save", "3600 1000000")
    save(client, "err")


def save_again(client: "redis_py.Redis", snapshot: Path) -> None:
    (snapshot / "in-the-way").rmdir()
    snapshot.rmdir()
    save(client, "ok")
    snapshot.unlink()


def save(client: "redis_py.Redis", status: str) -> None:
    client.bgsave()
    while client.info("persistence")["rdb_last_bgsave_status"] != status:
        time.sleep(0.01)
