"""For operators: `path("operations/", include("echo.operations_urls"))`, above `echo.urls`."""

from django.urls import path

from echo.health import health
from echo.metrics import metrics

app_name = "echo_operations"

urlpatterns = [
    path("metrics", metrics, name="metrics"),
    path("health", health, name="health"),
]
