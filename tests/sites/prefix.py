"""A site that has the app below a prefix, as the README shows it."""

from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import include, path

from echo.routing import as_websocket_application, console_urlpatterns, websocket_urlpatterns

urlpatterns = [path("connections/", include("echo.urls"))]


def _application(patterns):
    routes = [path("connections/", URLRouter(patterns))]
    return ProtocolTypeRouter({"websocket": as_websocket_application(routes)})


open_to_all = _application(websocket_urlpatterns)
console = _application(console_urlpatterns)
