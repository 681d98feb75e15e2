"""A limit for all processes together, and many simultaneous handshakes."""

from collections import Counter
from collections.abc import Callable

from tests.faults.processes import FOUR
from tests.faults.redis_server import OwnRedis
from tests.faults.site import Site
from tests.faults.table import row
from tests.raw import UPGRADE, Client, request
from tests.servers import Server

LIMIT = 100
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
