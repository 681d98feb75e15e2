"""The WebSocket routes of a site, and the applications at their ends."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.utils.module_loading import import_string


class Endpoint(NamedTuple):
    """A WebSocket application at the end of a route, and the arguments of that route."""

    route: str
    arguments: frozenset[str]
    application: Any


def endpoints_of(
    application: Any, route: str = "", arguments: frozenset[str] = frozenset()
) -> Iterator[Endpoint]:
    """Yield the endpoints below the application, through routers and middleware."""
    if isinstance(application, ProtocolTypeRouter):
        if "websocket" in application.application_mapping:
            yield from endpoints_of(application.application_mapping["websocket"])
    elif isinstance(application, URLRouter):
        for inner in application.routes:
            names = arguments | set(inner.pattern.regex.groupindex) | set(inner.default_args)
            yield from endpoints_of(inner.callback, route + str(inner.pattern), names)
    elif not hasattr(application, "counted_by") and (inner := _wrapped_by(application)) is not None:
        yield from endpoints_of(inner, route, arguments)
    else:
        yield Endpoint(route, arguments, application)


def _wrapped_by(middleware: Any) -> Any:
    """Return the application inside a middleware of Channels or Starlette, or None."""
    attributes = getattr(middleware, "__dict__", {})
    return attributes.get("inner") or attributes.get("application") or attributes.get("app")


def is_router(application: Any) -> bool:
    """Return whether the application is Channels' URLRouter, or middleware around one."""
    while application is not None and not isinstance(application, URLRouter):
        application = _wrapped_by(application)
    return application is not None


def is_certainly_uncounted(endpoint: Endpoint) -> bool:
    """Return whether an endpoint that is not `counted` contains no counted application.

    An application without a route may be an unknown middleware that wraps one.
    """
    is_http_fallback = hasattr(endpoint.application, "http")  # see as_websocket_application()
    is_django = isinstance(endpoint.application, ASGIHandler)
    return bool(endpoint.route) or is_http_fallback or is_django


def lacks_route(route: str) -> bool:
    """Return whether the site certainly lacks a WebSocket route.

    `route` is the whole route as written in `path()`: `below/<str:name>/websocket`.
    """
    endpoints = site_endpoints()
    if endpoints is None:
        return False  # reported by a system check
    return all(map(is_certainly_uncounted, endpoints)) and route not in {
        endpoint.route for endpoint in endpoints
    }


def required_action(route: str) -> str | None:
    """Return the action, besides "connect", for which the WebSocket route requires permission."""
    for endpoint in site_endpoints() or ():
        if endpoint.route == route:  # the router takes the first match
            return getattr(endpoint.application, "required_action", None)
    return None


def counted_endpoints() -> list[Endpoint]:
    """Return the endpoints of the site that are counted."""
    return [e for e in site_endpoints() or () if hasattr(e.application, "counted_by")]


def site_endpoints() -> list[Endpoint] | None:
    """Return the endpoints of ASGI_APPLICATION; None if it is not set or its import fails.

    Under WSGI, a view may be the first code that imports asgi.py, and the import may raise
    anything.
    """
    path = getattr(settings, "ASGI_APPLICATION", None)
    try:
        return list(endpoints_of(import_string(path))) if path else None
    except (Exception, SystemExit):
        return None
