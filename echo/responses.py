"""The plain HTTP responses of the original, for views and ASGI middleware."""

import functools

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.cache import patch_vary_headers
from django.utils.translation import gettext_lazy

TEXT = "text/plain;charset=UTF-8"  # as the original writes it
RETRY_AFTER = "2"  # seconds
UNKNOWN_COUNT = gettext_lazy("The number of connections is unknown at the moment.")


def text_response(body: str, status: int = 200) -> HttpResponse:
    return HttpResponse(body, content_type=TEXT, status=status)


def count_response(name: str, count: int, as_json: bool) -> HttpResponse:
    """Return the count as the original's sentence, or as JSON."""
    if as_json:
        return JsonResponse({"name": name, "connections": count})
    return text_response(count_sentence(count))


def count_sentence(count: int) -> str:
    """Return the original's sentence, in English and without thousands separators."""
    if count == 1:
        return "There is 1 WebSocket client connected to this Durable Object instance."
    return f"There are {count} WebSocket clients connected to this Durable Object instance."


def unknown_count_response() -> HttpResponse:
    response = text_response(str(UNKNOWN_COUNT), status=503)
    response["Retry-After"] = RETRY_AFTER
    # The outage itself is logged once; Django would log an error for each response.
    response._has_been_logged = True  # type: ignore[attr-defined]
    return response


def set_common_headers(response: HttpResponse) -> HttpResponse:
    """Add the headers that all responses of the endpoints have: they are never cached."""
    response["Cache-Control"] = "no-store"
    response["X-Content-Type-Options"] = "nosniff"
    patch_vary_headers(response, ["Accept"])
    return response


def prefers(request: HttpRequest, media_type: str) -> bool:
    """Return whether the client prefers that type to plain text."""
    return request.get_preferred_type(["text/plain", media_type]) == media_type


@functools.lru_cache(maxsize=256)
def accept_prefers_json(accept: bytes) -> bool:
    """Return `prefers()` for a request with that Accept header and type application/json."""
    request = HttpRequest()
    if accept:
        request.META["HTTP_ACCEPT"] = accept.decode("latin-1")
    return prefers(request, "application/json")
