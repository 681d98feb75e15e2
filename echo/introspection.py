"""What the WebSocket routes of a site lead to, as far as one can look into them."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.utils.module_loading import import_string


class Leaf(NamedTuple):
    """A WebSocket application at the end of a route, and what the route gives it."""

    route: str
    arguments: frozenset[str]
    application: Any


def leaves_of(
    application: Any, route: str = "", arguments: frozenset[str] = frozenset()
) -> Iterator[Leaf]:
    """Yield the applications at the ends of the routes, through routers and middleware."""
    if isinstance(application, ProtocolTypeRouter):
        if "websocket" in application.application_mapping:
            yield from leaves_of(application.application_mapping["websocket"])
    elif isinstance(application, URLRouter):
        for inner in application.routes:
            names = arguments | _arguments(inner.pattern) | set(inner.default_args)
            yield from leaves_of(inner.callback, route + str(inner.pattern), names)
    elif hasattr(application, "counted_by"):
        yield Leaf(route, arguments, application)
    elif (inner := _inside(application)) is not None:
        yield from leaves_of(inner, route, arguments)
    else:
        yield Leaf(route, arguments, application)


def _inside(middleware: Any) -> Any:
    """Return what a middleware wraps, by the names that Channels' and Starlette's use."""
    for attribute in ("inner", "application", "app"):
        if (inner := getattr(middleware, attribute, None)) is not None:
            return inner
    return None


def _arguments(pattern: Any) -> set[str]:
    """Return the named arguments of a `path()` or a `re_path()`."""
    return set(pattern.regex.groupindex)


def is_known(leaf: Leaf) -> bool:
    """Return whether it is certain that nothing inside is counted.

    An application without a route may be a wrapper that nobody can look into.
    """
    answers_as_http = hasattr(leaf.application, "http")  # the end of as_websocket_application
    return bool(leaf.route) or answers_as_http or isinstance(leaf.application, ASGIHandler)


def leads_nowhere(path: str) -> bool:
    """Return whether it is certain that the site has no WebSocket route like that one.

    `path` is as in `path()`: `<str:name>/websocket`, with what stands before it.
    """
    leaves = _leaves_of_site()
    if leaves is None:
        return False  # a system check tells
    return all(is_known(leaf) for leaf in leaves) and path not in {leaf.route for leaf in leaves}


def required_action(path: str) -> str | None:
    """Return the action that the WebSocket route asks a right for, besides "connect"; or None."""
    for leaf in _leaves_of_site() or ():
        if leaf.route == path:  # the first is the one that the router takes
            return getattr(leaf.application, "required_action", None)
    return None


def counted_leaves() -> list[Leaf]:
    """Return the leaves of the site that are counted."""
    return [leaf for leaf in _leaves_of_site() or () if hasattr(leaf.application, "counted_by")]


def speaks_http_only() -> bool:
    """Return whether it is certain that the site has no WebSocket route at all."""
    leaves = _leaves_of_site()
    return leaves is not None and all(isinstance(leaf.application, ASGIHandler) for leaf in leaves)


def _leaves_of_site() -> list[Leaf] | None:
    """Return the leaves of ASGI_APPLICATION; None if it is not set or its import fails.

    Under WSGI this is the first import of asgi.py, which may raise anything, within a view.
    """
    application = getattr(settings, "ASGI_APPLICATION", None)
    try:
        return list(leaves_of(import_string(application))) if application else None
    except (Exception, SystemExit):
        return None


def counted_path(name: str) -> str | None:
    """Return the path, without a slash before it, of a route that is counted by that argument.

    The other arguments get what their converter takes. None if there is no such route: of
    `re_path()`, or counted by a function, it cannot be made.
    """
    for leaf in _leaves_of_site() or ():
        by = getattr(leaf.application, "counted_by", None)
        if isinstance(by, str) and by in leaf.arguments:
            path = ARGUMENT.sub(lambda match, by=by: _filled(match, by, name), leaf.route)  # type: ignore[misc]
            if path.isascii() and not set(path) & set("<>()^$\\?*+[] "):
                return path
    return None


ARGUMENT = re.compile(r"<(?:(\w+):)?(\w+)>")  # of path(): the converter and the name
EXAMPLES = {"int": "1", "uuid": "00000000-0000-4000-8000-000000000000"}


def _filled(match: re.Match[str], by: str, name: str) -> str:
    converter, argument = match.groups()
    example = EXAMPLES.get(converter, "doctor")
    if argument != by:
        return example
    return match[0] if converter in EXAMPLES else name  # its brackets then tell: not possible
