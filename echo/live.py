"""Counts pushed as they change, by server-sent events (HTML standard, §9.2).

The views are not async, which Django refuses where ATOMIC_REQUESTS is set; what they stream is.
"""

import random
from collections.abc import AsyncIterator
from contextlib import aclosing

from asgiref.sync import SyncToAsync, sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import connections as databases
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_GET

from echo.access import COUNT, LIST, may
from echo.conf import conf
from echo.exceptions import InvalidName
from echo.names import check_name
from echo.views import NOT_COUNT, text
from echo.watching import Stream, get_watcher

RETRY = 1000, 3000  # milliseconds until a client comes again; each has its own
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Encoding": "identity",  # GZipMiddleware would hold events back until it has many
    "X-Accel-Buffering": "no",  # nginx would, too
    "X-Content-Type-Options": "nosniff",
}
NOT_LIST = _("You may not see the list of the objects.")
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
    return StreamingHttpResponse(
        _events(name), content_type="text/event-stream", headers={**HEADERS}
    )


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


async def _release_thread() -> None:
    """Give back the thread and the database connection that Django keeps for each request."""
    context = SyncToAsync.thread_sensitive_context.get(None)
    if context is None or context not in SyncToAsync.context_to_thread_executor:
        return
    await sync_to_async(databases.close_all)()
    SyncToAsync.context_to_thread_executor.pop(context).shutdown(wait=False)
