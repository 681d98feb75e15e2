"""System checks for invalid settings and routes, with a remedy for each.

docs/reference/checks.md lists their ids, which are never used again for another check.

The checks E001, E003, W001, W002, W005 and W008 import asgi.py, so they run only in `check`,
`runserver` and `echo_doctor`. All other commands must work even if that import fails: for example
`migrate`, if asgi.py queries a table, or a cron job without the secrets of the web server.
"""

import re
import sys
import sysconfig
import traceback
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from channels.layers import InMemoryChannelLayer
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import get_commands
from django.utils.module_loading import import_string

from echo.conf import conf, problems, unread_variables
from echo.consumers import EchoConsumer
from echo.counting import missing_argument
from echo.groups.layer import layer_or_none
from echo.introspection import Endpoint, counted_endpoints, endpoints_of, is_certainly_uncounted
from echo.log import describe
from echo.routing import websocket_urlpatterns

DISTRIBUTION = "django-echo-objects"  # on PyPI


@register
def check_settings(**kwargs: object) -> list[CheckMessage]:
    hint = "README.md, “Settings”, lists all settings."
    return [Error(problem, hint=hint, id="echo.E002") for problem in problems()]


# Settings that settings.py has to convert from the text of an environment variable.
CONVERSIONS = {
    "ECHO_LEASE_SECONDS": "float({})",
    "ECHO_HEARTBEAT_SECONDS": "float({})",
    "ECHO_MAX_CONNECTIONS": "int({})",
    "ECHO_ALLOWED_ORIGINS": '{}.split(",")',
    "ECHO_VACATED_DELAY": "float({})",
    "ECHO_RECHECK_SECONDS": "float({})",
    "ECHO_MAX_HANDSHAKES_AT_ONCE": "int({})",
    "ECHO_MAX_MESSAGES_PER_SECOND": "int({})",
    "ECHO_DRAIN_SECONDS": "float({})",
    "ECHO_WEBSOCKET_DEFLATE": '{} == "1"',
    "ECHO_DEFLATE_MIN_SIZE": "int({})",
}


@register
def check_environment(**kwargs: object) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for name in unread_variables():
        value = CONVERSIONS.get(name, "{}").format(f'os.environ["{name}"]')
        if name == "ECHO_STATE_URL":  # with a default for development, as in the docs
            value = f'os.environ.get("{name}", "memory://")'
        message = f"The environment variable {name} is set, but the setting {name} differs from it."
        hint = f"Django reads no setting from the environment. In settings.py: {name} = {value}"
        found.append(Warning(message, hint=hint, id="echo.W006"))
    return found


@register
def check_distributions(**kwargs: object) -> list[CheckMessage]:
    """Find other distributions with a package `echo`, such as glue-viz's echo on PyPI."""
    others = sorted({d.name for d in distributions() if _has_echo(d)} - {DISTRIBUTION})
    return [
        Warning(
            f"The installed distribution {name!r} also has a package named 'echo'.",
            hint="Both install into the same directory, and each overwrites or removes "
            "echo/__init__.py of the other. Install them in different environments: "
            f"`pip uninstall {name}`, then install {DISTRIBUTION} again with "
            "`pip install --force-reinstall`.",
            id="echo.W007",
        )
        for name in others
    ]


def _has_echo(distribution: Distribution) -> bool:
    # Faster than packages_distributions(), which parses all lists of files (0.2 s for 30 packages).
    files = distribution.read_text("RECORD") or ""
    return re.search(r"^echo/__init__\.py,", files, re.M) is not None


# The commands that check asgi.py. Without `test`: tests may run without the web server's secrets.
COMMANDS = ("check", "runserver")


@register
def check_asgi_application_of_command(**kwargs: object) -> list[CheckMessage]:
    # Django does not pass the running command to checks, and runs the checks of all tags.
    is_wanted = len(sys.argv) > 1 and sys.argv[1] in COMMANDS
    return check_asgi_application() if is_wanted else []


def check_asgi_application() -> list[CheckMessage]:
    """Import ASGI_APPLICATION and check its routes."""
    path = getattr(settings, "ASGI_APPLICATION", None)
    if not path:
        hint = 'Set it to the application of your asgi.py, e.g. "mysite.asgi.application".'
        return [Warning("ASGI_APPLICATION is not set.", hint=hint, id="echo.W001")]
    try:
        application = import_string(path)
    except (Exception, SystemExit) as error:  # the site's code may raise anything
        return [_import_failed(path, error)]
    if isinstance(application, WSGIHandler):
        hint = "Set it to the ProtocolTypeRouter of asgi.py, not to the application of wsgi.py."
        message = f"ASGI_APPLICATION {path!r} is a WSGI application."
        return [Error(message, hint=hint, id="echo.E001")]
    return _check_routes(path, application)


def _import_failed(path: str, error: BaseException) -> CheckMessage:
    cause = describe(error)
    if str(error) and not isinstance(error, ImportError | ImproperlyConfigured):
        cause = f"{type(error).__name__}: {cause}"
    place = _place_of(error)
    if place is not None:
        hint = f"{cause} ({place}). Correct that line, or supply what it needs."
    else:
        hint = f'{cause}. ASGI_APPLICATION is a path like "mysite.asgi.application".'
    verb = "" if isinstance(error, ImproperlyConfigured) else " cannot be imported"
    return Error(f"ASGI_APPLICATION {path!r}{verb}: {cause}", hint=hint, id="echo.E001")


def _place_of(error: BaseException) -> str | None:
    """Return file and line of the innermost frame of the traceback in the site's own code."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}"
    paths = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
    others = (*paths, str(Path(__file__).parent), "<frozen")
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(others)]
    return f"{own[-1].filename}, line {own[-1].lineno}" if own else None


def _check_routes(path: str, application: Any) -> list[CheckMessage]:
    endpoints = list(endpoints_of(application))
    counted = [e for e in endpoints if hasattr(e.application, "counted_by")]
    uncounted = [_uncounted(e) for e in endpoints if _is_echo_consumer(e.application)]
    if not (counted or uncounted) and all(map(is_certainly_uncounted, endpoints)):
        message = f"ASGI_APPLICATION {path!r} has no counted WebSocket route."
        return [Warning(message, hint=_how_to_count(application), id="echo.W002")]
    invalid = [
        Error(missing_argument(by, e.route, sorted(e.arguments)), id="echo.E003")
        for e in counted
        for by in e.application.counted_by
        if isinstance(by, str) and by not in e.arguments
    ]
    return [*invalid, *uncounted, *_never_rechecked(counted)]


def _never_rechecked(counted: list[Endpoint]) -> list[CheckMessage]:
    if problems() or conf.ECHO_RECHECK_SECONDS is not None:
        return []
    hint = "Set ECHO_RECHECK_SECONDS to the seconds between two calls, such as 60."
    return [
        Warning(
            f"counted(recheck=…) at {e.route!r} has no effect: ECHO_RECHECK_SECONDS is None.",
            hint=hint,
            id="echo.W008",
        )
        for e in counted
        if e.application.has_recheck
    ]


def _how_to_count(application: Any) -> str:
    if isinstance(application, ASGIHandler):
        return (
            "It is Django's own application, which has no WebSockets: make it a "
            "ProtocolTypeRouter, as in README.md, “In an existing site”."
        )
    return (
        "Wrap a consumer: path('ws/<str:room>/', counted(ChatConsumer.as_asgi(), by='room')), "
        "or use echo.routing.as_websocket_application()."
    )


def _is_echo_consumer(application: Any) -> bool:
    """Return whether the application is an EchoConsumer. Other consumers need not be counted."""
    consumer = getattr(application, "consumer_class", None)  # set by Channels' as_asgi()
    return isinstance(consumer, type) and issubclass(consumer, EchoConsumer)


def _uncounted(endpoint: Endpoint) -> CheckMessage:
    consumer = endpoint.application.consumer_class.__name__
    by = repr(min(endpoint.arguments)) if endpoint.arguments else "lambda scope: 'lobby'"
    message = f"The {consumer} at {endpoint.route!r} is not counted."
    hint = f"Wrap it: counted({consumer}.as_asgi(), by={by})"
    return Warning(message, hint=hint, id="echo.W005")


@register
def check_runserver(**kwargs: object) -> list[CheckMessage]:
    owner = get_commands().get("runserver")
    hint = "Put 'echo' and 'daphne', in this order, at the top of INSTALLED_APPS."
    if owner in ("django.core", "django.contrib.staticfiles"):
        problem = "is missing from INSTALLED_APPS"
        if "daphne" in settings.INSTALLED_APPS:
            problem = "is below django.contrib.staticfiles in INSTALLED_APPS"
        message = f"'daphne' {problem}: runserver is WSGI, without WebSockets."
        return [Warning(message, hint=hint, id="echo.W003")]
    if owner == "daphne":
        message = "'echo' is below 'daphne' in INSTALLED_APPS: runserver has Daphne's transport."
        return [Warning(message, hint=hint, id="echo.W004")]
    return []


@register(Tags.compatibility, deploy=True)
def check_one_process(**kwargs: object) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    if problems():
        return found  # reported by check_settings
    if conf.ECHO_STATE_URL.startswith("memory:"):
        message = "ECHO_STATE_URL is memory://: each process counts only its own connections."
        hint = (
            "Correct for a single process. For several, count in Redis. "
            'In settings.py: ECHO_STATE_URL = "redis://localhost:6379/0"'
        )
        found.append(Warning(message, hint=hint, id="echo.W101"))
    elif not getattr(settings, "CHANNEL_LAYERS", {}):
        message = (
            "CHANNEL_LAYERS is not set, but the counts are in Redis: texts, closes and logouts "
            "reach the connections of a single process."
        )
        hint = "Use channels_redis.pubsub.RedisPubSubChannelLayer."
        found.append(Warning(message, hint=hint, id="echo.W104"))
    if isinstance(layer_or_none(), InMemoryChannelLayer):
        message = "CHANNEL_LAYERS is in memory: messages reach the connections of a single process."
        hint = "Use channels_redis.pubsub.RedisPubSubChannelLayer."
        found.append(Warning(message, hint=hint, id="echo.W102"))
    return found


@register(Tags.security, deploy=True)
def check_names_are_not_open(**kwargs: object) -> list[CheckMessage]:
    """Warn if a site with its own counted routes also includes `websocket_urlpatterns`.

    These accept any name, so any client could join the objects of the other routes.
    """
    if problems() or conf.ECHO_AUTHORIZE is not None:
        return []
    endpoints = counted_endpoints()
    open_to_all = [pattern.callback for pattern in websocket_urlpatterns]
    opened = [e.route for e in endpoints if e.application in open_to_all]
    # The routes of the console require the permission "list".
    others = [
        e.route
        for e in endpoints
        if e.route not in opened and not hasattr(e.application, "required_action")
    ]
    if not (opened and others):
        return []
    return [
        Warning(
            f"The route {max(opened, key=len)!r} lets anyone connect to any object, including "
            f"those of {others[0]!r}, and receive the messages that the site sends to them.",
            hint="Replace websocket_urlpatterns with console_urlpatterns from echo.routing, "
            'which require the permission "list". Or set ECHO_AUTHORIZE.',
            id="echo.W103",
        )
    ]
