"""Checks of the count that the site serves over HTTP."""

import json

from echo.operations.doctor import probe
from echo.operations.doctor.finding import LOGS, REDIS, Finding, settled
from echo.operations.doctor.probe import ProbeFailed

RESTRICTED = (301, 302, 403)  # statuses of a count that needs a login or a permission
UNCOUNTED = "Wrap the consumer in counted(), and set ECHO_STATE_URL to a Redis for all processes."


class Counts:
    """The count of one object below the URL of `echo.urls`."""

    def __init__(self, url: str, name: str, headers: dict[str, str]) -> None:
        self._count_url = f"{url}/{name}/getCurrentConnections"
        self._live_url = f"{url}/{name}/connections/live"
        self._headers = headers

    def exist(self) -> bool:
        """Return whether the URL seems to serve a count, perhaps one that needs a permission."""
        status, count = self._get()
        return status in (*RESTRICTED, 503) or count is not None

    def _get(self) -> tuple[int, int | None]:
        """Return the status, and the count if there is one."""
        headers = {**self._headers, "Accept": "application/json"}
        status, body = probe.get(self._count_url, headers)
        return status, _number(body) if status == 200 else None

    def check_count(self, check: str, expected: int) -> Finding:
        """Check that the site responds with the expected count."""
        status, count = settled(
            self._get,
            expected=(200, expected),
            is_final=lambda result: result[1] is None and result[0] != 503,
        )
        if status in RESTRICTED:
            return _restricted(check, status)
        if status == 503:
            return Finding(check, False, "the site responds that its counts are unknown", REDIS)
        if count is None and status in (200, 404):
            remedy = "Include echo.urls in the URLconf, and give its prefix if you use --url."
            message = f"there is no count at {self._count_url} ({status})"
            return Finding(check, False, message, remedy)
        if count != expected:
            message = f"expected 200 and {expected}, got {status} and {count}"
            return Finding(check, False, message, UNCOUNTED)
        return Finding(check, True, f"the site counts {expected}")

    def check_live(self, expected: int) -> Finding:
        """Check that the event stream begins with the expected count."""
        try:
            status, event = probe.first_event(self._live_url, self._headers)
        except ProbeFailed as error:
            remedy = "Turn off response buffering in the proxy."
            return Finding("live", False, f"{self._live_url}: {error}", remedy)
        if status in (*RESTRICTED, 404):  # a site may have no event streams
            return _restricted("live", status)
        if status != 200:
            remedy = "Run the site on an ASGI server." if status == 501 else LOGS
            return Finding("live", False, f"{self._live_url} responds with {status}", remedy)
        if _number(event) != expected:
            found = event.decode(errors="replace")
            message = f"expected an event with the count {expected}, got {found!r}"
            return Finding("live", False, message, UNCOUNTED)
        return Finding("live", True, f"the event stream begins with {expected}")


def _restricted(check: str, status: int) -> Finding:
    return Finding(check, None, f"the site responds with {status} to anonymous clients")


def _number(body: bytes) -> int | None:
    """Return the count in a response body or an event; None if there is none."""
    try:
        return int(json.loads(body)["connections"])
    except (ValueError, KeyError, TypeError):
        return None
