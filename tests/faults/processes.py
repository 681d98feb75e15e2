"""Faults of the processes of a site, and of their clients."""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence

from tests.faults.redis_server import OwnRedis
from tests.faults.site import LEASE, Sampler, Site
from tests.faults.table import row
from tests.raw import CLOSE, TEXT, UPGRADE, Client, close_payload, frame
from tests.servers import Server

FOUR = ("daphne", "uvicorn", "daphne", "uvicorn")


@row(
    "4 processes x 1,000 sockets on 50 objects",
    "every process has the same exact count <= 1 s after the last open",
    # Beside other tests, the 200 reads through Django's middleware take more than a second.
    small={"sockets": 100, "deadline": 3},
)
def many_sockets(sockets: int = 1000, deadline: float = 1) -> str:
    with OwnRedis() as redis, Site(redis.url, FOUR) as site:
        for server in site.servers:
            site.open_many(server, [f"object-{number % 50}" for number in range(sockets)])

        seconds = site.seconds_until_exact(deadline)

        return f"all {4 * 50} counts read, all exact, {seconds:.2f} s after the last open"


@row(
    "1,000 rounds of open, read, close, read; the reads on another process",
    "0 wrong reads",
    small={"rounds": 200},
)
def open_read_close_read(rounds: int = 1000) -> str:
    with OwnRedis() as redis, Site(redis.url) as site:
        here, there = site.servers
        wrong = rounds_between(site, [(here, there), (there, here)], rounds // 2)
        return f"{2 * rounds} reads, {wrong} wrong"


def rounds_between(site: Site, pairs: list[tuple[Server, Server]], rounds: int) -> int:
    """Open and close on the first of a pair, read on the second; return the wrong reads: 0."""
    reads = reads_between(site, pairs * rounds, "foo")
    wrong = [(read, true) for read, true in reads if read != true]
    assert not wrong, f"{len(wrong)} wrong reads: {wrong[:9]}"
    return len(wrong)


def reads_between(
    site: Site, pairs: Iterable[tuple[Server, Server]], name: str
) -> list[tuple[int | None, int]]:
    """Open and close on the first of each pair; return what the second reads, and the true count.

    The object must have no other connections.
    """
    reads = []
    for here, there in pairs:
        client = Client.opened(here.port, name)
        reads.append((site.readers[there].read(name), 1))
        say_goodbye(client)
        reads.append((site.readers[there].read(name), 0))
    return reads


def say_goodbye(client: Client) -> None:
    client.send(frame(CLOSE, close_payload(1000)))
    assert client.closing()[0] == 1000
    client.socket.close()


@row(
    "kill -9 of one of 4 processes, which holds 1,000",
    "exact <= lease + 1 s",
    small={"sockets": 100},
)
def kill_one(sockets: int = 1000) -> str:
    with OwnRedis() as redis, Site(redis.url, FOUR) as site:
        for server in site.servers:
            site.open_many(server, ["foo"] * (sockets if server is site.servers[0] else 50))
        site.seconds_until_exact()

        seconds = kill_one_of(site, site.servers[0])

        return f"exact after {seconds:.2f} s (lease {LEASE:.0f} s)"


def kill_one_of(site: Site, server: Server) -> float:
    """Return how many seconds it takes until the others are exact."""
    site.kill(server)
    return site.seconds_until_exact(LEASE + 1)


@row(
    "SIGTERM while handshakes are in flight, 20 times",
    "1012 to all, exact <= 1 s, exit 0 <= 5 s",
    small={"times": 2},
)
def terminate(times: int = 20) -> str:
    exact, ended, greeted, codes, kinds = [], [], 0, Counter(), ("daphne", "uvicorn")
    with OwnRedis() as redis, Site(redis.url, ["daphne"]) as site:
        site.open_many(site.servers[0], ["foo"] * 10)
        for number in range(times):
            kind = kinds[number % 2]
            server = site.start(kind)
            callers = [Caller(server.port, number * 0.003) for number in range(60)]
            time.sleep(0.08 + 0.01 * (number % 5))
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            code = server.process.wait(timeout=10)
            ended.append(time.monotonic() - began)
            for caller in callers:
                caller.join()
            site.forget(server)
            exact.append(site.seconds_until_exact(1))
            # uvicorn raises the signal again after an orderly shutdown
            assert code == 0 or (kind, code) == ("uvicorn", -signal.SIGTERM), f"{kind}: {code}"
            assert ended[-1] <= 5, f"{kind}: {ended[-1]:.2f} s"
            codes.update(caller.end for caller in callers)
            greeted += sum(caller.greeted for caller in callers)
    other = set(codes) - {1012, "no 101"}
    assert not other, f"unexpected close codes: {codes}"
    assert codes[1012] == greeted
    return (
        f"{greeted} connections, all closed with 1012; exact after {max(exact):.2f} s, exit after "
        f"{max(ended):.2f} s at most"
    )


class Caller(threading.Thread):
    """A client that opens after a while, and waits for its close."""

    def __init__(self, port: int, delay: float) -> None:
        super().__init__()
        self.port, self.delay = port, delay
        self.greeted = False
        self.end: int | str | None = "no 101"
        self.start()

    def run(self) -> None:
        time.sleep(self.delay)
        try:
            with Client(self.port) as client:
                answer = client.ask("/foo/websocket", UPGRADE)
                if not answer.status_line.startswith("HTTP/1.1 101"):
                    return
                self.greeted, self.end = True, "nothing"
                self.end = client.closing()[0]
                client.send(frame(CLOSE, close_payload(1012)))
        except (OSError, AssertionError) as error:
            if self.greeted:
                self.end = repr(error)


@row(
    "10,000 churn operations, 12 x kill -9; RST, FIN, Close and protocol errors mixed; 3 seeds",
    "final count exact",
    small={"operations": 400, "kills": 1, "seeds": 1},
)
def churn(operations: int = 10_000, kills: int = 12, seeds: int = 3) -> str:
    seconds = [churn_with(seed, operations, kills) for seed in range(seeds)]
    each = ", ".join(f"{one:.2f} s" for one in seconds)
    return f"exact after {each} (a process was killed just before)"


def churn_with(
    seed: int,
    operations: int,
    kills: int,
    make_site: type[Site] = Site,
    members: Sequence[str] = ("",),
) -> float:
    chance = random.Random(seed)
    names = [f"object-{number}" for number in range(20)]
    with OwnRedis() as redis, make_site(redis.url, FOUR) as site:
        for number in range(operations):
            if number % (operations // kills) == operations // kills - 1:
                site.kill(chance.choice(site.servers))
                site.start(chance.choice(FOUR))
            server = chance.choice(site.servers)
            clients = site.clients[server]
            if not clients or chance.random() < 0.5:
                site.open(server, chance.choice(names), chance.choice(members))
            else:
                client, _ = clients.pop(chance.randrange(len(clients)))
                chance.choice(ENDS)(client)
        return site.seconds_until_exact(LEASE + 1, names)


def finish(client: Client) -> None:
    client.socket.close()


def break_protocol(client: Client) -> None:
    client.send(frame(TEXT, b"not masked", mask=b""))
    assert client.closing()[0] == 1002
    client.socket.close()


ENDS = [say_goodbye, finish, Client.reset, break_protocol]


@row(
    "SIGSTOP for 2 x lease, then SIGCONT; clients vanish meanwhile",
    "left out, then exact <= 2 s; no read above the true sum",
    small={"sockets": 40},
)
def stand_still(sockets: int = 400) -> str:
    with OwnRedis() as redis, Site(redis.url, ("daphne", "uvicorn", "daphne")) as site:
        stopped, others = site.servers[0], site.servers[1:]
        site.open_many(stopped, ["foo"] * sockets)
        for server in others:
            site.open_many(server, ["foo"] * 10)
        site.seconds_until_exact()
        with Sampler(site, "foo") as sampler:
            stopped.process.send_signal(signal.SIGSTOP)
            try:
                time.sleep(LEASE + 1)
                left_out = [site.readers[server].read("foo") for server in others]
                for _ in range(sockets // 2):
                    site.clients[stopped].pop()[0].reset()
                vanished = time.monotonic()
                time.sleep(LEASE - 1)
            finally:
                stopped.process.send_signal(signal.SIGCONT)
            seconds = site.seconds_until_exact(2)
            time.sleep(1)
        truth = site.truth()["foo"]
        above = [one for one in sampler.known() if one.began > vanished and one.count > truth]
        assert left_out == [20, 20], left_out
        assert not above, f"{len(above)} reads above {truth}: {above[:5]}"
        return (
            f"left out after {LEASE + 1:.0f} s; exact {seconds:.2f} s after SIGCONT; "
            f"{len(sampler.known())} reads, {len(above)} above the true sum"
        )
