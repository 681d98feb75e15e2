"""Settings of the demo, with views whose answers are not one piece, and their URLs."""

import asyncio
import io
from collections.abc import AsyncIterator

from django.http import FileResponse, HttpRequest, StreamingHttpResponse
from django.urls import path

from project.settings import *  # noqa: F403

ROOT_URLCONF = "tests.sites.streamed"

PIECES = [f"{number}\n" * 10_000 for number in range(30)]


async def _pieces() -> AsyncIterator[str]:
    for piece in PIECES:
        yield piece
        await asyncio.sleep(0.01)


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(_pieces())


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


urlpatterns = [path("stream", stream), path("file", file), path("endless", endless)]
