"""What the site tells of a count over HTTP, as anybody may ask for it."""

import json

from django.utils.translation import gettext as _

from echo.doctor import probe
from echo.doctor.finding import REDIS, Finding, soon


class Counts:
    """The counts below the URL of `echo.urls`, of one object."""

    def __init__(self, url: str, name: str, headers: dict[str, str]) -> None:
        self._url, self._name, self._headers = url, name, headers

    def check_count(self, check: str, expected: int) -> Finding:
        status, count = self._counted(expected)
        if status in (301, 302, 403, 404):
            return Finding(check, None, _("the site answers %d to who asks for it") % status)
        if status == 503:
            return Finding(check, False, _("the site does not know its counts"), str(REDIS))
        if status != 200 or count != expected:
            remedy = _("Is the consumer wrapped in counted(), and ECHO_STATE_URL a Redis for all?")
            message = _("expected 200 and %(expected)d, got %(status)d and %(count)s")
            got = {"expected": expected, "status": status, "count": count}
            return Finding(check, False, message % got, remedy)
        return Finding(check, True, _("the site counts %d") % expected)

    def _counted(self, expected: int) -> tuple[int, int | None]:
        """Return status and count, as soon as they are as expected, or the last ones."""
        url = f"{self._url}/{self._name}/getCurrentConnections"
        headers = {**self._headers, "Accept": "application/json"}
        wanted: tuple[int, int | None] = (200, expected)

        def ask() -> tuple[int, int | None]:
            status, body = probe.get(url, headers)
            return status, _number(body) if status == 200 else None

        return soon(ask, wanted, lambda answer: answer[0] not in (200, 503))


def _number(body: bytes) -> int | None:
    """Return the number of an answer; None if it is no answer of ours."""
    try:
        return int(json.loads(body)["connections"])
    except (ValueError, KeyError, TypeError):
        return None
