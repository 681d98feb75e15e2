"""System checks: each wrong set-up has its id, and a sentence that says what to do."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.core.checks import Warning, run_checks
from django.core.management import get_commands
from django.core.wsgi import get_wsgi_application
from django.urls import path, re_path

from echo.access import HostAndOriginCheck
from echo.checks import check_runserver
from echo.consumers import EchoConsumer
from echo.counting import counted
from echo.routing import (
    as_websocket_application,
    console_urlpatterns,
    websocket_urlpatterns,
)


async def consumer(scope: Any, receive: Any, send: Any) -> None:
    await receive()


def found(deploy: bool = False) -> dict[str, str]:
    """Return the messages of our checks, by id."""
    messages = run_checks(include_deployment_checks=deploy)
    return {m.id: m.msg for m in messages if m.id and m.id.startswith("echo.")}


@pytest.fixture
def application(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that makes its argument the site's ASGI_APPLICATION."""

    def use(application: Any) -> None:
        module = ModuleType("a_site")
        module.application = application  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "a_site", module)
        settings.ASGI_APPLICATION = "a_site.application"

    return use


def site(*routes: Any) -> ProtocolTypeRouter:
    return ProtocolTypeRouter({"websocket": HostAndOriginCheck(URLRouter(list(routes)))})


def test_demo_has_no_problem() -> None:
    assert found() == {}


def test_missing_asgi_application_is_told(settings: Any) -> None:
    del settings.ASGI_APPLICATION

    assert found() == {"echo.W001": "ASGI_APPLICATION is not set."}


def test_asgi_application_that_cannot_be_imported_is_told(settings: Any) -> None:
    settings.ASGI_APPLICATION = "no.such.application"

    assert found() == {
        "echo.E001": "ASGI_APPLICATION 'no.such.application' cannot be imported: "
        "No module named 'no'"
    }


def test_wsgi_application_is_told(application: Any) -> None:
    application(get_wsgi_application())

    message = "ASGI_APPLICATION 'a_site.application' is a WSGI application."
    assert found() == {"echo.E001": message}


@pytest.mark.parametrize(
    "unrouted",
    [
        get_asgi_application(),
        ProtocolTypeRouter({"http": get_asgi_application()}),
        site(path("ws/", consumer)),
        ProtocolTypeRouter({"websocket": as_websocket_application([path("ws/", consumer)])}),
    ],
    ids=["Django's own", "http only", "routes without counted", "ours without counted"],
)
def test_application_that_counts_nothing_is_told(application: Any, unrouted: Any) -> None:
    application(unrouted)

    message = "ASGI_APPLICATION 'a_site.application' has no WebSocket route that is counted."
    assert found() == {"echo.W002": message}


@pytest.mark.parametrize(
    "routed",
    [
        site(path("<str:name>/", counted(consumer))),
        site(path("x/", URLRouter([re_path(r"^(?P<room>\w+)$", counted(consumer, by="room"))]))),
        site(path("<str:room>/", URLRouter([path("chat", counted(consumer, by="room"))]))),
        site(path("one/", counted(consumer, by=lambda scope: "one"))),
        site(path("one/", counted(consumer), {"name": "one"})),
        ProtocolTypeRouter({"websocket": as_websocket_application()}),
        consumer,
    ],
    ids=["path", "re_path", "outer", "function", "default argument", "ours", "opaque"],
)
def test_application_that_counts_is_in_order(application: Any, routed: Any) -> None:
    application(routed)

    assert found() == {}


def test_plain_application_of_django_is_told_to_become_a_router(application: Any) -> None:
    application(get_asgi_application())

    (hint,) = (m.hint for m in run_checks() if m.id == "echo.W002")
    assert hint == (
        "It is Django's own application, which has no WebSockets: make it a ProtocolTypeRouter, "
        "as README.md, “In an existing site”, shows."
    )


class ShoutConsumer(EchoConsumer):
    pass


@pytest.mark.parametrize(
    ("route", "by"),
    [
        ("shout/<str:name>/", "'name'"),
        ("shout/<str:room>/<int:seat>/", "'room'"),
        ("shout/", "lambda scope: 'lobby'"),
    ],
)
def test_consumer_of_ours_that_is_not_counted_is_told(
    application: Any, route: str, by: str
) -> None:
    application(site(path(route, ShoutConsumer.as_asgi())))

    (message,) = (m for m in run_checks() if m.id and m.id.startswith("echo."))
    assert message == Warning(
        f"{route!r} is a ShoutConsumer that is not counted.",
        hint=f"Wrap it: counted(ShoutConsumer.as_asgi(), by={by})",
        id="echo.W005",
    )


def test_other_consumers_that_are_not_counted_are_left_alone(application: Any) -> None:
    counts = path("<str:name>/", counted(EchoConsumer.as_asgi()))

    application(site(counts, path("private/", AsyncWebsocketConsumer.as_asgi())))

    assert found() == {}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            "counted(AsyncWebsocketConsumer)",
            "counted() needs an application: write AsyncWebsocketConsumer.as_asgi().",
        ),
        (
            "counted(URLRouter([]), by='room')",
            "counted() is round a router. Wrap each consumer: "
            'path("chat/<str:room>/", counted(ChatConsumer.as_asgi(), by="room")).',
        ),
    ],
)
def test_asgi_module_that_counts_what_it_cannot_is_told(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str, sentence: str
) -> None:
    (tmp_path / "wrong_asgi.py").write_text(
        "from channels.generic.websocket import AsyncWebsocketConsumer\n"
        "from channels.routing import URLRouter\n"
        "from echo.counting import counted\n"
        f"application = {wrong}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings.ASGI_APPLICATION = "wrong_asgi.application"

    assert found() == {"echo.E001": f"ASGI_APPLICATION 'wrong_asgi.application': {sentence}"}


def test_wrong_by_is_told_with_its_route(application: Any) -> None:
    application(site(path("chat/<str:room>/<int:seat>/", counted(consumer, by="name"))))

    assert found() == {
        "echo.E003": "counted(by='name'): the route of 'chat/<str:room>/<int:seat>/' has no "
        "argument 'name'; it has 'room', 'seat'. Name one of them, or give a function of the scope."
    }


def test_unknown_setting_is_told_with_the_one_that_was_meant(settings: Any) -> None:
    settings.ECHO_DEFAULT_OBJEKT = "x"

    assert found() == {
        "echo.E002": "ECHO_DEFAULT_OBJEKT is not a setting of echo. "
        "Did you mean ECHO_DEFAULT_OBJECT?"
    }


def test_malformed_state_is_told_without_its_password(settings: Any) -> None:
    settings.ECHO_STATE_URL = "nonsense://user:secret@host"

    (message,) = found().values()
    told = "ECHO_STATE_URL 'nonsense://***@host' has no scheme that is known; expected memory://,"
    assert message.startswith(told)


@pytest.fixture
def fresh_commands() -> Iterator[None]:
    """Django looks for the apps' commands once; here the apps change."""
    get_commands.cache_clear()
    yield
    get_commands.cache_clear()


STATIC = "django.contrib.staticfiles"


@pytest.mark.parametrize(
    ("apps", "expected"),
    [
        ([STATIC], {"echo.W003": "'daphne' is missing from INSTALLED_APPS"}),
        (
            [STATIC, "echo", "daphne"],
            {"echo.W003": f"'daphne' is below {STATIC} in INSTALLED_APPS"},
        ),
        (["daphne", "echo", STATIC], {"echo.W004": "'echo' is below 'daphne' in INSTALLED_APPS"}),
        (["echo", "daphne", STATIC], {}),
        (["echo", STATIC], {}),
    ],
)
def test_runserver_of_another_kind_is_told(
    settings: Any, fresh_commands: None, apps: list[str], expected: dict[str, str]
) -> None:
    settings.INSTALLED_APPS = apps

    assert {m.id: m.msg.partition(":")[0] for m in check_runserver()} == expected


def test_deploy_check_tells_of_state_and_layer_in_memory(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}

    assert sorted(found(deploy=True)) == ["echo.W101", "echo.W102"]


own = path("chat/<str:room>/", counted(consumer, by="room"))
below = path("connections/", URLRouter(websocket_urlpatterns))


@pytest.mark.parametrize("routes", [[own, below], [*websocket_urlpatterns, own]])
def test_deploy_check_tells_that_own_objects_are_open_to_anybody(
    application: Any, routes: list[Any]
) -> None:
    application(site(*routes))

    (message,) = (m for m in run_checks(include_deployment_checks=True) if m.id == "echo.W103")
    opened = "connections/<str:name>/websocket" if below in routes else "<str:name>/websocket"
    assert message == Warning(
        f"By {opened!r} anybody may connect to each object, also to those of "
        "'chat/<str:room>/', and receive what the site sends to them.",
        hint="Replace websocket_urlpatterns by console_urlpatterns, also from echo.routing: "
        'they are for those who may "list". Or set ECHO_AUTHORIZE.',
        id="echo.W103",
    )
    assert "echo.W103" not in found()


@pytest.mark.parametrize(
    "routes",
    [
        [own],
        websocket_urlpatterns,
        [own, path("connections/", URLRouter(console_urlpatterns))],
        [below, path("console/", URLRouter(console_urlpatterns))],
    ],
    ids=["own", "showpiece", "console", "showpiece with a console"],
)
def test_deploy_check_leaves_other_routes_alone(application: Any, routes: list[Any]) -> None:
    application(site(*routes))

    assert "echo.W103" not in found(deploy=True)


def test_deploy_check_leaves_it_to_the_function_of_the_site(
    application: Any, settings: Any
) -> None:
    settings.ECHO_AUTHORIZE = "tests.test_access.no_secrets"
    application(site(own, below))

    assert "echo.W103" not in found(deploy=True)
