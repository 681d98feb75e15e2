"""A site of several processes, its clients, and threads that read its counts continuously."""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from urllib.parse import quote

from tests.raw import Client
from tests.servers import Server
from tests.waiting import DEADLINE, SECOND

LEASE, HEARTBEAT = 3.0, 1.0  # seconds: the defaults
JSON = {"Accept": "application/json"}
OPENERS = 4  # threads
# No request log, which would dominate the measurements, and no pings: these clients send no pongs.
OPTIONS = {
    "daphne": ("--access-log", "/dev/null", "--ping-interval", "600"),
    "uvicorn": ("--no-access-log", "--ws-ping-interval", "600"),
}


class Reader:
    """Reads counts from one process, on one connection. For any thread."""

    view = "getCurrentConnections"

    def __init__(self, server: Server, timeout: float = 3 * SECOND) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)
        self.lock = threading.Lock()

    def read(self, name: str) -> Any:
        """Return the count, or None if it is unknown or the process does not respond."""
        with self.lock:
            try:
                self.connection.request("GET", f"/{quote(name, safe='')}/{self.view}", headers=JSON)
                response = self.connection.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException):
                self.connection.close()
                return None
        if response.status == 503:
            return None
        assert response.status == 200, (response.status, body)
        return self.value(json.loads(body))

    def value(self, body: dict[str, Any]) -> Any:
        return body["connections"]

    def close(self) -> None:
        self.connection.close()


class Site:
    """Servers on one Redis. `clients` has the accepted connections of each server.

    They are warm at first: Redis is known, and each has been asked for a count.
    """

    reader = Reader

    def __init__(
        self,
        url: str,
        kinds: Iterable[str] = ("daphne", "uvicorn"),
        is_warm: bool = True,
        **env: str,
    ) -> None:
        self.env = {"ECHO_STATE_URL": url, **env}
        self.servers: list[Server] = []
        self.clients: dict[Server, list[tuple[Client, str]]] = {}
        self.readers: dict[Server, Reader] = {}
        try:
            with ThreadPoolExecutor(OPENERS) as threads:
                self.servers = list(threads.map(self.start, kinds))  # in the order of kinds
            if is_warm:
                self.wait_until_readable()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> "Site":
        return self

    def __exit__(self, *error: object) -> None:
        for server in self.servers:
            self.drop_clients(server)
            self.readers[server].close()
        with ThreadPoolExecutor(len(self.servers) or 1) as threads:
            list(threads.map(Server.stop, self.servers))

    def start(self, kind: str, **env: str) -> Server:
        server = Server(kind, options=OPTIONS[kind], **{**self.env, **env})
        self.clients[server] = []
        self.readers[server] = self.reader(server)
        self.servers.append(server)
        return server

    def kill(self, server: Server) -> None:
        """Kill -9."""
        server.process.kill()
        self.forget(server)

    def forget(self, server: Server) -> None:
        server.process.wait()
        self.drop_clients(server)
        self.readers.pop(server).close()
        self.servers.remove(server)
        server.stop()

    def drop_clients(self, server: Server) -> None:
        for client, _ in self.clients.pop(server, []):
            client.socket.close()

    def open(self, server: Server, name: str = "foo", member: str = "") -> Client:
        """Open a connection, of a member if the site is `tests.sites.member_signals`."""
        query = f"?member={member}" if member else ""
        client = Client.opened(server.port, path=f"/{name}/websocket{query}")
        self.clients[server].append((client, name))
        return client

    def open_many(self, server: Server, names: Iterable[str]) -> None:
        with ThreadPoolExecutor(OPENERS) as threads:
            list(threads.map(lambda name: self.open(server, name), names))

    def truth(self) -> Mapping[str, Any]:
        """Return what a reader must read for each object: the true number of connections."""
        return Counter(name for clients in self.clients.values() for _, name in clients)

    def counts(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Return the counts that each process returns, all read at the same time."""
        names = list(names)
        with ThreadPoolExecutor(len(self.servers)) as threads:
            readers = [self.readers[server] for server in self.servers]
            return list(
                threads.map(lambda reader: {name: reader.read(name) for name in names}, readers)
            )

    def seconds_until_exact(self, deadline: float = DEADLINE, names: Iterable[str] = ()) -> float:
        """Return after how many seconds every process is exact; fail after the deadline."""
        truth = self.truth()
        names = set(names) | set(truth)
        expected = [{name: truth[name] for name in names}] * len(self.servers)
        began = time.monotonic()
        while (counts := self.counts(names)) != expected:
            wrong = [
                {name: count for name, count in one.items() if count != truth[name]}
                for one in counts
            ]
            assert time.monotonic() - began < deadline, f"after {deadline} s not exact: {wrong}"
            time.sleep(0.02)
        seconds = time.monotonic() - began
        assert seconds <= deadline, f"exact only after {seconds:.2f} s, not within {deadline} s"
        return seconds

    def wait_until_readable(self) -> None:
        self.seconds_until_exact(3 * DEADLINE, ["foo"])


class Sample(NamedTuple):
    began: float  # time.monotonic()
    ended: float
    count: Any  # None: unknown


class Sampler:
    """`with Sampler(site, "foo"):` reads the count 50 times a second, in each process."""

    def __init__(self, site: Site, name: str, period: float = 0.02) -> None:
        self.samples: list[Sample] = []
        self._name, self._period = name, period
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(site.reader(server),))
            for server in site.servers
        ]

    def __enter__(self) -> "Sampler":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self, reader: Reader) -> None:
        while not self._stopping.wait(self._period):
            began = time.monotonic()
            count = reader.read(self._name)
            self.samples.append(Sample(began, time.monotonic(), count))
        reader.close()

    def known(self) -> list[Sample]:
        return [sample for sample in self.samples if sample.count is not None]


class Load:
    """Threads that repeat their step until the end of the block; it must not fail."""

    def __init__(self, *steps: Callable[[], object], pause: float = 0.002) -> None:
        self.errors: list[BaseException] = []
        self.done = 0
        self._pause = pause
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(step,)) for step in steps]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self, step: Callable[[], object]) -> None:
        while not self._stopping.wait(self._pause):
            try:
                step()
            except (OSError, AssertionError) as error:
                self.errors.append(error)
                return
            self.done += 1


def echo(client: Client) -> float:
    """Return how many seconds an echo takes."""
    began = time.monotonic()
    client.send_text("hello")
    assert client.text() == "[Durable Object]: hello"
    return time.monotonic() - began


def p99(seconds: Iterable[float]) -> float:
    ordered = sorted(seconds)
    return ordered[int(len(ordered) * 0.99)]
