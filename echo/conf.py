"""Every setting of this app: name, default, unit, and what a wrong value is told.

The only reader of our settings. They are read on each use, so that a test
that changes one sees the change at once.
"""

import re
from difflib import get_close_matches
from importlib.util import find_spec
from math import inf
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from echo.exceptions import InvalidName
from echo.names import check_name


class Conf:
    """The settings, each as a property of the same name that raises ImproperlyConfigured."""

    @property
    def ECHO_DEFAULT_OBJECT(self) -> str:
        """The object of `/websocket` and `/getCurrentConnections`, which name none."""
        value = getattr(settings, "ECHO_DEFAULT_OBJECT", "foo")
        if not isinstance(value, str):
            raise ImproperlyConfigured(f"ECHO_DEFAULT_OBJECT {value!r} is not a string.")
        try:
            return check_name(value)
        except InvalidName as error:
            raise ImproperlyConfigured(f"ECHO_DEFAULT_OBJECT {value!r}: {error}") from error

    @property
    def ECHO_STATE_URL(self) -> str:
        """Where the counts are kept: `memory://` for those of one process, else a Redis."""
        value = getattr(settings, "ECHO_STATE_URL", "memory://")
        problem = _state_url_problem(value)
        if problem is not None:
            shown = _without_password(value)
            raise ImproperlyConfigured(f"ECHO_STATE_URL {shown} {problem}; expected {EXPECTED}.")
        return str(value)

    @property
    def ECHO_LEASE_SECONDS(self) -> float:
        """With Redis: after how long a process that has vanished counts no more."""
        return _seconds("ECHO_LEASE_SECONDS", 3.0)

    @property
    def ECHO_HEARTBEAT_SECONDS(self) -> float:
        """With Redis: how often a process renews its lease; at most half of it."""
        value = _seconds("ECHO_HEARTBEAT_SECONDS", 1.0)
        if value > self.ECHO_LEASE_SECONDS / 2:
            raise ImproperlyConfigured(
                f"ECHO_HEARTBEAT_SECONDS {value} is more than half of ECHO_LEASE_SECONDS "
                f"{self.ECHO_LEASE_SECONDS}: one late heartbeat would end the lease."
            )
        return value

    @property
    def ECHO_MAX_CONNECTIONS(self) -> int | None:
        """How many connections an object may have, in all processes; None for no limit."""
        value = getattr(settings, "ECHO_MAX_CONNECTIONS", None)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ImproperlyConfigured(
                f"ECHO_MAX_CONNECTIONS {value!r} is no limit; expected a number from 1, or None."
            )
        return value

    @property
    def ECHO_AUTHORIZE(self) -> str | None:
        """The path of a function `(request_or_scope, name, action) -> bool`, or None."""
        value = getattr(settings, "ECHO_AUTHORIZE", None)
        if value is None:
            return None
        try:
            function = import_string(value)
        except (ImportError, TypeError, AttributeError) as error:
            raise ImproperlyConfigured(
                f"ECHO_AUTHORIZE {value!r} cannot be imported: {error}. Expected the path of "
                "a function (request_or_scope, name, action) -> bool."
            ) from error
        if not callable(function):
            raise ImproperlyConfigured(f"ECHO_AUTHORIZE {value!r} is not a function.")
        return str(value)

    @property
    def ECHO_ALLOWED_ORIGINS(self) -> frozenset[str]:
        """Origins other than the site's own that may open WebSockets: `["https://example.com"]`."""
        value = getattr(settings, "ECHO_ALLOWED_ORIGINS", [])
        wrong = isinstance(value, str) or [v for v in value if not _is_origin(v)]
        if wrong:
            raise ImproperlyConfigured(
                f"ECHO_ALLOWED_ORIGINS {value!r} is not a list of origins like "
                "'https://example.com': scheme and host, with a port if it is unusual."
            )
        return frozenset(value)

    @property
    def ECHO_VACATED_DELAY(self) -> float:
        """Seconds without a connection until `object_vacated` is sent: a page that is reloaded."""
        return _seconds("ECHO_VACATED_DELAY", 3.0, least=0)


EXPECTED = "memory://, redis://host:port/db, rediss://…, unix:///path, valkey://… or valkeys://…"
REDIS_SCHEMES = ("redis", "rediss", "unix", "valkey", "valkeys")


def _state_url_problem(value: object) -> str | None:
    if not isinstance(value, str):
        return "is not a string"
    try:
        parts = urlsplit(value)
        database, _ = parts.path.removeprefix("/"), parts.port  # a bad port raises
    except ValueError as error:
        return f"is malformed ({error})"
    if parts.scheme == "memory":
        return None
    if parts.scheme not in REDIS_SCHEMES:
        return "has no scheme that is known"
    if parts.scheme == "unix":
        return None if parts.path else "has no path"
    if not parts.hostname:
        return "has no host"
    if database and not database.isdigit():
        return f"has the database {database!r}, which is no number"
    return None if find_spec("redis") else "needs the package redis (the extra [redis])"


def _is_origin(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"https?://[^/\s]+", value) is not None


def _seconds(name: str, default: float, least: float = 0.001) -> float:
    """Return a setting that is a number of seconds."""
    value = getattr(settings, name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < inf:
        wanted = "above 0" if least else "from 0"
        raise ImproperlyConfigured(f"{name} {value!r} is not a number of seconds {wanted}.")
    return float(value)


NAMES = tuple(name for name in vars(Conf) if name.startswith("ECHO_"))

conf = Conf()


def problems() -> list[str]:
    """Return what is wrong with our settings, a sentence each: unknown names and bad values."""
    return [*_unknown_names(), *_bad_values()]


def require_no_problem() -> None:
    """Raise ImproperlyConfigured with the first of the problems, if there is one."""
    for problem in problems():
        raise ImproperlyConfigured(problem)


def _unknown_names() -> list[str]:
    unknown = sorted(n for n in dir(settings) if n.startswith("ECHO_") and n not in NAMES)
    return [f"{name} is not a setting of echo. {_suggestion(name)}" for name in unknown]


def _suggestion(name: str) -> str:
    near = get_close_matches(name, NAMES, n=1)
    return f"Did you mean {near[0]}?" if near else f"It knows {', '.join(NAMES)}."


def _bad_values() -> list[str]:
    found = []
    for name in NAMES:
        try:
            getattr(conf, name)
        except ImproperlyConfigured as error:
            found.append(str(error))
    return found


def _without_password(url: object) -> str:
    """Return the value as it may be shown: a password in a URL is no one else's business."""
    shown = re.sub(r"^(\W*\w+://)?.*@", r"\1***@", repr(url))
    return re.sub(r"(password=)[^&]*", r"\1***", shown)
