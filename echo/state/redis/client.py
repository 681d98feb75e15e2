"""The connections to Redis: a single server, a cluster, or the primary that Sentinel names."""

from collections.abc import Callable
from functools import lru_cache, partial
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.connection import BlockingConnectionPool, ConnectionPool, parse_url
from redis.exceptions import (
    NoPermissionError,
    NoScriptError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from echo.state.redis import scripts
from echo.state.redis.scripts import Script

ERRORS = (RedisError, RedisClusterException, OSError)
CONNECTION_ERRORS = (redis.ConnectionError, redis.TimeoutError, OSError)  # no reply from Redis
TIMEOUT = 1.0  # seconds

_SCHEMES = {"valkey": "redis", "valkeys": "rediss"}
_KEYS = {
    "meta": scripts.META,
    "totals": scripts.TOTALS,
    "processes": scripts.PROCESSES,
    "awaited": scripts.AWAITED,
    "leader_key": scripts.LEADER,
    "ledger": scripts.LEDGER,
}


class RedisClient:
    """Runs scripts on Redis, over connections that are opened on first use. Thread-safe.

    The client never retries. If all pooled connections are in use, calls wait up to TIMEOUT for
    one. After an error, it opens new connections: the server may have been demoted to a replica,
    and another one may serve its address now. The client calls `on_reply` at each reply that it
    needs before that of a script.
    """

    def __init__(
        self,
        url: str,
        timeout: float = TIMEOUT,
        on_reply: Callable[[], None] = lambda: None,
        is_shared: bool = True,
    ) -> None:
        """`is_shared`: whether several threads may call `run` at the same time."""
        base, _, query = url.partition("?")
        scheme, _, location = base.partition("://")
        options = query.split("&") if query else []
        self._is_cluster = "cluster=true" in options  # an option of this app, not of redis-py
        options = [option for option in options if not option.startswith("cluster=")]
        base = f"{_SCHEMES.get(scheme, scheme)}://{location}"
        self._url = "?".join([base, "&".join(options)] if options else [base])
        self._timeout = timeout
        self._on_reply = on_reply
        self._is_shared = is_shared
        self._client: Any = None
        self._lock = Lock()

    def run(self, script: Script, *rest: Any, share: str = "", **named: Any) -> Any:
        """Run the script and return its result. Raises one of ERRORS.

        `share` is the id of the process whose share the script uses, `rest` its further arguments.
        """
        keys = _keys(script, share)
        args = [*[named[name] for name in script.args], *rest]
        client = self._get_client()
        try:
            try:
                if self._is_shared or self._is_cluster:
                    return client.evalsha(script.sha, len(keys), *keys, *args)
                # The methods of the client take longer than all the rest of a step.
                client.connection.send_packed_command([_packed(script, share, args)])
                return client.connection.read_response()
            except NoScriptError:
                self._on_reply()
                return client.eval(script.text, len(keys), *keys, *args)
        except ResponseError as error:
            # The error of a command in a script does not have the type NoPermissionError.
            is_right = any(words in str(error) for words in ("NOPERM", "user executing the script"))
            if is_right or isinstance(error, NoPermissionError):
                hint = "the security guide lists the ACL rights that echo needs"
                raise NoPermissionError(f"{error}; {hint}") from error
            self.drop(client)
            raise
        except MasterNotFoundError as error:  # its message is the repr of all clients
            self.drop(client)
            raise redis.ConnectionError("No Sentinel knows the primary.") from error
        except Exception:
            self.drop(client)
            raise

    def pubsub(self) -> Any:
        """Return a redis-py PubSub on a connection of its own."""
        return self._get_client().pubsub()

    def drop(self, client: Any = None) -> None:
        """Open new connections from now on. The old ones close when their calls have finished."""
        with self._lock:
            if client is None or client is self._client:
                self._client = None

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _get_client(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._make_client()
            return self._client

    def _make_client(self) -> Any:
        options: dict[str, Any] = {
            "socket_timeout": self._timeout,
            "socket_connect_timeout": TIMEOUT,
            "redis_connect_func": self._connect,
            "protocol": 2,  # one round trip less: the first handshakes wait for the connection
        }
        try:
            if self._is_cluster:
                pools = partial(BlockingConnectionPool, timeout=TIMEOUT)
                options |= {"connection_pool_class": pools, "retry": Retry(NoBackoff(), 1)}
                return RedisCluster.from_url(self._url, **options)
            options["retry"] = Retry(NoBackoff(), 0)
            if self._url.startswith("redis+sentinel:"):
                return self._make_sentinel_client(options)
            pool = BlockingConnectionPool.from_url(self._url, timeout=TIMEOUT, **options)
            # Create a connection, so that an invalid option raises here and not at each use.
            pool.connection_class(**pool.connection_kwargs)
            return self._with_pool(pool)
        except (TypeError, ValueError) as error:
            raise RedisError(f"ECHO_STATE_URL has an invalid option: {error}") from error

    def _make_sentinel_client(self, options: dict[str, Any]) -> Any:
        """Return a client for `redis+sentinel://user:password@host:port,host:port/service/db`."""
        parts = urlsplit(self._url)
        credentials, _, hosts = parts.netloc.rpartition("@")
        service, _, database = parts.path.strip("/").partition("/")
        url = f"redis://{credentials}{'@' if credentials else ''}sentinel/{database}?{parts.query}"
        parsed: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
        options |= {key: value for key, value in parsed.items() if key != "host"}
        addresses = [urlsplit(f"//{host}") for host in hosts.split(",")]
        sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
            [(each.hostname, each.port or 26379) for each in addresses],
            sentinel_kwargs={
                "socket_timeout": TIMEOUT,
                "socket_connect_timeout": TIMEOUT,
                "retry": Retry(NoBackoff(), 0),  # ask the next Sentinel at once
            },
        )
        return self._with_pool(sentinel.master_for(service, **options).connection_pool)

    def _with_pool(self, pool: ConnectionPool) -> redis.Redis:
        if self._is_shared:
            return redis.Redis.from_pool(pool)
        client = redis.Redis(connection_pool=pool, single_connection_client=True)
        client.auto_close_connection_pool = True  # as in `from_pool`
        return client

    def _connect(self, connection: Any) -> None:
        if not self._is_cluster:  # RedisCluster has already logged in
            # Two round trips less: do not send the name and the version of the library.
            connection.driver_info = connection.lib_name = connection.lib_version = None
            connection.on_connect()
            if connection.password or connection.db:  # else nothing has been sent
                self._on_reply()


@lru_cache
def _keys(script: Script, share: str) -> tuple[str, ...]:
    return tuple([_KEYS[key] if key in _KEYS else scripts.SHARE + share for key in script.keys])


@lru_cache
def _packed_head(script: Script, share: str) -> bytes:
    return _packed_strings(["EVALSHA", script.sha, str(len(script.keys)), *_keys(script, share)])


def _packed(script: Script, share: str, args: list[Any]) -> bytes:
    """Return the EVALSHA of the script in the protocol of Redis: an array of strings."""
    strings = [each.decode() if isinstance(each, bytes) else str(each) for each in args]
    head, number = _packed_head(script, share), 3 + len(script.keys) + len(args)
    return b"*%d\r\n%b%b" % (number, head, _packed_strings(strings))


def _packed_strings(strings: list[str]) -> bytes:
    packed = "".join([f"${len(each)}\r\n{each}\r\n" for each in strings])
    if packed.isascii():
        return packed.encode()
    encoded = [each.encode() for each in strings]
    return b"".join([b"$%d\r\n%b\r\n" % (len(each), each) for each in encoded])
