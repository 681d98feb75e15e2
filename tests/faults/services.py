"""Faults of the services of a site: Redis, the channel layer, the clocks."""

import itertools
import time
from collections.abc import Callable, Iterable
from email.utils import parsedate_to_datetime
from threading import Thread

from echo.state.redis import scripts
from tests.faults.processes import kill_one_of, rounds_between, say_goodbye
from tests.faults.redis_server import Cluster, OwnRedis
from tests.faults.site import LEASE, Load, Sampler, Site, echo, p99
from tests.faults.table import row
from tests.raw import Client
from tests.servers import Server

WAIT = 0.25  # seconds that a handshake may wait for Redis, or for the channel layer
# In seconds: the delay that a handshake may have by chance, since the servers share their cores
# with all other processes. For echoes of less than a third of it, a ratio of two is chance as well.
NOISE = 0.03
OTHER_CLOCK = {"DJANGO_SETTINGS_MODULE": "tests.faults.other_clock"}
OWN_LAYER = {"DJANGO_SETTINGS_MODULE": "tests.faults.own_layer"}


def steady(site: Site, sockets: int = 20) -> None:
    """Open connections of "foo" that stay, on each process."""
    for server in site.servers:
        site.open_many(server, ["foo"] * sockets)
    site.seconds_until_exact()


def churn_at(site: Site) -> Load:
    """Open and close connections of other objects continuously, on each process."""

    def come_and_go(port: int, numbers: "itertools.count[int]") -> None:
        say_goodbye(Client.opened(port, f"busy-{next(numbers) % 50}"))

    ports = [server.port for server in site.servers]
    return Load(*(lambda port=port: come_and_go(port, itertools.count()) for port in ports))


def echo_at(site: Site) -> Load:
    """Echo continuously on connections of each process."""
    lists = [[client for client, _ in clients] for clients in site.clients.values()]
    turns = [itertools.cycle(clients) for clients in lists]
    return Load(*(lambda turn=turn: echo(next(turn)) for turn in turns), pause=0.005)


def require_no_wrong_count(sampler: Sampler, truth: object) -> str:
    wrong = [sample for sample in sampler.known() if sample.count != truth]
    assert not wrong, f"{len(wrong)} reads are not {truth}: {[one.count for one in wrong[:9]]}"
    known = len(sampler.known())
    return f"{len(sampler.samples)} samples: {known} exact, {len(sampler.samples) - known} x 503"


@row(
    "FLUSHALL, SCRIPT FLUSH under load",
    "exact or 503, exact again <= 2 s; sampled at 50 Hz: 0 wrong counts",
    small={"times": 1},
)
def flush(times: int = 10) -> str:
    with OwnRedis() as redis, Site(redis.url, ("daphne", "uvicorn", "daphne")) as site:
        steady(site)
        seconds = []
        with churn_at(site) as load, Sampler(site, "foo") as sampler, redis.client() as client:
            for _ in range(times):
                for command in (client.flushall, client.script_flush):
                    command()
                    seconds.append(site.seconds_until_exact(2, ["foo"]))
                    time.sleep(0.3)
        assert not load.errors, load.errors
        samples = require_no_wrong_count(sampler, site.truth()["foo"])
        return f"exact again after {max(seconds):.2f} s at most; {samples}"


@row(
    "Redis kill -9, 5 s down, empty restart",
    "no socket and no echo lost; exact <= 2 s after; sampled: 0 wrong counts",
    small={"down": 0.5},
)
def restart_empty(down: float = 5) -> str:
    return restart(down, snapshot=False)


@row(
    "Redis restarts at once from an old snapshot",
    "no socket and no echo lost; exact <= 2 s after; sampled: 0 wrong counts",
    small={"down": 0},
)
def restart_from_snapshot(down: float = 0) -> str:
    return restart(down, snapshot=True)


def restart(down: float, snapshot: bool) -> str:
    with OwnRedis() as redis, Site(redis.url, ("daphne", "uvicorn", "daphne")) as site:
        steady(site)
        if snapshot:
            extra = [Client.opened(server.port, "foo") for server in site.servers]
            redis.save()
            for client in extra:
                say_goodbye(client)
        with Sampler(site, "foo") as sampler, echo_at(site) as echoes:
            with churn_at(site) as load:
                time.sleep(0.3)
            redis.stop()
            time.sleep(down)
            redis.start()
            seconds = site.seconds_until_exact(2)
            time.sleep(0.5)
        assert not [*echoes.errors, *load.errors], [*echoes.errors, *load.errors]
        samples = require_no_wrong_count(sampler, site.truth()["foo"])
        return f"{echoes.done} echoes, 0 lost; exact after {seconds:.2f} s; {samples}"


@row(
    "Redis hangs (SIGSTOP) for 10 s",
    "echo p99 <= 2 x normal; handshakes <= 250 ms later, and none once the outage is known",
    small={"seconds": 2.5, "noise": 0.1},
)
def hang(seconds: float = 10, noise: float = NOISE) -> str:
    with OwnRedis() as redis, Site(redis.url) as site:
        return outage(site, redis.hang, redis.resume, seconds, noise)


@row(
    "The channel layer hangs (its own Redis) for 12 s",
    "echo p99 <= 2 x normal; handshakes <= 250 ms later, and none once the outage is known",
)
def hang_layer(seconds: float = 12) -> str:
    with (
        OwnRedis() as redis,
        OwnRedis() as layer,
        Site(redis.url, LAYER_URL=layer.url, **OWN_LAYER) as site,
    ):
        return outage(site, layer.hang, layer.resume, seconds)


@row(
    "The channel layer is down (its own Redis, kill -9) for 10 s",
    "echo p99 <= 2 x normal; handshakes <= 250 ms later, and none once the outage is known",
    small={"seconds": 2.5, "noise": 0.1},
)
def kill_layer(seconds: float = 10, noise: float = NOISE) -> str:
    with (
        OwnRedis() as redis,
        OwnRedis() as layer,
        Site(redis.url, LAYER_URL=layer.url, **OWN_LAYER) as site,
    ):
        return outage(site, layer.stop, layer.start, seconds, noise)


def outage(
    site: Site,
    begin: Callable[[], None],
    end: Callable[[], None],
    seconds: float,
    noise: float = NOISE,
) -> str:
    steady(site)
    clients = [clients[0][0] for clients in site.clients.values()]
    normal_echoes, normal = watch(site, clients, min(2, seconds / 2))
    begin()
    try:
        echoes, handshakes = watch(site, clients, seconds)
    finally:
        end()
    site.seconds_until_exact(5)
    usual = p99(took for _, took in normal)
    later = max(took for _, took in handshakes) - usual
    # Each process knows of the outage after its first failed call to the state or the layer.
    last = [(at, took) for at, took in handshakes if at > seconds - 1]
    known = p99(took for _, took in last) - usual
    ratio = p99(echoes) / p99(normal_echoes)
    slow = [at for at, took in handshakes if took > usual + 0.1]
    text = (
        f"echo p99 {p99(normal_echoes) * 1000:.1f} -> {p99(echoes) * 1000:.1f} ms; handshakes "
        f"{later * 1000:.0f} ms later at most, {max(known, 0) * 1000:.0f} ms in the last second "
        f"({len(slow)} of {len(handshakes)} waited, the last at {max(slow, default=0):.1f} s)"
    )
    assert ratio <= 2 or p99(echoes) < noise / 3, text
    assert later <= WAIT + noise, text
    assert known < noise, text
    return text


def watch(
    site: Site, clients: Iterable[Client], seconds: float
) -> tuple[list[float], list[tuple[float, float]]]:
    """Return the seconds of each echo, and start and seconds of each handshake (new objects)."""
    echoes, handshakes = [], []
    began = time.monotonic()
    names = itertools.count()
    while time.monotonic() < began + seconds:
        for client in clients:
            echoes += [echo(client) for _ in range(20)]
        for server in site.servers:
            at = time.monotonic()
            client = Client.opened(server.port, f"new-{next(names)}")
            handshakes.append((at - began, time.monotonic() - at))
            client.socket.close()
    return echoes, handshakes


@row(
    "100,000 names, once each",
    "DBSIZE back to its base, RSS growth < 20 MiB",
    small={"names": 1000},
)
def names_once(names: int = 100_000) -> str:
    with OwnRedis() as redis, Site(redis.url) as site:
        use_once(site, "warm", 1000)
        base, memory = redis.size(), [server.memory() for server in site.servers]

        began = time.monotonic()
        use_once(site, "name", names)
        rate = names / (time.monotonic() - began)

        growth = [s.memory() - before for s, before in zip(site.servers, memory, strict=True)]
        with redis.client() as client:
            fields = [client.hlen(key) for key in client.keys(f"{scripts.SHARE}*")]
        growths = ", ".join(
            f"{kind} {bytes_ / (1 << 20):+.1f} MiB"
            for kind, bytes_ in zip(("daphne", "uvicorn"), growth, strict=True)
        )
        text = f"DBSIZE {base} -> {redis.size()}; {growths}; {rate:.0f} open and close per second"
        assert (redis.size(), fields) == (base, [3, 3]), (text, fields)
        assert max(growth) < 20 << 20, text
        return text


def use_once(site: Site, prefix: str, names: int) -> None:
    def use(number: int) -> None:
        say_goodbye(Client.opened(site.servers[number % 2].port, f"{prefix}-{number}"))

    numbers = iter(range(names))
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for number in numbers:
                use(number)
        except (OSError, AssertionError) as error:
            errors.append(error)

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors


@row(
    "Redis Cluster of 3 primaries, 3 replicas; the primary that has our keys is killed",
    "no CROSSSLOT; exact <= lease + 2 s after the failover",
)
def fail_over() -> str:
    with (
        Cluster() as cluster,
        OwnRedis() as layer,
        Site(cluster.url, LAYER_URL=layer.url, **OWN_LAYER) as site,
    ):
        steady(site)
        with Sampler(site, "foo") as sampler, echo_at(site) as echoes:
            cluster.primary_of(scripts.META).stop()
            began = time.monotonic()
            while not cluster.has_primary(scripts.META):
                assert time.monotonic() < began + 30, "no failover"
                time.sleep(0.02)
            failover = time.monotonic() - began
            seconds = site.seconds_until_exact(LEASE + 2)
            time.sleep(1)
        assert not echoes.errors, echoes.errors
        logs = "".join(server.log() for server in site.servers)
        assert "CROSSSLOT" not in logs
        samples = require_no_wrong_count(sampler, site.truth()["foo"])
        return f"failover after {failover:.1f} s, exact {seconds:.2f} s after it; {samples}"


@row(
    "The processes' clocks are an hour apart",
    "no difference",
    small={"rounds": 20},
)
def clocks_apart(rounds: int = 300) -> str:
    with OwnRedis() as redis, Site(redis.url) as site:
        for hours in (1, -1):
            site.start("uvicorn", CLOCK_OFFSET=str(hours * 3600), **OTHER_CLOCK)
        site.seconds_until_exact(5, ["foo"])
        ahead, behind = site.servers[2:]
        apart = [clock_of(server) - time.time() for server in (ahead, behind)]
        assert [round(one / 60) for one in apart] == [60, -60], apart
        wrong = rounds_between(site, [(ahead, behind), (behind, site.servers[0])], rounds)
        steady(site)
        killed = kill_one_of(site, ahead)
        return f"{4 * rounds} reads, {wrong} wrong; kill -9: exact after {killed:.2f} s"


def clock_of(server: Server) -> float:
    """Return the time in the Date header of the process."""
    return parsedate_to_datetime(server.get("/")[1]["date"]).timestamp()
