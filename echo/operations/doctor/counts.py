"""What the site tells of a count over HTTP, as anybody may ask for it."""

import json

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from echo.live.views import WSGI
from echo.operations.doctor import probe
from echo.operations.doctor.finding import LOGS, REDIS, Finding, soon
from echo.operations.doctor.probe import ProbeFailed

REFUSALS = (301, 302, 403)
UNCOUNTED = gettext_lazy(
    "Is the consumer wrapped in counted(), and ECHO_STATE_URL a Redis for all?"
)


class Counts:
    """The counts below the URL of `echo.urls`, of one object."""

    def __init__(self, url: str, name: str, headers: dict[str, str]) -> None:
        self._url, self._name, self._headers = url, name, headers

    def exist(self) -> bool:
        """Return whether the site seems to have a count there, though it may not show it."""
        status, body = probe.get(self._count_url, {**self._headers, "Accept": "application/json"})
        return status in (*REFUSALS, 503) or (status == 200 and _number(body) is not None)

    def check_count(self, check: str, expected: int) -> Finding:
        """Whether the site counts so many."""
        status, count = self._counted(expected)
        if status in REFUSALS:
            return _not_for_all(check, status)
        if status == 503:
            return Finding(check, False, _("the site does not know its counts"), str(REDIS))
        if count is None and status in (200, 404):
            remedy = _("Is echo.urls in the URLconf, and --url, if given, its prefix?")
            told = {"url": self._count_url, "status": status}
            return Finding(
                check, False, _("there is no count at %(url)s (%(status)d)") % told, remedy
            )
        if count != expected:
            message = _("expected 200 and %(expected)d, got %(status)d and %(count)s")
            got = {"expected": expected, "status": status, "count": count}
            return Finding(check, False, message % got, str(UNCOUNTED))
        return Finding(check, True, _("the site counts %d") % expected)

    @property
    def _count_url(self) -> str:
        return f"{self._url}/{self._name}/getCurrentConnections"

    def _counted(self, expected: int) -> tuple[int, int | None]:
        """Return status and count, as soon as they are as expected, or the last ones."""
        headers = {**self._headers, "Accept": "application/json"}
        wanted: tuple[int, int | None] = (200, expected)

        def ask() -> tuple[int, int | None]:
            status, body = probe.get(self._count_url, headers)
            return status, _number(body) if status == 200 else None

        return soon(ask, wanted, lambda answer: answer[1] is None and answer[0] != 503)

    def check_live(self, expected: int) -> Finding:
        """Whether the stream of the count begins with so many."""
        url = f"{self._url}/{self._name}/connections/live"
        try:
            status, event = probe.first_event(url, self._headers)
        except ProbeFailed as error:
            remedy = _("What is between must pass events on at once, and buffer none.")
            return Finding("live", False, f"{url}: {error}", remedy)
        if status in (*REFUSALS, 404):  # a site may have the count alone
            return _not_for_all("live", status)
        if status != 200:
            message = _("%(url)s answers %(status)d") % {"url": url, "status": status}
            return Finding("live", False, message, str(WSGI if status == 501 else LOGS))
        if _number(event) != expected:
            told = {"expected": expected, "event": event.decode(errors="replace")}
            message = _("expected an event that tells %(expected)d, got %(event)r") % told
            return Finding("live", False, message, str(UNCOUNTED))
        return Finding("live", True, _("the stream of the count tells %d") % expected)


def _not_for_all(check: str, status: int) -> Finding:
    return Finding(check, None, _("the site answers %d to who asks for it") % status)


def _number(body: bytes) -> int | None:
    """Return the number of an answer; None if it is no answer of ours."""
    try:
        return int(json.loads(body)["connections"])
    except (ValueError, KeyError, TypeError):
        return None
