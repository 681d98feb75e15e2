import asyncio
import re
import socket
from collections.abc import Iterator

import pytest
from django.template import Context, Template, engines
from django.test import RequestFactory
from pytest_django import Settings

from echo.exceptions import InvalidName
from echo.state import get_state

UNKNOWN = "The number of connections is not known at the moment."
OLD = "This number is not fresh: the server does not answer."


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
    assert render('{% connection_count "foo" live=True %}') == (
        f'<output class="echo-live" data-url="/foo/connections/live" data-unknown="{UNKNOWN}"'
        f' data-old="{OLD}" title="">2</output><script src="/static/echo/live.js" defer></script>'
    )


def test_live_tag_tells_that_the_count_is_unknown(redis_is_away: None) -> None:
    assert f'title="{UNKNOWN}">—</output>' in render('{% connection_count "foo" live=True %}')


def test_script_is_there_once_however_often_the_tag_is_used() -> None:
    tag = '{% connection_count "foo" live=True %}'
    part = engines["django"].from_string("{% load echo %}" + tag).template
    includes = "{% include part %}{% include part only %}"

    html = render(tag + includes + tag, part=part)

    assert html.count("<output") == 4
    assert html.count("<script") == 1


def test_two_renderings_have_a_script_each() -> None:
    template = Template('{% load echo %}{% connection_count "foo" live=True %}')

    first, second = (template.render(Context()) for _ in range(2))

    assert first == second
    assert "<script" in first


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
