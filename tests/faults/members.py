"""Members: the lists of several processes, and the signals, through the faults of both sides."""

import itertools
import random
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.faults.processes import FOUR, churn_with, kill_one_of, say_goodbye
from tests.faults.redis_server import OwnRedis
from tests.faults.services import OWN_LAYER, require_no_wrong_count
from tests.faults.shares import THREE
from tests.faults.signals import MAX_DELAY
from tests.faults.site import LEASE, OPENERS, Load, Reader, Sampler, Site
from tests.faults.table import row
from tests.raw import Client
from tests.servers import Server
from tests.waiting import eventually

EMPTY: dict[str, Any] = {"connections": 0, "members": {}}


class MemberReader(Reader):
    """Reads `{"connections": 3, "members": {"ada": 2}}`."""

    view = "members"

    def value(self, body: dict[str, Any]) -> Any:
        return body


class MemberSite(Site):
    """A Site whose connections have members; all that it reads and compares are lists of them."""

    reader = MemberReader

    def __init__(self, url: str, kinds: tuple[str, ...] = FOUR, **env: str) -> None:
        self.keys: dict[Client, str] = {}
        super().__init__(url, kinds, application="tests.sites.member_signals:application", **env)

    def open(self, server: Server, name: str = "foo", member: str = "") -> Client:
        client = super().open(server, name, member)
        self.keys[client] = member
        return client

    def open_members(self, server: Server, entries: list[tuple[str, str]]) -> None:
        """Open a connection for each name and key."""
        with ThreadPoolExecutor(OPENERS) as threads:
            list(threads.map(lambda entry: self.open(server, *entry), entries))

    def truth(self) -> Mapping[str, Any]:
        truth = Truth()
        for client, name in itertools.chain(*self.clients.values()):
            truth[name]["connections"] += 1
            if key := self.keys[client]:
                truth[name]["members"][key] += 1
        return truth


class Truth(dict[str, dict[str, Any]]):
    def __missing__(self, name: str) -> dict[str, Any]:
        self[name] = {"connections": 0, "members": Counter()}
        return self[name]


@row(
    "4 processes x 1,000 members on 20 objects, half of them in all 4 processes",
    "every process has the same exact lists <= 1 s after the last open",
    small={"members": 100, "deadline": 3},
)
def many_members(members: int = 1000, deadline: float = 1) -> str:
    with OwnRedis() as redis, MemberSite(redis.url) as site:
        for place, server in enumerate(site.servers):
            site.open_members(server, entries_of(place, members))

        seconds = site.seconds_until_exact(deadline)

        entries = sum(len(each["members"]) for each in site.truth().values())
        return f"4 x {entries} members, all exact, {seconds:.2f} s after the last open"


def entries_of(place: int, members: int) -> list[tuple[str, str]]:
    """Return names and keys of the members of a process, every second of them in all processes."""
    return [
        (f"object-{number % 20}", f"{number}" if number // 20 % 2 else f"{number}-{place}")
        for number in range(members)
    ]


@row(
    "1,000 rounds of open, list, close, list; the lists on another process",
    "0 wrong lists of 2,000",
    small={"rounds": 100},
)
def open_list_close_list(rounds: int = 1000) -> str:
    with OwnRedis() as redis, MemberSite(redis.url, ("daphne", "uvicorn")) as site:
        here, there = site.servers
        wrong = []
        for number in range(rounds):
            key = f"member-{number % 7}"
            client = site.open(here, "foo", key)
            present = site.readers[there].read("foo")
            site.clients[here].clear()
            say_goodbye(client)
            reads = [(present, {"connections": 1, "members": {key: 1}})]
            reads.append((site.readers[there].read("foo"), EMPTY))
            wrong += [pair for pair in reads if pair[0] != pair[1]]
            here, there = there, here
        assert not wrong, f"{len(wrong)} of {2 * rounds} wrong: {wrong[:5]}"
        return f"{2 * rounds} lists, {len(wrong)} wrong"


@row(
    "kill -9 of one of 4 processes, which holds 1,000 members; half of them are in the others, too",
    "exact lists <= lease + 1 s",
    small={"members": 100},
)
def kill_members(members: int = 1000) -> str:
    with OwnRedis() as redis, MemberSite(redis.url) as site:
        for place, server in enumerate(site.servers):
            site.open_members(server, entries_of(place, members))
        site.seconds_until_exact()

        seconds = kill_one_of(site, site.servers[0])

        return f"exact after {seconds:.2f} s (lease {LEASE:.0f} s)"


@row(
    "FLUSHALL 10 times, then Redis kill -9 and empty restart, while members come and go",
    "exact or 503, exact again <= 2 s; lists sampled at 50 Hz: 0 wrong",
    small={"times": 1, "down": 0.3},
)
def lose_members(times: int = 10, down: float = 2) -> str:
    with (
        OwnRedis() as redis,
        MemberSite(redis.url, THREE, LAYER_URL=redis.url, **OWN_LAYER) as site,
    ):
        for place, server in enumerate(site.servers):
            keys = [*range(10), *range(10), *range(100 * (place + 1), 100 * (place + 1) + 10)]
            site.open_members(server, [("foo", f"member-{key}") for key in keys])
        site.seconds_until_exact()
        truth, seconds = site.truth()["foo"], []
        with Sampler(site, "foo") as sampler:
            with come_and_go(site) as load:
                for _ in range(times):
                    redis.flush()
                    seconds.append(site.seconds_until_exact(2))
                    time.sleep(1)
            redis.stop()
            time.sleep(down)
            redis.start()
            seconds.append(site.seconds_until_exact(2))
            time.sleep(0.5)
        assert not load.errors, load.errors
        samples = require_no_wrong_count(sampler, truth)
        return f"exact again after {max(seconds):.2f} s at most; {samples}"


def come_and_go(site: Site) -> Load:
    """Open and close connections of members of other objects continuously, on each process."""

    def open_and_close(port: int, numbers: "itertools.count[int]") -> None:
        number = next(numbers)
        path = f"/busy-{number % 50}/websocket?member=member-{number % 7}"
        say_goodbye(Client.opened(port, path=path))

    ports = [server.port for server in site.servers]
    return Load(*(lambda port=port: open_and_close(port, itertools.count()) for port in ports))


@row(
    "10,000 churn operations of 30 members with several tabs, 12 x kill -9; RST, FIN, Close and "
    "protocol errors mixed; 3 seeds",
    "final lists exact",
    small={"operations": 400, "kills": 1, "seeds": 1},
)
def churn_members(operations: int = 10_000, kills: int = 12, seeds: int = 3) -> str:
    keys = [f"member-{number}" for number in range(30)] + [""]
    seconds = [churn_with(seed, operations, kills, MemberSite, keys) for seed in range(seeds)]
    each = ", ".join(f"{one:.2f} s" for one in seconds)
    return f"exact after {each} (a process was killed just before)"


@row(
    "kill -9 of the process that sends the signals of members, and FLUSHALL, 3 times",
    "each member joins once, and leaves once when its last tab is gone",
    small={"times": 1},
)
def kill_leader_of_members(times: int = 3) -> str:
    sent = [signals_of_members() for _ in range(times)]
    return f"{sum(sent)} signals, each once"


def signals_of_members() -> int:
    """Return the number of signals."""
    with OwnRedis() as redis, tempfile.NamedTemporaryFile() as file:

        def signals() -> list[str]:
            lines = Path(file.name).read_text().splitlines()
            return sorted(line for line in lines if line.startswith(("joined", "left")))

        env = {"SIGNALS_FILE": file.name, "LAYER_URL": redis.url, **OWN_LAYER}
        with MemberSite(redis.url, ("daphne",), **env) as site:
            [leader] = site.servers
            site.open(leader, "foo", "ada")
            eventually(signals, ["joined foo ada"])
            site.open(leader, "foo", "bob")
            here, there = site.start("uvicorn"), site.start("daphne")
            for server, key in ((here, "bob"), (here, "cyd"), (there, "cyd"), (there, "dan")):
                site.open(server, "foo", key)
            expected = [f"joined foo {key}" for key in ("ada", "bob", "cyd", "dan")]
            eventually(signals, expected)

            # New processes have a copy of the ledger a moment after their start.
            time.sleep(0.5 + random.random())
            site.kill(leader)  # the last of ada, and a tab of bob
            redis.flush()
            site.open(there, "foo", "eve")
            for server in (here, there):  # a tab of cyd, and the last of dan
                client, _ = site.clients[server].pop(1)
                say_goodbye(client)

            expected += ["joined foo eve", "left foo ada", "left foo dan"]
            end = time.monotonic() + MAX_DELAY
            while signals() != expected and time.monotonic() < end:
                time.sleep(0.1)
            time.sleep(1)  # for what should not be sent
            assert signals() == expected, f"sent: {signals()}, not {expected}"
            return len(expected)
