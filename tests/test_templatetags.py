import asyncio
import re
import socket
from collections.abc import Iterator

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.template import Context, Template, engines
from django.test import RequestFactory
from django.utils.functional import SimpleLazyObject, empty
from pytest_django import Settings

from echo.exceptions import InvalidName
from echo.state import get_state

UNKNOWN = "The number of connections is unknown at the moment."
OLD = "This number is not up to date: the server does not respond."


@pytest.fixture
def connected() -> Iterator[None]:
    """Two connections of "foo"."""
    for _ in range(2):
        asyncio.run(get_state().join("foo"))
    yield
    for _ in range(2):
        get_state().leave("foo")


@pytest.fixture
def redis_is_away(settings: Settings) -> Iterator[None]:
    with socket.socket() as taken:  # bound, and nobody listens: the port refuses
        taken.bind(("127.0.0.1", 0))
        settings.ECHO_STATE_URL = f"redis://127.0.0.1:{taken.getsockname()[1]}/0"
        yield


class LazyNonce(SimpleLazyObject):
    """What Django 6.0 has in its context: false until it is read."""

    def __bool__(self) -> bool:
        return self._wrapped is not empty


def render(source: str, **values: object) -> str:
    return Template("{% load echo %}" + source).render(Context(values))


def test_tag_renders_the_number(connected: None) -> None:
    assert render('{% connection_count "foo" %}') == "2"
    assert render("{% connection_count name %}", name="bar") == "0"


async def test_tag_renders_the_number_in_async_code() -> None:
    await get_state().join("foo")

    rendered = render('{% connection_count "foo" %}')

    get_state().leave("foo")
    assert rendered == "1"


def test_tag_renders_a_dash_when_the_count_is_unknown(redis_is_away: None) -> None:
    assert render('{% connection_count "foo" %}') == f'<span title="{UNKNOWN}">—</span>'


async def test_tag_renders_a_dash_in_async_code_too(redis_is_away: None) -> None:
    assert render('{% connection_count "foo" %}') == f'<span title="{UNKNOWN}">—</span>'


def test_live_tag_renders_the_number_with_the_address_of_its_stream(connected: None) -> None:
    unscripted = "This number is not up to date: its script did not run."
    assert render('{% connection_count "foo" live=True %}') == (
        '<link rel="stylesheet" href="/static/echo/live.css">'
        f'<output class="echo-live" data-url="/foo/connections/live" data-unknown="{UNKNOWN}"'
        f' data-old="{OLD}" data-stale-mark="not up to date" title="">2'
        f'<span class="echo-unscripted" title="{unscripted}"> (not up to date)</span></output>'
        '<script src="/static/echo/live.js" defer></script>'
    )


def test_live_tag_tells_that_the_count_is_unknown(redis_is_away: None) -> None:
    assert f'title="{UNKNOWN}">—<span' in render('{% connection_count "foo" live=True %}')


def test_part_of_a_page_that_is_cached_keeps_its_script(settings: Settings) -> None:
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    tag = '{% connection_count "foo" live=True %}'
    part = "{% load cache %}{% cache 60 part %}" + tag + "{% endcache %}"

    render(tag + part)

    assert render(part).count("<script") == 1


def test_live_tag_has_the_nonce_of_the_page() -> None:
    html = render('{% connection_count "foo" live=True %}', csp_nonce="a&b")

    assert '/static/echo/live.css" nonce="a&amp;b">' in html
    assert '<script src="/static/echo/live.js" defer nonce="a&amp;b">' in html


def test_nonce_that_is_false_until_it_is_read_is_read() -> None:
    nonce = LazyNonce(lambda: "abc")

    assert ' defer nonce="abc">' in render('{% connection_count "foo" live=1 %}', csp_nonce=nonce)


def test_live_tag_has_the_nonce_of_django_csp() -> None:
    request = RequestFactory().get("/")
    request.csp_nonce = SimpleLazyObject(lambda: "abc")
    template = engines["django"].from_string('{% load echo %}{% connection_count "foo" live=1 %}')

    assert template.render({}, request).count('nonce="abc"') == 2


def test_page_without_a_nonce_has_none() -> None:
    assert "nonce" not in render('{% connection_count "foo" live=True %}', csp_nonce=None)


def test_live_tag_without_its_urls_says_what_to_add(settings: Settings) -> None:
    settings.ROOT_URLCONF = "echo.operations.urls"

    with pytest.raises(ImproperlyConfigured) as raised:
        render('{% connection_count "foo" live=True %}')

    assert str(raised.value) == (
        "{% connection_count live=True %} needs echo.urls in the URLconf: "
        "path('connections/', include('echo.urls'))."
    )


def test_live_tag_works_with_the_context_of_a_request() -> None:
    template = engines["django"].from_string('{% load echo %}{% connection_count "foo" live=1 %}')

    assert "<output" in template.render({}, RequestFactory().get("/"))


def test_names_of_strangers_are_escaped() -> None:
    name = '"><img src=x onerror=alert(1)>'

    html = render("{% connection_count name live=True %}", name=name)

    assert "<img" not in html
    url = "/%22%3E%3Cimg%20src=x%20onerror=alert(1)%3E/connections/live"
    assert re.findall('data-url="([^"]*)"', html) == [url]


@pytest.mark.parametrize("name", [".", ".."])
def test_name_that_browsers_take_for_a_step_has_no_stream(name: str) -> None:
    assert render("{% connection_count name live=True %}", name=name) == "0"


def test_name_that_no_object_can_have_is_an_error() -> None:
    with pytest.raises(InvalidName, match="has a slash"):
        render('{% connection_count "a/b" %}')
