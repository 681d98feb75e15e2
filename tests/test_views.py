import http.client
import json
from datetime import UTC, datetime, timedelta
from io import BytesIO

import pytest
from django.core.handlers.asgi import ASGIRequest
from django.test import AsyncClient, RequestFactory
from django.test import Client as DjangoClient

from echo import views
from echo.responses import UNKNOWN_COUNT, count_sentence
from echo.state import get_state
from echo.views import NO_WEBSOCKET, UPGRADE_LOST, USAGE, WSGI_HINT
from tests.raw import Client
from tests.servers import Server, free_port

UPGRADE_EXPECTED = "Durable Object expected Upgrade: websocket"
NONE = "There are 0 WebSocket clients connected to this Durable Object instance."
TEXT = "text/plain;charset=UTF-8"
BAD_NAMES = ["x" * 129, "%F0%9F%98%80" * 33, "a%00b", "a%0Ab", "a%1B%5B2J", "a%7Fb", "%C2%85"]
ADA, BOB = ("7", '{"name":"Ada"}'), ("bob", "{}")
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"]


@pytest.fixture
async def connected():
    """Two connections of "foo" and one of "bar", as the border counts them."""
    names = ["foo", "foo", "bar"]
    for name in names:
        await get_state().join(name)
    yield
    for name in names:
        get_state().leave(name)


def of_wsgi(path, method="GET", **extra):
    """Return the answer of the WSGI side; CSRF is enforced, as on a real site."""
    return DjangoClient(enforce_csrf_checks=True).generic(method, path, **extra)


async def of_asgi(path, method="GET", **extra):
    return await AsyncClient(enforce_csrf_checks=True).generic(method, path, **extra)


def told(response):
    return response.status_code, response["Content-Type"], response.content.decode()


@pytest.mark.parametrize("path", ["/getCurrentConnections", "/foo/getCurrentConnections"])
async def test_count_of_an_object_is_told_in_the_words_of_the_original(connected, path):
    response = await of_asgi(path)

    sentence = "There are 2 WebSocket clients connected to this Durable Object instance."
    assert told(response) == (200, TEXT, sentence)


async def test_count_of_one_is_told_in_the_singular(connected):
    response = await of_asgi("/bar/getCurrentConnections")

    sentence = "There is 1 WebSocket client connected to this Durable Object instance."
    assert told(response) == (200, TEXT, sentence)


async def test_count_of_an_object_nobody_has_named_is_0():
    assert told(await of_asgi("/nobody/getCurrentConnections")) == (200, TEXT, NONE)


def test_count_in_the_sentence_has_no_separators(settings):
    settings.USE_THOUSAND_SEPARATOR = True
    settings.LANGUAGE_CODE = "de"

    assert count_sentence(1234567).startswith("There are 1234567 WebSocket clients ")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/getCurrentConnections", {"name": "foo", "connections": 2}),
        ("/bar/getCurrentConnections", {"name": "bar", "connections": 1}),
        ("/nobody/getCurrentConnections", {"name": "nobody", "connections": 0}),
    ],
)
async def test_count_is_json_for_who_prefers_it(connected, path, expected):
    response = await of_asgi(path, headers={"accept": "application/json"})

    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    assert json.loads(response.content) == expected


@pytest.mark.parametrize(
    "accept",
    ["", "*/*", "text/plain", "text/html", "application/json;q=0.5, text/plain", "nonsense"],
)
async def test_count_is_text_for_everybody_else(accept):
    response = await of_asgi("/getCurrentConnections", headers={"accept": accept})

    assert told(response) == (200, TEXT, NONE)


async def test_default_object_is_the_one_of_the_settings(settings):
    settings.ECHO_DEFAULT_OBJECT = "bar"

    response = await of_asgi("/getCurrentConnections", headers={"accept": "application/json"})

    assert json.loads(response.content) == {"name": "bar", "connections": 0}


@pytest.mark.parametrize("path", ["/websocket", "/foo/websocket"])
async def test_websocket_without_upgrade_is_a_426(path):
    assert told(await of_asgi(path)) == (426, TEXT, UPGRADE_EXPECTED)


@pytest.mark.parametrize("path", ["/websocket", "/foo/websocket"])
def test_websocket_under_wsgi_is_a_426_that_tells_why(path):
    assert told(of_wsgi(path)) == (426, TEXT, f"{UPGRADE_EXPECTED}\n{WSGI_HINT}")


@pytest.mark.parametrize("path", ["/", "/foo", "/foo/", "/a/b/websocket", "/Websocket", "/ws?x=1"])
async def test_every_other_path_tells_how_to_use_it(path):
    response = await of_asgi(path)

    assert told(response) == (200, TEXT, USAGE)


def test_usage_is_the_text_of_the_original():
    assert USAGE == (
        "\nThis Durable Object supports the following endpoints:\n"
        "/websocket\n"
        "- Creates a WebSocket connection. Any messages sent to it are echoed with a prefix.\n"
        "/getCurrentConnections\n"
        "- A regular HTTP GET endpoint that returns the number of currently connected WebSocket "
        "clients.\n"
    )


@pytest.mark.parametrize("path", ["/getCurrentConnections", "/foo/getCurrentConnections"])
async def test_count_that_cannot_be_known_is_a_503(settings, path):
    settings.ECHO_STATE_URL = f"redis://127.0.0.1:{free_port()}/0"

    for accept in ("*/*", "application/json"):
        response = await of_asgi(path, headers={"accept": accept})

        assert told(response) == (503, TEXT, UNKNOWN_COUNT)
        assert response["Retry-After"] == "2"
    assert told(await of_asgi("/websocket")) == (426, TEXT, UPGRADE_EXPECTED)


@pytest.mark.parametrize("end", ["websocket", "getCurrentConnections"])
@pytest.mark.parametrize("name", BAD_NAMES)
async def test_invalid_name_is_a_400_that_tells_the_rule(name, end):
    response = await of_asgi(f"/{name}/{end}")

    status, content_type, text = told(response)
    assert (status, content_type) == (400, TEXT)
    assert text.startswith(("A name has 1 to 128 bytes", "The name "))


@pytest.mark.parametrize(
    "path", ["/", "/websocket", "/getCurrentConnections", f"/{'x' * 129}/websocket"]
)
async def test_no_answer_is_stored_or_guessed_at(path):
    response = await of_asgi(path)

    assert response["Cache-Control"] == "no-store"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Vary"] == "Accept"


@pytest.mark.parametrize("method", METHODS)
async def test_every_method_is_answered_alike(method):
    answers = [await of_asgi(p, method) for p in ("/getCurrentConnections", "/websocket", "/foo")]

    assert [told(answer) for answer in answers] == [
        (200, TEXT, NONE),
        (426, TEXT, UPGRADE_EXPECTED),
        (200, TEXT, USAGE),
    ]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_answered_alike_under_wsgi(method):
    assert told(of_wsgi("/getCurrentConnections", method)) == (200, TEXT, NONE)
    assert told(of_wsgi("/foo", method)) == (200, TEXT, USAGE)


async def test_head_is_answered_without_a_body():
    response = await of_asgi("/getCurrentConnections", "HEAD")

    assert told(response) == (200, TEXT, "")


async def test_urls_can_stand_below_a_prefix(settings):
    settings.ROOT_URLCONF = "tests.sites.prefix"

    assert told(await of_asgi("/connections/foo/getCurrentConnections")) == (200, TEXT, NONE)
    assert told(await of_asgi("/connections/websocket")) == (426, TEXT, UPGRADE_EXPECTED)
    assert (await of_asgi("/connections/")).status_code == 200
    assert (await of_asgi("/")).status_code == 404


@pytest.mark.parametrize("path", ["/connections/nothing", "/connections/websocket/", "/nothing"])
async def test_unknown_path_of_an_existing_site_is_its_404(settings, path):
    settings.ROOT_URLCONF = "tests.sites.prefix"

    assert (await of_asgi(path)).status_code == 404


COUNT_ENDPOINT = (
    "- A regular HTTP GET endpoint that returns the number of currently connected WebSocket "
    "clients.\n"
)


async def test_usage_text_has_the_paths_of_an_existing_site_that_are_routed(settings):
    settings.ROOT_URLCONF = "tests.sites.prefix"  # the WebSockets of the demo are not below it

    assert told(await of_asgi("/connections/")) == (
        200,
        TEXT,
        "\nThis Durable Object supports the following endpoints:\n"
        f"/connections/getCurrentConnections\n{COUNT_ENDPOINT}",
    )


async def test_usage_text_has_the_prefix_before_each_path(settings):
    settings.ROOT_URLCONF = "tests.sites.prefix"
    settings.ASGI_APPLICATION = "tests.sites.prefix.open_to_all"

    assert told(await of_asgi("/connections/")) == (
        200,
        TEXT,
        "\nThis Durable Object supports the following endpoints:\n"
        "/connections/websocket\n"
        "- Creates a WebSocket connection. Any messages sent to it are echoed with a prefix.\n"
        f"/connections/getCurrentConnections\n{COUNT_ENDPOINT}",
    )


@pytest.mark.parametrize("debug", [True, False])
async def test_usage_text_has_the_console_for_those_who_may_use_it(settings, debug):
    settings.DEBUG = debug
    settings.ROOT_URLCONF = "tests.sites.prefix"
    settings.ASGI_APPLICATION = "tests.sites.prefix.console"

    assert ("/connections/websocket" in told(await of_asgi("/connections/"))[2]) == debug


async def test_426_names_the_protocol_to_upgrade_to():
    response = await of_asgi("/websocket")

    assert (response["Upgrade"], response["Connection"]) == ("websocket", "Upgrade")


@pytest.mark.parametrize("method", ["", "HTTP/2"])
def test_426_has_no_upgrade_where_it_is_forbidden(method):
    """To applications under WSGI (PEP 3333), and in HTTP/2 (RFC 9113 §8.2.2)."""
    if method:
        scope = {"type": "http", "method": "GET", "path": "/websocket", "headers": []}
        request = ASGIRequest({**scope, "http_version": "2"}, BytesIO())
        response = views.websocket(request)
    else:
        response = of_wsgi("/websocket")

    assert response.status_code == 426
    assert not {"Upgrade", "Connection"} & set(response.headers)


KEY = {"sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-version": "13"}


@pytest.mark.parametrize(
    "headers",
    [
        {"upgrade": "websocket"},
        {"upgrade": "WebSocket", "connection": "keep-alive"},
        {"connection": "close", **KEY},
        KEY,
    ],
)
async def test_upgrade_that_a_proxy_has_lost_is_told(headers):
    response = await of_asgi("/websocket", headers=headers)

    assert told(response) == (426, TEXT, UPGRADE_LOST)
    assert response["Upgrade"] == "websocket"


async def test_upgrade_that_nothing_takes_is_told():
    """On a server without WebSockets, or where asgi.py has no route for it."""
    headers = {"upgrade": "websocket", "connection": "keep-alive, Upgrade", **KEY}

    response = await of_asgi("/websocket", headers=headers)

    assert told(response) == (404, TEXT, NO_WEBSOCKET)
    assert "Upgrade" not in response.headers


@pytest.mark.parametrize("headers", [{"upgrade": "websocket", "connection": "Upgrade"}, KEY])
def test_upgrade_under_wsgi_is_told_the_reason_alone(headers):
    assert told(of_wsgi("/websocket", headers=headers)) == (404, TEXT, WSGI_HINT)


@pytest.mark.parametrize("upgrade", ["h2c", "websocket/13", "websocket, h2c", ""])
async def test_other_upgrade_gets_the_words_of_the_original(upgrade):
    headers = {"upgrade": upgrade, "connection": "Upgrade", **KEY}

    assert told(await of_asgi("/websocket", headers=headers)) == (426, TEXT, UPGRADE_EXPECTED)


@pytest.mark.parametrize("kind", ["daphne", "uvicorn", "stock-daphne", "stock-uvicorn"])
def test_426_over_the_wire_names_the_protocol(kind):
    with Server(kind) as server, Client(server.port) as client:
        answer = client.ask("/websocket", {})
        lost = client.ask("/websocket", KEY)

    assert (answer.header("Upgrade"), answer.header("Connection")) == ("websocket", "Upgrade")
    assert answer.body.decode() == UPGRADE_EXPECTED
    assert (lost.status_line.split()[1], lost.body.decode()) == ("426", UPGRADE_LOST)


def test_names_that_are_steps_in_a_path_can_be_asked_for():
    """A browser takes `..` for a step; what comes through all the same is a name like others."""
    request = RequestFactory().get("/")

    assert told(views.connections(request, name=".."))[:2] == (200, TEXT)


def test_answers_over_the_wire_are_the_same(site):
    assert site.get("/getCurrentConnections")[::2] == (200, NONE)
    assert site.get("/websocket")[::2] == (426, UPGRADE_EXPECTED)
    assert site.get("/foo/websocket", "POST")[::2] == (426, UPGRADE_EXPECTED)
    assert site.get("/nowhere")[::2] == (200, USAGE)
    assert site.get("/a%0Ab/websocket")[::2] == (
        400,
        r"The name 'a\nb' has a control character.",
    )


def test_name_outside_ascii_is_one_object_on_both_sides(site):
    with Client.opened(site.port, "%C3%A9t%C3%A9"):
        answer = site.get("/%C3%A9t%C3%A9/getCurrentConnections", Accept="application/json")

    assert json.loads(answer[2]) == {"name": "été", "connections": 1}


def test_body_of_a_request_is_ignored(site):
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
    try:
        connection.request("POST", "/getCurrentConnections", body=b"x" * 100_000)
        answer = connection.getresponse()
        assert (answer.status, answer.read().decode()) == (200, NONE)
    finally:
        connection.close()


@pytest.fixture
def members_for_all(settings):
    settings.DEBUG = True


@pytest.fixture
async def present():
    """Ada with two tabs, Bob, and an anonymous visitor."""
    joins = [ADA, ADA, BOB, None]
    for member in joins:
        await get_state().join("foo", member=member)
    yield
    for member in joins:
        get_state().leave("foo", member and member[0])


@pytest.mark.parametrize("path", ["/members", "/foo/members"])
async def test_members_are_json_oldest_first(members_for_all, present, path):
    response = await of_asgi(path)

    assert (response.status_code, response["Content-Type"]) == (200, "application/json")
    listed = json.loads(response.content)
    since = [member.pop("since") for member in listed["members"]]
    assert listed == {
        "name": "foo",
        "connections": 4,
        "members": [
            {"key": "7", "info": {"name": "Ada"}, "connections": 2},
            {"key": "bob", "info": {}, "connections": 1},
        ],
    }
    for text in since:
        read = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        assert abs(datetime.now(UTC) - read) < timedelta(minutes=1)


@pytest.fixture
def one_is_shown(settings):
    settings.ECHO_MAX_MEMBERS_SHOWN = 1


async def test_members_above_the_limit_are_a_number(members_for_all, one_is_shown, present):
    listed = json.loads((await of_asgi("/foo/members")).content)

    assert [member["key"] for member in listed["members"]] == ["7"]
    assert (listed["connections"], listed["more"]) == (4, 1)


async def test_object_without_members_has_an_empty_list(members_for_all):
    listed = json.loads((await of_asgi("/nobody/members")).content)

    assert listed == {"name": "nobody", "connections": 0, "members": []}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("is_staff", "status"), [(False, 403), (True, 200)])
async def test_members_are_for_staff(present, django_user_model, is_staff, status):
    user = await django_user_model.objects.acreate(username="someone", is_staff=is_staff)
    client = AsyncClient()
    await client.aforce_login(user)

    response = await client.get("/foo/members")

    assert response.status_code == status
    assert (b"Ada" in response.content) == is_staff


async def test_members_are_denied_to_visitors(present):
    response = await of_asgi("/foo/members")

    denied = "You may not see the members of this object."
    assert (response.status_code, response.content.decode()) == (403, denied)


@pytest.mark.parametrize("name", BAD_NAMES)
async def test_members_of_an_invalid_name_are_a_400(members_for_all, name):
    response = await of_asgi(f"/{name}/members")

    assert (response.status_code, response["Cache-Control"]) == (400, "no-store")


async def test_members_that_cannot_be_known_are_a_503(members_for_all, settings):
    settings.ECHO_STATE_URL = f"redis://127.0.0.1:{free_port()}/0"

    response = await of_asgi("/foo/members")

    assert (response.status_code, response["Retry-After"]) == (503, "2")
    assert response.content.decode() == "The members are unknown at the moment."


async def test_members_can_only_be_read():
    assert (await of_asgi("/foo/members", "POST")).status_code == 405
