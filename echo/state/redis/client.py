"""The connections to Redis, a single server or a cluster."""

from collections.abc import Sequence
from functools import partial
from threading import Lock
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.connection import BlockingConnectionPool
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry

from echo.state.redis.restarts import RestartDetector

ERRORS = (RedisError, RedisClusterException, OSError)
CONNECTION_ERRORS = (redis.ConnectionError, redis.TimeoutError, OSError)  # no reply from Redis
TIMEOUT = 1.0  # seconds

_SCHEMES = {"valkey": "redis", "valkeys": "rediss"}


class RedisClient:
    """Runs scripts on Redis, over connections that are opened on first use. Thread-safe.

    The client never retries: a retry would hide a restart of the server. If all pooled connections
    are in use, calls wait up to TIMEOUT for one.
    """

    def __init__(self, url: str, restarts: RestartDetector) -> None:
        base, _, query = url.partition("?")
        scheme, _, location = base.partition("://")
        options = query.split("&") if query else []
        self._is_cluster = "cluster=true" in options  # an option of this app, not of redis-py
        options = [option for option in options if not option.startswith("cluster=")]
        base = f"{_SCHEMES.get(scheme, scheme)}://{location}"
        self._url = "?".join([base, "&".join(options)] if options else [base])
        self._restarts = restarts
        self._client: Any = None
        self._scripts: dict[str, Any] = {}
        self._lock = Lock()

    def run(self, script: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run the script and return its result. Raises one of ERRORS."""
        registered = self._scripts.get(script)
        if registered is None:
            with self._lock:
                if self._client is None:
                    self._client = self._make_client()
                registered = self._scripts[script] = self._client.register_script(script)
        return registered(keys=keys, args=args)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _make_client(self) -> Any:
        options: dict[str, Any] = {
            "socket_timeout": TIMEOUT,
            "socket_connect_timeout": TIMEOUT,
            "redis_connect_func": self._on_connect,
        }
        try:
            if self._is_cluster:
                pools = partial(BlockingConnectionPool, timeout=TIMEOUT)
                options |= {"connection_pool_class": pools, "retry": Retry(NoBackoff(), 1)}
                return RedisCluster.from_url(self._url, **options)
            options |= {"timeout": TIMEOUT, "retry": Retry(NoBackoff(), 0)}
            pool = BlockingConnectionPool.from_url(self._url, **options)
            # Create a connection, so that an invalid option raises here and not at each use.
            pool.connection_class(**pool.connection_kwargs)
            return redis.Redis.from_pool(pool)
        except (TypeError, ValueError) as error:
            raise RedisError(f"ECHO_STATE_URL has an invalid option: {error}") from error

    def _on_connect(self, connection: Any) -> None:
        """Log in, and compare the server with the previous one at this address."""
        if not self._is_cluster:  # RedisCluster has already logged in
            connection.on_connect()
        sections = "server", "replication"
        for section in sections:
            connection.send_command("INFO", section)
        info = "".join(connection.read_response().decode() for _ in sections)
        self._restarts.check(str(connection.repr_pieces()), info)
