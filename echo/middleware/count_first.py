"""Responds to requests for a count without Django's handler, for sites with very many of them.

Django runs the site's middleware for each request, and nearly every middleware costs a thread
switch. This limits a process to a few hundred responses a second. CountFirst uses no thread.
"""

import re
from typing import Any, cast

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpResponse

from echo.conf import conf
from echo.denial import Application
from echo.exceptions import InvalidName, StateUnavailable
from echo.middleware.origin import get_allowed_host
from echo.names import check_name
from echo.responses import (
    accept_prefers_json,
    count_response,
    set_common_headers,
    text_response,
    unknown_response,
)
from echo.state import get_state

MAX_ACCEPT_SIZE = 1024  # bytes of the Accept header; Django parses 800 KB a second


class CountFirst:
    """ASGI middleware that responds to `GET <prefix><name>/getCurrentConnections`.

    `http` handles all other requests, and all requests if ECHO_AUTHORIZE is set, since the response
    may then depend on the user. `prefix` is that of `include("echo.urls")`. Status, headers and
    body are those of the view, and the host is validated as in Django, but the site's Django
    middleware does not run.
    """

    def __init__(self, http: Application, prefix: str = "") -> None:
        self.http = http
        self._pattern = re.compile(f"/{re.escape(prefix)}(?:([^/]+)/)?getCurrentConnections")

    async def __call__(
        self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        match = self._pattern.fullmatch(scope["path"]) if _is_simple_get(scope) else None
        if match is None or conf.ECHO_AUTHORIZE is not None or not _has_allowed_host(scope):
            await self.http(scope, receive, send)
            return
        response = await _get_response(match[1] or conf.ECHO_DEFAULT_OBJECT, scope)
        body = response.content
        headers = [(name.lower().encode(), value.encode()) for name, value in response.items()]
        headers.append((b"content-length", b"%d" % len(body)))
        start = {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": headers,
        }
        await send(cast(Any, start))
        await send({"type": "http.response.body", "body": body, "more_body": False})


def _is_simple_get(scope: HTTPScope) -> bool:
    """Return whether the request is a GET without a script name and with a short Accept header."""
    if scope["type"] != "http" or scope["method"] != "GET":
        return False
    if len(_get_accept(scope)) > MAX_ACCEPT_SIZE:
        return False
    return not (settings.FORCE_SCRIPT_NAME or scope.get("root_path"))


def _has_allowed_host(scope: HTTPScope) -> bool:
    """Return whether the host is allowed; else Django's handler responds and logs the request."""
    try:
        get_allowed_host(scope, dict(scope["headers"]))
    except DisallowedHost:
        return False
    return True


async def _get_response(name: str, scope: HTTPScope) -> HttpResponse:
    try:
        count = await get_state().acount(check_name(name))
    except InvalidName as error:
        response = text_response(str(error), status=400)
    except StateUnavailable:
        response = unknown_response()
    else:
        response = count_response(name, count, accept_prefers_json(_get_accept(scope)))
    return set_common_headers(response)


def _get_accept(scope: HTTPScope) -> bytes:
    return b",".join(value for header, value in scope["headers"] if header == b"accept")
