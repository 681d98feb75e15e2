"""The WebSocket routes of the site, for the doctor to connect to."""

import re

from django.core.handlers.asgi import ASGIHandler
from django.urls import NoReverseMatch, get_script_prefix, reverse

from echo.introspection import site_endpoints

ARGUMENT = re.compile(r"<(?:(\w+):)?(\w+)>")  # in path(): converter and name
EXAMPLES = {"int": "1", "uuid": "00000000-0000-4000-8000-000000000000"}  # by converter


def lacks_websockets() -> bool:
    """Return whether the site certainly has no WebSocket route."""
    endpoints = site_endpoints()
    return endpoints is not None and all(isinstance(e.application, ASGIHandler) for e in endpoints)


def counted_path(name: str) -> str | None:
    """Return the path of the object on a counted route, without its leading slash.

    Other arguments of the route are set to an example of their type. Returns None if no route has
    such a path: it uses `re_path()`, or a function names its objects.
    """
    for endpoint in site_endpoints() or ():
        by = getattr(endpoint.application, "counted_by", (None,))[0]
        if isinstance(by, str) and by in endpoint.arguments:
            path = ARGUMENT.sub(lambda match, by=by: _filled(match, by, name), endpoint.route)  # type: ignore[misc]
            if path.isascii() and not set(path) & set("<>()^$\\?*+[] "):
                return path
    return None


def _filled(match: re.Match[str], by: str, name: str) -> str:
    converter, argument = match.groups()
    if argument != by:
        return EXAMPLES.get(converter, "doctor")
    # The doctor's name is no integer or UUID: keep the brackets, so that the route is skipped.
    return match[0] if converter in EXAMPLES else name


def echo_route() -> str:
    """Return the route of the echo that belongs to `echo.urls`, as in `path()`."""
    return f"{prefix_below_script_name()}/<str:name>/websocket".removeprefix("/")


def prefix() -> str:
    """Return the path of `echo.urls` in the site, without a trailing slash."""
    try:
        # Not echo:usage, which sites may omit.
        return reverse("echo:websocket").removesuffix("/websocket")
    except NoReverseMatch:
        return ""


def prefix_below_script_name() -> str:
    return prefix().removeprefix(get_script_prefix().rstrip("/"))
