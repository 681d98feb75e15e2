"""The result of one check of the doctor, and remedies that several checks share."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from echo.conf import conf
from echo.operations.polling import poll

T = TypeVar("T")

SETTLE_TIMEOUT = 3.0  # seconds, plus a heartbeat, after which counts are correct or unknown
REDIS = "Start the Redis of ECHO_STATE_URL, or correct the URL and its password."
LOGS = "Read the log of the server."


class Finding(NamedTuple):
    """The result of a check; `ok` is None if the check was skipped.

    `log` is the end of the log of the doctor's own server, if that server failed.
    """

    check: str
    ok: bool | None
    message: str
    remedy: str = ""
    log: str = ""


def settled(
    read: Callable[[], T], expected: object, is_final: Callable[[T], bool] = lambda value: False
) -> T:
    """Return the result of `read` as soon as it is as expected or final, or after the timeout."""
    timeout = SETTLE_TIMEOUT + conf.ECHO_HEARTBEAT_SECONDS
    return poll(read, lambda value: value == expected or is_final(value), timeout)
