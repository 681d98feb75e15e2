"""Counts and members as server-sent events (HTML standard, §9.2).

The views are sync because Django rejects async views if ATOMIC_REQUESTS is set. Their streams are
async.
"""

import random
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from threading import Lock
from typing import Any
from weakref import finalize

from asgiref.sync import SyncToAsync, sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import connections as databases
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_GET

from echo.conf import conf
from echo.exceptions import InvalidName
from echo.live.members import MemberStream, MemberWatcher
from echo.live.stream import Stream
from echo.live.watcher import CountWatcher, Watcher, get_watcher
from echo.names import check_name
from echo.permissions import COUNT, LIST, MEMBERS, has_permission
from echo.responses import RETRY_AFTER, text_response
from echo.views import NOT_COUNT, NOT_MEMBERS

RETRY_INTERVAL = 1000, 3000  # milliseconds until a client reconnects, chosen at random
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Encoding": "identity",  # GZipMiddleware would buffer the events
    "X-Accel-Buffering": "no",  # nginx would buffer them, too
    "X-Content-Type-Options": "nosniff",
}
NOT_LIST = _("You may not see the list of the objects.")
TOO_MANY = _("Too many live counts are shown at the moment.")
WSGI = _("Live counts need a server that speaks ASGI; this one speaks WSGI.")


@require_GET
def count(request: HttpRequest, name: str | None = None) -> HttpResponseBase:
    """Stream the count of the object, now and at each change: `{"name": …, "connections": 3}`."""
    name = conf.ECHO_DEFAULT_OBJECT if name is None else name
    return _stream(request, Stream[str](name), COUNT, NOT_COUNT)


@require_GET
def members(request: HttpRequest, name: str | None = None) -> HttpResponseBase:
    """Stream the members of the object: the whole list now, then its changes."""
    name = conf.ECHO_DEFAULT_OBJECT if name is None else name
    return _stream(request, MemberStream(name), MEMBERS, NOT_MEMBERS, MemberWatcher)


@require_GET
def total(request: HttpRequest) -> HttpResponseBase:
    """Stream the totals, now and at each change of a count: `{"objects": 2, "connections": 5}`."""
    return _stream(request, Stream[str](None), LIST, NOT_LIST)


def _stream(
    request: HttpRequest,
    stream: Stream[Any],
    action: str,
    denied: Promise,
    kind: type[Watcher[Any]] = CountWatcher,
) -> HttpResponseBase:
    try:
        if stream.name is not None:
            check_name(stream.name)
    except InvalidName as error:
        return text_response(str(error), status=400)
    if not isinstance(request, ASGIRequest):
        return text_response(str(WSGI), status=501)
    if not has_permission(request, stream.name, action):
        return text_response(str(denied), status=403)
    if not _open.add(conf.ECHO_MAX_STREAMS):
        response = text_response(str(TOO_MANY), status=503)
        response["Retry-After"] = RETRY_AFTER
        return response
    events = stream_events(stream, kind)
    return LiveResponse(events, content_type="text/event-stream", headers={**HEADERS})


class OpenStreams:
    """Counts the open streams of this process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._number = 0

    def add(self, limit: int | None) -> bool:
        """Count one more stream and return True, or return False if there are `limit` of them."""
        with self._lock:
            if limit is not None and self._number >= limit:
                return False
            self._number += 1
            return True

    def remove(self) -> None:
        with self._lock:
            self._number -= 1


_open = OpenStreams()


class LiveResponse(StreamingHttpResponse):
    """A response that counts as open until it is closed or garbage-collected."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._remove = finalize(self, _open.remove)

    def close(self) -> None:
        super().close()
        self._remove()


async def stream_events(
    stream: Stream[Any], kind: type[Watcher[Any]] = CountWatcher
) -> AsyncIterator[str]:
    await _release_thread()
    yield f"retry: {random.randint(*RETRY_INTERVAL)}\n\n"
    watcher = get_watcher(kind)
    watcher.add(stream)
    try:
        async with aclosing(stream.events()) as events:
            async for event in events:
                yield event
    finally:
        watcher.discard(stream)


class SharedExecutor(ThreadPoolExecutor):
    """One thread for the end of all streams. Django's shutdown() after a request has no effect."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing."""


_shared_executor = SharedExecutor(1, "echo-live")


async def _release_thread() -> None:
    """Release the thread and the database connections that Django keeps for the request.

    Django's code at the end of the request then runs in one thread shared by all streams. Otherwise
    each stream would start its own thread at its end: thousands, if thousands of streams end at
    once. Remove this when asgiref no longer keeps an executor for each request:
    https://github.com/django/asgiref/pull/227.
    """
    context = SyncToAsync.thread_sensitive_context.get(None)
    executors = SyncToAsync.context_to_thread_executor
    if context is None or context not in executors:
        return
    await sync_to_async(databases.close_all)()
    executors[context].shutdown(wait=False)
    executors[context] = _shared_executor
