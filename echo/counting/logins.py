"""Closes connections when their login ends: at the logout, and at regular checks.

A connection is that of a login if its scope has an authenticated user, or if `counted` has the
argument `recheck`.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Iterable
from contextvars import Context
from hashlib import sha256
from importlib import import_module
from secrets import token_hex
from time import monotonic
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

from asgiref.sync import async_to_sync
from asgiref.typing import WebSocketScope
from channels.db import database_sync_to_async
from django.apps import apps
from django.conf import settings
from django.contrib.auth import (
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
    get_user_model,
    load_backend,
)
from django.core.cache import caches
from django.core.exceptions import PermissionDenied, SynchronousOnlyOperation
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from echo.conf import conf
from echo.groups.connection import GroupConnection
from echo.groups.group import get_groups, send_to_group
from echo.log import is_due
from echo.permissions import CONNECT, authorize, resolve, run_in_thread

logger = logging.getLogger(__name__)

LOGINS = "/logins"  # the group of all processes that have logins; object names contain no slash
LOGOUT_TIMEOUT = 2.0  # seconds for which a logout waits for the channel layer
# Seconds for which a logout closes further connections: the signal is sent before Django deletes
# the session, and a page may reconnect in between.
LOGOUT_MEMORY = 10.0
BATCH_SIZE = 100

End = tuple[int, str]  # close code and reason
LOGGED_OUT: End = (4401, "Logged out")

Recheck = Callable[[WebSocketScope], Any]


class Login(NamedTuple):
    """The login of one connection, as it was at the handshake."""

    scope: Any
    names: tuple[str, ...]  # of the objects about which ECHO_AUTHORIZE is asked
    connection: GroupConnection
    recheck: Recheck | None = None
    user_pk: Any = None
    auth_hash: str | None = None  # changes with the password
    session_key: str | None = None
    backend: str | None = None  # dotted path of the authentication backend

    def close(self, code: int, reason: str) -> None:
        event = {"type": "websocket.close", "code": code, "reason": reason}
        self.connection.deliver(event)


async def find_login(*arguments: Any) -> Login | None:
    """Return the login of a connection; None if there is nothing to check.

    The arguments are those of `_find_login`. If it raises, the error is logged, and the login is
    not checked: an error must not prevent the connection.
    """
    try:
        try:
            return _find_login(*arguments)
        except SynchronousOnlyOperation:  # user or session are lazy, and have not been loaded yet
            return cast(Login | None, await run_in_thread(_find_login, *arguments))
    except Exception:
        if is_due("find_login"):
            logger.exception("The login of a connection is unknown, so it will not be checked.")
        return None


def _find_login(
    scope: WebSocketScope,
    names: tuple[str, ...],
    connection: GroupConnection,
    recheck: Recheck | None,
) -> Login | None:
    user: Any = cast(Any, scope).get("user")
    if not getattr(user, "is_authenticated", False):
        return None if recheck is None else Login(scope, names, connection, recheck)
    login = Login(scope, names, connection, recheck)
    if not (apps.is_installed("django.contrib.auth") and isinstance(user, get_user_model())):
        return login  # the user of a token, for example, which is not in the database
    login = login._replace(user_pk=user.pk)
    session: Any = cast(Any, scope).get("session")
    # Token authentication inside AuthMiddlewareStack: the session may be that of another user.
    if session is None or session.get(SESSION_KEY) != user._meta.pk.value_to_string(user):
        return login
    return login._replace(
        auth_hash=session.get(HASH_SESSION_KEY),
        session_key=session.session_key,
        backend=session.get(BACKEND_SESSION_KEY),
    )


def close_session(request: Any, **kwargs: Any) -> None:
    """Close all connections of the session that is logged out, in every process.

    A receiver of Django's signal `user_logged_out`. If the channel layer fails, the connections
    are closed by the next check.
    """
    session_key = getattr(getattr(request, "session", None), "session_key", None)
    if session_key is None:  # Channels' logout() passes no request
        return
    try:
        async_to_sync(_send_logout)(session_key)
    except Exception:  # the logout must succeed
        if is_due("logout"):
            logger.exception("The connections of a logout could not be closed at once.")


async def _send_logout(session_key: str) -> None:
    async with asyncio.timeout(LOGOUT_TIMEOUT):
        await send_to_group(LOGINS, {"type": "echo.logout", "session": _digest(session_key)})


def _digest(session_key: str) -> str:
    """Return a hash of the key, which others than the owner of the session must not see."""
    return sha256(session_key.encode()).hexdigest()


class Logins(GroupConnection):
    """The logins of one event loop, as a connection of the group LOGINS. Not thread-safe."""

    __slots__ = ("_by_session", "_is_failing", "_logged_out", "_logins", "_task")

    def __init__(self) -> None:
        super().__init__(_ignore)
        self._logins: dict[GroupConnection, Login] = {}
        self._by_session: dict[str, dict[GroupConnection, Login]] = {}
        self._logged_out: dict[str, float] = {}  # digest -> time.monotonic(), the oldest first
        self._is_failing = False
        self._task: asyncio.Task[None] | None = None

    def add(self, login: Login) -> "asyncio.Future[None] | None":
        """Add the login, and return a future or None as `Groups.join` does for LOGINS."""
        subscribed = None if self._logins else get_groups().join(LOGINS, self)
        self._logins[login.connection] = login
        if login.session_key is not None:
            digest = _digest(login.session_key)
            self._by_session.setdefault(digest, {})[login.connection] = login
            self._forget_logouts()
            if digest in self._logged_out:  # during the handshake
                login.close(*LOGGED_OUT)
        is_running = self._task is not None and not self._task.done()
        if not is_running and conf.ECHO_RECHECK_SECONDS is not None:
            # An empty context, so that the task does not inherit that of the current connection.
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._check_regularly(), context=Context())
        return subscribed

    def discard(self, connection: GroupConnection) -> None:
        login = self._logins.pop(connection, None)
        if login is None:
            return
        if login.session_key is not None:
            digest = _digest(login.session_key)
            of_session = self._by_session[digest]
            del of_session[connection]
            if not of_session:
                del self._by_session[digest]
        if not self._logins:
            get_groups().leave(LOGINS, self)
            if self._task is not None:
                self._task.cancel()
                self._task = None

    def deliver(self, event: dict[str, Any]) -> None:
        """Close the connections of the session of the event."""
        self._forget_logouts()
        self._logged_out[event["session"]] = monotonic()
        for login in list(self._by_session.get(event["session"], {}).values()):
            login.close(*LOGGED_OUT)

    def _forget_logouts(self) -> None:
        while self._logged_out:
            oldest = next(iter(self._logged_out))
            if monotonic() - self._logged_out[oldest] < LOGOUT_MEMORY:
                return
            del self._logged_out[oldest]

    async def _check_regularly(self) -> None:
        while (interval := conf.ECHO_RECHECK_SECONDS) is not None:
            await asyncio.sleep(interval * random.uniform(0.9, 1))
            try:
                await self._check()
            except Exception:  # for example, the database is down
                if not self._is_failing:
                    logger.exception("Logins cannot be checked; no connection is closed.")
                self._is_failing = True
            else:
                if self._is_failing:
                    logger.warning("Logins are checked again.")
                self._is_failing = False

    async def _check(self) -> None:
        logins = list(self._logins.values())
        records = await database_sync_to_async(read_records)(logins)
        # In batches, since all code that uses the database waits for the same thread.
        for start in range(0, len(logins), BATCH_SIZE):
            batch = logins[start : start + BATCH_SIZE]
            for login, end in await database_sync_to_async(find_ended)(batch, records):
                if login.connection in self._logins:
                    login.close(*end)


async def _ignore(event: Any) -> None:
    """Send nothing."""


_logins: "WeakKeyDictionary[asyncio.AbstractEventLoop, Logins]" = WeakKeyDictionary()


def get_logins() -> Logins:
    """Return the logins of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _logins:
        _logins[loop] = Logins()
    return _logins[loop]


class Records(NamedTuple):
    """The users and sessions of some logins, as they are now."""

    users: dict[Any, Any]  # by primary key
    has_session: Callable[[str], bool]  # of a session key
    may_log_in: Callable[[Any, str | None], bool]  # of a user and the path of a backend


def read_records(logins: Collection[Login]) -> Records:
    """Return the records of the logins.

    All users are read with one query, and so are all sessions if the session engine allows it.
    Raises the exceptions of the database and the cache.
    """
    return Records(
        _find_users({login.user_pk for login in logins if login.user_pk is not None}),
        _session_check({login.session_key for login in logins if login.session_key}),
        _backend_check(),
    )


def find_ended(logins: Collection[Login], records: Records) -> list[tuple[Login, End]]:
    """Return the logins that have ended. Calls the site's functions, which may use the database."""
    found = []
    for login in logins:
        try:
            end = _find_end(login, records)
        except Exception:  # the login may be valid
            end = None
            if is_due("login"):
                logger.exception("A login could not be checked; its connection is not closed.")
        if end is not None:
            found.append((login, end))
    return found


def _find_end(login: Login, records: Records) -> End | None:
    """Return close code and reason if the login has ended."""
    scope = login.scope
    if login.user_pk is not None:
        user = records.users.get(login.user_pk)
        if user is None or not records.may_log_in(user, login.backend):
            return 4401, "The user is not active"
        if not _has_auth_hash(user, login.auth_hash):
            return 4401, "The password has changed"
        if login.session_key and not records.has_session(login.session_key):
            return 4401, "The session has ended"
        scope = {**scope, "user": user}
    if login.recheck is not None and not resolve(login.recheck(scope)):
        return 4401, "The login has ended"
    if conf.ECHO_AUTHORIZE is not None:
        try:
            is_allowed = all(authorize(scope, name, CONNECT) for name in login.names)
        except PermissionDenied:
            is_allowed = False
        if not is_allowed:
            return 4403, "You may not connect to this object"
    return None


def _find_users(pks: Collection[Any]) -> dict[Any, Any]:
    if not pks:
        return {}
    return dict(get_user_model()._default_manager.in_bulk(pks))


def _backend_check() -> Callable[[Any, str | None], bool]:
    """Return a function of user and backend: whether the user may log in with the backend."""
    backends: dict[str, Any] = {}

    def may_log_in(user: Any, path: str | None) -> bool:
        if path is None:
            return bool(getattr(user, "is_active", True))
        if path not in backends:
            is_set = path in settings.AUTHENTICATION_BACKENDS
            backends[path] = load_backend(path) if is_set else None
        check = getattr(backends[path], "user_can_authenticate", None)
        if backends[path] is None or check is None:
            return backends[path] is not None and bool(getattr(user, "is_active", True))
        return bool(check(user))

    return may_log_in


def _has_auth_hash(user: Any, auth_hash: str | None) -> bool:
    """Return whether the hash is that of the user's password, as Django's auth.get_user() does."""
    if auth_hash is None or not hasattr(user, "get_session_auth_hash"):
        return True
    if constant_time_compare(auth_hash, user.get_session_auth_hash()):
        return True
    fallbacks: Iterable[str] = getattr(user, "get_session_auth_fallback_hash", tuple)()
    return any(constant_time_compare(auth_hash, each) for each in fallbacks)


def _session_check(keys: Collection[str]) -> Callable[[str], bool]:
    """Return a function that returns whether the session of a key exists and has not expired."""
    store: Any = import_module(settings.SESSION_ENGINE).SessionStore if keys else None
    if hasattr(store, "get_model_class"):  # db, cached_db
        sessions = store.get_model_class()._default_manager.only("expire_date").in_bulk(keys)
        now = timezone.now()
        return lambda key: key in sessions and sessions[key].expire_date > now
    if hasattr(store, "cache_key_prefix"):  # cache
        prefix = store.cache_key_prefix
        cache = caches[settings.SESSION_CACHE_ALIAS]
        cached = cache.get_many([f"{prefix}{key}" for key in keys])
        if not cached and not _works(cache):
            raise RuntimeError("The cache of the sessions stores nothing; it may be down.")
        return lambda key: f"{prefix}{key}" in cached
    return lambda key: bool(store(key).load())  # file, signed_cookies: one after the other


def _works(cache: Any) -> bool:
    """Return whether the cache stores values. Some caches ignore that their server is down."""
    key = f"echo.logins.{token_hex(8)}"
    cache.set(key, True, timeout=60)
    return bool(cache.get(key))
