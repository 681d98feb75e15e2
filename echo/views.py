"""The HTTP side: the count, the 426 for those who come without an upgrade, the usage page.

Status, type and text are the original's (Cloudflare index.js, fetch()).
"""

import functools
from collections.abc import Callable
from typing import Any

from django.core.exceptions import PermissionDenied
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import NoReverseMatch, get_script_prefix, resolve, reverse
from django.utils.cache import patch_vary_headers
from django.utils.translation import gettext_lazy, pgettext
from django.views.decorators.csrf import csrf_exempt

from echo.conf import conf
from echo.denial import TEXT
from echo.exceptions import InvalidName, StateUnavailable
from echo.introspection import lacks_route, required_action
from echo.names import check_name
from echo.permissions import COUNT, LIST, may
from echo.state import get_state

# What the original says stays as it is, in every language.
UPGRADE_EXPECTED = "Durable Object expected Upgrade: websocket"
WSGI_HINT = gettext_lazy(
    "This server speaks WSGI, which has no WebSockets. With runserver: put 'daphne' at the top of "
    "INSTALLED_APPS, below 'echo', and set ASGI_APPLICATION."
)
UPGRADE_LOST = gettext_lazy(
    "The request is a WebSocket handshake without the headers Upgrade and Connection, or with one "
    "of them. A proxy must pass on both."
)
NO_WEBSOCKET = gettext_lazy(
    "There is no WebSocket at this path: the site has no route for it in its asgi.py, or the "
    "server has no WebSockets."
)
USAGE_WEBSOCKET = """/websocket
- Creates a WebSocket connection. Any messages sent to it are echoed with a prefix.
"""
USAGE = f"""
This Durable Object supports the following endpoints:
{USAGE_WEBSOCKET}/getCurrentConnections
- A regular HTTP GET endpoint that returns the number of currently connected WebSocket clients.
"""

UNKNOWN_COUNT = gettext_lazy("The number of connections is not known at the moment.")
NOT_COUNT = gettext_lazy("You may not see the count of this object.")
NAMED = "<str:name>/websocket"
RETRY_AFTER = "2"  # seconds

View = Callable[..., HttpResponse]


def plain(view: View) -> View:
    """Make a view of the original's kind: for every method, and never stored.

    A bad name is answered with 400, what is not allowed with 403, a count that cannot be
    known with 503.
    """

    @csrf_exempt  # as the original: any method, and nothing here changes anything
    @functools.wraps(view)
    def answer(request: HttpRequest, **names: str) -> HttpResponse:
        try:
            for name in names.values():
                check_name(name)
            response = view(request, **names)
        except InvalidName as error:
            response = text(str(error), status=400)
        except PermissionDenied as error:
            response = text(str(error), status=403)
        except StateUnavailable:
            response = text(str(UNKNOWN_COUNT), status=503)
            response["Retry-After"] = RETRY_AFTER
            # One warning tells of the outage; Django would log an error for each of these.
            response._has_been_logged = True  # type: ignore[attr-defined]
        response["Cache-Control"] = "no-store"
        response["X-Content-Type-Options"] = "nosniff"
        patch_vary_headers(response, ["Accept"])
        return response

    return answer


def text(body: str, status: int = 200) -> HttpResponse:
    return HttpResponse(body, content_type=TEXT, status=status)


@plain
def websocket(request: HttpRequest, name: str | None = None) -> HttpResponse:
    """426: this path is for WebSockets. A client that did send an upgrade is told what is wrong."""
    if not isinstance(request, ASGIRequest):
        if _sent_upgrade(request):
            return text(str(WSGI_HINT), status=404)
        # PEP 3333 forbids an application to send Upgrade and Connection.
        return text(f"{UPGRADE_EXPECTED}\n{WSGI_HINT}", status=426)
    if not _sent_upgrade(request):
        response = text(UPGRADE_EXPECTED, status=426)
    elif "Upgrade" in request.headers and _has_upgrade_option(request):
        return text(str(NO_WEBSOCKET), status=404)
    else:
        response = text(str(UPGRADE_LOST), status=426)
    if request.scope.get("http_version", "1.1") in ("1.0", "1.1"):  # HTTP/2 has neither of them
        response["Upgrade"] = "websocket"  # RFC 9110 §15.5.22
        response["Connection"] = "Upgrade"  # RFC 9110 §7.8
    return response


def _sent_upgrade(request: HttpRequest) -> bool:
    """Return whether the client has sent a handshake, of which a proxy may have dropped headers.

    Proxies that are not told to pass on Upgrade and Connection drop these, and no others.
    """
    if "Upgrade" in request.headers:
        return request.headers["Upgrade"].strip().lower() == "websocket"
    return "Sec-WebSocket-Key" in request.headers and not _has_upgrade_option(request)


def _has_upgrade_option(request: HttpRequest) -> bool:
    options = request.headers.get("Connection", "").lower().split(",")
    return "upgrade" in map(str.strip, options)


@plain
def connections(request: HttpRequest, name: str | None = None) -> HttpResponse:
    """The count of the object, as the original's sentence or as JSON."""
    name = name or conf.ECHO_DEFAULT_OBJECT
    if not may(request, name, COUNT):
        raise PermissionDenied(str(NOT_COUNT))
    count = get_state().count(name)
    if prefers(request, "application/json"):
        return JsonResponse({"name": name, "connections": count})
    return text(count_sentence(count))


def count_sentence(count: int) -> str:
    """Return the original's sentence: English, and without separators in the number."""
    if count == 1:
        return "There is 1 WebSocket client connected to this Durable Object instance."
    return f"There are {count} WebSocket clients connected to this Durable Object instance."


@plain
def usage(request: HttpRequest) -> HttpResponse:
    """How to use it: the original's text, or for a browser a page."""
    if request.method not in ("GET", "HEAD") or not prefers(request, "text/html"):
        return text(usage_text(request))
    may_list = may(request, None, LIST)
    context = {
        "title": pgettext("echo", "Connections"),
        "may_list": may_list,
        "objects": connected_or_none() if may_list else [],
        "default_object": conf.ECHO_DEFAULT_OBJECT,
        "may_count": not may_list and may(request, conf.ECHO_DEFAULT_OBJECT, COUNT),
        "has_websockets": _has_websocket(request, NAMED),
        "has_default_websocket": _has_websocket(request, "websocket"),
        "has_route": not lacks_route(_route(NAMED)),
        **page_frame(request),
    }
    return render(request, "echo/usage.html", context)


def usage_text(request: HttpRequest) -> str:
    """Return the original's text, with the paths that there are here for this client."""
    root = reverse("echo:websocket").removesuffix("websocket")
    usage = USAGE if _has_websocket(request, "websocket") else USAGE.replace(USAGE_WEBSOCKET, "")
    return usage.replace("\n/", f"\n{root}")


def _has_websocket(request: HttpRequest, end: str) -> bool:
    """Return whether the site may have such a WebSocket route that this client may use."""
    route = _route(end)
    if lacks_route(route):
        return False
    action = required_action(route)
    return action is None or may(request, None, action)


def _route(end: str) -> str:
    """Return the WebSocket route of that end below the prefix of the URLs, as in `path()`."""
    url = reverse("echo:websocket").removeprefix(get_script_prefix())
    return url.removesuffix("websocket") + end


def connected_or_none() -> list[tuple[str, int]] | None:
    """Return the objects with their counts, by name; None if they cannot be known."""
    try:
        return sorted(get_state().counts().items())
    except StateUnavailable:
        return None


def page_frame(request: HttpRequest) -> dict[str, object]:
    """Return what the page's base template needs: the admin's where the site has one, else ours."""
    site = admin_site()
    if site is None:
        return {"base": "echo/base.html"}
    frame = site.each_context(request)
    return {**frame, "base": "admin/base_site.html", "is_nav_sidebar_enabled": False}


def admin_site() -> Any:
    """Return the AdminSite that the site's URLs have, which may be one of its own, or None."""
    try:
        index = reverse("admin:index").removeprefix(get_script_prefix())
    except NoReverseMatch:
        return None
    return getattr(resolve(f"/{index}").func, "admin_site", None)


def prefers(request: HttpRequest, media_type: str) -> bool:
    """Return whether the client asks for that type rather than for plain text."""
    return request.get_preferred_type(["text/plain", media_type]) == media_type
