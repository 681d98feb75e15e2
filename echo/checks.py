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
| echo.W101 | (--deploy) counts are of one process only                                    |
| echo.W102 | (--deploy) the channel layer is in memory: it reaches one process only       |
| echo.W103 | (--deploy) anybody may connect to the objects of the site's own routes       |
"""

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

from echo.conf import conf, problems
from echo.consumers import EchoConsumer
from echo.counting import missing_argument
from echo.layer import layer_or_none
from echo.routes import Leaf, counted_leaves, is_known, leaves_of
from echo.routing import websocket_urlpatterns


@register
def check_settings(**kwargs: object) -> list[CheckMessage]:
    hint = _("README.md, “Settings”, lists them all.")
    return [Error(problem, hint=hint, id="echo.E002") for problem in problems()]


@register
def check_asgi_application(**kwargs: object) -> list[CheckMessage]:
    path = getattr(settings, "ASGI_APPLICATION", None)
    if not path:
        hint = _('Set it to the application of your asgi.py, e.g. "mysite.asgi.application".')
        return [Warning(_("ASGI_APPLICATION is not set."), hint=hint, id="echo.W001")]
    try:
        application = import_string(path)
    except ImportError as error:
        sentence = _("ASGI_APPLICATION %(path)r cannot be imported: %(error)s")
        return [_not_asgi(sentence % {"path": path, "error": error})]
    except ImproperlyConfigured as error:
        return [Error(f"ASGI_APPLICATION {path!r}: {error}", id="echo.E001")]
    if isinstance(application, WSGIHandler):
        return [_not_asgi(_("ASGI_APPLICATION %r is a WSGI application.") % path)]
    return _check_routes(path, application)


def _not_asgi(problem: str) -> CheckMessage:
    hint = _("It must be the ProtocolTypeRouter of your asgi.py, not the application of wsgi.py.")
    return Error(problem, hint=hint, id="echo.E001")


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
