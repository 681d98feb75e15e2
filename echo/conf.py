"""Every setting of this app: name, default, unit, and what a wrong value is told.

The only reader of our settings. They are read on each use, so that a test
that changes one sees the change at once.
"""

import re
from difflib import get_close_matches

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

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
        """Where the counts are kept: `memory://` for those of one process."""
        value = getattr(settings, "ECHO_STATE_URL", "memory://")
        if not isinstance(value, str) or value.partition("://")[0] not in STATE_SCHEMES:
            expected = " or ".join(f"{scheme}://" for scheme in STATE_SCHEMES)
            raise ImproperlyConfigured(
                f"ECHO_STATE_URL {_without_password(value)} is not a state; expected {expected}."
            )
        return value


STATE_SCHEMES = ("memory",)
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
