"""The URLs of the demo, and a page of a live count: `GET /page`."""

from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.urls import path

from project.urls import urlpatterns as demo_urlpatterns

PAGE = """<!doctype html><title>Live</title><link rel="icon" href="data:,">{% load echo %}
<p>{% connection_count "foo" live=True %} people are here.</p>"""


def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(engines["django"].from_string(PAGE).render({}, request))


urlpatterns = [path("page", page), *demo_urlpatterns]
