"""The settings of this app: name, default, unit and validation.

No other module reads ECHO_ settings. They are read on each use, so that a change in a test takes
effect at once.
"""

import os
import re
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network, ip_network
from math import inf
from typing import Any
from urllib.parse import parse_qs, urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import empty
from django.utils.module_loading import import_string

from echo.exceptions import InvalidName
from echo.log import is_malformed, without_passwords
from echo.names import check_name

Network = IPv4Network | IPv6Network


class Conf:
    """The settings as properties. Each raises ImproperlyConfigured for an invalid value."""

    @property
    def ECHO_DEFAULT_OBJECT(self) -> str:
        """The object of `/websocket` and `/getCurrentConnections`, whose paths have no name."""
        value = _get("ECHO_DEFAULT_OBJECT", "foo")
        if not isinstance(value, str):
            raise ImproperlyConfigured(f"ECHO_DEFAULT_OBJECT {value!r} is not a string.")
        try:
            return check_name(value)
        except InvalidName as error:
            raise ImproperlyConfigured(f"ECHO_DEFAULT_OBJECT {value!r}: {error}") from error

    @property
    def ECHO_STATE_URL(self) -> str:
        """The store of the counts: `memory://` for a single process, or the URL of a Redis."""
        value = _get("ECHO_STATE_URL", "memory://")
        problem = _state_url_problem(value)
        if problem is not None:
            # without_passwords() ends a URL at a space, so escape the spaces in a password.
            shown = without_passwords(repr(value).replace(" ", "%20"))
            raise ImproperlyConfigured(f"ECHO_STATE_URL {shown} {problem}; expected {EXPECTED}.")
        return str(value)

    @property
    def ECHO_LEASE_SECONDS(self) -> float:
        """With Redis: the seconds after its last heartbeat for which a process counts as alive."""
        return _seconds("ECHO_LEASE_SECONDS", 3.0)

    @property
    def ECHO_HEARTBEAT_SECONDS(self) -> float:
        """With Redis: the interval at which a process renews its lease; at most half the lease."""
        value = _seconds("ECHO_HEARTBEAT_SECONDS", 1.0)
        if value > self.ECHO_LEASE_SECONDS / 2:
            raise ImproperlyConfigured(
                f"ECHO_HEARTBEAT_SECONDS {value} is more than half of ECHO_LEASE_SECONDS "
                f"{self.ECHO_LEASE_SECONDS}: one late heartbeat would end the lease."
            )
        return value

    @property
    def ECHO_MAX_CONNECTIONS(self) -> "int | dict[str, int | None] | Callable[[str], Any] | None":
        """The maximum number of connections of an object, in all processes; None for no limit.

        Different for each object with a dict by prefix, `{"user-": 20, "": None}`, of which the
        longest prefix applies, or with the dotted path of a function of the name.
        """
        value = _get("ECHO_MAX_CONNECTIONS")
        if value is None:
            return None
        if isinstance(value, dict):
            for prefix, limit in value.items():
                if not isinstance(prefix, str):
                    message = f"The prefix {prefix!r} in ECHO_MAX_CONNECTIONS is not a string."
                    raise ImproperlyConfigured(message)
                _check_limit(f"ECHO_MAX_CONNECTIONS[{prefix!r}]", limit)
            return value
        if isinstance(value, str) and "." in value:
            return _import("ECHO_MAX_CONNECTIONS", "(name) -> int or None")
        return _check_limit("ECHO_MAX_CONNECTIONS", value)

    def max_connections(self, name: str) -> int | None:
        """Return ECHO_MAX_CONNECTIONS for one object.

        Raises the exceptions of the site's function.
        """
        limit = self.ECHO_MAX_CONNECTIONS
        if limit is None or isinstance(limit, int):
            return limit
        if callable(limit):
            return _check_limit(f"The result of ECHO_MAX_CONNECTIONS for {name!r}", limit(name))
        prefixes = [prefix for prefix in limit if name.startswith(prefix)]
        return limit[max(prefixes, key=len)] if prefixes else None

    @property
    def ECHO_TRUSTED_PROXIES(self) -> frozenset[Network]:
        """The addresses and networks of proxies whose X-Forwarded-For `by_address` trusts."""
        value = _get("ECHO_TRUSTED_PROXIES", [])
        if not isinstance(value, list | tuple | set | frozenset):
            raise ImproperlyConfigured(f"ECHO_TRUSTED_PROXIES {value!r} is not a list.")
        try:
            return _networks(frozenset(map(str, value)))
        except ValueError as error:
            raise ImproperlyConfigured(
                f"ECHO_TRUSTED_PROXIES {value!r}: {error}; expected addresses and networks like "
                "'10.0.0.0/8'."
            ) from error

    @property
    def ECHO_AUTHORIZE(self) -> Callable[..., Any] | None:
        """The site's function `(request_or_scope, name, action) -> bool`, or None.

        The setting contains its dotted path.
        """
        if _get("ECHO_AUTHORIZE") is None:
            return None
        return _import("ECHO_AUTHORIZE", "(request_or_scope, name, action) -> bool")

    @property
    def ECHO_ALLOWED_ORIGINS(self) -> frozenset[str]:
        """Other origins that may open WebSockets, such as `["https://example.com"]`."""
        value = _get("ECHO_ALLOWED_ORIGINS", [])
        if not isinstance(value, list | tuple | set | frozenset) or not all(map(_is_origin, value)):
            raise ImproperlyConfigured(
                f"ECHO_ALLOWED_ORIGINS {value!r} is not a list of origins like "
                "'https://example.com': scheme and host, and the port unless it is the default."
            )
        return frozenset(value)

    @property
    def ECHO_VACATED_DELAY(self) -> float:
        """Seconds without a connection until `object_vacated` or `member_left` is sent.

        The default is long enough for a client to reload the page.
        """
        return _seconds("ECHO_VACATED_DELAY", 3.0, least=0)

    @property
    def ECHO_RECHECK_SECONDS(self) -> float | None:
        """Seconds between two checks of the logins of all connections; None for no checks."""
        if _get("ECHO_RECHECK_SECONDS", 60.0) is None:
            return None
        return _seconds("ECHO_RECHECK_SECONDS", 60.0)

    @property
    def ECHO_MAX_HANDSHAKES_AT_ONCE(self) -> int | None:
        """The maximum number of handshakes that a process works on at a time; None for no limit.

        The others wait in order, for up to 5 seconds; then they are denied with 503.
        """
        return _limit("ECHO_MAX_HANDSHAKES_AT_ONCE", None)

    @property
    def ECHO_MAX_MESSAGES_PER_SECOND(self) -> int | None:
        """The maximum number of messages of a client per second; None for no limit.

        If it sends more, its connection is closed with 1008.
        """
        return _limit("ECHO_MAX_MESSAGES_PER_SECOND", None)

    @property
    def ECHO_MAX_STREAMS(self) -> int | None:
        """The maximum number of streams that a process sends at a time; None for no limit."""
        return _limit("ECHO_MAX_STREAMS", 2000)

    @property
    def ECHO_MAX_MEMBERS_SHOWN(self) -> int | None:
        """The maximum number of members in a list on a page or in a stream; None for no limit."""
        return _limit("ECHO_MAX_MEMBERS_SHOWN", 200)

    @property
    def ECHO_DRAIN_SECONDS(self) -> float:
        """Seconds over which a stopping server closes its connections; 0 to close all at once."""
        return _seconds("ECHO_DRAIN_SECONDS", 0, least=0)

    @property
    def ECHO_MAX_UPLOAD_SIZE(self) -> int | None:
        """The maximum size in bytes of a multipart body on `echo.server`; None for no limit."""
        return _limit("ECHO_MAX_UPLOAD_SIZE", 256 * 1024 * 1024)

    @property
    def ECHO_WEBSOCKET_DEFLATE(self) -> bool:
        """Whether `echo.server` compresses messages if the client offers permessage-deflate."""
        value = _get("ECHO_WEBSOCKET_DEFLATE", False)
        if not isinstance(value, bool):
            raise ImproperlyConfigured(f"ECHO_WEBSOCKET_DEFLATE {value!r} is not True or False.")
        return value

    @property
    def ECHO_DEFLATE_MIN_SIZE(self) -> int:
        """The size in bytes from which a message is compressed, if compression is negotiated."""
        value = _get("ECHO_DEFLATE_MIN_SIZE", 1024)
        if type(value) is not int or value < 126:  # echo.server never compresses shorter replies
            message = f"ECHO_DEFLATE_MIN_SIZE {value!r} is not a number of bytes of at least 126."
            raise ImproperlyConfigured(message)
        return value


EXPECTED = (
    "memory://, redis://host:port/db, rediss://…, unix:///path, valkey://…, valkeys://… or "
    "redis+sentinel://host:port,host:port/service/db"
)
REDIS_SCHEMES = ("redis", "rediss", "unix", "valkey", "valkeys", "redis+sentinel")


def _state_url_problem(value: object) -> str | None:
    if not isinstance(value, str):
        return "is not a string"
    if is_malformed(value):
        return "is malformed (in a password, write %2F %3F %23 %40 for / ? # @)"
    parts = urlsplit(value)
    database = parts.path.removeprefix("/")
    if parts.scheme == "redis+sentinel":
        service, _, database = database.partition("/")
        if not service:
            return "has no service, as in redis+sentinel://host:26379/mymaster/0"
    if parts.scheme == "memory":
        return None
    if parts.scheme not in REDIS_SCHEMES:
        return "has an unknown scheme"
    if "decode_responses" in parse_qs(parts.query):
        return "has the option decode_responses, which is not supported"
    if parts.scheme == "unix":
        return None if parts.path else "has no path"
    if not parts.hostname:
        return "has no host"
    if database and not database.isdigit():
        return "has a database that is not a number (in a password, write %2F for /)"
    return None if find_spec("redis") else "needs the package redis (the extra [redis])"


def _is_origin(value: object) -> bool:
    """Return whether the value is an origin as browsers send it: lower case, no default port."""
    if not isinstance(value, str) or re.fullmatch(r"https?://[^/\sA-Z*]+", value) is None:
        return False
    return not value.endswith(":443" if value.startswith("https:") else ":80")


def _get(name: str, default: Any = None) -> Any:
    """Return the value of the setting, as `getattr(settings, name, default)` does.

    For a setting that is not set, Django's lazy object takes 2 µs, and a handshake reads several.
    """
    wrapped = object.__getattribute__(settings, "_wrapped")
    return getattr(settings if wrapped is empty else wrapped, name, default)


def _seconds(name: str, default: float, least: float = 0.001) -> float:
    value = _get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < inf:
        minimum = "greater than 0" if least else "of at least 0"
        raise ImproperlyConfigured(f"{name} {value!r} is not a number of seconds {minimum}.")
    return float(value)


def _import(name: str, signature: str) -> Callable[..., Any]:
    """Return the function whose dotted path is the value of the setting."""
    value = _get(name)
    try:
        function: Callable[..., Any] = import_string(value)
    except (ImportError, TypeError, AttributeError) as error:
        raise ImproperlyConfigured(
            f"{name} {value!r} cannot be imported: {error}. Expected the path of a function "
            f"{signature}."
        ) from error
    if not callable(function):
        raise ImproperlyConfigured(f"{name} {value!r} is not a function.")
    return function


@cache
def _networks(values: frozenset[str]) -> frozenset[Network]:
    return frozenset(ip_network(value, strict=False) for value in values)


def _limit(name: str, default: int | None) -> int | None:
    value = _get(name, default)
    return None if value is None else _check_limit(name, value)


def _check_limit(name: str, value: Any) -> int | None:
    if value is not None and (type(value) is not int or value < 1):
        raise ImproperlyConfigured(f"{name} {value!r} is not a positive integer or None.")
    return value


NAMES = tuple(name for name in vars(Conf) if name.startswith("ECHO_"))

conf = Conf()


def problems() -> list[str]:
    """Return a sentence for each setting that is unknown or has an invalid value."""
    found = []
    for name in sorted(n for n in dir(settings) if n.startswith("ECHO_") and n not in NAMES):
        near = get_close_matches(name, NAMES, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"The settings are {', '.join(NAMES)}."
        found.append(f"{name} is not a setting of echo. {hint}")
    for name in NAMES:
        try:
            getattr(conf, name)
        except ImproperlyConfigured as error:
            found.append(str(error))
    return found


def require_no_problem() -> None:
    """Raise ImproperlyConfigured with the first of the problems, if there is one."""
    for problem in problems():
        raise ImproperlyConfigured(problem)


def unread_variables() -> list[str]:
    """Return the settings that ignore an environment variable of the same name."""
    return [name for name in NAMES if os.environ.get(name) and not _is_read(name)]


def _is_read(name: str) -> bool:
    """Return whether the value of the setting may have been read from its environment variable.

    settings.py may convert the text to a number or a list, or add an option to a URL.
    """
    text = os.environ[name]
    try:
        value = getattr(conf, name)
    except ImproperlyConfigured:
        return True  # reported by echo.E002
    if isinstance(value, frozenset):
        return bool(value) and all(str(item) in text for item in _get(name))
    if isinstance(value, bool):
        return value is (text.lower() in ("1", "true", "yes", "on"))
    if isinstance(value, int | float):
        try:
            return float(text) == value
        except ValueError:
            return False
    return text in str(_get(name) if callable(value) else value)
