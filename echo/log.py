"""Log messages: throttled, and without passwords."""

import re
from collections.abc import Iterator
from math import inf
from time import monotonic
from urllib.parse import urlsplit

from channels.exceptions import InvalidChannelLayerError
from django.conf import settings

INTERVAL = 60.0  # seconds between two messages with the same key

_last: dict[object, float] = {}  # key -> time.monotonic() of the last message


def is_due(key: object) -> bool:
    """Throttle log messages: return True once per INTERVAL and key."""
    now = monotonic()
    if now - _last.get(key, -inf) < INTERVAL:
        return False
    _last[key] = now
    return True


def without_passwords(text: str) -> str:
    """Return the text with `***` for the user and password of each URL.

    A URL that is malformed is replaced as a whole: its password may be anywhere in it.
    """
    text = re.sub(r"(\w+://)([^\s]+?)(?=['\"\])}.,:;]*(?:\s|$))", _without_password, text)
    # Credentials without a scheme: `user:password@host`.
    text = re.sub(r"(\S*://)?\S+@", r"\1***@", text)
    return re.sub(r"(password=)[^&\s]*", r"\1***", text)


def _without_password(match: re.Match[str]) -> str:
    return f"{match[1]}***" if is_malformed(match[0]) else match[0]


def is_malformed(url: str) -> bool:
    """Return whether the path, query or fragment of the URL may be a part of its password."""
    try:
        parts = urlsplit(url)
        for host in parts.netloc.rpartition("@")[2].split(","):  # several with Sentinel
            _port = urlsplit(f"//{host}").port  # raises ValueError if it is invalid
    except ValueError:
        return True
    return "@" in f"{parts.path}{parts.query}{parts.fragment}"  # an unquoted / ? or # in a password


def describe(error: BaseException) -> str:
    """Return the error's message without passwords, or its type if it has none.

    If a URL in CHANNEL_LAYERS is malformed, the message may quote any part of it.
    """
    has_no_url = isinstance(error, ImportError | InvalidChannelLayerError)
    layers = getattr(settings, "CHANNEL_LAYERS", {})
    if not has_no_url and any(map(is_malformed, _strings_in(layers))):
        remedy = "a URL is malformed (in a password, write %2F %3F %23 %40 for / ? # @)"
        return f"{type(error).__name__}: {remedy}"
    return without_passwords(str(error)) or type(error).__name__


def _strings_in(setting: object) -> Iterator[str]:
    """Yield the strings in a nested setting."""
    if isinstance(setting, str):
        yield setting
    elif isinstance(setting, dict):
        for value in setting.values():
            yield from _strings_in(value)
    elif isinstance(setting, list | tuple | set):
        for value in setting:
            yield from _strings_in(value)
