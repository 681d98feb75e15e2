"""The demo's settings with views that stream their responses, and their URLs."""

import asyncio
import io
from collections.abc import AsyncIterator

from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

from echo.server import connection, flow_control
from project.settings import *  # noqa: F403
from tests.sites.streams import LARGE, PAUSE, PIECES

ROOT_URLCONF = "tests.sites.streamed"

# Shortened, so that tests need not wait for ten seconds.
connection.CLOSE_TIMEOUT = flow_control.SLOW_READER_TIMEOUT = 1.0


async def _pieces() -> AsyncIterator[str]:
    for piece in PIECES:
        yield piece
        await asyncio.sleep(0.01)


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(_pieces())


async def _slow() -> AsyncIterator[str]:
    for piece in PIECES[:2]:
        await asyncio.sleep(PAUSE)
        yield piece


async def slow(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(_slow())


def large(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"x" * LARGE)


def file(request: HttpRequest) -> FileResponse:
    return FileResponse(io.BytesIO("".join(PIECES).encode()), content_type="text/plain")


async def _endless() -> AsyncIterator[str]:
    try:
        while True:
            yield "still here\n"
            await asyncio.sleep(0.01)
    finally:
        print("The stream has ended.", flush=True)


async def endless(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(_endless())


async def quiet(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(_quiet())


async def _quiet() -> AsyncIterator[str]:
    try:
        yield "still here\n"
        await asyncio.sleep(3600)
    finally:
        print("The quiet stream has ended.", flush=True)


views = [stream, slow, large, file, endless, quiet]
urlpatterns = [path(view.__name__, view) for view in views]
