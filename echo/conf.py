"""Every setting of this app: name, default, unit, and what a wrong value is told.

The only reader of our settings. They are read on each use, so that a test
that changes one sees the change at once.
"""

import os
import re
from difflib import get_close_matches
from importlib.util import find_spec
from math import inf
from urllib.parse import parse_qs, urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _

from echo.exceptions import InvalidName
from echo.names import check_name


class Conf:
    """The settings, each as a property of the same name that raises ImproperlyConfigured."""

    @property
    def ECHO_DEFAULT_OBJECT(self) -> str:
        """The object of `/websocket` and `/getCurrentConnections`, which name none."""
        value = getattr(settings, "ECHO_DEFAULT_OBJECT", "foo")
        if not isinstance(value, str):
            raise ImproperlyConfigured(_("ECHO_DEFAULT_OBJECT %r is not a string.") % (value,))
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
            sentence = _("ECHO_STATE_URL %(url)s %(problem)s; expected %(expected)s.")
            told = {"url": shown, "problem": problem, "expected": EXPECTED}
            raise ImproperlyConfigured(sentence % told)
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
            sentence = _(
                "ECHO_HEARTBEAT_SECONDS %(heartbeat)s is more than half of ECHO_LEASE_SECONDS "
                "%(lease)s: one late heartbeat would end the lease."
            )
            told = {"heartbeat": value, "lease": self.ECHO_LEASE_SECONDS}
            raise ImproperlyConfigured(sentence % told)
        return value

    @property
    def ECHO_MAX_CONNECTIONS(self) -> int | None:
        """How many connections an object may have, in all processes; None for no limit."""
        return _limit("ECHO_MAX_CONNECTIONS", None)

    @property
    def ECHO_AUTHORIZE(self) -> str | None:
        """The path of a function `(request_or_scope, name, action) -> bool`, or None."""
        value = getattr(settings, "ECHO_AUTHORIZE", None)
        if value is None:
            return None
        try:
            function = import_string(value)
        except (ImportError, TypeError, AttributeError) as error:
            sentence = _(
                "ECHO_AUTHORIZE %(value)r cannot be imported: %(error)s. Expected the path of "
                "a function (request_or_scope, name, action) -> bool."
            )
            raise ImproperlyConfigured(sentence % {"value": value, "error": error}) from error
        if not callable(function):
            raise ImproperlyConfigured(_("ECHO_AUTHORIZE %r is not a function.") % value)
        return str(value)

    @property
    def ECHO_ALLOWED_ORIGINS(self) -> frozenset[str]:
        """Origins other than the site's own that may open WebSockets: `["https://example.com"]`."""
        value = getattr(settings, "ECHO_ALLOWED_ORIGINS", [])
        if not isinstance(value, list | tuple | set | frozenset) or not all(map(_is_origin, value)):
            sentence = _(
                "ECHO_ALLOWED_ORIGINS %r is not a list of origins like "
                "'https://example.com': scheme and host, with a port if it is unusual."
            )
            raise ImproperlyConfigured(sentence % (value,))
        return frozenset(value)

    @property
    def ECHO_VACATED_DELAY(self) -> float:
        """Seconds without a connection until `object_vacated` is sent: a page that is reloaded."""
        return _seconds("ECHO_VACATED_DELAY", 3.0, least=0)

    @property
    def ECHO_MAX_STREAMS(self) -> int | None:
        """How many live counts a process may stream at a time; None for no limit."""
        return _limit("ECHO_MAX_STREAMS", 2000)

    @property
    def ECHO_MAX_UPLOAD_SIZE(self) -> int | None:
        """How many bytes a multipart body may have on `echo.server`; None for no limit."""
        return _limit("ECHO_MAX_UPLOAD_SIZE", 256 * 1024 * 1024)


EXPECTED = "memory://, redis://host:port/db, rediss://…, unix:///path, valkey://… or valkeys://…"
REDIS_SCHEMES = ("redis", "rediss", "unix", "valkey", "valkeys")


def _state_url_problem(value: object) -> str | None:
    if not isinstance(value, str):
        return _("is not a string")
    if is_malformed(value):
        return _("is malformed (in a password, / ? # @ are to be %2F %3F %23 %40)")
    parts = urlsplit(value)
    database = parts.path.removeprefix("/")
    if parts.scheme == "memory":
        return None
    if parts.scheme not in REDIS_SCHEMES:
        return _("has no scheme that is known")
    if "decode_responses" in parse_qs(parts.query):
        return _("has the option decode_responses, which must not be there")
    if parts.scheme == "unix":
        return None if parts.path else _("has no path")
    if not parts.hostname:
        return _("has no host")
    if database and not database.isdigit():
        return _("has a database that is no number (in a password, / is to be %2F)")
    return None if find_spec("redis") else _("needs the package redis (the extra [redis])")


def _is_origin(value: object) -> bool:
    """Return whether browsers send it so: in lower case, without the scheme's own port."""
    if not isinstance(value, str) or re.fullmatch(r"https?://[^/\sA-Z*]+", value) is None:
        return False
    return not value.endswith(":443" if value.startswith("https:") else ":80")


def _seconds(name: str, default: float, least: float = 0.001) -> float:
    """Return a setting that is a number of seconds."""
    value = getattr(settings, name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < inf:
        wanted = _("above 0") if least else _("from 0")
        sentence = _("%(name)s %(value)r is not a number of seconds %(wanted)s.")
        raise ImproperlyConfigured(sentence % {"name": name, "value": value, "wanted": wanted})
    return float(value)


def _limit(name: str, default: int | None) -> int | None:
    """Return a setting that is a greatest number, or None."""
    value = getattr(settings, name, default)
    if value is not None and (type(value) is not int or value < 1):
        sentence = f"{name} {value!r} is no limit; expected a number from 1, or None."
        raise ImproperlyConfigured(sentence)
    return value


NAMES = tuple(name for name in vars(Conf) if name.startswith("ECHO_"))

conf = Conf()


def problems() -> list[str]:
    """Return what is wrong with our settings, a sentence each: unknown names and bad values."""
    return [*_unknown_names(), *_bad_values()]


def require_no_problem() -> None:
    """Raise ImproperlyConfigured with the first of the problems, if there is one."""
    for problem in problems():
        raise ImproperlyConfigured(problem)


def unread_variables() -> list[str]:
    """Return the settings that an environment variable of their name differs from."""
    return [name for name in NAMES if os.environ.get(name) and not _is_read(name)]


def _is_read(name: str) -> bool:
    """Return whether the setting may come from its environment variable.

    Settings make something of the text: a number, a list, a URL with an option added.
    """
    text = os.environ[name]
    try:
        value = getattr(conf, name)
    except ImproperlyConfigured:
        return True  # another check has found that
    if isinstance(value, frozenset):
        return bool(value) and all(item in text for item in value)
    if isinstance(value, int | float):
        try:
            return float(text) == value
        except ValueError:
            return False
    return text in str(value)


def _unknown_names() -> list[str]:
    unknown = sorted(n for n in dir(settings) if n.startswith("ECHO_") and n not in NAMES)
    sentence = _("%s is not a setting of echo.")
    return [f"{sentence % name} {_suggestion(name)}" for name in unknown]


def _suggestion(name: str) -> str:
    near = get_close_matches(name, NAMES, n=1)
    return _("Did you mean %s?") % near[0] if near else _("It knows %s.") % ", ".join(NAMES)


def _bad_values() -> list[str]:
    found = []
    for name in NAMES:
        try:
            getattr(conf, name)
        except ImproperlyConfigured as error:
            found.append(str(error))
    return found


def is_malformed(url: str) -> bool:
    """Return whether it is a URL whose password may be where its other parts are."""
    try:
        parts = urlsplit(url)
        _port = parts.port  # a bad one raises
    except ValueError:
        return True
    return "@" in f"{parts.path}{parts.query}{parts.fragment}"  # else it ends a user's password


def _without_password(url: object) -> str:
    """Return the value as it may be shown: a password in a URL is no one else's business."""
    shown = repr(url)
    if isinstance(url, str) and is_malformed(url):  # it may be anywhere
        shown = re.sub(r":(//)?.*", r":\1***'", shown)
    shown = re.sub(r"^(\W*\w+://)?.*@", r"\1***@", shown)
    return re.sub(r"(password=)[^&]*", r"\1***", shown)
