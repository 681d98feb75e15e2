"""The HTTP endpoints: the count, 426 for requests without an upgrade, and the usage page.

Statuses, content types and texts are those of the original program (Cloudflare index.js, fetch()).
"""

import functools
from collections.abc import Callable
from typing import Any

from django.core.exceptions import PermissionDenied
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import NoReverseMatch, get_script_prefix, resolve, reverse
from django.utils.translation import gettext_lazy, pgettext
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from echo.conf import conf
from echo.exceptions import InvalidName, StateUnavailable
from echo.introspection import lacks_route, required_action
from echo.members import list_data
from echo.names import check_name
from echo.objects import connected_objects
from echo.permissions import COUNT, LIST, MEMBERS, has_permission
from echo.responses import (
    UNKNOWN_MEMBERS,
    count_response,
    prefers,
    set_common_headers,
    text_response,
    unknown_response,
)
from echo.state import get_state

# The texts of the original program are not translated.
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

NOT_COUNT = gettext_lazy("You may not see the count of this object.")
NOT_MEMBERS = gettext_lazy("You may not see the members of this object.")
NAMED = "<str:name>/websocket"

View = Callable[..., HttpResponse]


def plain(view: View) -> View:
    """Make the view respond to every method, as in the original program, and disable caching.

    The response is 400 for an invalid name, 403 without permission, and 503 for an unknown count.
    """

    @csrf_exempt  # every method is allowed, and the views change nothing
    @functools.wraps(view)
    def wrapper(request: HttpRequest, **names: str) -> HttpResponse:
        try:
            for name in names.values():
                check_name(name)
            response = view(request, **names)
        except InvalidName as error:
            response = text_response(str(error), status=400)
        except PermissionDenied as error:
            response = text_response(str(error), status=403)
        except StateUnavailable:
            response = unknown_response()
        return set_common_headers(response)

    return wrapper


@plain
def websocket(request: HttpRequest, name: str | None = None) -> HttpResponse:
    """Respond with 426: the path needs a WebSocket handshake.

    If the request is a handshake, the response describes the problem with it.
    """
    if not isinstance(request, ASGIRequest):
        if _sent_upgrade(request):
            return text_response(str(WSGI_HINT), status=404)
        # PEP 3333 forbids an application to send Upgrade and Connection.
        return text_response(f"{UPGRADE_EXPECTED}\n{WSGI_HINT}", status=426)
    if not _sent_upgrade(request):
        response = text_response(UPGRADE_EXPECTED, status=426)
    elif "Upgrade" in request.headers and _has_upgrade_option(request):
        return text_response(str(NO_WEBSOCKET), status=404)
    else:
        response = text_response(str(UPGRADE_LOST), status=426)
    if request.scope.get("http_version", "1.1") in ("1.0", "1.1"):  # HTTP/2 has neither header
        response["Upgrade"] = "websocket"  # RFC 9110 §15.5.22
        response["Connection"] = "Upgrade"  # RFC 9110 §7.8
    return response


def _sent_upgrade(request: HttpRequest) -> bool:
    """Return whether the client has sent a handshake, even if a proxy has removed some headers.

    By default, proxies remove the headers Upgrade and Connection, and keep the others.
    """
    if "Upgrade" in request.headers:
        return request.headers["Upgrade"].strip().lower() == "websocket"
    return "Sec-WebSocket-Key" in request.headers and not _has_upgrade_option(request)


def _has_upgrade_option(request: HttpRequest) -> bool:
    options = request.headers.get("Connection", "").lower().split(",")
    return "upgrade" in map(str.strip, options)


@plain
def connections(request: HttpRequest, name: str | None = None) -> HttpResponse:
    """Respond with the count of the object, as the original program's sentence or as JSON."""
    name = name or conf.ECHO_DEFAULT_OBJECT
    if not has_permission(request, name, COUNT):
        raise PermissionDenied(str(NOT_COUNT))
    return count_response(name, get_state().count(name), prefers(request, "application/json"))


@require_safe
@plain
def members(request: HttpRequest, name: str | None = None) -> HttpResponse:
    """Respond with the members of the object as JSON, those with the longest presence first."""
    name = name or conf.ECHO_DEFAULT_OBJECT
    if not has_permission(request, name, MEMBERS):
        raise PermissionDenied(str(NOT_MEMBERS))
    try:
        found = get_state().members(name)
    except StateUnavailable:
        return unknown_response(UNKNOWN_MEMBERS)
    return JsonResponse(list_data(name, found, conf.ECHO_MAX_MEMBERS_SHOWN))


@plain
def usage(request: HttpRequest) -> HttpResponse:
    """Respond with the original program's usage text; to a browser, with a page."""
    if request.method not in ("GET", "HEAD") or not prefers(request, "text/html"):
        return text_response(usage_text(request))
    may_list = has_permission(request, None, LIST)
    context = {
        "title": pgettext("echo", "Connections"),
        "may_list": may_list,
        "objects": connected_or_none() if may_list else [],
        "default_object": conf.ECHO_DEFAULT_OBJECT,
        "may_count": not may_list and has_permission(request, conf.ECHO_DEFAULT_OBJECT, COUNT),
        "has_websockets": _has_websocket(request, NAMED),
        "has_default_websocket": _has_websocket(request, "websocket"),
        "may_see_members": has_permission(request, conf.ECHO_DEFAULT_OBJECT, MEMBERS),
        "has_route": not lacks_route(_route(NAMED)),
        **page_frame(request),
    }
    return render(request, "echo/usage.html", context)


def usage_text(request: HttpRequest) -> str:
    """Return the original program's text, with this site's paths that the client may use."""
    root = reverse("echo:websocket").removesuffix("websocket")
    usage = USAGE if _has_websocket(request, "websocket") else USAGE.replace(USAGE_WEBSOCKET, "")
    return usage.replace("\n/", f"\n{root}")


def _has_websocket(request: HttpRequest, end: str) -> bool:
    """Return False if the site certainly lacks the WebSocket route or the client may not use it."""
    route = _route(end)
    if lacks_route(route):
        return False
    action = required_action(route)
    return action is None or has_permission(request, None, action)


def _route(end: str) -> str:
    """Return a WebSocket route as in `path()`: the prefix of the HTTP URLs, then `end`."""
    url = reverse("echo:websocket").removeprefix(get_script_prefix())
    return url.removesuffix("websocket") + end


def connected_or_none(prefix: str = "") -> list[tuple[str, int]] | None:
    """Return `connected_objects(prefix)` as a list, or None if the counts are unknown."""
    try:
        return list(connected_objects(prefix).items())
    except StateUnavailable:
        return None


def page_frame(request: HttpRequest) -> dict[str, object]:
    """Return the context of the page's base template: the admin's if there is one, else echo's."""
    site = admin_site()
    if site is None:
        return {"base": "echo/base.html"}
    frame = site.each_context(request)
    return {**frame, "base": "admin/base_site.html", "is_nav_sidebar_enabled": False}


def admin_site() -> Any:
    """Return the default or custom AdminSite in the URLconf, or None."""
    try:
        index = reverse("admin:index").removeprefix(get_script_prefix())
    except NoReverseMatch:
        return None
    return getattr(resolve(f"/{index}").func, "admin_site", None)
