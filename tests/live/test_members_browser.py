"""Member lists in real browsers: the template tag and the usage page, under a strict policy."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, Page, expect

from echo.names import visible
from tests.browser import new_page
from tests.pages import IMAGE, LOW_CONTRASTS, WIDTHS, connect
from tests.raw import Client
from tests.redis_server import RedisServer
from tests.servers import ROOT, Server
from tests.waiting import SECOND, eventually

ODD = "\t\r\x7f\xad\u200b\u1680\ud7ff\ue000\U000e0001 <i>&amp; 😀"
USERS = ["Ada", "Bob", IMAGE, "\u202eevil", "Eve", "Zoe", "x" * 120, ODD]
# Creates users, and prints the key of a session of each.
LOG_IN = f"""
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
for name in {USERS!r}:
    user = User.objects.create_user(name, is_staff=name == "Ada")
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    print("session", session.session_key)
"""
NOBODY = "Nobody who is logged in is connected."
OLD = "This list is not up to date: the server does not respond."
Open = Callable[..., Page]
Sessions = dict[str | None, str]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {
        "DJANGO_SETTINGS_MODULE": "tests.sites.members",
        "DJANGO_DEBUG": "1",
        "ECHO_TEST_DATABASE": str(tmp_path_factory.mktemp("site") / "db.sqlite3"),
    }


def manage(site: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        (sys.executable, "manage.py", *command),
        cwd=ROOT,
        env={**os.environ, **site},
        check=True,
        capture_output=True,
    )
    return done.stdout.decode()


@pytest.fixture(scope="module")
def sessions(site: dict[str, str]) -> Sessions:
    """The key of a session of each user."""
    manage(site, "migrate", "-v", "0")
    lines = manage(site, "shell", "-c", LOG_IN).splitlines()
    keys = [line.split()[1] for line in lines if line.startswith("session ")]
    return dict(zip(USERS, keys, strict=True))


@pytest.fixture(scope="module")
def server(site: dict[str, str], sessions: Sessions) -> Iterator[Server]:
    with Server("runserver", **site) as server:
        yield server


@pytest.fixture
def complaints() -> list[str]:
    """What the consoles of the browsers said."""
    return []


@pytest.fixture
def open_page(browser: Browser, sessions: Sessions, complaints: list[str]) -> Open:
    """Return a function that opens a page of a server in a new browser, for a user or a visitor."""

    def open_page(server: Server, path: str, user: str | None = None, **options: object) -> Page:
        page = new_page(browser, **options)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        url = f"http://127.0.0.1:{server.port}"
        if user is not None:
            cookie = {"name": "sessionid", "value": sessions[user], "url": url}
            page.context.add_cookies([cookie])
        page.goto(f"{url}{path}")
        return page

    return open_page


def names(page: Page) -> list[str]:
    return page.locator(".echo-members li").all_inner_texts()


def handshake(sessions: Sessions, server: Server, user: str) -> Client:
    return Client.opened(server.port, "foo", Cookie=f"sessionid={sessions[user]}")


def test_two_browsers_see_each_other_in_the_console(
    open_page: Open, server: Server, complaints: list[str]
) -> None:
    ada = open_page(server, "/", "Ada")
    bob = open_page(server, "/", "Bob")
    visitor = open_page(server, "/")

    connect(ada, "lobby")
    eventually(lambda: names(ada), ["Ada"])
    connect(bob, "lobby")
    connect(visitor, "lobby")
    for page in (ada, bob, visitor):
        eventually(lambda page=page: names(page), ["Ada", "Bob"])
        expect(page.get_by_role("heading", name="Connected to lobby")).to_be_visible()
    ada.get_by_role("button", name="Close").click()

    eventually(lambda: names(bob), ["Bob"])
    eventually(lambda: names(visitor), ["Bob"])
    expect(ada.get_by_role("heading", name="Connected to")).to_have_count(0)
    bob.close()
    eventually(lambda: names(visitor), [])
    expect(visitor.get_by_text(NOBODY)).to_be_visible()
    assert complaints == []


def test_console_follows_the_object_that_it_is_connected_to(
    open_page: Open, server: Server
) -> None:
    page = open_page(server, "/", "Ada")
    other = open_page(server, "/", "Bob")
    connect(other, "50% of a&b?")
    eventually(lambda: names(other), ["Bob"])

    connect(page, "lobby")
    eventually(lambda: names(page), ["Ada"])
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_role("button", name="Connect")).to_be_enabled()
    connect(page, "50% of a&b?")

    eventually(lambda: names(page), ["Bob", "Ada"])


def test_list_of_the_tag_stays_fresh(
    open_page: Open, server: Server, sessions: Sessions, complaints: list[str]
) -> None:
    page = open_page(server, "/who")
    expect(page.get_by_text("Nobody is here.")).to_be_visible()
    with ExitStack() as stack:
        for user in (IMAGE, "\u202eevil", "Ada", "Bob"):
            stack.enter_context(handshake(sessions, server, user))
        eventually(lambda: names(page), [IMAGE, r"\u202eevil", "Ada"], deadline=2 * SECOND)
        expect(page.get_by_text("and 1 more")).to_be_visible()
        expect(page.get_by_text("Nobody is here.")).to_be_hidden()
        eventually(lambda: page.locator(".echo-total").inner_text(), "People here: 4")
        page.reload()
        assert names(page) == [IMAGE, r"\u202eevil", "Ada"]
        expect(page.locator("[data-known=yes]")).to_be_attached()

    eventually(lambda: names(page), [], deadline=2 * SECOND)
    expect(page.get_by_text("Nobody is here.")).to_be_visible()
    expect(page.get_by_text("more")).to_be_hidden()
    expect(page.locator("img")).to_have_count(0)
    assert complaints == []


def test_script_shows_a_name_as_the_template_does(
    open_page: Open, server: Server, sessions: Sessions
) -> None:
    page = open_page(server, "/who")

    with handshake(sessions, server, ODD):
        eventually(lambda: len(names(page)), 1)
        unscripted = open_page(server, "/who", java_script_enabled=False)
        assert names(page) == names(unscripted) == [visible(ODD)]

    eventually(lambda: names(page), [])


def test_user_who_is_renamed_or_deleted_stays_a_member_until_the_end(
    open_page: Open, server: Server, site: dict[str, str], sessions: Sessions
) -> None:
    page = open_page(server, "/who")
    user = "from django.contrib.auth.models import User; Users = User.objects.filter"

    with handshake(sessions, server, "Zoe"):
        eventually(lambda: names(page), ["Zoe"])
        manage(site, "shell", "-c", f"{user}(username='Zoe').update(username='Zoë <b>')")
        page.reload()
        assert names(page) == ["Zoe"]
        with handshake(sessions, server, "Zoe"):
            eventually(lambda: names(page), ["Zoë <b>"])
            manage(site, "shell", "-c", f"{user}(username='Zoë <b>').delete()")
            page.reload()
            assert names(page) == ["Zoë <b>"]

    eventually(lambda: names(page), [])
    with handshake(sessions, server, "Zoe"):  # the session is nobody's
        eventually(lambda: server.count(), 1)
        listed = json.loads(server.get("/foo/members")[2])
    assert (listed["connections"], listed["members"]) == (1, [])


def test_object_whose_members_are_denied_says_so(
    open_page: Open, server: Server, sessions: Sessions
) -> None:
    page = open_page(server, "/", "Ada")
    page.route("**/lobby/members", lambda route: route.fulfill(status=403))

    connect(page, "lobby")

    expect(page.get_by_text("You may not see the members of this object.")).to_be_visible()
    expect(page.get_by_text(NOBODY)).to_be_hidden()


def test_list_says_when_the_server_is_away_and_when_members_are_unknown(
    open_page: Open, site: dict[str, str], sessions: Sessions
) -> None:
    with RedisServer() as redis, Server("runserver", ECHO_STATE_URL=redis.url, **site) as server:
        page = open_page(server, "/who")
        with handshake(sessions, server, "Ada"):
            eventually(lambda: names(page), ["Ada"])
            redis.stop()
            expect(page.get_by_text("The members are unknown at the moment.")).to_be_visible()
            assert names(page) == []
            expect(page.get_by_text("Nobody is here.")).to_be_hidden()
            redis.start()
            eventually(lambda: names(page), ["Ada"])
            expect(page.get_by_text("unknown")).to_have_count(0)
            server.process.kill()
            expect(page.get_by_text(OLD)).to_be_visible()
            assert names(page) == ["Ada"]


def test_list_without_its_script_says_that_it_is_not_up_to_date(
    open_page: Open, server: Server
) -> None:
    page = open_page(server, "/who", java_script_enabled=False)

    unscripted = "This list is not up to date: its script did not run."
    expect(page.get_by_text(unscripted)).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_list_fits_a_narrow_page(
    open_page: Open, server: Server, sessions: Sessions, scheme: str
) -> None:
    viewport = {"width": 320, "height": 800}
    page = open_page(server, "/", "x" * 120, viewport=viewport, color_scheme=scheme)
    connect(page)
    eventually(lambda: names(page), ["x" * 120])

    assert page.evaluate(WIDTHS) == [320, 320]
    assert page.evaluate(LOW_CONTRASTS) == []
