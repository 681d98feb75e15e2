"""What handshakes know of their user: as from AuthMiddlewareStack, at no cost for visitors."""

import pytest
from channels.auth import AuthMiddlewareStack
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.sessions.backends.db import SessionStore

from echo.middleware.auth import with_user

COOKIE = (b"cookie", b"color=blue")


async def scope_within(stack, *headers):
    """Return the scope that an application within the stack gets."""
    scopes = []

    async def application(scope, receive, send):
        scopes.append(scope)

    scope = {"type": "websocket", "path": "/", "headers": list(headers)}
    await stack(application)(scope, None, None)
    return scopes[0]


@pytest.mark.parametrize("headers", [[], [COOKIE]])
async def test_visitor_has_cookies_a_session_and_no_query(headers):
    ours = await scope_within(with_user, *headers)

    assert ours["cookies"] == ({"color": "blue"} if headers else {})
    assert ours["session"].get("seen") is None
    ours["session"]["seen"] = 1
    assert ours["session"]["seen"] == 1
    assert not ours["user"].is_authenticated


@pytest.mark.django_db(transaction=True)
async def test_visitor_gets_the_keys_of_the_stack():
    ours = await scope_within(with_user, COOKIE)
    stack = await scope_within(AuthMiddlewareStack, COOKIE)

    assert stack.keys() == ours.keys()


@pytest.mark.django_db(transaction=True)
async def test_session_brings_its_user():
    user = await get_user_model().objects.acreate_user("ada")
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    await session.asave()

    scope = await scope_within(with_user, (b"cookie", f"sessionid={session.session_key}".encode()))

    assert scope["user"].username == "ada"
    assert scope["session"][SESSION_KEY] == str(user.pk)
