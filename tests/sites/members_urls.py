"""The URLs of the demo, and pages of the members of an object: `GET /who`."""

from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.urls import path

from project.urls import urlpatterns as demo_urlpatterns

PAGE = """<!doctype html><html lang="en"><title>Who</title><link rel="icon" href="data:,">
{% load echo %}<h1>Here</h1>{% member_list "foo" live=True %}"""


def who(request: HttpRequest) -> HttpResponse:
    return HttpResponse(engines["django"].from_string(PAGE).render({}, request))


urlpatterns = [path("who", who), *demo_urlpatterns]
