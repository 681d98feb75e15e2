"""Finds the member behind a connection."""

import logging
from collections.abc import Awaitable, Callable
from functools import cache
from inspect import isawaitable
from typing import Any, cast

from asgiref.typing import WebSocketScope
from django.apps import apps

from echo.log import is_due
from echo.members import Member, NewMember, check_member
from echo.permissions import is_async, run_in_thread

logger = logging.getLogger(__name__)

MemberOf = Callable[[WebSocketScope], Member | Awaitable[Member | None] | None]


@cache
def _anonymous_user() -> Any:
    """Return Django's class of anonymous users; None on a site without users."""
    if not apps.is_installed("django.contrib.auth"):
        return None
    from django.contrib.auth.models import AnonymousUser

    return AnonymousUser


def is_anonymous(scope: Any) -> bool:
    """Return whether the scope has no user, or an AnonymousUser. False for a lazy user."""
    user = scope.get("user")
    return user is None or type(user) is _anonymous_user()


def user_of(scope: WebSocketScope) -> Member | None:
    """Return the authenticated user of the scope as a member; None for an anonymous visitor."""
    user = cast(Any, scope).get("user")
    if user is None or not user.is_authenticated:
        return None
    return Member(str(user.pk), {"name": user.get_username()})


async def find_member(member_of: MemberOf, scope: WebSocketScope) -> NewMember | None:
    """Return key and info of the member that the function names.

    Returns None if there is no member. If the function raises or its result is invalid, logs the
    error, at most once a minute for each function, and returns None as well: an error must not
    prevent the connection.
    """
    try:
        if member_of is user_of:  # needs no thread
            member: Any = user_of(scope)
        elif is_async(member_of):
            member = await cast(Any, member_of)(scope)
        else:
            member = await run_in_thread(member_of, scope)
            member = await member if isawaitable(member) else member
        return None if member is None else check_member(member)
    except Exception:
        named = member_of if hasattr(member_of, "__qualname__") else type(member_of)
        name = f"{named.__module__}.{named.__qualname__}"
        if is_due(("member", name)):  # the function itself may not be hashable
            logger.exception("counted(member=%s) failed; its connections have no member.", name)
        return None
