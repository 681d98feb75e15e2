"""A limit for all processes together, and many simultaneous handshakes."""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from echo.state.base import total_of
from echo.state.redis.state import RedisState
from tests.faults.processes import FOUR
from tests.faults.redis_server import OwnRedis
from tests.faults.site import HEARTBEAT, LEASE, Site
from tests.faults.table import row
from tests.raw import UPGRADE, Client, request
from tests.servers import Server
from tests.waiting import eventually

LIMIT = 100
PER_USER, PER_ADDRESS = 20, 100
USERS, OF_FIRST_ADDRESS, ADDRESSES = 41, 3, 5
SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.sites.limited", "LIMIT": str(LIMIT)}


@row(
    "1,000 handshakes at once at the limit of 100, at 4 processes: the first ever, later, "
    "after FLUSHALL",
    "exactly 100 each time, the others 503",
    small={"attempts": 200},
)
def limit(attempts: int = 1000) -> str:
    statuses = []
    with OwnRedis() as redis, Site(redis.url, FOUR, is_warm=False, **SETTINGS) as site:
        for begin in (lambda: None, lambda: None, redis.flush):
            begin()
            statuses.append(open_at_once(site, attempts))
            site.seconds_until_exact(names=["foo"])
            close_all(site)
    expected = Counter({101: LIMIT, 503: attempts - LIMIT})
    assert statuses == [expected] * 3, statuses
    return "; ".join(f"{one[101]} x 101, {one[503]} x 503" for one in statuses)


def close_all(site: Site) -> None:
    for server in site.servers:
        for client, _ in site.clients[server]:
            client.socket.close()
        site.clients[server].clear()
    site.seconds_until_exact(names=["foo"])


def open_at_once(
    site: Site, attempts: int, begin: Callable[[], object] = lambda: None
) -> Counter[int]:
    """Return how many handshakes had which status; connections with a 101 stay open.

    `begin` is called when the clients are connected.
    """
    servers: list[Server] = site.servers
    clients = [
        (server, Client(server.port))
        for number in range(attempts)
        for server in [servers[number % len(servers)]]
    ]
    begin()
    for server, client in clients:
        client.send(request("/foo/websocket", UPGRADE, port=server.port))
    statuses: Counter[int] = Counter()
    for server, client in clients:
        response = client.answer()
        status = int(response.status_line.split()[1])
        statuses[status] += 1
        if status == 101:
            site.clients[server].append((client, "foo"))
        else:
            assert response.header("Retry-After") is not None, response
            client.socket.close()
    return statuses


class LimitedSite(Site):
    """Each connection belongs to the object "foo", its user and its address.

    The users of the first address reach their own limit only, those of the others that of the
    address, too.
    """

    def __init__(self, url: str) -> None:
        limits = json.dumps({"user-": PER_USER, "ip-": PER_ADDRESS})
        super().__init__(
            url,
            FOUR,
            is_warm=False,
            application="tests.sites.several:application",
            **{**SETTINGS, "LIMIT": limits},
        )
        self.users: dict[Client, int] = {}

    def truth(self) -> Mapping[str, Any]:
        users = [self.users[client] for clients in self.clients.values() for client, _ in clients]
        names = [("foo", f"user-{user}", f"ip-{address_of(user)}") for user in users]
        return Counter(itertools.chain(*names))

    def names(self) -> list[str]:
        addresses = [f"ip-{address}" for address in range(ADDRESSES)]
        return ["foo", *(f"user-{user}" for user in range(USERS)), *addresses]


def address_of(user: int) -> int:
    return 0 if user < OF_FIRST_ADDRESS else 1 + user % (ADDRESSES - 1)


@row(
    "1,000 handshakes at once at two limits, 20 per user and 100 per address, at 4 processes: the "
    "first ever, later, after FLUSHALL, each with kill -9 of a process meanwhile, and again",
    "each user and address has its limit and not more, all objects and the total are exact "
    "<= lease + 1 s after the kill, the others 429",
    small={"attempts": 1000, "times": 1},
)
def two_limits(attempts: int = 1000, times: int = 3) -> str:
    results, seconds = [], []
    with OwnRedis() as redis, LimitedSite(redis.url) as site, counts_on(redis.url) as state:
        for begin in (lambda: None, lambda: None, redis.flush)[:times]:
            begin()
            statuses = open_for_users(site, attempts)
            require_full(site, attempts)
            results.append(f"{statuses[101]} x 101, {statuses[429]} x 429")
            close_all(site)

            open_for_users(site, attempts, killed=site.servers[0])
            seconds.append(site.seconds_until_exact(LEASE + 1, site.names()))
            open_for_users(site, attempts)
            require_full(site, attempts)
            expected = (len(site.truth()), site.truth()["foo"])
            eventually(lambda: total_of(state.snapshot()[1]), expected)
            site.start("uvicorn")
            close_all(site)
        assert state.check() == []
    return f"{'; '.join(results)}; exact {max(seconds):.2f} s after kill -9 at most"


@contextmanager
def counts_on(url: str) -> Iterator[RedisState]:
    state = RedisState(url, LEASE, HEARTBEAT)
    try:
        yield state
    finally:
        state.close()


def require_full(site: LimitedSite, attempts: int) -> None:
    """Fail unless each user or its address has as many connections as the limits allow."""
    wanted = Counter(number % USERS for number in range(attempts))
    site.seconds_until_exact(names=site.names())
    truth = site.truth()
    for user in range(USERS):
        count, of_address = truth[f"user-{user}"], truth[f"ip-{address_of(user)}"]
        assert count <= PER_USER, f"user {user}: {count}"
        assert of_address <= PER_ADDRESS, f"address of user {user}: {of_address}"
        is_full = of_address == PER_ADDRESS or count == min(PER_USER, wanted[user])
        assert is_full, f"user {user}: {count}, address: {of_address}"


def open_for_users(site: LimitedSite, attempts: int, killed: Server | None = None) -> Counter[int]:
    """Return how many handshakes had which status; connections with a 101 stay open.

    `killed` is killed when the last handshake has been sent.
    """
    servers: list[Server] = site.servers
    clients = [
        (server, Client(server.port), number % USERS)
        for number in range(attempts)
        for server in [servers[number % len(servers)]]
    ]
    for server, client, user in clients:
        headers = {**UPGRADE, "X-User": str(user), "X-Address": str(address_of(user))}
        client.send(request("/foo/websocket", headers, port=server.port))
    if killed is not None:
        site.kill(killed)
    statuses: Counter[int] = Counter()
    for server, client, user in clients:
        if server is killed:
            client.socket.close()
            continue
        response = client.answer()
        status = int(response.status_line.split()[1])
        statuses[status] += 1
        if status == 101:
            site.clients[server].append((client, "foo"))
            site.users[client] = user
        else:
            assert (status, response.header("Retry-After")) == (429, "5"), response
            client.socket.close()
    return statuses
