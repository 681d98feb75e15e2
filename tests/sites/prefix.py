"""URLs of a site that has the app below a prefix, as the README shows it."""

from django.urls import include, path

urlpatterns = [path("connections/", include("echo.urls"))]
