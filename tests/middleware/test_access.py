"""Who may do what: by default, by a function of the site's, and from which origins."""

import asyncio
import logging
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.test import Client as HTTPClient
from django.test import RequestFactory
from django.urls import path

from echo import log
from echo.conf import conf
from echo.counting import counted
from echo.permissions import ACTIONS, ahas_permission, has_permission
from echo.routing import as_websocket_application
from tests.raw import UPGRADE, Client
from tests.servers import Server
from tests.waiting import eventually

STAFF = User(username="staff", is_staff=True)
FORMER = User(username="former", is_staff=True, is_active=False)


def no_secrets(asking: Any, name: str | None, action: str) -> bool:
    return name != "secret"


async def no_secrets_async(asking: Any, name: str | None, action: str) -> bool:
    return name != "secret"


def counted_only(asking: Any, name: str | None, action: str) -> bool:
    return name != "secret" or action == "count"


@pytest.mark.parametrize(
    ("user", "allowed"),
    [
        (None, ["connect", "count"]),
        (AnonymousUser(), ["connect", "count"]),
        (User(username="visitor"), ["connect", "count"]),
        (FORMER, ["connect", "count"]),
        (STAFF, list(ACTIONS)),
    ],
    ids=["no users", "nobody", "visitor", "former staff", "staff"],
)
async def test_default_lets_all_connect_and_count_and_staff_the_rest(
    user: Any, allowed: list[str]
) -> None:
    request = RequestFactory().get("/")
    if user is not None:
        request.user = user
    scope: Any = {"type": "websocket", "user": user}

    assert [action for action in ACTIONS if has_permission(request, "foo", action)] == allowed
    assert [action for action in ACTIONS if await ahas_permission(scope, "foo", action)] == allowed


def test_default_lets_all_list_and_see_members_in_debug(settings: Any) -> None:
    settings.DEBUG = True
    request = RequestFactory().get("/")

    allowed = [action for action in ACTIONS if has_permission(request, "foo", action)]
    assert allowed == ["connect", "count", "list", "members"]


@pytest.mark.parametrize("function", ["no_secrets", "no_secrets_async"])
def test_function_of_the_site_decides(settings: Any, client: HTTPClient, function: str) -> None:
    settings.ECHO_AUTHORIZE = f"tests.middleware.test_access.{function}"

    refused = client.get("/secret/getCurrentConnections")

    assert (refused.status_code, refused.content) == (
        403,
        b"You may not see the count of this object.",
    )
    assert client.get("/open/getCurrentConnections").status_code == 200


def raises(asking: Any, name: str | None, action: str) -> bool:
    raise ZeroDivisionError("of the site")


async def raises_async(asking: Any, name: str | None, action: str) -> bool:
    raise ZeroDivisionError("of the site")


def denies(asking: Any, name: str | None, action: str) -> bool:
    raise PermissionDenied


def forgets(asking: Any, name: str | None, action: str) -> None:
    """Return nothing."""


def hands_on(asking: Any, name: str | None, action: str) -> Any:
    return no_secrets_async(asking, name, action)


class NoSecrets:
    async def __call__(self, asking: Any, name: str | None, action: str) -> bool:
        return name != "secret"


no_secrets_object = NoSecrets()


@pytest.mark.django_db(transaction=True)  # as Channels' threads may have connections
@pytest.mark.parametrize("function", ["raises", "raises_async", "denies", "forgets"])
async def test_function_that_gives_no_answer_refuses(settings: Any, function: str) -> None:
    settings.ECHO_AUTHORIZE = f"tests.middleware.test_access.{function}"
    request = RequestFactory().get("/")
    scope: Any = {"type": "websocket"}

    denied = [False] * len(ACTIONS)
    assert [
        await asyncio.to_thread(has_permission, request, "foo", action) for action in ACTIONS
    ] == denied
    assert [await ahas_permission(scope, "foo", action) for action in ACTIONS] == denied


@pytest.mark.django_db(transaction=True)  # as Channels' threads may have connections
@pytest.mark.parametrize("function", ["hands_on", "no_secrets_object"])
async def test_function_may_return_what_is_to_be_awaited(settings: Any, function: str) -> None:
    settings.ECHO_AUTHORIZE = f"tests.middleware.test_access.{function}"
    scope: Any = {"type": "websocket"}

    assert [await ahas_permission(scope, name, "count") for name in ("foo", "secret")] == [
        True,
        False,
    ]
    assert await asyncio.to_thread(has_permission, scope, "foo", "count")
    assert not await asyncio.to_thread(has_permission, scope, "secret", "count")


def test_function_that_raises_is_logged_once_a_minute_and_told_to_nobody(
    settings: Any, client: HTTPClient, caplog: pytest.LogCaptureFixture
) -> None:
    settings.ECHO_AUTHORIZE = "tests.middleware.test_access.raises"
    log._last.clear()

    answers = [client.get("/foo/getCurrentConnections") for _ in range(3)]
    page = client.get("/", headers={"accept": "text/html"})

    assert {(a.status_code, a.content) for a in answers} == {
        (403, b"You may not see the count of this object.")
    }
    assert page.status_code == 200
    (record,) = [record for record in caplog.records if record.name == "echo.permissions"]
    assert record.getMessage() == "ECHO_AUTHORIZE raised an exception; access denied."
    assert record.exc_info is not None and "of the site" in str(record.exc_info[1])


@pytest.mark.parametrize("value", ["no.such", "tests.middleware.test_access.STAFF", 7])
def test_wrong_function_is_told(settings: Any, value: object) -> None:
    settings.ECHO_AUTHORIZE = value

    with pytest.raises(ImproperlyConfigured, match=r"^ECHO_AUTHORIZE "):
        _ = conf.ECHO_AUTHORIZE


@pytest.mark.parametrize(
    "value",
    [
        *("https://a.example", ["a.example"], ["https://a.example/"], ["https://*.example"]),
        *(["https://A.example"], ["https://a.example:443"], ["http://a.example:80"]),
    ],
)
def test_wrong_origins_are_told(settings: Any, value: object) -> None:
    settings.ECHO_ALLOWED_ORIGINS = value

    with pytest.raises(ImproperlyConfigured, match=r"^ECHO_ALLOWED_ORIGINS "):
        _ = conf.ECHO_ALLOWED_ORIGINS


@pytest.fixture(scope="module")
def servers() -> Any:
    env = {"DJANGO_SETTINGS_MODULE": "tests.sites.guarded"}
    with Server("daphne", **env) as ours, Server("stock-daphne", **env) as stock:
        yield {"daphne": ours, "stock-daphne": stock}


@pytest.mark.parametrize("function", ["secret", "open"])
def test_connecting_is_refused_before_the_upgrade(servers: Any, function: str) -> None:
    server = servers["daphne"]
    with Client(server.port) as client:
        answer = client.ask(f"/{function}/websocket", UPGRADE)

    if function == "open":
        assert answer.status_line == "HTTP/1.1 101 Switching Protocols"
    else:
        assert answer.status_line == "HTTP/1.1 403 Forbidden"
        assert answer.body == b"You may not connect to this object."
    assert server.count("secret") == 0


def test_connecting_is_refused_with_4403_where_the_server_knows_no_answer(servers: Any) -> None:
    with Client.opened(servers["stock-daphne"].port, "secret") as client:
        code, _ = client.closing()  # the reason is told to Daphne, which drops it

    assert code == 4403
    assert servers["stock-daphne"].count("secret") == 0


def test_database_connection_that_dies_refuses_once_at_the_most() -> None:
    with Server("daphne", DJANGO_SETTINGS_MODULE="tests.sites.asking_database") as server:
        statuses = []
        for name in ("foo", "cut", "foo", "foo", "foo"):
            with Client(server.port) as client:
                statuses.append(client.ask(f"/{name}/websocket", UPGRADE).status_line.split()[1])

    assert statuses[:2] == ["101", "101"]
    assert statuses[3:] == ["101", "101"]


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://friend.example", "101"),
        ("http://friend.example", "403"),
        ("https://friend.example:444", "403"),
        ("null", "403"),
        ("http://[::1", "403"),
        ("", "101"),
    ],
)
def test_origin_is_the_sites_own_or_a_listed_one(servers: Any, origin: str, status: str) -> None:
    with Client(servers["daphne"].port) as client:
        answer = client.ask("/websocket", {**UPGRADE, "Origin": origin})

    assert answer.status_line.split()[1] == status


@pytest.mark.parametrize(
    ("host", "status"), [("127.0.0.1", "101"), ("localhost:99", "101"), ("evil.example", "400")]
)
def test_host_is_one_of_the_sites(servers: Any, host: str, status: str) -> None:
    with Client(servers["daphne"].port) as client:
        answer = client.ask("/websocket", {**UPGRADE, "Host": host})

    assert answer.status_line.split()[1] == status


# Channels' consumers look at the database connections that other tests have left in the thread.
of_consumers = pytest.mark.django_db(transaction=True)


class Closing(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels has no types
    async def connect(self) -> None:
        await self.close()


routes = [
    path("chat/<str:room>/", counted(AsyncWebsocketConsumer.as_asgi(), by="room")),
    path("closing/<str:room>/", counted(Closing.as_asgi(), by="room")),
]


def communicator(
    where: str = "/chat/lobby/", headers: dict[str, str] | None = None
) -> WebsocketCommunicator:
    """Return Channels' own test client, as sites use it: without a Host unless one is given."""
    sent = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return WebsocketCommunicator(as_websocket_application(routes), where, headers=sent)


async def accepts(client: WebsocketCommunicator) -> bool:
    """Return whether the client is connected, and not closed at once with 4403 or 4503."""
    accepted, _ = await client.connect()
    stays = accepted and await client.receive_nothing(timeout=0.01)
    if stays:
        await client.disconnect()
    return bool(stays)


@of_consumers
async def test_test_client_of_channels_without_a_host_is_accepted() -> None:
    assert await accepts(communicator())


@of_consumers
async def test_test_client_of_channels_with_a_host_is_checked_as_others() -> None:
    assert await accepts(communicator(headers={"host": "testserver"}))
    assert not await accepts(communicator(headers={"host": "evil.example"}))


@pytest.mark.parametrize("header", ["host", "x-forwarded-host"])
@of_consumers
async def test_empty_or_forwarded_host_is_no_missing_one(settings: Any, header: str) -> None:
    settings.USE_X_FORWARDED_HOST = True

    assert not await accepts(communicator(headers={header: ""}))
    assert not await accepts(communicator(headers={header: "evil.example"}))
    assert await accepts(communicator(headers={header: "testserver"}))


@of_consumers
async def test_origin_without_a_host_has_to_be_a_listed_one(settings: Any) -> None:
    settings.ECHO_ALLOWED_ORIGINS = ["https://friend.example"]

    assert await accepts(communicator(headers={"origin": "https://friend.example"}))
    assert not await accepts(communicator(headers={"origin": "https://evil.example"}))
    assert not await accepts(communicator(headers={"origin": "http://testserver"}))


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize(("hosts", "status"), [("127.0.0.1", "101"), ("example.com", "400")])
def test_address_of_a_real_server_stands_in_for_the_host_as_for_http(
    version: str, hosts: str, status: str
) -> None:
    lines = [f"GET /foo/websocket HTTP/{version}", *(f"{k}: {v}" for k, v in UPGRADE.items())]
    with Server("daphne", DJANGO_ALLOWED_HOSTS=hosts) as server, Client(server.port) as client:
        client.send(("\r\n".join(lines) + "\r\n\r\n").encode())

        assert client.answer().status_line.split()[1] == status


@pytest.mark.parametrize(
    ("where", "headers", "level", "reason"),
    [
        (
            "/chat/lobby/",
            {"host": "evil.example"},
            "WARNING",
            "Invalid HTTP_HOST header: 'evil.example'. "
            "You may need to add 'evil.example' to ALLOWED_HOSTS.",
        ),
        (
            "/chat/lobby/",
            {"host": "testserver", "origin": "http://evil.example"},
            "WARNING",
            "the Origin 'http://evil.example' does not match the Host 'testserver'. If pages of "
            "that origin may connect, add it to ECHO_ALLOWED_ORIGINS. If a proxy changes the Host "
            "header, configure it to pass the header on.",
        ),
        (
            "/chat/lobby/",
            {"origin": "http://testserver"},
            "WARNING",
            "the Origin is 'http://testserver', but there is no Host to compare it with. Send a "
            "Host header, or add the origin to ECHO_ALLOWED_ORIGINS.",
        ),
        (
            "/chat/secret/",
            {},
            "WARNING",
            "ECHO_AUTHORIZE denies access to the object 'secret'",
        ),
        (
            "/chat/a%0Ab/",
            {},
            "WARNING",
            r"The name 'a\nb' has a control character.",
        ),
        (
            "/nowhere",
            {},
            "WARNING",
            "the site has no WebSocket route for this path",
        ),
        (
            "/closing/lobby/",
            {},
            "INFO",
            "the application responds with status 403",
        ),
    ],
    ids=["host", "origin", "origin without host", "permission", "name", "path", "application"],
)
@of_consumers
async def test_rejected_handshake_is_logged_with_its_reason_once_a_minute(
    settings: Any,
    caplog: pytest.LogCaptureFixture,
    where: str,
    headers: dict[str, str],
    level: str,
    reason: str,
) -> None:
    settings.ECHO_AUTHORIZE = "tests.middleware.test_access.no_secrets_async"
    caplog.set_level(logging.INFO, "echo")
    log._last.clear()

    for _ in range(3):
        assert not await accepts(communicator(where, headers))

    logged = [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "echo.denial"]
    assert logged == [(level, f"WebSocket handshake on {unquote(where)!r} rejected: {reason}")]


@of_consumers
async def test_object_at_its_limit_is_logged(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.ECHO_MAX_CONNECTIONS = 1
    log._last.clear()
    first = communicator()
    await first.connect()

    assert not await accepts(communicator())

    await first.disconnect()
    assert [r.getMessage() for r in caplog.records if r.name == "echo.denial"] == [
        "WebSocket handshake on '/chat/lobby/' rejected: the object 'lobby' has as many "
        "connections as ECHO_MAX_CONNECTIONS allows: 1"
    ]


def test_rejected_handshake_is_told_by_the_log_of_a_server() -> None:
    with Server("daphne") as server, Client(server.port) as client:
        client.ask("/websocket", {**UPGRADE, "Origin": "http://evil.example"})

        wanted = (
            f"the Origin 'http://evil.example' does not match the Host '127.0.0.1:{server.port}'"
        )
        eventually(lambda: wanted in server.log(), True)


@of_consumers
async def test_log_has_no_more_than_the_beginning_of_a_long_path(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log._last.clear()

    assert not await accepts(communicator(f"/{'x' * 60_000}"))

    (record,) = [r for r in caplog.records if r.name == "echo.denial"]
    assert len(record.getMessage()) < 300


@pytest.mark.parametrize(
    ("origin", "proto", "status"),
    [
        ("http://127.0.0.1:{port}", "https", "403"),
        ("https://127.0.0.1:{port}", "https", "101"),
        ("http://127.0.0.1:{port}", "http", "101"),
    ],
)
@pytest.mark.parametrize("option", ["proxy header", "django"])
def test_plain_origin_is_rejected_where_the_client_used_tls(
    origin: str, proto: str, status: str, option: str, tmp_path: Path
) -> None:
    (tmp_path / "secure.py").write_text(
        "from project.settings import *\n"
        "SECURE_PROXY_SSL_HEADER = ('HTTP_X_FORWARDED_PROTO', 'https')\n"
    )
    env = {"DJANGO_SETTINGS_MODULE": "secure", "PYTHONPATH": str(tmp_path)}
    proxied = option == "proxy header"
    options = ("--proxy-headers",) if proxied else ()
    with Server("daphne", options=options, **({} if proxied else env)) as server:
        with Client(server.port) as client:
            sent = {"Origin": origin.format(port=server.port), "X-Forwarded-Proto": proto}
            sent["X-Forwarded-For"] = "10.0.0.1"
            answer = client.ask("/websocket", {**UPGRADE, **sent})
        assert answer.status_line.split()[1] == status
