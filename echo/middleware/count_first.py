"""The count, answered before Django's handler: for sites that are asked for it very often.

Django takes each request through the site's middleware, which costs a thread hop for nearly each of
them: some hundred answers a second. This takes none.
"""

import json
import re
from functools import lru_cache
from typing import Any, cast

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest

from echo.conf import conf
from echo.denial import TEXT, Application
from echo.exceptions import InvalidName, StateUnavailable
from echo.names import check_name
from echo.permissions import allowed_host
from echo.state import get_state
from echo.views import RETRY_AFTER, UNKNOWN_COUNT, count_sentence, prefers

MAX_ACCEPT = 1024  # bytes of the Accept header; Django takes a second for each 800 KB
HEADERS = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"vary", b"Accept"),
]


class CountFirst:
    """An ASGI application: it answers `GET <prefix><name>/getCurrentConnections`, `http` all else.

    `prefix` is that of `include("echo.urls")`. Status, body and headers are those of the view,
    and the host is checked as Django does, but the site's middleware does not see the request.
    Where ECHO_AUTHORIZE is set it is left to the view, since it may matter who asks.
    """

    def __init__(self, http: Application, prefix: str = "") -> None:
        self.http = http
        self._pattern = re.compile(f"/{re.escape(prefix)}(?:([^/]+)/)?getCurrentConnections")

    async def __call__(
        self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        match = self._pattern.fullmatch(scope["path"]) if _is_plain_get(scope) else None
        if match is None or conf.ECHO_AUTHORIZE is not None or not _is_for_us(scope):
            await self.http(scope, receive, send)
            return
        status, kind, body, more = await _answer(match[1] or conf.ECHO_DEFAULT_OBJECT, scope)
        data = body.encode()
        headers = [
            (b"content-type", kind.encode()),
            (b"content-length", b"%d" % len(data)),
            *HEADERS,
            *more,
        ]
        await send(cast(Any, {"type": "http.response.start", "status": status, "headers": headers}))
        await send({"type": "http.response.body", "body": data, "more_body": False})


def _is_plain_get(scope: HTTPScope) -> bool:
    """Return whether it is a GET that can be answered on the event loop.

    The site has no script name, which paths may begin with, and Accept is soon parsed.
    """
    if scope["type"] != "http" or scope["method"] != "GET":
        return False
    if len(_accept(scope)) > MAX_ACCEPT:
        return False
    return not (settings.FORCE_SCRIPT_NAME or scope.get("root_path"))


def _is_for_us(scope: HTTPScope) -> bool:
    try:
        allowed_host(scope, dict(scope["headers"]))
    except DisallowedHost:  # Django has an answer to that, and logs it
        return False
    return True


async def _answer(name: str, scope: HTTPScope) -> tuple[int, str, str, list[tuple[bytes, bytes]]]:
    """Return status, type, body and further headers."""
    try:
        count = await get_state().acount(check_name(name))
    except InvalidName as error:
        return 400, TEXT, str(error), []
    except StateUnavailable:
        return 503, TEXT, str(UNKNOWN_COUNT), [(b"retry-after", RETRY_AFTER.encode())]
    if _prefers_json(_accept(scope)):
        return 200, "application/json", json.dumps({"name": name, "connections": count}), []
    return 200, TEXT, count_sentence(count), []


def _accept(scope: HTTPScope) -> bytes:
    return b",".join(value for header, value in scope["headers"] if header == b"accept")


@lru_cache(maxsize=256)
def _prefers_json(accept: bytes) -> bool:
    request = HttpRequest()
    if accept:
        request.META["HTTP_ACCEPT"] = accept.decode("latin-1")
    return prefers(request, "application/json")
