"""The blocks of docs/howto/limits.md and docs/howto/logins.md."""

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import AnonymousUser

from echo.conf import conf
from echo.objects import get_object
from tests import readme

LIMITS, LOGINS = "docs/howto/limits.md", "docs/howto/logins.md"


class Chat(AsyncWebsocketConsumer):
    """The consumer of the site."""


def names_of(start: str, page: str, **names: Any) -> dict[str, Any]:
    """Run the one block that contains `start`, and return what it defines."""
    exec(readme.block("python", start, page), names)
    return names


@pytest.fixture(scope="module", autouse=True)
def all_blocks_are_tested(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    assert readme.missing(request, [LIMITS, LOGINS]) == []


def test_longest_prefix_is_the_limit(settings: Any) -> None:
    settings.ECHO_MAX_CONNECTIONS = names_of('"room-hall"', LIMITS)["ECHO_MAX_CONNECTIONS"]

    names = ["user-1", "ip-192.0.2.7", "room-1", "room-hall", "other"]
    assert [conf.max_connections(name) for name in names] == [20, 100, 500, None, None]


def test_function_is_the_limit(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("chat.limits")
    module.max_connections = len  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "chat", ModuleType("chat"))
    monkeypatch.setitem(sys.modules, "chat.limits", module)
    settings.ECHO_MAX_CONNECTIONS = names_of("chat.limits", LIMITS)["ECHO_MAX_CONNECTIONS"]

    assert conf.max_connections("room-1") == 6


def test_proxies_are_trusted(settings: Any) -> None:
    settings.ECHO_TRUSTED_PROXIES = names_of("PROXIES", LIMITS)["ECHO_TRUSTED_PROXIES"]

    assert [str(each) for each in conf.ECHO_TRUSTED_PROXIES] == ["10.0.0.0/8", "2001:db8:ffff::/48"]


@pytest.mark.django_db(transaction=True)  # consumers close old connections of the database
async def test_connection_belongs_to_room_user_and_address() -> None:
    routes = names_of("by_visitor", LIMITS, ChatConsumer=Chat)["routes"]

    async def connect(user: Any) -> WebsocketCommunicator:
        client = WebsocketCommunicator(URLRouter(routes), "/chat/lobby/")
        client.scope |= {"user": user, "client": ["192.0.2.7", 4711]}
        assert await client.connect() == (True, None)
        return client

    clients = [
        await connect(SimpleNamespace(pk=7, is_authenticated=True)),
        await connect(AnonymousUser()),
    ]

    counts = [get_object(name).count() for name in ("lobby", "user-7", "ip-192.0.2.7")]
    assert counts == [2, 1, 2]
    for client in clients:
        await client.disconnect()


def test_recheck_is_an_argument_of_counted() -> None:
    names = names_of("has_valid_token", LOGINS, ChatConsumer=Chat)

    assert names["routes"][0].callback.counted_by == ("room",)


def test_client_of_an_ended_login_logs_in() -> None:
    assert "4401" in readme.block("javascript", "location.assign", LOGINS)
