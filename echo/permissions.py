"""Permissions for the actions on objects, by ECHO_AUTHORIZE or `default_authorize`."""

import logging
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any

from asgiref.sync import async_to_sync, iscoroutinefunction
from asgiref.typing import WebSocketScope
from channels.db import database_sync_to_async
from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from echo.conf import conf
from echo.log import is_due

logger = logging.getLogger(__name__)

ACTIONS = ("connect", "count", "list", "send", "close", "members")
CONNECT, COUNT, LIST, SEND, CLOSE, MEMBERS = ACTIONS

RequestOrScope = HttpRequest | WebSocketScope


def default_authorize(request_or_scope: RequestOrScope, name: str | None, action: str) -> bool:
    """Allow "connect" and "count" to everyone, as in the original program, and the rest to staff.

    The rest is "list", "send", "close" and "members". If DEBUG is True, everyone may list the
    objects and see their members.
    """
    if action in (CONNECT, COUNT) or (action in (LIST, MEMBERS) and settings.DEBUG):
        return True
    user: Any = _get_user(request_or_scope)
    return bool(user is not None and user.is_active and user.is_staff)


def _get_user(request_or_scope: RequestOrScope) -> Any:
    if isinstance(request_or_scope, dict):
        return request_or_scope.get("user")
    return getattr(request_or_scope, "user", None)


def has_permission(request_or_scope: RequestOrScope, name: str | None, action: str) -> bool:
    """Return whether ECHO_AUTHORIZE allows the action on the object of that name.

    `name` is None for the list of all objects. For sync code. If the function raises, permission
    is denied and the exception is logged.
    """
    try:
        return authorize(request_or_scope, name, action)
    except Exception as error:
        return _deny(error)


def authorize(request_or_scope: RequestOrScope, name: str | None, action: str) -> bool:
    """Return the result of ECHO_AUTHORIZE. Raises the exceptions of that function."""
    function = conf.ECHO_AUTHORIZE or default_authorize
    result = function(request_or_scope, name, action)
    if isawaitable(result):
        # `request.user` is lazy: load it here, in sync code, where queries are allowed.
        bool(_get_user(request_or_scope))
    return bool(resolve(result))


def resolve(result: Any) -> Any:
    """Return the result of a function, which is awaited if the function is async. For sync code."""
    return async_to_sync(_wait_for)(result) if isawaitable(result) else result


async def ahas_permission(request_or_scope: RequestOrScope, name: str | None, action: str) -> bool:
    """Async version of `has_permission`. Sync functions run in a thread."""
    authorize: Callable[..., Any] = conf.ECHO_AUTHORIZE or default_authorize
    if authorize is default_authorize and isinstance(request_or_scope, dict):
        return default_authorize(request_or_scope, name, action)  # makes no query for a scope
    try:
        if is_async(authorize):
            return bool(await authorize(request_or_scope, name, action))
        result = await run_in_thread(authorize, request_or_scope, name, action)
        return bool(await result if isawaitable(result) else result)
    except Exception as error:
        return _deny(error)


def is_async(function: Any) -> bool:
    """Return whether the argument is an async function, or has an async `__call__`."""
    return iscoroutinefunction(function) or iscoroutinefunction(function.__call__)


async def run_in_thread(function: Callable[..., Any], *arguments: object) -> Any:
    """Return the result of a function that may use the database."""

    def run() -> Any:
        try:
            return function(*arguments)
        except StopIteration as error:
            # The event loop would wait forever: https://github.com/python/cpython/issues/112182.
            # Can go with the support of Python 3.12.1.
            raise RuntimeError("A function raised StopIteration.") from error

    # Also closes unusable database connections of the thread.
    return await database_sync_to_async(run)()


async def _wait_for(result: Awaitable[Any]) -> Any:
    return await result


def _deny(error: Exception) -> bool:
    """Return False. Log the error, at most once a minute for each type of exception."""
    if not isinstance(error, PermissionDenied) and is_due(type(error)):
        logger.error("ECHO_AUTHORIZE raised an exception; access denied.", exc_info=error)
    return False
