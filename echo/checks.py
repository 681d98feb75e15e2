"""System checks: what is set up so that it cannot work, and what to do about it.

| id       | what it finds                                                                |
|----------|------------------------------------------------------------------------------|
| echo.E001 | ASGI_APPLICATION cannot be imported, or is not an ASGI application           |
| echo.E002 | a setting of ours that does not exist, or has a bad value                    |
| echo.E003 | `counted(by=...)` names an argument that the route does not have             |
| echo.W001 | ASGI_APPLICATION is not set                                                  |
| echo.W002 | ASGI_APPLICATION has no route that is counted                                |
| echo.W003 | `runserver` is Django's own, which speaks WSGI: it has no WebSockets         |
| echo.W004 | `runserver` is Daphne's own: it has another transport than production        |
| echo.W005 | an EchoConsumer, or one of its kind, is not counted                          |
| echo.W006 | an environment variable of a setting's name that settings.py does not read   |
| echo.W007 | another distribution is installed that also has a package named `echo`       |
| echo.W101 | (--deploy) counts are of one process only                                    |
| echo.W102 | (--deploy) the channel layer is in memory: it reaches one process only       |
| echo.W103 | (--deploy) anybody may connect to the objects of the site's own routes       |

E001, E003, W001, W002 and W005 need the import of asgi.py, which only `check`, `runserver` and
`echo_doctor` do. Any other command must work where that import fails: `migrate` where asgi.py
queries a table, or a cron job that does not have the web server's secrets.
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
from django.utils.translation import gettext as _

from echo.conf import conf, problems, unread_variables
from echo.consumers import EchoConsumer
from echo.counting import missing_argument
from echo.groups.layer import layer_or_none
from echo.introspection import Leaf, counted_leaves, is_known, leaves_of
from echo.operations.doctor.finding import words_of
from echo.routing import websocket_urlpatterns

DISTRIBUTION = "django-echo-objects"  # ours, on PyPI


@register
def check_settings(**kwargs: object) -> list[CheckMessage]:
    hint = _("README.md, “Settings”, lists them all.")
    return [Error(problem, hint=hint, id="echo.E002") for problem in problems()]


# How settings.py makes something else than a string of an environment variable.
CONVERSIONS = {
    "ECHO_LEASE_SECONDS": "float({})",
    "ECHO_HEARTBEAT_SECONDS": "float({})",
    "ECHO_MAX_CONNECTIONS": "int({})",
    "ECHO_ALLOWED_ORIGINS": '{}.split(",")',
    "ECHO_VACATED_DELAY": "float({})",
}


@register
def check_environment(**kwargs: object) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for name in unread_variables():
        value = CONVERSIONS.get(name, "{}").format(f'os.environ["{name}"]')
        if name == "ECHO_STATE_URL":  # as in the docs, and good for development as well
            value = f'os.environ.get("{name}", "memory://")'
        message = f"The environment variable {name} is set, but the setting {name} differs from it."
        hint = f"Django reads no setting from the environment. In settings.py: {name} = {value}"
        found.append(Warning(message, hint=hint, id="echo.W006"))
    return found


@register
def check_distributions(**kwargs: object) -> list[CheckMessage]:
    """Find other distributions with a package `echo`, such as glue-viz's echo on PyPI."""
    others = sorted({d.name for d in distributions() if _has_echo(d)} - {DISTRIBUTION})
    message = "The distribution %r is installed, which has a package named 'echo', too."
    hint = (
        "Both install into one folder, and each overwrites or removes echo/__init__.py of the "
        "other. Keep them in different environments: "
        "`pip uninstall %s`, then install %s again with `pip install --force-reinstall`."
    )
    return [
        Warning(message % name, hint=hint % (name, DISTRIBUTION), id="echo.W007") for name in others
    ]


def _has_echo(distribution: Distribution) -> bool:
    # importlib.metadata.packages_distributions() parses each list of files: 0.2 s for 30 packages.
    return (
        re.search(r"^echo/__init__\.py,", distribution.read_text("RECORD") or "", re.M) is not None
    )


# They import asgi.py in any case, or are asked whether it is right. `manage.py test` is not among
# them: it runs tests that may need none of the web server's secrets.
COMMANDS = ("check", "runserver")


@register
def check_asgi_application_of_command(**kwargs: object) -> list[CheckMessage]:
    # Django does not pass the running command to checks, and no tag is left out by default.
    is_wanted = len(sys.argv) > 1 and sys.argv[1] in COMMANDS
    return check_asgi_application() if is_wanted else []


def check_asgi_application() -> list[CheckMessage]:
    """Import ASGI_APPLICATION, and check its routes."""
    path = getattr(settings, "ASGI_APPLICATION", None)
    if not path:
        hint = _('Set it to the application of your asgi.py, e.g. "mysite.asgi.application".')
        return [Warning(_("ASGI_APPLICATION is not set."), hint=hint, id="echo.W001")]
    try:
        application = import_string(path)
    except (Exception, SystemExit) as error:  # whatever the site's code raises
        return [_import_failed(path, error)]
    if isinstance(application, WSGIHandler):
        hint = _("It must be the ProtocolTypeRouter of your asgi.py, not the one of wsgi.py.")
        message = _("ASGI_APPLICATION %r is a WSGI application.") % path
        return [Error(message, hint=hint, id="echo.E001")]
    return _check_routes(path, application)


def _import_failed(path: str, error: BaseException) -> CheckMessage:
    cause = words_of(error)
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
    """Return the file and line in the site's own code, as deep in the traceback as there is one."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}"
    paths = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
    others = (*paths, str(Path(__file__).parent), "<frozen")
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(others)]
    return f"{own[-1].filename}, line {own[-1].lineno}" if own else None


def _check_routes(path: str, application: Any) -> list[CheckMessage]:
    leaves = list(leaves_of(application))
    counted = [leaf for leaf in leaves if hasattr(leaf.application, "counted_by")]
    opaque = any(not is_known(leaf) for leaf in leaves)
    uncounted = [_uncounted(leaf) for leaf in leaves if _is_ours(leaf.application)]
    if not (counted or uncounted or opaque):
        message = _("ASGI_APPLICATION %r has no WebSocket route that is counted.")
        return [Warning(message % path, hint=_what_to_count(application), id="echo.W002")]
    wrong = [
        Error(missing_argument(by, leaf.route, sorted(leaf.arguments)), id="echo.E003")
        for leaf in counted
        if isinstance(by := leaf.application.counted_by, str) and by not in leaf.arguments
    ]
    return [*wrong, *uncounted]


def _what_to_count(application: Any) -> str:
    if isinstance(application, ASGIHandler):
        return _(
            "It is Django's own application, which has no WebSockets: make it a "
            "ProtocolTypeRouter, as README.md, “In an existing site”, shows."
        )
    return _(
        "Wrap a consumer: path('ws/<str:room>/', counted(ChatConsumer.as_asgi(), by='room')), "
        "or use echo.routing.as_websocket_application()."
    )


def _is_ours(application: Any) -> bool:
    """Return whether it is an EchoConsumer that is not counted; a site's own may well not be."""
    consumer = getattr(application, "consumer_class", None)  # Channels' as_asgi() gives it
    return isinstance(consumer, type) and issubclass(consumer, EchoConsumer)


def _uncounted(leaf: Leaf) -> CheckMessage:
    name = leaf.application.consumer_class.__name__
    by = repr(min(leaf.arguments)) if leaf.arguments else "lambda scope: 'lobby'"
    message = _("%(route)r is a %(consumer)s that is not counted.")
    told = {"route": leaf.route, "consumer": name}
    hint = _("Wrap it: %s") % f"counted({name}.as_asgi(), by={by})"
    return Warning(message % told, hint=hint, id="echo.W005")


@register
def check_runserver(**kwargs: object) -> list[CheckMessage]:
    owner = get_commands().get("runserver")
    hint = _("Put 'echo' and 'daphne', in this order, at the top of INSTALLED_APPS.")
    if owner in ("django.core", "django.contrib.staticfiles"):
        message = _(
            "'daphne' is missing from INSTALLED_APPS: runserver is WSGI, without WebSockets."
        )
        if "daphne" in settings.INSTALLED_APPS:
            message = _(
                "'daphne' is below django.contrib.staticfiles in INSTALLED_APPS: runserver is "
                "WSGI, without WebSockets."
            )
        return [Warning(message, hint=hint, id="echo.W003")]
    if owner == "daphne":
        message = _("'echo' is below 'daphne' in INSTALLED_APPS: runserver has Daphne's transport.")
        return [Warning(message, hint=hint, id="echo.W004")]
    return []


@register(Tags.compatibility, deploy=True)
def check_one_process(**kwargs: object) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    if problems():
        return found  # check_settings tells
    if conf.ECHO_STATE_URL.startswith("memory:"):
        message = _("ECHO_STATE_URL is memory://: each process counts its own connections only.")
        hint = _("Right for one process. For more, keep the counts where all can see them.")
        found.append(Warning(message, hint=hint, id="echo.W101"))
    if isinstance(layer_or_none(), InMemoryChannelLayer):
        message = _(
            "CHANNEL_LAYERS is in memory: messages reach the connections of one process only."
        )
        hint = _("Use %s.") % "channels_redis.pubsub.RedisPubSubChannelLayer"
        found.append(Warning(message, hint=hint, id="echo.W102"))
    return found


@register(Tags.security, deploy=True)
def check_names_are_not_open(**kwargs: object) -> list[CheckMessage]:
    """Find `websocket_urlpatterns`, which take any name, beside routes that count objects."""
    if problems() or conf.ECHO_AUTHORIZE is not None:  # the site decides who may connect to what
        return []
    leaves = counted_leaves()
    open_to_all = [pattern.callback for pattern in websocket_urlpatterns]
    opened = [leaf.route for leaf in leaves if leaf.application in open_to_all]
    # The console is for those who may "list".
    others = [
        leaf.route
        for leaf in leaves
        if leaf.route not in opened and not hasattr(leaf.application, "required_action")
    ]
    if not (opened and others):
        return []
    return [
        Warning(
            f"By {max(opened, key=len)!r} anybody may connect to each object, also to those of "
            f"{others[0]!r}, and receive what the site sends to them.",
            hint="Replace websocket_urlpatterns by console_urlpatterns, also from echo.routing: "
            'they are for those who may "list". Or set ECHO_AUTHORIZE.',
            id="echo.W103",
        )
    ]
