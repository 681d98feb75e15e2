"""The usage page as any HTTP client gets it; what a browser does with it is in test_browser.py."""

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path

import pytest
from channels.routing import ProtocolTypeRouter, URLRouter
from django.test import Client
from django.urls import include, path
from pytest_django import Settings

from echo.consumers import PREFIX
from echo.names import MAX_NAME_BYTES
from echo.routing import console_urlpatterns, websocket_urlpatterns
from echo.state import get_state
from tests.pages import HOSTILE
from tests.servers import free_port
from tests.waiting import SECOND

HTML = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"  # as browsers send it
Join = Callable[..., None]
IMAGE = "<img src=x onerror=alert(1)>"

# As a urlconf: a site without the admin, with the app under a prefix.
urlpatterns = [path("live/", include("echo.urls"))]


@pytest.fixture(autouse=True)
def listing_is_for_all(settings: Settings) -> None:
    settings.DEBUG = True


@pytest.fixture
def join() -> Iterator[Join]:
    """Return a function that gives objects one connection each, until the end of the test."""
    joined = []

    def join(*names: str) -> None:
        async def join_all() -> None:
            for name in names:
                await get_state().join(name)
                joined.append(name)

        asyncio.run(join_all())

    yield join
    for name in joined:
        get_state().leave(name)


@pytest.fixture
def without_admin(settings: Settings) -> None:
    settings.INSTALLED_APPS = ["echo", "django.contrib.staticfiles"]
    settings.MIDDLEWARE = []
    settings.TEMPLATES = [
        {"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}
    ]
    settings.ROOT_URLCONF = __name__


def page(client: Client, where: str = "/") -> str:
    response = client.get(where, headers={"Accept": HTML})
    assert (response.status_code, response["Content-Type"]) == (200, "text/html; charset=utf-8")
    return response.content.decode()


def test_page_is_the_admins_where_the_site_has_one(client: Client) -> None:
    html = page(client)

    assert "admin/css/base.css" in html
    assert "echo-base" not in html


def test_page_needs_no_database_for_a_visitor_without_a_session(client: Client) -> None:
    # pytest-django fails a test that touches the database and does not say so
    assert "No object has a connection now." in page(client)


@pytest.mark.usefixtures("without_admin")
def test_page_has_its_own_base_without_the_admin(client: Client) -> None:
    html = page(client, "/live/")

    assert '<html class="echo-base" lang="en-us" dir="ltr">' in html
    assert "<title>Connections</title>" in html
    assert '<meta name="robots" content="noindex">' in html
    assert "admin/" not in html


def test_page_has_its_own_base_where_the_admin_has_no_route(
    client: Client, settings: Settings
) -> None:
    settings.ROOT_URLCONF = __name__

    assert '<html class="echo-base"' in page(client, "/live/")


def test_page_speaks_of_the_prefix_it_is_included_under(client: Client, settings: Settings) -> None:
    settings.ROOT_URLCONF = __name__
    settings.ASGI_APPLICATION = f"{__name__}.below_live"

    html = page(client, "/live/")

    assert 'data-root="/live/"' in html
    assert "<code>/live/<var>name</var>/websocket</code>" in html
    assert "<code>/live/websocket</code>" in html
    assert '<a href="/live/getCurrentConnections">' in html
    assert '<a href="/live/foo/getCurrentConnections">' in html
    assert "<code>/live/<var>name</var>/connections/live</code>" in html
    assert "<code>/live/live</code>" in html


below_live = ProtocolTypeRouter(
    {"websocket": URLRouter([path("live/", URLRouter(websocket_urlpatterns))])}
)
opaque = ProtocolTypeRouter({"websocket": lambda scope, receive, send: None})


console = ProtocolTypeRouter(
    {"websocket": URLRouter([path("live/", URLRouter(console_urlpatterns))])}
)


@pytest.mark.parametrize("application", ["below_live", "opaque", "console"])
def test_page_has_a_console_where_a_route_may_lead_to_it(
    client: Client, settings: Settings, application: str
) -> None:
    settings.ROOT_URLCONF = __name__
    settings.ASGI_APPLICATION = f"{__name__}.{application}"

    assert 'id="echo-console"' in page(client, "/live/")


def test_page_has_the_console_of_a_site_only_for_those_who_may_use_it(
    client: Client, settings: Settings
) -> None:
    settings.DEBUG = False
    settings.ROOT_URLCONF = __name__
    settings.ASGI_APPLICATION = f"{__name__}.console"

    html = page(client, "/live/")

    assert 'id="echo-console"' not in html
    assert "You may not use the console." in html
    assert "/websocket</code></dt>" not in html
    settings.ECHO_AUTHORIZE = "tests.test_usage_page.lists"
    assert 'id="echo-console"' in page(client, "/live/")


def lists(asking: object, name: str | None, action: str) -> bool:
    return action == "list"


def test_page_shows_members_to_those_who_may_see_them(client: Client, settings: Settings) -> None:
    assert 'id="echo-who"' in page(client)

    settings.DEBUG = False
    settings.ECHO_AUTHORIZE = "tests.test_usage_page.lists"
    assert 'id="echo-who"' not in page(client)


def test_page_has_no_console_where_no_route_leads_to_it(client: Client, settings: Settings) -> None:
    settings.ROOT_URLCONF = __name__  # below /live/, and the demo's routes are not

    html = page(client, "/live/")

    assert 'id="echo-console"' not in html
    assert "no WebSocket route of an EchoConsumer at <code>/live/&lt;str:name&gt;/websocket" in html
    assert "/websocket</code></dt>" not in html
    assert '<a href="/live/getCurrentConnections">' in html


def test_page_tells_the_prefix_of_replies_and_the_length_of_names(client: Client) -> None:
    html = page(client)

    assert f"<code>{PREFIX}hello</code>" in html
    assert f"1 to {MAX_NAME_BYTES} bytes" in html


def test_page_shows_the_connected_objects_with_links_to_their_counts(
    client: Client, join: Join
) -> None:
    join("foo", "foo", "b c")

    html = page(client)

    assert '<a href="/foo/getCurrentConnections"><bdi>foo</bdi></a></th>' in html
    assert '<a href="/b%20c/getCurrentConnections"><bdi>b c</bdi></a></th>' in html
    assert html.index(">b c<") < html.index('<td class="echo-count">1</td>')
    assert html.index(">foo</bdi></a></th>") < html.index('<td class="echo-count">2</td>')
    assert "No object has a connection now." not in html


def test_page_escapes_names(client: Client, join: Join) -> None:
    join(IMAGE, '"quoted"')

    html = page(client)

    assert "<img" not in html
    assert "<bdi>&lt;img src=x onerror=alert(1)&gt;</bdi>" in html
    assert '<a href="/%22quoted%22/getCurrentConnections"><bdi>&quot;quoted&quot;</bdi>' in html


def test_page_escapes_the_default_object(client: Client, settings: Settings) -> None:
    settings.ECHO_DEFAULT_OBJECT = f'"{IMAGE}'

    html = page(client)

    assert "<img" not in html
    assert 'value="&quot;&lt;img src=x onerror=alert(1)&gt;"' in html


@pytest.mark.parametrize("name", sorted(set(HOSTILE) - {".", ".."}))
def test_every_name_is_shown_as_text_with_a_link_to_its_count(
    client: Client, join: Join, name: str
) -> None:
    join(name)

    html = page(client)

    [(link, shown)] = re.findall(r'<th scope="row"><a href="([^"]+)"><bdi>(.*)</bdi>', html)
    assert unescape(shown) == name
    assert not {"<", ">", '"', "'"} & set(shown)
    count = client.get(unescape(link), headers={"Accept": "application/json"})
    assert count.json() == {"name": name, "connections": 1}


def test_ten_thousand_objects_are_answered_in_less_than_a_second(
    client: Client, join: Join
) -> None:
    join(*(f"object {number:05}" for number in range(10_000)))

    start = time.monotonic()
    html = page(client)
    took = time.monotonic() - start

    assert "These are the first 500 of 10000 objects, by name." in html
    assert took < SECOND


def test_redis_away_is_told_and_no_error(client: Client, settings: Settings) -> None:
    settings.ECHO_STATE_URL = f"redis://127.0.0.1:{free_port()}/0"

    html = page(client)

    assert "The counts are unknown at the moment: Redis does not respond." in html
    assert 'id="echo-console"' in html


@pytest.mark.parametrize("function", ["raises", "raises_async"])
def test_function_of_the_site_that_raises_hides_the_names(
    client: Client, settings: Settings, join: Join, function: str
) -> None:
    settings.ECHO_AUTHORIZE = f"tests.middleware.test_access.{function}"
    join("secret-plan")

    html = page(client)

    assert "secret-plan" not in html
    assert "You may not see the names of the objects." in html


def test_who_may_not_count_sees_no_count(client: Client, settings: Settings) -> None:
    settings.ECHO_AUTHORIZE = "tests.sites.visitors.authorize"
    assert "Connections of <bdi>foo</bdi>:" in page(client)

    settings.ECHO_AUTHORIZE = "tests.test_admin.nobody"
    assert "Connections of" not in page(client)


def test_page_needs_no_application_that_works(client: Client, settings: Settings) -> None:
    settings.ASGI_APPLICATION = "no.such.application"

    assert 'id="echo-console"' in page(client)


@pytest.mark.parametrize("code", ["raise SystemExit('no secret')", "{}['no-secret']"])
def test_page_needs_no_asgi_module_that_can_be_imported(
    client: Client, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    (tmp_path / "raising_asgi.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    settings.ASGI_APPLICATION = "raising_asgi.application"

    assert 'id="echo-console"' in page(client)


@pytest.mark.parametrize("name", [".", ".."])
def test_page_does_not_link_a_name_that_browsers_take_for_a_step(
    client: Client, join: Join, name: str
) -> None:
    join(name)

    assert f'<th scope="row"><bdi>{name}</bdi></th>' in page(client)


def test_page_shows_the_first_500_of_many_objects_and_how_many_there_are(
    client: Client, join: Join
) -> None:
    join(*(f"object {number:03}" for number in range(501)))

    html = page(client)

    assert html.count('<th scope="row">') == 500
    assert "<bdi>object 500</bdi>" not in html
    assert "These are the first 500 of 501 objects, by name." in html


def test_page_has_no_inline_script_style_or_handler(client: Client) -> None:
    html = page(client)

    assert html.count("<script") == html.count("<script src=")
    assert "<style" not in html
    assert " style=" not in html
    assert re.search(r"<[^>]*\son\w+=", html) is None


def test_page_is_never_stored_and_varies_by_accept(client: Client) -> None:
    response = client.get("/", headers={"Accept": HTML})

    assert response["Cache-Control"] == "no-store"
    assert "Accept" in response["Vary"].split(", ")


def test_head_has_the_headers_of_the_page_and_no_body(client: Client) -> None:
    response = client.head("/", headers={"Accept": HTML})

    assert (response.status_code, response.content) == (200, b"")
    assert response["Content-Type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("accept", ["*/*", "text/plain", "application/json"])
def test_others_than_browsers_get_plain_text(client: Client, accept: str) -> None:
    response = client.get("/", headers={"Accept": accept})

    assert response["Content-Type"] == "text/plain;charset=UTF-8"
    assert response.content.startswith(b"\nThis Durable Object supports the following endpoints:")


def test_post_gets_plain_text_from_browsers_too() -> None:
    response = Client(enforce_csrf_checks=True).post("/", headers={"Accept": HTML})

    assert (response.status_code, response["Content-Type"]) == (200, "text/plain;charset=UTF-8")


def test_page_shows_names_to_staff_only_where_debug_is_off(
    client: Client, settings: Settings, join: Join
) -> None:
    settings.DEBUG = False
    join("secret-plan")

    html = page(client)

    assert "secret-plan" not in html
    assert "You may not see the names of the objects." in html
