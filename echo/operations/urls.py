"""Metrics and health: `path("operations/", include("echo.operations.urls"))` above `echo.urls`."""

from django.urls import path

from echo.operations.health import health
from echo.operations.metrics import metrics

app_name = "echo_operations"

urlpatterns = [
    path("metrics", metrics, name="metrics"),
    path("health", health, name="health"),
]
