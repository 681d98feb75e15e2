"""Connections end with their login: what is checked, and what errors change: nothing."""

import asyncio
import logging
import threading
from functools import partial
from types import SimpleNamespace

import pytest
from channels.db import database_sync_to_async
from channels.testing import WebsocketCommunicator
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.auth.signals import user_logged_out
from django.contrib.sessions.backends.db import SessionStore
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, connection
from django.test.utils import CaptureQueriesContext
from django.utils.functional import SimpleLazyObject

from echo import log
from echo.counting import counted
from echo.counting.logins import Login, find_ended, read_records
from echo.groups.connection import GroupConnection
from echo.groups.group import get_groups
from echo.state import get_state
from tests.waiting import DEADLINE, eventually

pytestmark = pytest.mark.django_db(transaction=True)  # checks run in Channels' thread

ACCEPT = {"type": "websocket.accept"}
BACKEND = "django.contrib.auth.backends.ModelBackend"
CHECKED = 0.05  # seconds between checks


@pytest.fixture(autouse=True)
async def nothing_is_left(settings):
    settings.CHANNEL_LAYERS = {}
    settings.ECHO_RECHECK_SECONDS = CHECKED
    log._last.clear()
    yield
    assert get_state().counts() == {}
    assert get_groups()._connections == {}
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def until(read, expected):
    await asyncio.to_thread(eventually, read, expected)


async def echo(scope, receive, send):
    await receive()
    await send(ACCEPT)
    while (event := await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": event["text"]})


def make_login(username="ada"):
    """Return a user and a session."""
    user, _ = get_user_model().objects.get_or_create(username=username)
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = BACKEND
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return user, session


class Tab:
    """A connection: `async with Tab(user=user, session=session) as tab`."""

    def __init__(self, app=None, name="foo", **scope):
        app = app or counted(echo)
        self.communicator = WebsocketCommunicator(app, f"/{name}/")
        route = {"args": (), "kwargs": {"name": name}}
        self.communicator.scope.update(url_route=route, **scope)

    async def __aenter__(self):
        accepted, _ = await self.communicator.connect(DEADLINE)
        assert accepted
        return self

    async def __aexit__(self, *error):
        await self.communicator.disconnect(timeout=DEADLINE)

    async def close(self):
        event = await self.communicator.receive_output(DEADLINE)
        assert event["type"] == "websocket.close", event
        return event["code"], event["reason"]

    async def is_open(self):
        """Wait for some checks; return whether the connection is open then."""
        await asyncio.sleep(5 * CHECKED)
        await self.communicator.send_to(text_data="hello")
        return await self.communicator.receive_from(DEADLINE) == "hello"


@pytest.fixture
async def login():
    return dict(zip(("user", "session"), await database_sync_to_async(make_login)(), strict=True))


async def test_valid_login_stays(login):
    async with Tab(**login) as tab:
        assert await tab.is_open()


async def test_logout_closes_at_once_and_other_sessions_stay(login, settings):
    settings.ECHO_RECHECK_SECONDS = None
    user, session = await database_sync_to_async(make_login)()
    async with Tab(**login) as tab, Tab(user=user, session=session) as other:
        request = SimpleNamespace(session=login["session"])
        await user_logged_out.asend(type(user), request=request, user=user)

        assert await tab.close() == (4401, "Logged out")
        assert await other.is_open()


async def test_connection_that_opens_during_a_logout_is_closed(login, settings):
    """Django sends the signal before it deletes the session."""
    settings.ECHO_RECHECK_SECONDS = None
    async with Tab(**login) as tab:
        request = SimpleNamespace(session=login["session"])
        await user_logged_out.asend(type(login["user"]), request=request, user=login["user"])
        await tab.close()

        async with Tab(**login) as reopened:
            assert await reopened.close() == (4401, "Logged out")


async def test_logout_closes_connections_of_each_event_loop(login, settings):
    settings.ECHO_RECHECK_SECONDS = None
    is_open = threading.Event()

    async def other_loop():
        async with Tab(**login) as tab:
            is_open.set()
            return await tab.close()

    async with Tab(**login) as tab:
        closed = asyncio.create_task(asyncio.to_thread(asyncio.run, other_loop()))
        assert await asyncio.to_thread(is_open.wait, DEADLINE)
        request = SimpleNamespace(session=login["session"])
        await user_logged_out.asend(type(login["user"]), request=request, user=login["user"])

        assert await tab.close() == await closed == (4401, "Logged out")


class BrokenLayer:
    def __init__(self, **config):
        pass

    async def new_channel(self):
        raise ConnectionError("down")

    async def group_send(self, group, message):
        raise ConnectionError("down")


async def test_logout_without_the_channel_layer_is_logged_and_succeeds(settings, login, caplog):
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": f"{__name__}.BrokenLayer"}}
    request = SimpleNamespace(session=login["session"])

    responses = await user_logged_out.asend(
        type(login["user"]), request=request, user=login["user"]
    )

    assert all(response is None for _, response in responses)
    assert "The connections of a logout could not be closed at once." in caplog.messages


async def test_logout_of_channels_ends_at_the_next_check(login):
    async with Tab(**login) as tab:
        await user_logged_out.asend(type(login["user"]), request=None, user=login["user"])
        await login["session"].aflush()

        assert await tab.close() == (4401, "The session has ended")


async def test_lazy_user_and_session_are_read_in_a_thread(login):
    pk = login["user"].pk
    user = SimpleLazyObject(lambda: get_user_model().objects.get(pk=pk))
    session = SessionStore(login["session"].session_key)
    async with Tab(user=user, session=session) as tab:
        await get_user_model().objects.filter(pk=pk).aupdate(is_active=False)

        assert await tab.close() == (4401, "The user is not active")


async def test_unknown_login_is_logged_and_prevents_no_connection(caplog):
    class Broken:
        @property
        def is_authenticated(self):
            raise ZeroDivisionError

    async with Tab(user=Broken()) as tab:
        assert await tab.is_open()

    message = "The login of a connection is unknown, so it will not be checked."
    assert caplog.messages.count(message) == 1


async def test_user_who_is_not_in_the_database_is_not_looked_up():
    async with Tab(user=SimpleNamespace(is_authenticated=True)) as tab:
        assert await tab.is_open()


async def test_session_of_another_user_is_ignored(login):
    """As with token authentication inside AuthMiddlewareStack."""
    user = await get_user_model().objects.acreate(username="bob")
    async with Tab(user=user, session=login["session"]) as tab:
        await login["session"].aflush()
        assert await tab.is_open()

        await user.adelete()
        assert await tab.close() == (4401, "The user is not active")


async def plain_or_async(valid, scope):
    return scope["token"] in valid


def plain(valid, scope):
    return scope["token"] in valid


@pytest.mark.parametrize("function", [plain, plain_or_async], ids=["plain", "async"])
@pytest.mark.parametrize("wrap", [partial, lambda f, valid: lambda scope: f(valid, scope)])
async def test_recheck_ends_the_login(function, wrap):
    valid = {"a", "b"}
    app = counted(echo, recheck=wrap(function, valid))
    async with Tab(app, token="a") as tab, Tab(app, token="b") as other:
        assert await tab.is_open()
        valid.remove("a")

        assert await tab.close() == (4401, "The login has ended")
        assert await other.is_open()


async def test_async_recheck_may_use_the_database():
    async def exists(scope):
        return await get_user_model().objects.filter(username="ada").aexists()

    user = await get_user_model().objects.acreate(username="ada")
    async with Tab(counted(echo, recheck=exists)) as tab:
        assert await tab.is_open()
        await user.adelete()

        assert await tab.close() == (4401, "The login has ended")


async def test_errors_of_a_recheck_close_nobody_and_stop_no_other_check(caplog):
    def check(scope):
        if scope["token"] == "bad":
            raise DatabaseError("for this one only")
        return False

    app = counted(echo, recheck=check)
    async with Tab(app, token="bad") as tab:
        async with Tab(app, token="good") as other:
            assert await other.close() == (4401, "The login has ended")
        assert await tab.is_open()

    message = "A login could not be checked; its connection is not closed."
    assert caplog.messages.count(message) == 1


withdrawn = set()


def authorize(scope, name, action):
    if name == "raises":
        raise ZeroDivisionError
    if name == "denied":
        raise PermissionDenied
    return name not in withdrawn


async def aauthorize(scope, name, action):
    return authorize(scope, name, action)


@pytest.fixture
def permissions(settings):
    def use(function):
        settings.ECHO_AUTHORIZE = f"{__name__}.{function.__name__}"

    yield use
    withdrawn.clear()


@pytest.mark.parametrize("function", [authorize, aauthorize])
async def test_withdrawn_permission_closes_with_4403(login, permissions, function):
    async with Tab(**login) as tab, Tab(name="bar", **login) as other:
        permissions(function)
        withdrawn.add("foo")

        assert await tab.close() == (4403, "You may not connect to this object")
        assert await other.is_open()


async def test_permission_is_asked_about_each_object_of_the_route(login, permissions):
    app = counted(echo, by=("name", "room", lambda scope: "user-7"))
    route = {"args": (), "kwargs": {"name": "foo", "room": "hall"}}
    permissions(authorize)
    tab = Tab(app, **login)
    tab.communicator.scope["url_route"] = route
    async with tab:
        withdrawn.add("user-7")  # named by the site, so nobody is asked
        assert await tab.is_open()
        withdrawn.add("hall")

        assert await tab.close() == (4403, "You may not connect to this object")


async def test_error_of_the_permission_closes_nobody(login, permissions):
    async with Tab(name="raises", **login) as tab, Tab(name="denied", **login) as denied:
        permissions(authorize)

        assert await denied.close() == (4403, "You may not connect to this object")
        assert await tab.is_open()


async def test_permission_is_asked_about_the_present_user(login, settings):
    settings.ECHO_AUTHORIZE = f"{__name__}.is_ada"
    async with Tab(**login) as tab:
        await get_user_model().objects.filter(username="ada").aupdate(username="bob")

        assert await tab.close() == (4403, "You may not connect to this object")


def is_ada(scope, name, action):
    return scope["user"].username == "ada"


async def test_connection_that_closes_during_its_check_is_closed_once(login):
    checking, go_on = threading.Event(), threading.Event()

    def check(scope):
        checking.set()
        assert go_on.wait(DEADLINE)
        return False

    async with Tab(counted(echo, recheck=check), **login) as other:
        tab = await Tab(counted(echo, recheck=check), **login).__aenter__()
        assert await asyncio.to_thread(checking.wait, DEADLINE)
        await tab.communicator.disconnect(timeout=DEADLINE)
        go_on.set()

        assert await other.close() == (4401, "The login has ended")
        assert await tab.communicator.receive_nothing(0.01)


async def test_without_interval_nothing_is_checked(login, settings):
    settings.ECHO_RECHECK_SECONDS = None
    async with Tab(**login) as tab:
        await login["user"].adelete()

        assert await tab.is_open()


async def test_nested_counted_closes_once(login):
    async with Tab(counted(counted(echo)), **login) as tab:
        await login["session"].aflush()

        assert await tab.close() == (4401, "The session has ended")
        assert await tab.communicator.receive_nothing(3 * CHECKED)


async def test_outage_is_logged_once_with_its_end(login, monkeypatch, caplog):
    caplog.set_level(logging.WARNING, "echo.counting.logins")
    failures = iter([True] * 3 + [False] * 1000)

    def read(logins):
        if next(failures):
            raise DatabaseError("down")
        return read_records(logins)

    monkeypatch.setattr("echo.counting.logins.read_records", read)
    async with Tab(**login) as tab:
        await until(lambda: "Logins are checked again." in caplog.messages, True)
        assert await tab.is_open()

    assert caplog.messages == [
        "Logins cannot be checked; no connection is closed.",
        "Logins are checked again.",
    ]


async def test_logins_leave_no_task_and_no_group_after_the_last_connection(login):
    async with Tab(**login):
        assert "/logins" in get_groups()._connections

    assert get_groups()._connections == {}
    async with Tab(**login) as tab:  # the checks begin again
        await login["session"].aflush()
        assert (await tab.close())[0] == 4401


def of(user, session):
    """Return the login of a connection."""
    scope = {"user": user, "session": session}
    return Login(
        scope,
        ("foo",),
        GroupConnection(None),
        None,
        user.pk,
        session.get(HASH_SESSION_KEY),
        session.session_key,
        BACKEND,
    )


def ended(*logins):
    return [end for _, end in find_ended(logins, read_records(logins))]


def test_all_users_and_all_sessions_are_read_with_one_query_each():
    logins = [of(*make_login(f"user-{number % 100}")) for number in range(200)]

    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert ended(*logins) == []

    assert len(queries) == 2


def test_login_of_a_former_secret_key_stays(settings):
    login = of(*make_login())
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another"

    assert ended(login) == []
    settings.SECRET_KEY_FALLBACKS = []
    assert ended(login) == [(4401, "The password has changed")]


def test_backend_decides_whether_an_inactive_user_may_log_in(settings):
    user, session = make_login()
    get_user_model().objects.update(is_active=False)
    of_all = of(user, session)._replace(
        backend="django.contrib.auth.backends.AllowAllUsersModelBackend"
    )
    settings.AUTHENTICATION_BACKENDS = [of_all.backend, BACKEND]

    assert ended(of_all) == []
    assert ended(of(user, session)) == [(4401, "The user is not active")]


def test_login_of_a_backend_that_was_removed_ends(settings):
    login = of(*make_login())
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.AllowAllUsersModelBackend"]

    assert ended(login) == [(4401, "The user is not active")]


@pytest.mark.parametrize("cache", ["dummy.DummyCache", "locmem.LocMemCache"])
def test_cache_that_stores_nothing_ends_no_login(settings, cache):
    """Some caches ignore that their server is down. An empty cache is another matter."""
    login = of(*make_login())
    settings.CACHES = {"default": {"BACKEND": f"django.core.cache.backends.{cache}"}}
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"

    if cache.startswith("dummy"):
        with pytest.raises(RuntimeError, match="stores nothing"):
            ended(login)
    else:
        assert ended(login) == [(4401, "The session has ended")]
