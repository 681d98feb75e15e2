"""A site with a page of live counts, under a strict policy: `GET /page`."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

from channels.routing import ProtocolTypeRouter
from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.template import Context, Template
from django.urls import include, path

http = ASGIStaticFilesHandler(get_asgi_application())
settings.ROOT_URLCONF = __name__

from echo.live import stream  # noqa: E402  (needs the apps to be loaded)
from echo.routing import as_websocket_application  # noqa: E402  (needs the apps to be loaded)

stream.MAX_AGE = float(os.environ.get("MAX_AGE", stream.MAX_AGE))
stream.HEARTBEAT_INTERVAL = min(stream.HEARTBEAT_INTERVAL, stream.MAX_AGE)
PAGE = """<!doctype html><title>Live</title><link rel="icon" href="data:,">{% load echo %}
{% connection_count "foo" live=True %} {% connection_count "foo" live=True %}
{% connection_count "<b>" live=True %}"""


async def page(request):
    policy = "default-src 'self'; img-src data:"
    html = Template(PAGE).render(Context())
    return HttpResponse(html, headers={"Content-Security-Policy": policy})


urlpatterns = [path("page", page), path("", include("echo.urls"))]
application = ProtocolTypeRouter({"http": http, "websocket": as_websocket_application(http=http)})
