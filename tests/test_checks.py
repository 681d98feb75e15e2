"""System checks: each wrong set-up has its id, and a sentence that says what to do."""

import os
import subprocess
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

from echo.checks import check_runserver
from echo.consumers import EchoConsumer
from echo.counting import counted
from echo.middleware.origin import HostAndOriginCheck
from echo.routing import as_websocket_application, console_urlpatterns, websocket_urlpatterns
from tests.servers import ROOT


async def consumer(scope: Any, receive: Any, send: Any) -> None:
    await receive()


@pytest.fixture(autouse=True)
def as_by_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the checks run as `manage.py check` runs them, which alone may import asgi.py."""
    monkeypatch.setattr(sys, "argv", ["manage.py", "check"])


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


@pytest.fixture
def broken(tmp_path: Path) -> Any:
    """A function that runs a command of a site whose asgi.py has this code."""

    def run(code: str, *command: str) -> tuple[int, str]:
        (tmp_path / "broken_asgi.py").write_text(f"\n{code}\napplication = None\n")
        (tmp_path / "broken_settings.py").write_text(
            "from project.settings import *\n"
            "ASGI_APPLICATION = 'broken_asgi.application'\n"
            f"DATABASES['default']['NAME'] = {str(tmp_path / 'db')!r}\n"
        )
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "broken_settings",
            "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
        }
        done = subprocess.run(
            [sys.executable, ROOT / "manage.py", *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout + done.stderr

    return run


QUERY = """
from django.contrib.auth.models import User
first = User.objects.get()
"""
BROKEN = {
    "a query": (QUERY, "OperationalError: no such table: auth_user", 4),
    "a secret": ("import os; os.environ['NO_SUCH']", "KeyError: 'NO_SUCH'", 2),
    "an exit": ("import sys; sys.exit('no secret')", "SystemExit: no secret", 2),
    "an import": ("from chat.consumers import ChatConsumer", "No module named 'chat'", 2),
    "a password": ("raise OSError('redis://me:secret@h')", "OSError: redis://***@h", 2),
    "bad syntax": ("counted(", "SyntaxError: '(' was never closed (broken_asgi.py, line 2)", 2),
}
broken_asgi = pytest.mark.parametrize(("code", "cause", "line"), BROKEN.values(), ids=BROKEN)


@broken_asgi
def test_asgi_module_that_raises_is_quoted_with_its_line(
    broken: Any, tmp_path: Path, code: str, cause: str, line: int
) -> None:
    status, output = broken(code, "check")

    assert (status, "Traceback" in output) == (1, False)
    assert (
        f"(echo.E001) ASGI_APPLICATION 'broken_asgi.application' cannot be imported: {cause}\n"
        in (output)
    )
    assert f"HINT: {cause} ({tmp_path}/broken_asgi.py, line {line})." in output


@pytest.mark.parametrize("command", [["migrate"], ["showmigrations"], ["shell", "-c", "print()"]])
def test_other_commands_never_import_the_asgi_module(broken: Any, command: list[str]) -> None:
    status, output = broken("raise SystemExit('asgi.py was run')", *command)

    assert (status, "asgi.py was run" in output, "echo." in output) == (0, False, False)


def test_tests_of_a_site_never_import_the_asgi_module(broken: Any, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "from django.test import TestCase\nclass It(TestCase):\n    def test_it(self): pass\n"
    )

    status, output = broken("raise SystemExit('asgi.py was run')", "test", str(tmp_path))

    assert (status, "asgi.py was run" in output, "Ran 1 test" in output) == (0, False, True)


def test_runserver_quotes_what_the_asgi_module_raises(broken: Any) -> None:
    status, output = broken("raise SystemExit('no secret')", "runserver", "--noreload", "0")

    assert status == 1
    assert "(echo.E001) ASGI_APPLICATION 'broken_asgi.application' cannot be imported" in output


def test_doctor_quotes_what_the_asgi_module_raises(broken: Any) -> None:
    status, output = broken("raise SystemExit('no secret')", "echo_doctor")

    assert status == 1
    assert (
        "fails    echo.E001: ASGI_APPLICATION 'broken_asgi.application' cannot be imported: "
        "SystemExit: no secret." in output
    )


def test_hint_for_a_path_that_leads_to_no_module_names_the_cause(settings: Any) -> None:
    settings.ASGI_APPLICATION = "no.such.application"

    (hint,) = (m.hint for m in run_checks() if m.id == "echo.E001")
    assert hint == (
        "No module named 'no'. ASGI_APPLICATION is a path like \"mysite.asgi.application\"."
    )


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

    message = "ASGI_APPLICATION 'a_site.application' has no counted WebSocket route."
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
        "as in README.md, “In an existing site”."
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
        f"The ShoutConsumer at {route!r} is not counted.",
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
            "counted() wraps a router. Wrap each consumer: "
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
        "argument 'name'; it has 'room', 'seat'. Name one of them, or pass a function of the scope."
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
    told = "ECHO_STATE_URL 'nonsense://***@host' has an unknown scheme; expected memory://,"
    assert message.startswith(told)


def install(folder: Path, name: str, *files: str) -> None:
    """Leave what pip leaves of a distribution that has these files."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"{file},sha256=x,1\n" for file in files))


def test_other_distribution_with_a_package_of_our_name_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `pip install echo` of PyPI."""
    install(tmp_path, "echo", "echo/__init__.py", "echo/core.py")
    install(tmp_path, "django-echo-objects", "echo/__init__.py", "echo/apps.py")
    install(tmp_path, "parrot", "parrot/__init__.py", "parrot/echo/__init__.py", "echo.py")
    monkeypatch.syspath_prepend(tmp_path)

    (message,) = (m for m in run_checks() if m.id == "echo.W007")
    assert message.msg == ("The installed distribution 'echo' also has a package named 'echo'.")
    assert message.hint is not None
    assert "`pip uninstall echo`, then install django-echo-objects again" in message.hint


REDIS = "redis://user:secret@localhost/0"


@pytest.mark.parametrize(
    ("name", "text", "value", "line"),
    [
        ("ECHO_STATE_URL", REDIS, "memory://", 'os.environ.get("ECHO_STATE_URL", "memory://")'),
        ("ECHO_LEASE_SECONDS", "5", 3.0, 'float(os.environ["ECHO_LEASE_SECONDS"])'),
        ("ECHO_MAX_CONNECTIONS", "50", None, 'int(os.environ["ECHO_MAX_CONNECTIONS"])'),
        (
            *("ECHO_ALLOWED_ORIGINS", "https://a.example,https://b.example", []),
            'os.environ["ECHO_ALLOWED_ORIGINS"].split(",")',
        ),
        ("ECHO_AUTHORIZE", "mysite.access.authorize", None, 'os.environ["ECHO_AUTHORIZE"]'),
    ],
)
def test_environment_variable_that_no_setting_reads_is_found(
    settings: Any, monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: Any, line: str
) -> None:
    setattr(settings, name, value)
    monkeypatch.setenv(name, text)

    (message,) = (m for m in run_checks() if m.id and m.id.startswith("echo."))
    assert message == Warning(
        f"The environment variable {name} is set, but the setting {name} differs from it.",
        hint=f"Django reads no setting from the environment. In settings.py: {name} = {line}",
        id="echo.W006",
    )


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("ECHO_STATE_URL", REDIS, REDIS),
        ("ECHO_STATE_URL", "redis://localhost", "redis://localhost/0?cluster=true"),
        ("ECHO_STATE_URL", "", "memory://"),
        ("ECHO_LEASE_SECONDS", "5", 5.0),
        ("ECHO_MAX_CONNECTIONS", "50", 50),
        (
            *("ECHO_ALLOWED_ORIGINS", "https://a.example, https://b.example"),
            ["https://b.example", "https://a.example"],
        ),
        ("ECHO_TRUSTED_PROXIES", "10.0.0.1,10.1.0.0/16", ["10.1.0.0/16", "10.0.0.1"]),
        ("ECHO_OF_SOMEBODY_ELSE", "x", None),
    ],
)
def test_environment_variable_that_a_setting_reads_is_in_order(
    settings: Any, monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: Any
) -> None:
    if value is not None:
        setattr(settings, name, value)
    monkeypatch.setenv(name, text)

    assert found() == {}


def test_environment_variable_with_a_wrong_setting_is_found_once(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.ECHO_STATE_URL = "nonsense://x"
    monkeypatch.setenv("ECHO_STATE_URL", "nonsense://x")

    assert list(found()) == ["echo.E002"]


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


def test_deploy_check_tells_of_counts_in_redis_without_a_layer(settings: Any) -> None:
    settings.ECHO_STATE_URL = REDIS
    settings.CHANNEL_LAYERS = {}

    assert found(deploy=True) == {
        "echo.W104": "CHANNEL_LAYERS is not set, but the counts are in Redis: texts, closes and "
        "logouts reach the connections of a single process."
    }


@pytest.mark.parametrize(("seconds", "ids"), [(None, {"echo.W008"}), (60, set())])
def test_recheck_that_is_never_called_is_found(
    application: Any, settings: Any, seconds: float | None, ids: set[str]
) -> None:
    settings.ECHO_RECHECK_SECONDS = seconds
    application(site(path("a/<name>/", counted(consumer, recheck=lambda scope: True))))

    assert set(found()) == ids


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
        f"The route {opened!r} lets anyone connect to any object, including those of "
        "'chat/<str:room>/', and receive the messages that the site sends to them.",
        hint="Replace websocket_urlpatterns with console_urlpatterns from echo.routing, "
        'which require the permission "list". Or set ECHO_AUTHORIZE.',
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
    settings.ECHO_AUTHORIZE = "tests.middleware.test_access.no_secrets"
    application(site(own, below))

    assert "echo.W103" not in found(deploy=True)
