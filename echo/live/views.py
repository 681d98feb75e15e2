"""Counts pushed as they change, by server-sent events (HTML standard, §9.2).

The views are not async, which Django refuses where ATOMIC_REQUESTS is set; what they stream is.
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
from echo.live.watcher import Stream, get_watcher
from echo.names import check_name
from echo.permissions import COUNT, LIST, may
from echo.views import NOT_COUNT, RETRY_AFTER, text

RETRY = 1000, 3000  # milliseconds until a client comes again; each has its own
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Encoding": "identity",  # GZipMiddleware would hold events back until it has many
    "X-Accel-Buffering": "no",  # nginx would, too
    "X-Content-Type-Options": "nosniff",
}
NOT_LIST = _("You may not see the list of the objects.")
TOO_MANY = _("Too many live counts are shown at the moment.")
WSGI = _("Live counts need a server that speaks ASGI; this one speaks WSGI.")


@require_GET
def count(request: HttpRequest, name: str | None = None) -> HttpResponseBase:
    """The count of the object, `{"name": "foo", "connections": 3}`: now, and at each change."""
    name = conf.ECHO_DEFAULT_OBJECT if name is None else name
    try:
        check_name(name)
    except InvalidName as error:
        return text(str(error), status=400)
    return _stream(request, name, COUNT, NOT_COUNT)


@require_GET
def total(request: HttpRequest) -> HttpResponseBase:
    """What all objects have, `{"objects": 2, "connections": 5}`: at each change of any count."""
    return _stream(request, None, LIST, NOT_LIST)


def _stream(
    request: HttpRequest, name: str | None, action: str, refusal: Promise
) -> HttpResponseBase:
    if not isinstance(request, ASGIRequest):
        return text(str(WSGI), status=501)
    if not may(request, name, action):
        return text(str(refusal), status=403)
    if not _open.take(conf.ECHO_MAX_STREAMS):
        response = text(str(TOO_MANY), status=503)
        response["Retry-After"] = RETRY_AFTER
        return response
    return LiveResponse(_events(name), content_type="text/event-stream", headers={**HEADERS})


class OpenStreams:
    """The number of the streams that this process has, on all of its threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._number = 0

    def take(self, limit: int | None) -> bool:
        """Count one more, unless that would be more than the limit."""
        with self._lock:
            if limit is not None and self._number >= limit:
                return False
            self._number += 1
            return True

    def give_back(self) -> None:
        with self._lock:
            self._number -= 1


_open = OpenStreams()


class LiveResponse(StreamingHttpResponse):
    """A stream that has been counted as open, until it is closed or, at the latest, collected."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._give_back = finalize(self, _open.give_back)

    def close(self) -> None:
        super().close()
        self._give_back()


async def _events(name: str | None) -> AsyncIterator[str]:
    await _release_thread()
    yield f"retry: {random.randint(*RETRY)}\n\n"
    stream = Stream(name)
    watcher = get_watcher()
    watcher.add(stream)
    try:
        async with aclosing(stream.events()) as events:
            async for event in events:
                yield event
    finally:
        watcher.discard(stream)


class SharedExecutor(ThreadPoolExecutor):
    """One thread for the ends of all streams; the end of a request does not shut it down."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        pass


_shared_executor = SharedExecutor(1, "echo-live")


async def _release_thread() -> None:
    """Give back the thread and the database connection that Django keeps for each request.

    What Django still runs for the request when it ends shares a thread with all others: each
    would get a new one, thousands of them if thousands end at once.
    """
    context = SyncToAsync.thread_sensitive_context.get(None)
    executors = SyncToAsync.context_to_thread_executor
    if context is None or context not in executors:
        return
    await sync_to_async(databases.close_all)()
    executors[context].shutdown(wait=False)
    executors[context] = _shared_executor
