"""The operators' page, as the test client gets it; a browser uses it in test_admin_browser.py."""

import asyncio
import os
import re
import secrets
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote_plus

import pytest
from channels.layers import InMemoryChannelLayer, get_channel_layer
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.urls import path
from pytest_django import Settings

from echo.admin import ConnectedObject, ConnectedObjectAdmin
from echo.members import Member, check_member
from echo.names import check_name, group_name, visible
from echo.state import get_state
from echo.templatetags.echo import member_name
from tests.pages import HOSTILE
from tests.servers import ROOT, free_port
from tests.waiting import SECOND

OBJECTS = "/admin/echo/object/"
OBJECT = f"{OBJECTS}object/?name="
MEMBER = f"{OBJECTS}member/?name="
CLOSE = f"{OBJECTS}close/?name="
# As a urlconf: a site whose admin is not the default one.
own_site = admin.AdminSite(name="own")
own_site.register([ConnectedObject], ConnectedObjectAdmin)
urlpatterns = [path("own/", own_site.urls), path("admin/", admin.site.urls)]

Join = Callable[..., None]
JoinAs = Callable[[str, dict[str, dict[str, Any]]], None]


class BrokenLayer(InMemoryChannelLayer):
    """A channel layer whose backend is away."""

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        raise ConnectionError("no backend")


class HangingLayer(InMemoryChannelLayer):
    """A channel layer whose backend does not answer."""

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        await asyncio.sleep(100 * SECOND)


@pytest.fixture
def join() -> Iterator[Join]:
    """Return a function that gives objects one connection each, until the end of the test."""
    joined = []

    def join(*names: str) -> None:
        async def join_all() -> None:
            for name in names:
                await get_state().join(name)

        asyncio.run(join_all())
        joined.extend(names)

    yield join
    for name in joined:
        get_state().leave(name)


@pytest.fixture
def join_as() -> Iterator[JoinAs]:
    """Return a function that gives an object one connection of each member: `{key: info}`."""
    joined = []

    def join_as(name: str, members: dict[str, dict[str, Any]]) -> None:
        async def join_all() -> None:
            for key, info in members.items():
                await get_state().join(name, member=check_member(Member(key, info)))

        asyncio.run(join_all())
        joined.extend((name, key) for key in members)

    yield join_as
    for name, key in joined:
        get_state().leave(name, key)


@pytest.fixture
def staff(client: Client, db: None) -> Client:
    client.force_login(User.objects.create_user("staff", is_staff=True))
    return client


@pytest.fixture
def received(settings: Settings) -> Callable[[str], list[dict[str, Any]]]:
    """Return a function that listens to an object, and one call later tells the events since."""
    backend = "channels.layers.InMemoryChannelLayer"
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend}}
    channels: dict[str, str] = {}

    async def events(name: str) -> list[dict[str, Any]]:
        layer = get_channel_layer()
        if name not in channels:
            channels[name] = await layer.new_channel()
            await layer.group_add(group_name(name), channels[name])
        waiting = layer.channels.get(channels[name])
        size = waiting.qsize() if waiting else 0
        return [(await layer.receive(channels[name]))["event"] for _ in range(size)]

    return lambda name: asyncio.run(events(name))


def break_layer(settings: Settings, kind: str) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": f"tests.test_admin.{kind}"}}


def messages(response: Any) -> list[tuple[str, str]]:
    return [(message.level_tag, str(message)) for message in response.context["messages"]]


def log() -> list[tuple[str, str]]:
    return [(e.object_id, e.get_change_message()) for e in LogEntry.objects.order_by("pk")]


def nobody(request: Any, name: str | None, action: str) -> bool:
    return False


def only_listing(request: Any, name: str | None, action: str) -> bool:
    return action == "list"


def listed(client: Client, query: str = "") -> list[tuple[str, int]]:
    return list(client.get(f"{OBJECTS}{query}").context["page"])


def listed_members(client: Client, query: str) -> list[tuple[str, str, int]]:
    rows = client.get(f"{OBJECT}{query}").context["rows"]
    return [(member_name(member), str(member.key), member.connections) for member in rows]


def never_members(request: Any, name: str | None, action: str) -> bool:
    return action != "members"


def never_close(request: Any, name: str | None, action: str) -> bool:
    return action != "close"


def test_admin_lists_the_page_for_staff(staff: Client) -> None:
    body = staff.get("/admin/").content.decode()

    assert f'<a href="{OBJECTS}">Objects</a>' in body
    assert "Connections" in body


def test_admin_without_permission_to_list_does_not_show_the_page(
    staff: Client, settings: Settings
) -> None:
    settings.ECHO_AUTHORIZE = "tests.test_admin.nobody"

    assert OBJECTS not in staff.get("/admin/").content.decode()
    assert staff.get(OBJECTS).status_code == 403
    assert staff.get(f"{OBJECT}foo").status_code == 403


@pytest.mark.parametrize(
    "url",
    [
        *(OBJECTS, f"{OBJECT}foo", f"{CLOSE}foo&code=1000"),
        *(f"{MEMBER}foo&member=7", f"{CLOSE}foo&member=7&code=1000"),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_who_is_not_staff_gets_the_login_page(
    client: Client, db: None, settings: Settings, url: str, debug: bool
) -> None:
    settings.DEBUG = debug  # listing is for all then, but not here
    client.force_login(User.objects.create_user("visitor"))

    response = client.get(url)

    assert response.status_code == 302
    assert response["Location"] == f"/admin/login/?next={quote_plus(url, safe='/')}"
    assert OBJECTS not in client.get("/admin/login/").content.decode()


def test_page_on_a_site_of_its_own_stays_there(
    staff: Client, settings: Settings, join: Join
) -> None:
    settings.ROOT_URLCONF = "tests.test_admin"
    join("foo")

    assert "/own/echo/object/" in staff.get("/own/").content.decode()
    assert "/own/echo/object/object/?name=foo" in staff.get("/own/echo/object/").content.decode()
    sent = staff.post("/own/echo/object/object/?name=foo", {"text": "hello"})
    assert sent["Location"] == "/own/echo/object/object/?name=foo"
    for page in ("object/?name=foo", "close/?name=foo&code=1000", ""):
        assert '"/admin/' not in staff.get(f"/own/echo/object/{page}").content.decode()


def test_objects_are_sorted_by_count_or_by_name(staff: Client, join: Join) -> None:
    join("b", "a", "c", "c")

    assert listed(staff) == [("c", 2), ("a", 1), ("b", 1)]
    assert listed(staff, "?sort=name") == [("a", 1), ("b", 1), ("c", 2)]
    assert "4 connections" in staff.get(OBJECTS).content.decode()


def test_objects_are_filtered_by_the_beginning_of_their_names(staff: Client, join: Join) -> None:
    join("room-1", "room-2", "a-room")

    assert listed(staff, "?prefix=room") == [("room-1", 1), ("room-2", 1)]
    assert listed(staff, "?prefix=%3Cb%3E") == []
    assert "<b>" not in staff.get(f"{OBJECTS}?prefix=%3Cb%3E").content.decode()


def test_links_keep_filter_and_order(staff: Client, join: Join) -> None:
    join(*(f"room-{number}" for number in range(101)))

    body = staff.get(f"{OBJECTS}?prefix=room&sort=name").content.decode()

    assert 'href="?prefix=room&amp;sort=name&amp;page=2"' in body
    assert 'href="?prefix=room&amp;sort=count"' in body


def test_ten_thousand_objects_are_shown_in_pages_in_less_than_a_second(
    staff: Client, join: Join
) -> None:
    names = [f"object-{number:05}" for number in range(10_000)]
    join(*names)

    start = time.monotonic()
    last = staff.get(f"{OBJECTS}?sort=name&page=100")
    took = time.monotonic() - start

    assert list(last.context["page"]) == [(name, 1) for name in names[-100:]]
    assert took < SECOND
    assert listed(staff, "?sort=name&page=x")[0] == (names[0], 1)
    assert listed(staff, "?sort=name&page=999")[0] == (names[-100], 1)


def test_page_without_connections_says_so(staff: Client) -> None:
    body = staff.get(OBJECTS).content.decode()

    assert "No object has a connection now." in body
    assert "The counts are those of this process only." in body


def test_redis_away_is_told_and_no_error(staff: Client, settings: Settings) -> None:
    settings.ECHO_STATE_URL = f"redis://127.0.0.1:{free_port()}/0"

    objects, one = staff.get(OBJECTS), staff.get(f"{OBJECT}foo")

    assert (objects.status_code, one.status_code) == (200, 200)
    told = "unknown at the moment: Redis does not respond."
    assert f"The counts are {told}" in objects.content.decode()
    assert "These are the counts of all processes." in objects.content.decode()
    assert f"The count is {told}" in one.content.decode()
    assert staff.get(f"{CLOSE}foo&code=1000").status_code == 200


@pytest.mark.parametrize("name", HOSTILE)
def test_every_name_is_shown_as_text_and_can_be_acted_on(
    staff: Client, join: Join, received: Callable[[str], list[dict[str, Any]]], name: str
) -> None:
    join(check_name(name))
    received(name)
    url = f"{OBJECT}{quote_plus(name, safe='')}"

    body = staff.get(OBJECTS).content.decode()
    sent = staff.post(url, {"text": name})
    closed = staff.post(
        f"{CLOSE}{quote_plus(name, safe='')}&code=4001&reason={quote_plus(name[:30], safe='')}"
    )

    assert f'<bdi class="echo-name">{escape(name)}</bdi></a>' in body
    assert sent.status_code == closed.status_code == 302
    assert staff.get(sent["Location"]).context["name"] == name
    page = staff.get(closed["Location"])
    assert page.context["name"] == name
    assert "<img" not in page.content.decode()
    assert received(name) == [
        {"type": "websocket.send", "text": name},
        {"type": "websocket.close", "code": 4001, "reason": name[:30].strip()},
    ]
    assert [object_id for object_id, _ in log()] == [name, name]
    assert staff.get("/admin/").status_code == 200  # the log stands there


@pytest.mark.parametrize("name", ["", "a%2Fb", "x" * 129, "a%00b", "a%0Ab"])
def test_name_that_no_object_has_is_not_found(staff: Client, name: str) -> None:
    assert staff.get(f"{OBJECT}{name}").status_code == 404
    assert staff.post(f"{CLOSE}{name}&code=1000").status_code == 404


def test_text_is_sent_once_logged_and_told(
    staff: Client, received: Callable[[str], list[dict[str, Any]]]
) -> None:
    received("foo")

    response = staff.post(f"{OBJECT}foo", {"text": " a\r\nb "}, follow=True)
    staff.get(response.redirect_chain[0][0])  # a reload

    assert response.redirect_chain == [(f"{OBJECT}foo", 302)]
    assert messages(response) == [
        ("success", "The text was sent to the connections of <bdi>foo</bdi>.")
    ]
    assert received("foo") == [{"type": "websocket.send", "text": " a\nb "}]
    assert log() == [("foo", "Sent “ a\nb ”.")]


def test_recent_actions_name_the_object_and_what_it_is(
    staff: Client, received: Callable[[str], list[dict[str, Any]]]
) -> None:
    received("foo")

    for text in ("one", "two"):
        staff.post(f"{OBJECT}foo", {"text": text})

    body = staff.get("/admin/").content.decode()
    assert body.count("foo: text sent") == 2
    assert body.count('<span class="mini quiet">Object</span>') == 2
    assert "Unknown content" not in body


def test_entries_stay_when_stale_content_types_are_removed(
    staff: Client, received: Callable[[str], list[dict[str, Any]]]
) -> None:
    received("foo")
    staff.post(f"{OBJECT}foo", {"text": "one"})

    call_command("remove_stale_contenttypes", interactive=False, verbosity=0)
    staff.post(f"{OBJECT}foo", {"text": "two"})

    assert [message for _, message in log()] == ["Sent “one”.", "Sent “two”."]
    assert staff.get("/admin/").content.decode().count("foo: text sent") == 2


def test_closing_is_asked_first_and_then_done_once(
    staff: Client, received: Callable[[str], list[dict[str, Any]]], join: Join
) -> None:
    join("foo", "foo")
    received("foo")
    url = f"{CLOSE}foo&code=4001&reason=bye"

    asked = staff.get(url).content.decode()
    assert "It has 2 connections now." in asked
    assert (received("foo"), log()) == ([], [])
    response = staff.post(url, follow=True)

    assert messages(response) == [
        ("success", "All connections of <bdi>foo</bdi> are being closed.")
    ]
    assert received("foo") == [{"type": "websocket.close", "code": 4001, "reason": "bye"}]
    assert log() == [("foo", "Closed with code 4001, reason “bye”.")]


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("code=1001", "Use 1000, or 3000 to 4999 of your own."),
        ("code=5000", "Use 1000, or 3000 to 4999 of your own."),
        ("code=x", "Enter a whole number."),
        ("", "This field is required."),
        (f"code=1000&reason={'x' * 124}", "has at most 123 bytes of UTF-8; this one has 124."),
    ],
)
def test_close_that_may_not_be_sent_is_told_at_its_field(
    staff: Client, query: str, error: str
) -> None:
    for response in (staff.get(f"{CLOSE}foo&{query}"), staff.post(f"{CLOSE}foo&{query}")):
        assert error in response.content.decode()
    assert log() == []


def test_empty_text_is_told_at_its_field(staff: Client) -> None:
    assert "This field is required." in staff.post(f"{OBJECT}foo", {"text": ""}).content.decode()
    assert log() == []


@pytest.mark.parametrize(
    ("url", "form"), [(f"{OBJECT}foo", {"text": "hello"}), (f"{CLOSE}foo&code=1000", {})]
)
def test_second_click_does_nothing(
    staff: Client,
    received: Callable[[str], list[dict[str, Any]]],
    url: str,
    form: dict[str, str],
) -> None:
    received("foo")
    pages = [{**form, "csrfmiddlewaretoken": secrets.token_hex(32)} for _ in range(2)]

    responses = [staff.post(url, page, follow=True) for page in (pages[0], pages[0])]

    assert [response.redirect_chain for response in responses] == 2 * [[(f"{OBJECT}foo", 302)]]
    assert messages(responses[1]) == [
        ("info", "This form was already submitted; the action was not repeated.")
    ]
    assert (len(received("foo")), len(log())) == (1, 1)
    staff.post(url, pages[1])  # the page was made anew
    assert (len(received("foo")), len(log())) == (1, 2)


def test_cache_that_ignores_its_errors_does_not_stop_actions(
    staff: Client,
    received: Callable[[str], list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    received("foo")
    down = SimpleNamespace(add=lambda *args: False, get=lambda key: None)
    monkeypatch.setattr("echo.admin.actions.cache", down)

    staff.post(f"{OBJECT}foo", {"text": "hello", "csrfmiddlewaretoken": secrets.token_hex(32)})

    assert (len(received("foo")), len(log())) == (1, 1)


def test_cache_that_raises_does_not_stop_actions(
    staff: Client, settings: Settings, received: Callable[[str], list[dict[str, Any]]]
) -> None:
    received("foo")
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": f"redis://127.0.0.1:{free_port()}",
        }
    }

    staff.post(f"{OBJECT}foo", {"text": "hello", "csrfmiddlewaretoken": secrets.token_hex(32)})

    assert (len(received("foo")), len(log())) == (1, 1)


def test_other_text_from_the_same_page_is_sent(
    staff: Client, received: Callable[[str], list[dict[str, Any]]]
) -> None:
    """A browser's way back may show the page as it was."""
    received("foo")
    page = {"csrfmiddlewaretoken": secrets.token_hex(32)}

    for text in ("one", "two"):
        staff.post(f"{OBJECT}foo", {**page, "text": text})

    assert [event["text"] for event in received("foo")] == ["one", "two"]


@pytest.mark.parametrize("function", ["raises", "raises_async"])
def test_function_of_the_site_that_raises_refuses(
    staff: Client, settings: Settings, function: str
) -> None:
    settings.ECHO_AUTHORIZE = f"tests.middleware.test_access.{function}"

    for url in (OBJECTS, f"{OBJECT}foo", f"{CLOSE}foo&code=1000"):
        assert (staff.get(url).status_code, staff.post(url).status_code) == (403, 403)
    assert staff.get("/admin/").status_code == 200


def test_operator_who_was_logged_out_does_nothing(
    staff: Client, received: Callable[[str], list[dict[str, Any]]]
) -> None:
    received("foo")
    staff.logout()

    sent = staff.post(f"{OBJECT}foo", {"text": "hello"})
    closed = staff.post(f"{CLOSE}foo&code=1000")

    for response in (sent, closed):
        assert response["Location"].startswith("/admin/login/?next=/admin/echo/object/")
    assert (received("foo"), log()) == ([], [])


def test_post_without_csrf_token_is_refused(staff: Client) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = staff.cookies

    assert strict.post(f"{OBJECT}foo", {"text": "hello"}).status_code == 403
    assert strict.post(f"{CLOSE}foo&code=1000").status_code == 403
    assert log() == []


def test_who_may_list_only_sees_no_forms_and_does_nothing(
    staff: Client, settings: Settings
) -> None:
    settings.ECHO_AUTHORIZE = "tests.test_admin.only_listing"

    page = staff.get(f"{OBJECT}foo")

    assert (page.context["send_form"], page.context["close_form"]) == (None, None)
    assert page.context["count"] is None
    assert "echo-once" not in page.content.decode()
    assert staff.post(f"{OBJECT}foo", {"text": "hello"}).status_code == 403
    assert staff.get(f"{CLOSE}foo&code=1000").status_code == 403
    assert staff.post(f"{CLOSE}foo&code=1000").status_code == 403
    assert log() == []


@pytest.mark.parametrize("kind", ["BrokenLayer", "HangingLayer"])
def test_channel_layer_that_fails_is_told_and_no_error(
    staff: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    break_layer(settings, kind)
    monkeypatch.setattr("echo.admin.actions.LAYER_TIMEOUT", 0.05 * SECOND)
    failed = "Channel layer error: <bdi>foo</bdi> may not have been reached."

    sent = staff.post(f"{OBJECT}foo", {"text": "hello"}, follow=True)
    closed = staff.post(f"{CLOSE}foo&code=1000", follow=True)

    assert (messages(sent), messages(closed)) == ([("error", failed)], [("error", failed)])
    assert log() == [
        ("foo", "Failed: Sent “hello”."),
        ("foo", "Failed: Closed with code 1000, reason “”."),
    ]


def test_text_that_was_not_sent_stays_in_its_box(staff: Client, settings: Settings) -> None:
    break_layer(settings, "BrokenLayer")

    response = staff.post(f"{OBJECT}foo", {"text": "a long <text>"})

    assert response.status_code == 200
    assert "a long &lt;text&gt;</textarea>" in response.content.decode()


def test_recent_actions_tell_what_was_done(
    staff: Client, settings: Settings, received: Callable[[str], list[dict[str, Any]]]
) -> None:
    received("foo")
    staff.post(f"{OBJECT}foo", {"text": "hello"})
    staff.post(f"{CLOSE}foo&code=4000")
    break_layer(settings, "BrokenLayer")
    staff.post(f"{CLOSE}{'x' * 128}&code=4000")

    deeds = [entry.object_repr for entry in LogEntry.objects.order_by("pk")]

    assert deeds == [
        "foo: text sent",
        "foo: closed with 4000",
        f"Failed: {'x' * 128}: closed with 4000",
    ]
    assert "foo: text sent" in staff.get("/admin/").content.decode()


def test_recent_actions_show_characters_that_would_mislead(staff: Client) -> None:
    staff.post(f"{CLOSE}foo%E2%80%AE&code=4000")

    entry = LogEntry.objects.get()

    assert entry.object_repr == "foo\\u202e: closed with 4000"
    assert "\u202e" not in entry.change_message


def test_deed_is_cut_to_what_the_log_takes(
    staff: Client, monkeypatch: pytest.MonkeyPatch, received: Callable[[str], list[dict[str, Any]]]
) -> None:
    monkeypatch.setattr("echo.admin.actions.MAX_TITLE", 10)  # a translation may be longer
    received("foo")

    staff.post(f"{OBJECT}foo", {"text": "hello"})

    assert LogEntry.objects.get().object_repr == "foo: text "


def test_live_count_has_no_separators_as_its_script_writes_none(
    staff: Client, settings: Settings, join: Join
) -> None:
    settings.USE_THOUSAND_SEPARATOR = True
    join(*["foo"] * 1001)

    assert ">1001<span" in staff.get(f"{OBJECT}foo").content.decode()


def test_current_page_is_no_link(staff: Client, join: Join) -> None:
    join(*(f"room-{number}" for number in range(101)))

    body = staff.get(f"{OBJECTS}?page=2").content.decode()

    assert '<span class="this-page" aria-current="page">2</span>' in body
    assert '<a href="?page=1">1</a>' in body


def test_prefix_that_no_name_has_is_told(staff: Client) -> None:
    told = "No connected object has a name with this prefix."

    assert told in staff.get(f"{OBJECTS}?prefix=x").content.decode()


def test_page_that_is_not_live_asks_for_a_reload(staff: Client, settings: Settings) -> None:
    settings.ECHO_STATE_URL = f"redis://127.0.0.1:{free_port()}/0"
    live = staff.get(OBJECTS).content.decode()
    settings.ROOT_URLCONF = "tests.test_admin"  # without echo.urls

    still = staff.get(OBJECTS).content.decode()

    assert "\nRetrying; you can also reload the page.</p>" in live
    assert "\nReload the page to try again.</p>" in still


def test_form_that_failed_can_be_sent_again(
    staff: Client, settings: Settings, received: Callable[[str], list[dict[str, Any]]]
) -> None:
    page = {"csrfmiddlewaretoken": secrets.token_hex(32), "text": "hello"}
    layers = settings.CHANNEL_LAYERS
    break_layer(settings, "BrokenLayer")
    staff.post(f"{OBJECT}foo", page)
    settings.CHANNEL_LAYERS = layers
    received("foo")

    again = staff.post(f"{OBJECT}foo", page, follow=True)

    assert messages(again)[-1][0] == "success"
    assert [event["text"] for event in received("foo")] == ["hello"]


def test_page_tells_that_a_layer_in_memory_reaches_one_process(
    staff: Client, settings: Settings
) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}

    page = staff.get(f"{OBJECT}foo").text

    assert "CHANNEL_LAYERS has no layer that reaches others" in page


def test_database_has_nothing_of_it(tmp_path: Path) -> None:
    database = tmp_path / "db.sqlite3"
    site = {"DJANGO_SETTINGS_MODULE": "tests.sites.admin", "ECHO_TEST_DATABASE": str(database)}

    for command in ("makemigrations --check --dry-run", "makemigrations --check echo", "migrate"):
        done = subprocess.run(
            [sys.executable, "manage.py", *command.split()],
            cwd=ROOT,
            env={**os.environ, **site},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    connection = sqlite3.connect(database)
    tables = connection.execute("SELECT name FROM sqlite_master WHERE name LIKE '%echo%'")
    types = connection.execute("SELECT 1 FROM django_content_type WHERE app_label = 'echo'")
    assert (tables.fetchall(), types.fetchall()) == ([], [])
    connection.close()


def test_members_are_listed_with_name_key_and_connections(staff: Client, join_as: JoinAs) -> None:
    join_as("foo", {"7": {"name": "Ada"}, "12": {"name": "Bob"}, "a": {"name": ""}, "b": {}})
    join_as("foo", {"12": {"name": "Bobby"}, "c": {"name": ["no", "text"]}})
    join_as("bar", {"other": {}})

    assert listed_members(staff, "foo") == [
        *(("Ada", "7", 1), ("Bobby", "12", 2), ("a", "a", 1), ("b", "b", 1), ("c", "c", 1))
    ]
    body = staff.get(f"{OBJECT}foo").content.decode()
    assert "5 members" in body
    assert f'<a href="{MEMBER}foo&amp;member=7"><bdi class="echo-name">Ada</bdi></a>' in body
    assert "Connected since" in body


@pytest.mark.parametrize(
    ("query", "keys"),
    [
        ("", ["z", "b", "a"]),
        ("&sort=name", ["a", "b", "z"]),
        ("&sort=count", ["b", "z", "a"]),
        ("&sort=other", ["z", "b", "a"]),
    ],
)
def test_members_are_sorted_by_time_name_or_connections(
    staff: Client, join_as: JoinAs, query: str, keys: list[str]
) -> None:
    for key in ("z", "b", "a"):
        join_as("foo", {key: {"name": key.upper()}})
    join_as("foo", {"b": {"name": "b"}})

    assert [key for _, key, _ in listed_members(staff, f"foo{query}")] == keys


def test_members_are_found_by_name_or_key(staff: Client, join_as: JoinAs) -> None:
    join_as("foo", {"7": {"name": "Ada"}, "ad-min": {"name": "Bob"}, "12": {"name": "Zoë"}})

    assert [key for _, key, _ in listed_members(staff, "foo&q=aD")] == ["7", "ad-min"]
    assert [key for _, key, _ in listed_members(staff, "foo&q=ZOË")] == ["12"]
    body = staff.get(f"{OBJECT}foo&q=%3Cb%3E").content.decode()
    assert "No connected member has this in the name or key." in body
    assert "<b>" not in body
    assert re.findall(r"\d found,|\d members", body) == ["0 found,", "3 members"]


def test_ten_thousand_members_are_shown_in_pages_in_less_than_a_second(
    staff: Client, join_as: JoinAs
) -> None:
    join_as("foo", {f"{number:05}": {"name": f"user-{number}"} for number in range(10_000)})

    start = time.monotonic()
    last = listed_members(staff, "foo&page=500&sort=name")
    took = time.monotonic() - start

    assert [name for name, _, _ in last] == sorted(f"user-{n}" for n in range(10_000))[-20:]
    assert took < SECOND
    assert len(listed_members(staff, "foo&page=x")) == 20
    assert listed_members(staff, "foo&q=user-4999") == [("user-4999", "04999", 1)]


def test_object_without_members_says_so(staff: Client, join: Join) -> None:
    join("foo")

    body = staff.get(f"{OBJECT}foo").content.decode()

    assert "No member is connected now." in body
    assert "0 members" in body


def test_members_are_not_shown_to_those_who_may_not_see_them(
    staff: Client, settings: Settings, join_as: JoinAs
) -> None:
    settings.ECHO_AUTHORIZE = "tests.test_admin.never_members"
    join_as("foo", {"7": {"name": "Ada"}})

    page = staff.get(f"{OBJECT}foo")

    assert page.context["rows"] == []
    assert page.context["count"] == 1
    assert "Ada" not in page.content.decode()
    assert "No member" not in page.content.decode()
    assert staff.get(f"{MEMBER}foo&member=7").status_code == 403
    assert staff.get(f"{CLOSE}foo&member=7&code=1000").status_code == 403
    assert staff.post(f"{CLOSE}foo&member=7&code=1000").status_code == 403
    assert log() == []


def test_page_of_a_member_shows_its_info(staff: Client, join_as: JoinAs) -> None:
    join_as("foo", {"7": {"name": "Ada", "role": ["<admin>"]}})

    body = staff.get(f"{MEMBER}foo&member=7").content.decode()

    assert '<h1><bdi class="echo-name">Ada</bdi></h1>' in body
    assert "&quot;&lt;admin&gt;&quot;" in body
    assert "Close the connections of the member" in body


def test_page_of_a_member_without_connections_says_so(staff: Client) -> None:
    body = staff.get(f"{MEMBER}foo&member=7").content.decode()

    assert "This member has no connection to the object now." in body


def test_member_whose_user_was_deleted_is_listed_and_can_be_closed(
    staff: Client, join_as: JoinAs, received: Callable[[str], list[dict[str, Any]]]
) -> None:
    user = User.objects.create_user("ada")
    key = str(user.pk)
    join_as("foo", {key: {"name": "ada"}})
    user.delete()
    received("foo")

    assert listed_members(staff, "foo") == [("ada", key, 1)]
    staff.post(f"{CLOSE}foo&member={key}&code=4001")
    assert [event["code"] for event in received("foo")] == [4001]


@pytest.mark.parametrize("key", ["", "k" * 129, "a%00b", "a%0Ab", "%C2%85"])
def test_key_that_no_member_has_is_not_found(staff: Client, key: str) -> None:
    assert staff.get(f"{MEMBER}foo&member={key}").status_code == 404
    assert staff.get(f"{CLOSE}foo&member={key}&code=1000").status_code == 404
    assert staff.post(f"{CLOSE}foo&member={key}&code=1000").status_code == 404
    assert staff.get(f"{MEMBER}foo").status_code == 404
    assert log() == []


def test_closing_a_member_is_asked_first_and_then_done_once(
    staff: Client, received: Callable[[str], list[dict[str, Any]]], join_as: JoinAs
) -> None:
    join_as("foo", {"7": {"name": "Ada"}})
    join_as("foo", {"7": {"name": "Ada"}, "12": {"name": "Bob"}})
    received("foo")
    url = f"{CLOSE}foo&member=7&code=4001&reason=bye"

    asked = staff.get(url).content.decode()
    assert "All connections of the member <bdi" in asked
    assert ">Ada</bdi> to <bdi" in asked
    assert "The member has 2 connections now." in asked
    assert (received("foo"), log()) == ([], [])
    page = {"csrfmiddlewaretoken": secrets.token_hex(32)}
    response = staff.post(url, page, follow=True)
    again = staff.post(url, page, follow=True)

    assert response.redirect_chain == [(f"{OBJECT}foo", 302)]
    assert messages(response) == [
        ("success", "All connections of <bdi>7</bdi> to <bdi>foo</bdi> are being closed.")
    ]
    assert messages(again)[0][0] == "info"
    assert received("foo") == [{"type": "websocket.close", "code": 4001, "reason": "bye"}]
    assert log() == [("foo", "Closed member 7 with code 4001, reason “bye”.")]
    assert LogEntry.objects.get().object_repr == "foo: member 7 closed with 4001"


def test_close_of_a_member_that_may_not_be_sent_is_told_at_its_field(staff: Client) -> None:
    page = staff.get(f"{CLOSE}foo&member=7&code=1001").content.decode()

    assert "Use 1000, or 3000 to 4999 of your own." in page
    assert "Close the connections of the member" in page


def test_who_may_not_close_sees_members_and_no_form(
    staff: Client, settings: Settings, join_as: JoinAs
) -> None:
    settings.ECHO_AUTHORIZE = "tests.test_admin.never_close"
    join_as("foo", {"7": {"name": "Ada"}})

    page = staff.get(f"{MEMBER}foo&member=7")

    assert page.context["close_form"] is None
    assert staff.get(f"{CLOSE}foo&member=7&code=1000").status_code == 403
    assert staff.post(f"{CLOSE}foo&member=7&code=1000").status_code == 403


@pytest.mark.parametrize("text", [*HOSTILE, "a/b?c#d&e=f", "7/../8"])
def test_every_key_and_info_is_shown_as_text_and_can_be_closed(
    staff: Client,
    join_as: JoinAs,
    received: Callable[[str], list[dict[str, Any]]],
    text: str,
) -> None:
    key, other = text, "other"
    join_as("foo", {key: {}, other: {"name": text, text: [text]}})
    received("foo")

    for url in (OBJECTS, f"{OBJECT}foo", f"{OBJECT}foo&q={quote_plus(text, safe='')}"):
        assert "<img" not in staff.get(url).content.decode()
    body = staff.get(f"{OBJECT}foo").content.decode()
    assert f'<bdi class="echo-name">{escape(visible(text))}</bdi></a>' in body
    for each in (key, other):
        query = f"foo&member={quote_plus(each, safe='')}"
        page = staff.get(f"{MEMBER}{query}")
        asked = staff.get(f"{CLOSE}{query}&code=4001")
        assert page.context["member"].key == asked.context["member"].key == each
        for shown in (page, asked):
            assert "<img" not in shown.content.decode()
            assert "<script>alert" not in shown.content.decode()
        assert staff.post(f"{CLOSE}{query}&code=4001").status_code == 302

    assert [event["code"] for event in received("foo")] == [4001, 4001]
    assert staff.get("/admin/").status_code == 200
    assert "<img" not in staff.get(f"{OBJECT}foo").content.decode()  # with the messages


def test_redis_away_is_told_on_the_pages_of_members(staff: Client, settings: Settings) -> None:
    settings.ECHO_STATE_URL = f"redis://127.0.0.1:{free_port()}/0"
    told = "The members are unknown at the moment: Redis does not respond."

    page = staff.get(f"{MEMBER}foo&member=7").content.decode()
    asked = staff.get(f"{CLOSE}foo&member=7&code=1000").content.decode()

    assert told in page
    assert "no connection" not in page + asked
    assert "Yes, close them" in asked
    settings.ECHO_AUTHORIZE = "tests.test_admin.never_count"
    assert told in staff.get(f"{OBJECT}foo").content.decode()


def never_count(request: Any, name: str | None, action: str) -> bool:
    return action != "count"
