"""What a check has found, and the patience that finding it takes."""

import re
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

from channels.exceptions import InvalidChannelLayerError
from django.conf import settings
from django.utils.translation import gettext_lazy

from echo.conf import conf, is_malformed
from echo.exceptions import StateUnavailable

T = TypeVar("T")

PATIENCE = 3.0  # seconds, and a heartbeat: then counts are as they must be, or known to be lost
REDIS = gettext_lazy("Start the Redis of ECHO_STATE_URL, or correct the URL and its password.")
LOGS = gettext_lazy("Read what the server logs.")


class Finding(NamedTuple):
    """What a check has found; `ok` is None if it had nothing to try.

    `log` is the end of the log of the doctor's own server, if that server failed.
    """

    check: str
    ok: bool | None
    message: str
    remedy: str = ""
    log: str = ""


def words_of(error: BaseException) -> str:
    """Return the error's message without passwords, or its type if it has none.

    If a URL of CHANNEL_LAYERS is malformed, the message may have any part of it.
    """
    names_what = isinstance(error, ImportError | InvalidChannelLayerError)
    if not names_what and any(map(is_malformed, _texts(getattr(settings, "CHANNEL_LAYERS", {})))):
        remedy = "a URL is malformed (in a password, / ? # @ are to be %2F %3F %23 %40)"
        return f"{type(error).__name__}: {remedy}"
    return without_passwords(str(error)) or type(error).__name__


def without_passwords(text: str) -> str:
    """Return the text, with *** for whatever precedes the host of a URL."""
    return re.sub(r"://\S*@", "://***@", text)


def _texts(value: object) -> Iterator[str]:
    """Yield the texts in a setting, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list | tuple | set):
        for part in value:
            yield from _texts(part)


def soon(read: Callable[[], T], expected: T, final: Callable[[T], bool] = lambda value: False) -> T:
    """Return what is read as soon as it is as expected, or final; else the last one."""
    end = time.monotonic() + PATIENCE + conf.ECHO_HEARTBEAT_SECONDS
    while True:
        try:
            value = read()
        except StateUnavailable:
            if time.monotonic() > end:
                raise
        else:
            if value == expected or final(value) or time.monotonic() > end:
                return value
        time.sleep(0.05)
