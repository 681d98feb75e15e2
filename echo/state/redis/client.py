"""The way to Redis, which it may be a single server or a cluster: the only importer of `redis`."""

from collections.abc import Sequence
from functools import partial
from threading import Lock
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.connection import BlockingConnectionPool
from redis.exceptions import RedisClusterException, RedisError, ResponseError
from redis.retry import Retry

from echo.state.redis.restarts import RestartDetector

ERRORS = (RedisError, RedisClusterException, OSError)
LOST = (redis.ConnectionError, redis.TimeoutError, OSError)  # there was no answer
REFUSED = ResponseError  # there was one
TIMEOUT = 1.0  # seconds until a Redis that does not answer counts as away

_SCHEMES = {"valkey": "redis", "valkeys": "rediss"}


class RedisClient:
    """A client that is made on first use. May be used from any thread.

    Nothing is ever tried again here, since that would hide that a server has been started anew.
    Who finds all of the client's sockets in use waits for one, TIMEOUT at the most.
    """

    def __init__(self, url: str, restarts: RestartDetector) -> None:
        base, _, query = url.partition("?")
        scheme, _, place = base.partition("://")
        options = query.split("&") if query else []
        self._cluster = "cluster=true" in options  # this one is for us, the others for the client
        options = [option for option in options if not option.startswith("cluster=")]
        base = f"{_SCHEMES.get(scheme, scheme)}://{place}"
        self._url = "?".join([base, "&".join(options)] if options else [base])
        self._restarts = restarts
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
        self._restarts.check(str(connection.repr_pieces()), info)
