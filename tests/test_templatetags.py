import asyncio
import json
import re
import socket
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.template import Context, Template, engines
from django.test import RequestFactory
from django.utils.functional import SimpleLazyObject, empty
from django.utils.html import escape
from pytest_django import Settings

from echo.exceptions import InvalidName
from echo.names import visible
from echo.state import get_state
from tests.pages import HOSTILE, IMAGE

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


# The list of members

LIVE_LIST = '{% load echo %}{% member_list "foo" live=True %}'
LIST = '{% load echo %}{% member_list "foo" %}'


@pytest.fixture
def members_for_all(settings: Settings) -> None:
    settings.DEBUG = True


@pytest.fixture
def present() -> Iterator[Callable[..., None]]:
    """Return a function that gives "foo" a member with that key and info."""
    keys = []

    def present(key: str, **info: object) -> None:
        asyncio.run(get_state().join("foo", member=(key, json.dumps(info))))
        keys.append(key)

    yield present
    for key in keys:
        get_state().leave("foo", key)


def render_for_request(source: str, **values: object) -> str:
    return engines["django"].from_string(source).render(values, RequestFactory().get("/"))


def shown(html: str) -> list[str]:
    return [unescape(name) for name in re.findall(r"<li[^>]*><bdi>(.*)</bdi></li>\n", html)]


def is_hidden(html: str, part: str) -> bool:
    (attributes,) = re.findall(f'<p class="{part}"([^>]*)>', html)
    return "hidden" in attributes


def test_list_shows_members_by_name_or_key(members_for_all: None, present) -> None:
    present("7", name="Ada")
    present("bob")
    present("8", name="")
    present("9", name=["no text"])

    html = render_for_request(LIST)

    assert shown(html) == ["Ada", "bob", "8", "9"]
    assert is_hidden(html, "echo-empty") and is_hidden(html, "echo-more")
    assert not {"<script", "<link", "<template"} & set(re.findall(r"<\w+", html))


def test_empty_list_says_so(members_for_all: None) -> None:
    html = render_for_request(LIST)

    assert shown(html) == []
    assert '<p class="echo-empty">Nobody is here.</p>' in html


@pytest.fixture
def two_are_shown(settings: Settings) -> None:
    settings.ECHO_MAX_MEMBERS_SHOWN = 2


def test_list_tells_how_many_it_leaves_out(
    members_for_all: None, two_are_shown: None, present
) -> None:
    for number in range(1502):
        present(f"{number:04}")

    html = render_for_request(LIST)

    assert shown(html) == ["0000", "0001"]
    assert '<p class="echo-more">and 1,500 more</p>' in html


def test_list_says_that_members_are_unknown(members_for_all: None, redis_is_away: None) -> None:
    html = render_for_request(LIST)

    assert shown(html) == []
    assert is_hidden(html, "echo-empty")
    assert ">The members are unknown at the moment.</p>" in html


@pytest.mark.parametrize("text", [*HOSTILE, IMAGE, '" onclick="alert(1)', "\u202eevil", "a\u200bb"])
def test_names_and_keys_of_members_are_text(members_for_all: None, present, text: str) -> None:
    present(text, name=text)
    present(f"{text}2")

    html = render_for_request(LIVE_LIST)

    assert shown(html) == [visible(text), visible(f"{text}2")]
    assert re.findall(r"<li ([^>]*)>", html) == [
        f'data-key="{escape(text)}"',
        f'data-key="{escape(text)}2"',
    ]
    assert "<img" not in html


def test_live_list_has_its_stream_and_its_files(members_for_all: None) -> None:
    html = render_for_request(LIVE_LIST, csp_nonce="a&b")

    assert 'data-url="/foo/members/live"' in html
    assert '<link rel="stylesheet" href="/static/echo/live.css" nonce="a&amp;b">' in html
    assert '<script src="/static/echo/live.js" defer nonce="a&amp;b"></script>' in html
    assert "This list is not up to date: its script did not run." in html
    assert not re.findall(r"<script>|<style|\bon\w+=|style=", html)


def test_list_is_empty_without_the_permission(present) -> None:
    present("7", name="Ada")

    assert render_for_request(LIST) == ""
    template = '{% load echo %}{% member_list "foo" as people %}{% if not people %}none{% endif %}'
    assert render_for_request(template) == "none"


@pytest.mark.django_db
def test_staff_see_the_list_where_debug_is_off(present, django_user_model) -> None:
    present("7", name="Ada")
    request = RequestFactory().get("/")
    request.user = django_user_model(is_staff=True)

    assert shown(engines["django"].from_string(LIST).render({}, request)) == ["Ada"]


def test_list_without_a_request_says_what_to_add(members_for_all: None) -> None:
    with pytest.raises(ImproperlyConfigured, match="needs the request"):
        render('{% member_list "foo" %}')


def test_list_works_with_the_request_in_the_context(members_for_all: None, present) -> None:
    present("7", name="Ada")

    assert shown(render('{% member_list "foo" %}', request=RequestFactory().get("/"))) == ["Ada"]


def test_live_list_without_its_urls_says_what_to_add(
    members_for_all: None, settings: Settings
) -> None:
    settings.ROOT_URLCONF = "echo.operations.urls"

    with pytest.raises(ImproperlyConfigured, match="member_list live=True %} needs echo"):
        render_for_request(LIVE_LIST)


@pytest.mark.parametrize("name", [".", ".."])
def test_list_of_a_name_that_browsers_take_for_a_step_has_no_stream(
    members_for_all: None, name: str
) -> None:
    html = render_for_request("{% load echo %}{% member_list name live=True %}", name=name)

    assert "Nobody is here." in html and "data-url" not in html


def test_site_may_override_the_template(
    members_for_all: None, present, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "echo").mkdir()
    source = "{% load echo %}{% for member in members %}*{{ member|member_name }}{% endfor %}"
    (tmp_path / "echo" / "member_list.html").write_text(source)
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [tmp_path]}]
    present("7", name="<Ada>")

    assert render_for_request(LIST) == "*&lt;Ada&gt;"


def test_list_of_an_invalid_name_is_an_error(members_for_all: None) -> None:
    with pytest.raises(InvalidName, match="has a slash"):
        render_for_request("{% load echo %}{% member_list 'a/b' %}")
