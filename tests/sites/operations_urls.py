"""URLs of a site with metrics and health, as the README shows them."""

import hmac

from django.http import HttpRequest
from django.urls import include, path

from echo.permissions import LIST, default_authorize

urlpatterns = [
    path("operations/", include("echo.operations.urls")),
    path("", include("echo.urls")),
]


def authorize(asking, name, action):
    if action == LIST and isinstance(asking, HttpRequest):
        return hmac.compare_digest(asking.headers.get("Authorization", ""), "Bearer token")
    return default_authorize(asking, name, action)
