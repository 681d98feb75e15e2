"""The way to Redis, which it may be a single server or a cluster: the only importer of `redis`."""

from collections.abc import Callable, Sequence
from functools import partial
from threading import Lock
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.connection import BlockingConnectionPool
from redis.exceptions import RedisClusterException, RedisError, ResponseError
from redis.retry import Retry

ERRORS = (RedisError, RedisClusterException, OSError)
LOST = (redis.ConnectionError, redis.TimeoutError, OSError)  # there was no answer
REFUSED = ResponseError  # there was one
TIMEOUT = 1.0  # seconds until a Redis that does not answer counts as away

_SCHEMES = {"valkey": "redis", "valkeys": "rediss"}


class Connection:
    """A client that is made on first use. May be used from any thread.

    Nothing is ever tried again here, since that would hide that a server has been started anew.
    Who finds all of the client's sockets in use waits for one, TIMEOUT at the most.
    """

    def __init__(self, url: str, servers: "Servers") -> None:
        base, _, query = url.partition("?")
        scheme, _, place = base.partition("://")
        options = query.split("&") if query else []
        self._cluster = "cluster=true" in options  # this one is for us, the others for the client
        options = [option for option in options if not option.startswith("cluster=")]
        base = f"{_SCHEMES.get(scheme, scheme)}://{place}"
        self._url = "?".join([base, "&".join(options)] if options else [base])
        self._servers = servers
        self._client: Any = None
        self._scripts: dict[str, Any] = {}
        self._lock = Lock()

    def run(self, script: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run the script, and return its answer. Raises one of ERRORS."""
        registered = self._scripts.get(script)
        if registered is None:
            with self._lock:
                if self._client is None:
                    self._client = self._connect()
                registered = self._scripts[script] = self._client.register_script(script)
        return registered(keys=keys, args=args)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _connect(self) -> Any:
        options: dict[str, Any] = {
            "socket_timeout": TIMEOUT,
            "socket_connect_timeout": TIMEOUT,
            "redis_connect_func": self._connected,
        }
        try:
            if self._cluster:
                pools = partial(BlockingConnectionPool, timeout=TIMEOUT)
                options |= {"connection_pool_class": pools, "retry": Retry(NoBackoff(), 1)}
                return RedisCluster.from_url(self._url, **options)
            options |= {"timeout": TIMEOUT, "retry": Retry(NoBackoff(), 0)}
            pool = BlockingConnectionPool.from_url(self._url, **options)
            pool.connection_class(**pool.connection_kwargs)  # else each use would find it wrong
            return redis.Redis.from_pool(pool)
        except (TypeError, ValueError) as error:
            raise RedisError(f"ECHO_STATE_URL has an option that is not known: {error}") from error

    def _connected(self, connection: Any) -> None:
        """Log in, and see whether it is the server that it was."""
        if not self._cluster:  # RedisCluster has done it
            connection.on_connect()
        sections = "server", "replication"
        for section in sections:
            connection.send_command("INFO", section)
        info = "".join(connection.read_response().decode() for _ in sections)
        self._servers.see(str(connection.repr_pieces()), info)


class Servers:
    """What has been met at each address. May be used from any thread.

    `met` is called with the age in seconds of each server that is met for the first time, or again
    after a start: its data may be an old snapshot. One that was a replica has the age 0, whatever
    its own: it does not say when it was promoted, and may not have received the last writes.
    """

    def __init__(self, met: Callable[[float], None]) -> None:
        self._met = met
        self._known: dict[str, tuple[str, str | None]] = {}  # by address: run and replication id

    def see(self, address: str, info: str) -> None:
        """Take in what the server at the address answers to INFO, of itself and its replication."""
        found = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
        try:
            run_id, uptime = found["run_id"], float(found["uptime_in_seconds"])
        except (KeyError, ValueError) as error:
            raise RedisError(
                "The answer to INFO has no run_id and uptime_in_seconds, which tell of a restart."
            ) from error
        history = found.get("master_replid")  # a replica's is its primary's; once promoted, its own
        known = self._known.get(address)
        if known != (run_id, history):
            # What it replicated before it was promoted; else zeros, and absent where there are
            # no replicas at all.
            was_replica = found.get("master_replid2", "").strip("0") != ""
            # The uptime is a difference of whole seconds: up to one too much.
            self._met(max(uptime - 1, 0.0) if known is None and not was_replica else 0.0)
            self._known[address] = run_id, history  # last: who meets it meanwhile is told as well
