"""The plain-text responses of the original program, for views and ASGI middleware."""

import functools

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.cache import patch_vary_headers
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy

TEXT = "text/plain;charset=UTF-8"  # in the spelling of the original program
RETRY_AFTER = "2"  # seconds
UNKNOWN_COUNT = gettext_lazy("The number of connections is unknown at the moment.")
UNKNOWN_MEMBERS = gettext_lazy("The members are unknown at the moment.")


def text_response(body: str, status: int = 200) -> HttpResponse:
    return HttpResponse(body, content_type=TEXT, status=status)


def count_response(name: str, count: int, as_json: bool) -> HttpResponse:
    """Return the count as the original program's sentence, or as JSON."""
    if as_json:
        return JsonResponse({"name": name, "connections": count})
    return text_response(count_sentence(count))


def count_sentence(count: int) -> str:
    """Return the original program's sentence, in English and without thousands separators."""
    if count == 1:
        return "There is 1 WebSocket client connected to this Durable Object instance."
    return f"There are {count} WebSocket clients connected to this Durable Object instance."


def unknown_response(message: Promise = UNKNOWN_COUNT) -> HttpResponse:
    response = text_response(str(message), status=503)
    response["Retry-After"] = RETRY_AFTER
    # The outage is logged once; Django would also log an error for each 503 response.
    response._has_been_logged = True  # type: ignore[attr-defined]
    return response


def set_common_headers(response: HttpResponse) -> HttpResponse:
    """Add the headers common to all responses of the endpoints, which must not be cached."""
    response["Cache-Control"] = "no-store"
    response["X-Content-Type-Options"] = "nosniff"
    patch_vary_headers(response, ["Accept"])
    return response


def prefers(request: HttpRequest, media_type: str) -> bool:
    """Return whether the client prefers that type to plain text."""
    return request.get_preferred_type(["text/plain", media_type]) == media_type


@functools.lru_cache(maxsize=256)
def accept_prefers_json(accept: bytes) -> bool:
    """Return `prefers(request, "application/json")` for a request with that Accept header."""
    request = HttpRequest()
    if accept:
        request.META["HTTP_ACCEPT"] = accept.decode("latin-1")
    return prefers(request, "application/json")
